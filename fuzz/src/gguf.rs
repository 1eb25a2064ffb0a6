//! A GGUF file that parses can be written, and what was written reads and writes the same again.

use bytes::Bytes;
use kinglet_formats::gguf::Writer;
use kinglet_formats::{Gguf, Limits};

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let Ok(file) = Gguf::parse(Bytes::copy_from_slice(bytes), &Limits::default()) else { return };
    let first = write(&file);
    let again = Gguf::parse(first.clone().into(), &Limits::default()).expect("what was written can be read");
    assert_eq!(again.tensors().len(), file.tensors().len());
    assert!(write(&again) == first, "writing is not stable");
    let _ = Gguf::join(vec![file.clone(), again, file]);
}

fn write(file: &Gguf) -> Vec<u8> {
    let mut writer = Writer::like(file).expect("what was read can be stored");
    for tensor in file.tensors() {
        writer.declare(tensor.into());
    }
    let mut out = Vec::new();
    writer.write(&mut out, file).expect("a file in memory can be written");
    out
}
