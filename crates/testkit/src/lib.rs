//! Shared helpers of the tests.
#![forbid(unsafe_code)]
