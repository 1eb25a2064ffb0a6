//! A vocabulary as plain data: what a model file has to say for a [`Tokenizer`](super::Tokenizer) to be built.
//!
//! Nothing here is checked; [`Tokenizer::new`](super::Tokenizer::new) does that.

/// What a token is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    #[default]
    Normal,
    /// Stands for text no other token can spell.
    Unknown,
    /// Structure, such as end of text; never read out of untrusted text.
    Control,
    /// Text that is always one token, before any other rule.
    UserDefined,
    /// A placeholder that no text becomes.
    Unused,
    /// One raw byte, written `<0xNN>`.
    Byte,
}

impl TokenType {
    /// The type behind GGUF's number for it; an unknown number is a placeholder.
    pub fn from_gguf(code: i64) -> Self {
        match code {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Unused,
        }
    }
}

/// How text becomes tokens, with what only that way needs.
#[derive(Clone, Debug, PartialEq)]
pub enum VocabKind<'a> {
    /// Byte pair encoding with ranked merges.
    Bpe {
        /// The name of the rule that cuts text into words, as in `tokenizer.ggml.pre`.
        pre: &'a str,
        /// `left right` in rank order.
        merges: Vec<&'a str>,
    },
    /// SentencePiece's BPE: neighbours merge while the joint piece has the best score.
    Spm {
        /// One score a token; the higher, the earlier.
        scores: Vec<f32>,
        /// A space goes before each text.
        add_space_prefix: bool,
        /// Whitespace after a special token belongs to it (Phi-3).
        strip_after_special: bool,
    },
    /// BERT's longest match from the left within words.
    WordPiece {
        /// Text is lower-cased and stripped of accents.
        lowercase: bool,
    },
    /// SentencePiece's unigram model: the likeliest segmentation as a whole.
    Unigram {
        /// One log probability a token.
        scores: Vec<f32>,
        /// A space goes before each text.
        add_space_prefix: bool,
        /// Runs of spaces count as one, those at the end as none.
        collapse_spaces: bool,
        /// SentencePiece's normalisation table; empty for none.
        charsmap: Vec<u8>,
    },
}

/// The ids of the tokens with a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Ends a turn of a conversation.
    pub eot: Option<u32>,
    /// Ends a message that expects a tool's answer.
    pub eom: Option<u32>,
    /// Stands for what cannot be spelt.
    pub unk: Option<u32>,
    /// Separates two texts.
    pub sep: Option<u32>,
    /// Fills a batch.
    pub pad: Option<u32>,
    /// Hides a word.
    pub mask: Option<u32>,
    /// Before the text that precedes the gap (fill in the middle).
    pub fim_prefix: Option<u32>,
    /// Before the text that follows the gap.
    pub fim_suffix: Option<u32>,
    /// Where the gap's text begins.
    pub fim_middle: Option<u32>,
    /// Pads a fill-in-the-middle prompt.
    pub fim_pad: Option<u32>,
    /// Before a repository's name.
    pub fim_repo: Option<u32>,
    /// Between files.
    pub fim_separator: Option<u32>,
}

/// A whole vocabulary; the texts are borrowed from wherever the file's header lies.
#[derive(Clone, Debug, PartialEq)]
pub struct VocabSpec<'a> {
    /// How text becomes tokens.
    pub kind: VocabKind<'a>,
    /// The tokens' texts; the index is the id.
    pub tokens: Vec<&'a str>,
    /// The tokens' types; empty means all normal.
    pub types: Vec<TokenType>,
    /// The tokens with a role. Turn and fill-in-the-middle tokens left out are found by their usual names.
    pub special: SpecialIds,
    /// Each text begins with `bos`.
    pub add_bos: bool,
    /// Each text ends with `eos`.
    pub add_eos: bool,
    /// Each text ends with `sep`.
    pub add_sep: bool,
}
