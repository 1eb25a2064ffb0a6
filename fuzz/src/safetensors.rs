//! A safetensors file that parses can be written, and holds the same tensors again. Input that begins with `{` is taken
//! for the index of a sharded model.

use std::collections::BTreeMap;

use bytes::Bytes;
use kinglet_formats::safetensors::{Index, write};
use kinglet_formats::{Limits, Safetensors};
use kinglet_tensor::WeightSource;

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let limits = Limits::default();
    if bytes.first() == Some(&b'{') {
        let Ok(index) = Index::parse(bytes, &limits) else { return };
        let files = index.files().map(|name| (name.to_owned(), Bytes::copy_from_slice(bytes))).collect();
        let _ = Safetensors::join(&index, &files, &limits);
        return;
    }
    let Ok(file) = Safetensors::parse(Bytes::copy_from_slice(bytes), &limits) else { return };
    let mut out = Vec::new();
    let specs = file.tensors().iter().map(Into::into).collect();
    write(&mut out, file.metadata(), specs, &file).expect("a file in memory can be written");
    let again = Safetensors::parse(out.into(), &limits).expect("what was written can be read");
    let tensors = |set: &Safetensors| -> BTreeMap<_, _> {
        set.tensors().iter().map(|t| (t.name().to_owned(), (t.shape().to_vec(), t.data().clone()))).collect()
    };
    assert_eq!(tensors(&file), tensors(&again));
    assert!(file.names().iter().all(|name| again.contains(name)));
}
