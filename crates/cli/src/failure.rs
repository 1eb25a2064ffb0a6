//! How a command fails: what is printed, and the exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use anyhow::Error;
use kinglet::catalog::CatalogError;
use kinglet::formats::{ExportError, Missing};
use serde_json::json;

use crate::ui::{Ui, brief};

/// Most characters of a message; what a hostile file has it quote may be of any length.
const LONGEST: usize = 1_000;
/// Most nodes of one kind that are named on a terminal.
const NAMES: usize = 8;
/// Exit status of a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error with its way out: attach it with `error.context(Hint(…))`, or make one with [`hinted`].
#[derive(Debug)]
pub(crate) struct Hint {
    message: String,
    hint: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hint {}

/// Ctrl-C ended the work; what was done so far is on the screen.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// An error that says what to do next.
pub(crate) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(Hint { message: message.into(), hint: hint.into() })
}

/// Prints `error` with its causes and its hint; hands back the exit status.
pub(crate) fn report(error: &Error, ui: &Ui) -> ExitCode {
    if reader_left(error) {
        return ExitCode::SUCCESS;
    }
    let status = if was_interrupted(error) { INTERRUPTED } else { 1 };
    let (message, hint) = (brief(&message(error), LONGEST), hint(error));
    if ui.json() {
        let mut value = json!({ "message": message, "hint": hint, "exit_code": status });
        if let Some(missing) = missing(error) {
            let one = |m: &Missing| json!({ "op": m.op, "reason": m.reason, "nodes": m.nodes });
            value["missing"] = missing.iter().map(one).collect();
        }
        ui.error_json(&json!({ "error": value }));
    } else {
        ui.error(&message, hint.as_deref());
        for m in missing(error).into_iter().flatten() {
            let shown = m.nodes[..m.nodes.len().min(NAMES)].join(", ");
            let more = m.nodes.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more (--json names all)") } else { String::new() };
            ui.detail(format_args!("  {}, {}: {shown}{more}", m.op, m.reason));
        }
    }
    ExitCode::from(status)
}

/// The error and its causes on one line; a cause that the line already says is not repeated.
fn message(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = if line.is_empty() { text } else { format!("{line}: {text}") };
        }
    }
    line
}

/// Everything that a format cannot express, when that is what is wrong.
fn missing(error: &Error) -> Option<&[Missing]> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(kinglet::Error::Export(ExportError::Unsupported { missing, .. })) => Some(missing.as_slice()),
        _ => None,
    })
}

/// The first way out that the chain of causes offers.
fn hint(error: &Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref().map(|h: &Hint| h.hint.clone());
        let catalog = || cause.downcast_ref().map(CatalogError::hint);
        let library = || cause.downcast_ref().and_then(kinglet::Error::hint);
        own.or_else(catalog).or_else(library)
    })
}

/// Whether Ctrl-C ended the work.
fn was_interrupted(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Interrupted>()
            || matches!(cause.downcast_ref(), Some(CatalogError::Cancelled))
            || matches!(cause.downcast_ref(), Some(kinglet::Error::Catalog(CatalogError::Cancelled)))
    })
}

/// Whether the program that read our output has closed the pipe (`kinglet list | head`): no failure.
fn reader_left(error: &Error) -> bool {
    error
        .chain()
        .any(|c| c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_join_on_one_line_and_the_hint_is_found() {
        let error = hinted("no model is called x", "see `kinglet list`").context("cannot run x");
        assert_eq!(message(&error), "cannot run x: no model is called x");
        assert_eq!(hint(&error).as_deref(), Some("see `kinglet list`"));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert!(reader_left(&Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing")));
        assert!(!reader_left(&hinted("a", "b")));
    }
}
