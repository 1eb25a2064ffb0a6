//! The endpoints: reading a request, wording its answer.

pub(crate) mod chat;
mod logprobs;
pub(crate) mod text;
