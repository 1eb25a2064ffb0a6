//! A piece of a prompt with its provenance.
//!
//! Contract: only text that the model's own template wrote is trusted, and only trusted text may hold special
//! tokens. Neighbouring spans form one text: what lies between two special tokens is tokenized as a whole,
//! whatever spans it came from.

/// A run of prompt text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The text itself.
    pub text: String,
    /// Whether special tokens may be recognised in it.
    pub trusted: bool,
}
