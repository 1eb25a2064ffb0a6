//! The server in this process, asked over TCP.
#![forbid(unsafe_code)]

mod answers;
mod common;
mod connections;
mod openai_client;
mod refusals;
