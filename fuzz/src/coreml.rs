//! Core ML models: the first two bytes are the length of the model, the rest is its weight file.

use kinglet_formats::coreml::{Body, CoreMl};
use kinglet_tensor::Bytes;

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let [low, high, rest @ ..] = bytes else { return };
    let at = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (model, blob) = rest.split_at(at);
    let blob = Bytes::copy_from_slice(blob);
    let Ok(model) = CoreMl::parse(Bytes::copy_from_slice(model), &|_: &str| Ok(blob.clone())) else { return };
    read(&model);
    let _ = model.graph();
}

fn read(model: &CoreMl) {
    match &model.body {
        Body::Program(program) => {
            for function in program.functions.values() {
                let _ = function.block.constants();
            }
        }
        Body::Network(network) => {
            for layer in &network.layers {
                for tag in [1, 2, 20, 21, 90, 91] {
                    if let Ok(Some(weights)) = layer.weights(tag) {
                        let _ = weights.floats(weights.len().min(1 << 16));
                    }
                }
            }
        }
        Body::Step(_) => {}
        Body::Pipeline(parts) => parts.iter().for_each(|(_, part)| read(part)),
    }
}
