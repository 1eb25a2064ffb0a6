//! Tokenizers, chat templates, samplers and incremental detokenising.
#![forbid(unsafe_code)]
