//! Reading and writing of model files, through the public interface.

mod bad_gguf;
mod bad_json;
mod common;
mod gguf;
mod real_models;
mod safetensors;
