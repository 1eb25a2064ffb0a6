//! On-device AI inference: the library.
#![forbid(unsafe_code)]

pub mod catalog;
