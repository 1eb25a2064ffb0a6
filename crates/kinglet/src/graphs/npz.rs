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
        let safe: String =
            tensor.name().chars().map(|c| if "/\\:\0".contains(c) { '_' } else { c }).collect();
        let name = if safe.is_empty() { format!("output {i}") } else { safe };
        let unknown = || std::io::Error::other(format!("NumPy has no type {}", tensor.dtype()));
        let bytes = kinglet_formats::npy::write(tensor).ok_or_else(unknown)?;
        archive.start_file(format!("{name}.npy"), plain)?;
        archive.write_all(&bytes)?;
    }
    archive.finish()?;
    Ok(())
}
