//! SIMD instruction sets as proof tokens, with one run-time dispatch table.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]
