//! Replays the inputs that the fuzzer found worth keeping; see `fuzz/README.md`.
#![allow(unreachable_pub, reason = "the modules are those of the fuzz crate")]

#[path = "../../../fuzz/src/coreml.rs"]
mod coreml;
#[path = "../../../fuzz/src/dequantize.rs"]
mod dequantize;
#[path = "../../../fuzz/src/gguf.rs"]
mod gguf;
#[path = "../../../fuzz/src/hf_config.rs"]
mod hf_config;
#[path = "../../../fuzz/src/onnx.rs"]
mod onnx;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../../fuzz/src/safetensors.rs"]
mod safetensors;

use replay::replay;

#[test]
fn gguf_corpus() {
    replay("gguf", gguf::run);
}

#[test]
fn safetensors_corpus() {
    replay("safetensors", safetensors::run);
}

#[test]
fn hf_config_corpus() {
    replay("hf_config", hf_config::run);
}

#[test]
fn dequantize_corpus() {
    replay("dequantize", dequantize::run);
}

#[test]
fn coreml_corpus() {
    replay("coreml", coreml::run);
}

#[test]
fn onnx_corpus() {
    replay("onnx", onnx::run);
}
