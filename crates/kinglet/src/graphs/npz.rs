//! NumPy's files: arrays of `.npy` and `.npz`, a ZIP of these, read; tensors written as `numpy.load` reads them.
//!
//! Files are untrusted: an array is read only when it is asked for, and nothing before its header says how long it is.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use kinglet_formats::npy;
use kinglet_tensor::{Bytes, Tensor};
use zip::write::SimpleFileOptions;

use crate::Error;

/// The arrays of a NumPy file, open and not read yet.
pub struct Arrays {
    path: PathBuf,
    contents: Contents,
}

enum Contents {
    /// Of a `.npy` file, or of what comes through a pipe: its first bytes, and the rest.
    Single(Vec<u8>, File),
    /// A `.npz` file, and for each array its place and name.
    Archive(zip::ZipArchive<File>, Vec<(usize, String)>),
}

impl Arrays {
    /// Opens a `.npy` or `.npz` file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let contents = Contents::open(path).map_err(|e| Error::open(path, e))?;
        Ok(Self { path: path.to_owned(), contents })
    }

    /// The names of arrays in an archive; none of a file that is one array.
    pub fn names(&self) -> Option<impl Iterator<Item = &str>> {
        match &self.contents {
            Contents::Single(..) => None,
            Contents::Archive(_, entries) => Some(entries.iter().map(|(_, name)| name.as_str())),
        }
    }

    /// Reads the array at a place among [`Self::names`], the first where there is but one, of at most `most` elements, and
    /// calls it `name`. The array of a `.npy` file can be read once.
    pub fn read(&mut self, index: usize, name: &str, most: usize) -> Result<Tensor, Error> {
        let open = |e| Error::open(&self.path, e);
        match &mut self.contents {
            Contents::Single(start, rest) => read(&self.path, name, std::mem::take(start).chain(rest), most),
            Contents::Archive(archive, entries) => {
                let absent = || open(std::io::ErrorKind::NotFound.into());
                let (place, _) = entries.get(index).ok_or_else(absent)?;
                let entry = archive.by_index(*place).map_err(|e| open(e.into()))?;
                read(&self.path, name, entry, most)
            }
        }
    }
}

impl Contents {
    fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let mut start = Vec::new();
        (&mut file).take(2).read_to_end(&mut start)?;
        if start != b"PK" {
            return Ok(Self::Single(start, file));
        }
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("an archive must be a file, not come through a pipe"));
        }
        let mut archive = zip::ZipArchive::new(file)?;
        let mut entries = Vec::new();
        for place in 0..archive.len() {
            let entry = archive.by_index_raw(place)?;
            if !entry.is_dir() {
                let name = entry.name()?;
                entries.push((place, name.strip_suffix(".npy").unwrap_or(&name).to_owned()));
            }
        }
        Ok(Self::Archive(archive, entries))
    }
}

/// An array of at most `most` elements.
fn read(path: &Path, name: &str, mut from: impl Read, most: usize) -> Result<Tensor, Error> {
    let open = |e| Error::open(path, e);
    let mut bytes = Vec::new();
    from.by_ref().take(npy::MAX_START as u64).read_to_end(&mut bytes).map_err(open)?;
    let header = npy::Header::read(name, &bytes).map_err(|e| Error::format(path, e))?;
    let much = || Error::Array { path: path.into(), name: name.into(), shape: header.shape.clone(), most };
    header.elements().filter(|elements| *elements <= most).ok_or_else(much)?;
    let len = Tensor::bytes_of(header.dtype, &header.shape).and_then(|len| len.checked_add(header.start));
    // One byte more tells that it is longer than its header says.
    let left = len.and_then(|len| len.checked_add(1)).ok_or_else(much)?.saturating_sub(bytes.len());
    bytes.try_reserve_exact(left).map_err(|_| much())?;
    from.take(left as u64).read_to_end(&mut bytes).map_err(open)?;
    npy::read(name, &Bytes::from(bytes)).map_err(|e| Error::format(path, e))
}

/// Writes the tensors under their names.
pub fn write_npz(path: &Path, tensors: &[Tensor]) -> Result<(), Error> {
    let file = File::create(path).map_err(|e| Error::open(path, e))?;
    write(file, tensors).map_err(|e| Error::open(path, e))
}

fn write(sink: impl Write + Seek, tensors: &[Tensor]) -> std::io::Result<()> {
    let mut archive = zip::ZipWriter::new(sink);
    let plain =
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
    for (i, tensor) in tensors.iter().enumerate() {
        let name = if tensor.name().is_empty() { format!("output {i}") } else { entry(tensor.name()) };
        let unknown = || std::io::Error::other(format!("NumPy has no type {}", tensor.dtype()));
        let bytes = npy::write(tensor).ok_or_else(unknown)?;
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
        check(read_all(&path));
        let mut packed = zip::ZipWriter::new(File::create(&path).expect("writable"));
        let deflated = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for tensor in &given {
            packed.start_file(format!("{}.npy", tensor.name()), deflated).expect("an entry");
            packed.write_all(&npy::write(tensor).expect("numbers")).expect("written");
        }
        packed.finish().expect("finished");
        check(read_all(&path));
        std::fs::write(&path, npy::write(&given[0]).expect("numbers")).expect("written");
        let mut single = Arrays::open(&path).expect("an array");
        assert!(single.names().is_none());
        assert_eq!(single.read(0, "x", 2).expect("it is read").data(), given[0].data());
        std::fs::write(&path, b"PK\x03\x04 and nothing behind it").expect("written");
        assert!(Arrays::open(&path).is_err());
    }

    fn read_all(path: &Path) -> Vec<Tensor> {
        let mut arrays = Arrays::open(path).expect("arrays");
        let names: Vec<String> = arrays.names().expect("an archive").map(str::to_owned).collect();
        names.iter().enumerate().map(|(i, name)| arrays.read(i, name, 2).expect("an array")).collect()
    }

    /// Gigabytes of zeroes in kilobytes, and a device without an end.
    #[test]
    fn nothing_is_read_beyond_what_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bomb.npz");
        let header = |dims: &str| {
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {dims}, }}\n");
            [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
        };
        let mut packed = zip::ZipWriter::new(File::create(&path).expect("writable"));
        let deflated = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        let claims = ["(99999999999,)", "(1099511627776, 1099511627776)", "(4,)", "(4096,)"];
        for (i, dims) in claims.iter().enumerate() {
            packed.start_file(format!("{i}.npy"), deflated).expect("an entry");
            packed.write_all(&header(dims)).expect("written");
            for _ in 0..64 {
                packed.write_all(&[0; 1 << 16]).expect("written");
            }
        }
        packed.finish().expect("finished");
        let mut arrays = Arrays::open(&path).expect("an archive");
        let mut check = |index, most, expected: &str| {
            let said = arrays.read(index, "x", most).expect_err("too much").to_string();
            assert!(said.contains(expected), "{said}");
        };
        check(0, 4096, "`x` of [99999999999] is too large: at most 4096 elements are taken");
        check(1, usize::MAX, "`x` of [1099511627776, 1099511627776] is too large");
        // More than it says comes, of which the first bytes are read.
        check(2, 4, "takes 16 bytes");
        check(3, 4096, "takes 16384 bytes");
        check(4, 4, "not found");
        #[cfg(unix)]
        assert!(Arrays::open(Path::new("/dev/zero")).and_then(|mut zeroes| zeroes.read(0, "x", 4)).is_err());
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
