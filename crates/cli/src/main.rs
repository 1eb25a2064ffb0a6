//! The `kinglet` command.
#![forbid(unsafe_code)]

fn main() {}
