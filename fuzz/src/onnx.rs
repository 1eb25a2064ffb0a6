//! ONNX models, whose external data is not there; what is accepted can be walked.

use kinglet_formats::onnx::{NoExternal, read};
use kinglet_tensor::Bytes;

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let Ok(model) = read(Bytes::copy_from_slice(bytes), &NoExternal) else { return };
    for node in model.graph.nodes() {
        assert!(!node.op.name().is_empty());
        for id in node.inputs.iter().chain(&node.outputs) {
            let value = model.graph.value(*id);
            let _ = (model.graph.type_text(&value.ty), node.op.describe());
        }
    }
}
