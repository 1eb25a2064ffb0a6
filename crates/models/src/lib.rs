//! Architectures as data, and the builders that emit the graph.
#![forbid(unsafe_code)]
