//! What can be wrong with a vocabulary, a text or a list of ids.

/// An error of building or using a [`Tokenizer`](super::Tokenizer).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The file names a tokenizer model this runtime does not have.
    #[error(
        "tokenizer model `{found}` is not supported (known: {known}); convert the model with one of these"
    )]
    UnknownModel {
        /// The model named in the file.
        found: String,
        /// The supported models, separated by commas.
        known: String,
    },
    /// The file names a pre-tokenizer this runtime does not have.
    #[error(
        "pre-tokenizer `{found}` is not supported (known: {known}); splitting by another one would change tokens"
    )]
    UnknownPre {
        /// The pre-tokenizer named in the file.
        found: String,
        /// The supported ones, separated by commas.
        known: String,
    },
    /// A key without which there is no vocabulary.
    #[error("`{key}` is missing or of another type; the file carries no usable tokenizer")]
    MissingKey {
        /// The metadata key.
        key: &'static str,
    },
    /// Two lists that describe the same tokens differ in length.
    #[error("`{what}` has {found} entries for {expected} tokens; the file is damaged")]
    LengthMismatch {
        /// The list that does not fit.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// More tokens or bytes than 32-bit offsets can address.
    #[error("{what} is too large for a tokenizer: {size}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in its own unit.
        size: usize,
    },
    /// A special token's id lies outside the vocabulary.
    #[error("`{name}` is token {id}, but the vocabulary ends at {size}")]
    SpecialOutOfRange {
        /// The role, as in `bos`.
        name: &'static str,
        /// The id given for it.
        id: u32,
        /// The vocabulary's size.
        size: usize,
    },
    /// Special tokens are asked for, and the vocabulary has no such token.
    #[error("the vocabulary adds a `{name}` token to each text but does not say which token that is")]
    SpecialMissing {
        /// The role, as in `bos`.
        name: &'static str,
    },
    /// An id that is in no vocabulary entry.
    #[error("token {id} is not in the vocabulary of {size} tokens")]
    UnknownId {
        /// The id.
        id: u32,
        /// The vocabulary's size.
        size: usize,
    },
    /// A normalisation table that does not hold together.
    #[error("`precompiled_charsmap` is damaged: {problem}")]
    BadCharsmap {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A `tokenizer.json` that cannot be used.
    #[error("tokenizer.json: {problem}")]
    Json {
        /// What its reader said.
        problem: String,
    },
}
