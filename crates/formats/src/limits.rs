//! How much a file may ask for before it is refused.

/// Bounds on what a model file may hold. The defaults are far above every published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tensors in one file.
    pub max_tensors: usize,
    /// Metadata entries in one file.
    pub max_entries: usize,
    /// Bytes of one metadata text.
    pub max_string: usize,
    /// Bytes of one key or tensor name.
    pub max_name: usize,
    /// Elements of one metadata list.
    pub max_array: usize,
    /// Lists within lists, or JSON values within values.
    pub max_depth: usize,
    /// Dimensions of one tensor.
    pub max_dims: usize,
    /// Bytes of the header of a safetensors file.
    pub max_header: usize,
    /// Bytes of a JSON file: a configuration or the index of a sharded model.
    pub max_json: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_tensors: 1 << 18,
            max_entries: 1 << 16,
            max_string: 64 << 20,
            max_name: u16::MAX as usize,
            max_array: 1 << 24,
            max_depth: 32,
            max_dims: 8,
            max_header: 100_000_000,
            max_json: 32 << 20,
        }
    }
}
