//! The CPU backend: binds graph ops to kernels.
#![forbid(unsafe_code)]
