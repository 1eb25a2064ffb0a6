//! Sessions, queue, continuous batching, KV pages.
#![forbid(unsafe_code)]
