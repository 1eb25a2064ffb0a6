//! What can be wrong with a file: the place, the problem, and the way out.
//!
//! Names that come from a file are shortened and escaped before they enter a message.

use std::fmt;

use kinglet_tensor::{DType, TensorError};

use crate::FileKind;

/// A file that cannot be read, or data that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FormatError {
    /// The part of the file that is wrong.
    pub place: Place,
    /// Where reading stopped, in bytes from the start of the file, when that says something.
    pub offset: Option<u64>,
    /// What is wrong and what to do.
    pub problem: Problem,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} (byte {offset}): {}", self.place, self.problem),
            None => write!(f, "{}: {}", self.place, self.problem),
        }
    }
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file as a whole.
    File,
    /// A model in several files.
    Model,
    /// The fixed fields at the start.
    Header,
    /// A metadata entry whose key is not known yet, counted from zero.
    Entry(u64),
    /// A metadata key.
    Key(String),
    /// A tensor record whose name is not known yet, counted from zero.
    Record(u64),
    /// A tensor.
    Tensor(String),
    /// A file of a folder.
    Named(String),
    /// One file of a split model, counted from zero.
    Shard(u64),
}

impl Place {
    pub(crate) fn key(name: &str) -> Self {
        Self::Key(printable(name))
    }

    pub(crate) fn tensor(name: &str) -> Self {
        Self::Tensor(printable(name))
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::Named(printable(name))
    }

    pub(crate) fn has(self, problem: Problem) -> FormatError {
        FormatError { place: self, offset: None, problem }
    }

    pub(crate) fn has_at(self, offset: u64, problem: Problem) -> FormatError {
        FormatError { place: self, offset: Some(offset), problem }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Model => f.write_str("model"),
            Self::Header => f.write_str("header"),
            Self::Entry(number) => write!(f, "metadata entry {number}"),
            Self::Key(key) => write!(f, "metadata key `{key}`"),
            Self::Record(number) => write!(f, "tensor record {number}"),
            Self::Named(name) => write!(f, "file `{name}`"),
            Self::Tensor(name) => write!(f, "tensor `{name}`"),
            Self::Shard(number) => write!(f, "file {} of the split model", number + 1),
        }
    }
}

/// At most 100 characters of `text`, control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    const MOST: usize = 100;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

/// What is wrong, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum Problem {
    /// The first bytes are those of something else.
    #[error("not a {expected} file: it is {found}")]
    Magic { expected: &'static str, found: FileKind },
    /// A GGUF version that is too old or too new.
    #[error("GGUF version {0} cannot be read (2 and 3 can); {way}", way = version_advice(*.0))]
    Version(u32),
    /// A GGUF file for big-endian machines.
    #[error(
        "the file is big-endian; download the little-endian version, or convert it with gguf-convert-endian"
    )]
    BigEndian,
    /// The file ends too early.
    #[error("needs bytes {start}..{end}, the file has {len}: it is truncated or damaged; download it again")]
    Truncated { start: u64, end: u64, len: u64 },
    /// More of something than the limits allow.
    #[error(
        "{found} {what} exceed the limit of {limit}; the file is damaged, or raise `Limits::{field}` if it is trusted"
    )]
    TooMuch { what: &'static str, found: u64, limit: u64, field: &'static str },
    /// Text that is not UTF-8.
    #[error("the text is not valid UTF-8; the file is damaged, download or convert it again")]
    NotUtf8,
    /// A truth value other than 0 and 1.
    #[error("{0} is not a truth value (0 or 1); the file is damaged, download it again")]
    NotBool(u8),
    /// A metadata value type that does not exist.
    #[error(
        "value type {0} does not exist in GGUF 3; the file is damaged, or needs a newer version of Kinglet"
    )]
    ValueType(u32),
    /// A tensor type that is not known.
    #[error("tensor type {number} cannot be read; {way}", way = tensor_type_advice(*.number))]
    TensorType { number: u32 },
    /// An alignment that is no power of two.
    #[error(
        "alignment must be a power of two up to 2 MiB, and not {0}; the file is damaged, download it again"
    )]
    Alignment(String),
    /// Tensor data off the alignment.
    #[error(
        "its data offset {offset} is not a multiple of the alignment {alignment}; convert the file again"
    )]
    Misaligned { offset: u64, alignment: u64 },
    /// Two tensors over the same bytes.
    #[error("its data overlaps that of tensor `{other}`; the file is damaged, download it again")]
    Overlap { other: String },
    /// A dimension of zero.
    #[error("its shape {shape:?} has a dimension of zero; the file is damaged, convert it again")]
    ZeroDimension { shape: Vec<u64> },
    /// A shape that overflows or does not fill whole blocks.
    #[error("the shape {shape:?} is impossible for {dtype}: {why}; the file is damaged, convert it again")]
    Shape { shape: Vec<u64>, dtype: DType, why: &'static str },
    /// A key or tensor that is there twice.
    #[error("it occurs twice; the file is damaged, convert it again")]
    Duplicate,
    /// A file of a split model is not there.
    #[error("file {} of {count} is missing (`…-{:05}-of-{count:05}.gguf`); download it to the same folder", .number + 1, .number + 1)]
    MissingShard { number: u64, count: u64 },
    /// A file of a split model that does not belong to the others.
    #[error("it does not belong to the other files: {0}; download all files of the model again")]
    ForeignShard(String),
    /// JSON that is not well-formed, or not of the expected form.
    #[error("invalid JSON: {0}; the file is damaged, download it again")]
    Json(String),
    /// A NumPy array that cannot be read.
    #[error("not a NumPy array that can be read: {0}")]
    Npy(String),
    /// A safetensors type that is not known.
    #[error("type {0} cannot be read; get the model in F16, BF16 or F32")]
    DTypeName(String),
    /// Offsets that do not follow the tensor before.
    #[error(
        "its data offsets {from}..{to} do not start at {expected}, where the tensor before ends; convert it again"
    )]
    Gap { from: u64, to: u64, expected: u64 },
    /// Offsets that do not fit type and shape.
    #[error(
        "{dtype}{shape:?} takes {expected} bytes, its offsets span {found}; the file is damaged, convert it again"
    )]
    Length { dtype: DType, shape: Vec<u64>, expected: u64, found: u64 },
    /// Bytes that belong to no tensor.
    #[error("{0} bytes behind the last tensor belong to none; the file is damaged, download it again")]
    Unclaimed(u64),
    /// A file name that is not a plain one.
    #[error("`{0}` is not a plain file name; do not trust this model")]
    UnsafeName(String),
    /// A file that an index names and that is not there.
    #[error("the file is missing, the model's index names it; download it to the same folder")]
    MissingFile,
    /// A tensor that is not in the file that an index names.
    #[error("tensor `{tensor}` should be in it by the model's index; download the file again")]
    NotInFile { tensor: String },
    /// A problem within a file of a set.
    #[error(transparent)]
    Within(Box<FormatError>),
    /// A value that the format has no place for.
    #[error("{0} cannot be stored; choose another type")]
    NotStorable(String),
    /// A tensor that is not what the writer was told.
    #[error("{declared} was declared, the source gave {found}; declare what the source gives")]
    Undeclared { declared: String, found: String },
    /// A tensor that cannot be built or fetched.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Problem {
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        Self::Json(printable(&error.to_string()))
    }
}

fn version_advice(version: u32) -> &'static str {
    match version {
        0 | 1 => "download or convert a current version of the model",
        _ => "the file is damaged, or needs a newer version of Kinglet",
    }
}

fn tensor_type_advice(number: u32) -> &'static str {
    match number {
        4 | 5 => "Q4_2 and Q4_3 were withdrawn in 2023: get another quantisation of the model",
        31..=33 | 36..=38 => {
            "it is a repacked 4-bit layout that was withdrawn: get the Q4_0 or IQ4_NL file of the model"
        }
        _ => "the file is damaged, or needs a newer version of Kinglet",
    }
}
