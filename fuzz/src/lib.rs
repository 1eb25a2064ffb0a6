//! What the fuzzer runs, one module a target. Each has `run(bytes)`, which must not panic, hang, or allocate far more
//! than its input is long, and which asserts what must hold of inputs that are accepted.

pub mod chat_template;
pub mod coreml;
pub mod decoder;
pub mod dequantize;
pub mod gguf;
pub mod hf_config;
pub mod image;
pub mod onnx;
pub mod safetensors;
pub mod tokenizer;
pub mod vocabulary;
