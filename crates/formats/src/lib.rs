//! GGUF, safetensors and Hugging Face folders, read and written over byte sources.
#![forbid(unsafe_code)]
