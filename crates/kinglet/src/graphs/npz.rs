//! NumPy's files: arrays of `.npy` and `.npz`, a ZIP of these, read; tensors written as `numpy.load` reads them.

use std::io::{Cursor, Read, Seek, Write};
use std::path::Path;

use kinglet_tensor::Tensor;
use zip::write::SimpleFileOptions;

use crate::Error;

/// Bytes that arrays of an archive may unpack to.
const MAX_UNPACKED: u64 = 16 << 30;

/// The arrays of a file: that of a `.npy` file without a name, those of a `.npz` file under theirs.
pub fn read_arrays(path: &Path) -> Result<Vec<Tensor>, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::open(path, e))?;
    let array = |name: &str, bytes: Vec<u8>| {
        kinglet_formats::npy::read(name, &bytes.into()).map_err(|e| Error::format(path, e))
    };
    if !bytes.starts_with(b"PK") {
        // Errors speak of it under some name.
        let found = array("array", bytes)?;
        let unnamed = Tensor::new("", found.dtype(), found.shape().to_vec(), found.data().clone());
        return Ok(vec![unnamed.map_err(|e| Error::Model(e.into()))?]);
    }
    let entries = unpack(&bytes).map_err(|e| Error::open(path, e))?;
    entries.into_iter().map(|(name, bytes)| array(&name, bytes)).collect()
}

/// Names and contents of an archive's entries.
fn unpack(bytes: &[u8]) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let (mut entries, mut room) = (Vec::new(), MAX_UNPACKED);
    for i in 0..archive.len() {
        let entry = archive.by_index(i)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name()?.into_owned();
        let name = name.strip_suffix(".npy").map_or_else(|| name.clone(), str::to_owned);
        let mut contents = Vec::new();
        entry.take(room + 1).read_to_end(&mut contents)?;
        let left = room.checked_sub(contents.len() as u64);
        let much = || format!("it unpacks to more than {} GiB", MAX_UNPACKED >> 30);
        room = left.ok_or_else(|| std::io::Error::other(much()))?;
        entries.push((name, contents));
    }
    Ok(entries)
}

/// Writes the tensors under their names.
pub fn write_npz(path: &Path, tensors: &[Tensor]) -> Result<(), Error> {
    let file = std::fs::File::create(path).map_err(|e| Error::open(path, e))?;
    write(file, tensors).map_err(|e| Error::open(path, e))
}

fn write(sink: impl Write + Seek, tensors: &[Tensor]) -> std::io::Result<()> {
    let mut archive = zip::ZipWriter::new(sink);
    let plain =
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
    for (i, tensor) in tensors.iter().enumerate() {
        let name = if tensor.name().is_empty() { format!("output {i}") } else { entry(tensor.name()) };
        let unknown = || std::io::Error::other(format!("NumPy has no type {}", tensor.dtype()));
        let bytes = kinglet_formats::npy::write(tensor).ok_or_else(unknown)?;
        archive.start_file(format!("{name}.npy"), plain)?;
        archive.write_all(&bytes)?;
    }
    archive.finish()?;
    Ok(())
}

/// A tensor's name as that of an entry: the same, but where it would lead out of the folder that it is unpacked in.
fn entry(name: &str) -> String {
    let safe = |part: &str| match part {
        "." | ".." => "_".into(),
        part => part.replace(['\\', '\0'], "_"),
    };
    name.split('/').map(safe).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_read_as_they_are_written_and_compressed() {
        let tensor = |name: &str, values: &[i32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
            Tensor::new(name, kinglet_tensor::DType::I32, vec![values.len()], bytes.into()).expect("fits")
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.npz");
        let given = [tensor("a/b", &[1, 2]), tensor("c:0", &[])];
        write_npz(&path, &given).expect("written");
        let check = |found: Vec<Tensor>| {
            let all = |list: &[Tensor]| -> Vec<_> {
                list.iter().map(|t| (t.name().to_owned(), t.shape().to_vec(), t.data().to_vec())).collect()
            };
            assert_eq!(all(&found), all(&given));
        };
        check(read_arrays(&path).expect("arrays"));
        let mut packed = zip::ZipWriter::new(std::fs::File::create(&path).expect("writable"));
        let deflated = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for tensor in &given {
            packed.start_file(format!("{}.npy", tensor.name()), deflated).expect("an entry");
            packed.write_all(&kinglet_formats::npy::write(tensor).expect("numbers")).expect("written");
        }
        packed.finish().expect("finished");
        check(read_arrays(&path).expect("arrays"));
        std::fs::write(&path, kinglet_formats::npy::write(&given[0]).expect("numbers")).expect("written");
        assert_eq!(read_arrays(&path).expect("an array")[0].name(), "");
        std::fs::write(&path, b"PK\x03\x04 and nothing behind it").expect("written");
        assert!(read_arrays(&path).is_err());
    }

    #[test]
    fn entries_have_the_names_of_tensors_within_the_folder() {
        let check = |name: &str, expected: &str| assert_eq!(entry(name), expected);
        check("StatefulPartitionedCall:2", "StatefulPartitionedCall:2");
        check("/model/layer.0/out", "/model/layer.0/out");
        check("../../etc/x", "_/_/etc/x");
        check("a\\..\\b", "a_.._b");
    }
}
