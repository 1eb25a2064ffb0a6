//! The HTTP server.
#![forbid(unsafe_code)]
