//! Outputs as they leave a session: small ones in buffers of its pool, large ones in files of their own, which other
//! processes can map as well. Deliberately absent: making files; [`OutputFiles`] does.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kinglet_graph::ExecError;
use kinglet_tensor::{Bytes, Contents, DType};

use crate::env::Env;
use crate::session::TensorView;
use crate::value::Array;

/// Makes files for large outputs. Implemented above, where there are files.
pub trait OutputFiles: std::fmt::Debug + Send + Sync {
    /// An empty file, open to read and to write, with room for so many bytes on its disk, that goes away by itself with
    /// its last user.
    fn create(&self, bytes: u64) -> io::Result<File>;
}

/// From which size on outputs are handed out in files.
#[derive(Clone, Debug)]
pub struct LargeOutputs {
    /// Bytes from which on an output is large.
    pub from: usize,
    /// Makes their files.
    pub files: Arc<dyn OutputFiles>,
}

impl LargeOutputs {
    /// The usual size, 10 MB.
    pub const FROM: usize = 10_000_000;
}

/// A copy of an output that nothing overwrites. Where there is no room for a file, it is in memory.
pub(crate) fn hand_out(env: &Env, view: &TensorView<'_>) -> Result<Array, ExecError> {
    let large = env.large.as_ref().filter(|large| view.data.len() >= large.from);
    if let Some(array) = large.and_then(|large| in_file(large, view.dtype, view.shape, view.data)) {
        return Ok(array);
    }
    pooled(env, view)
}

/// A copy in a buffer of the pool.
pub(crate) fn pooled(env: &Env, view: &TensorView<'_>) -> Result<Array, ExecError> {
    let buffer = env.room.pool().acquire(view.data.len(), Contents::Stale);
    let mut buffer =
        buffer.map_err(|e| ExecError::Memory { what: "an output".into(), reason: e.to_string() })?;
    buffer.copy_from_slice(view.data);
    Ok(Array::pooled(view.dtype, view.shape.to_vec(), buffer))
}

/// The same for an output that is already in a buffer of its own.
pub(crate) fn hand_over(env: &Env, array: &Array) -> Array {
    let large = env.large.as_ref().filter(|large| array.bytes().len() >= large.from);
    let moved = large.and_then(|large| in_file(large, array.dtype(), array.shape(), array.bytes()));
    moved.unwrap_or_else(|| array.clone())
}

fn in_file(large: &LargeOutputs, dtype: DType, shape: &[usize], data: &[u8]) -> Option<Array> {
    let bytes = write(large, data).ok()?;
    Array::new(dtype, shape.to_vec(), bytes)
}

#[cfg(not(target_family = "wasm"))]
fn write(large: &LargeOutputs, data: &[u8]) -> io::Result<Bytes> {
    let mut buffer = kinglet_tensor::FileBuf::new(large.files.create(data.len() as u64)?, data.len())?;
    buffer.copy_from_slice(data);
    Ok(buffer.freeze())
}

#[cfg(target_family = "wasm")]
fn write(_: &LargeOutputs, _: &[u8]) -> io::Result<Bytes> {
    Err(io::ErrorKind::Unsupported.into())
}
