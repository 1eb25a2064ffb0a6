//! The template language of chat templates: Jinja2 as Transformers configures it, over strings that remember where
//! they came from.
//!
//! Contract: what renders, renders byte for byte as Jinja2 renders it in an `ImmutableSandboxedEnvironment` with
//! `trim_blocks`, `lstrip_blocks`, loop controls and the `generation` tag. A hostile template ends with an error:
//! nesting, work, sizes and output are bounded.
//! Absent on purpose: template inheritance and inclusion, autoescaping, and filters that make no sense in a prompt.

mod ast;
mod call;
mod evaluate;
mod execute;
mod expression;
mod filters;
mod format;
mod function;
mod json;
mod lexer;
mod methods;
mod ops;
mod parser;
mod predicates;
mod print;
mod scope;
mod sequences;
mod text;
mod value;

pub(super) use execute::render;
pub(super) use json::from_json;
pub(super) use parser::parse;
pub(super) use text::Text;
pub(super) use value::{Key, Map, Value};

/// A parsed template.
pub(super) type Program = ast::Block;

/// Longest string a template may make, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// Why a template stopped.
#[derive(Debug)]
pub(super) enum Fault {
    /// An operation failed; the line is known once the statement is.
    Error { line: Option<u32>, reason: String },
    /// The template called `raise_exception`.
    Refused(String),
    /// A resource ran out.
    Limit(&'static str),
}

type Res<T> = Result<T, Fault>;

/// Most items a list may hold, all nested ones counted.
const MAX_ITEMS: usize = 1 << 20;

fn error<T>(reason: impl Into<String>) -> Res<T> {
    Err(Fault::Error { line: None, reason: reason.into() })
}

/// Whether a string of `bytes` may be made.
fn room(bytes: usize) -> Res<()> {
    if bytes > MAX_TEXT { Err(Fault::Limit("length of a string")) } else { Ok(()) }
}

/// Whether a list of `items` may be made.
fn room_for_items(items: usize) -> Res<()> {
    if items > MAX_ITEMS { Err(Fault::Limit("length of a list")) } else { Ok(()) }
}
