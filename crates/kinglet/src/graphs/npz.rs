//! Tensors to a `.npz` file: a ZIP of `.npy` arrays, as `numpy.load` reads it.

use std::io::{Seek, Write};
use std::path::Path;

use kinglet_tensor::Tensor;
use zip::write::SimpleFileOptions;

use crate::Error;

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
    fn entries_have_the_names_of_tensors_within_the_folder() {
        let check = |name: &str, expected: &str| assert_eq!(entry(name), expected);
        check("StatefulPartitionedCall:2", "StatefulPartitionedCall:2");
        check("/model/layer.0/out", "/model/layer.0/out");
        check("../../etc/x", "_/_/etc/x");
        check("a\\..\\b", "a_.._b");
    }
}
