//! Reading and writing of model files, through the public interface.

mod bad_gguf;
mod bad_json;
mod common;
mod coreml;
mod gguf;
mod real_models;
mod safetensors;
