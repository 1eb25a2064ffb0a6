//! CPU kernels over views, weight packing, the thread team.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod shared;

pub use shared::SharedMut;
