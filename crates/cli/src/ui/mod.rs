//! What the user sees: results on standard output, notes, errors and progress on standard error.

mod fetching;
mod format;
mod sections;
mod steps;
mod table;

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use fetching::Fetching;
pub(crate) use format::{ago, brief, bytes, count, large, plain};
pub(crate) use sections::{HELD, Row, Sections};
pub(crate) use steps::Steps;
pub(crate) use table::Table;

use crate::args::{Color, Global};

/// Style of what needs attention.
const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Style of a way out.
const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// Style of a heading.
const HEADING: Style = Style::new().bold();
/// Style of what can be overlooked.
const DIM: Style = Style::new().dimmed();

/// The terminal, as the global options want it used.
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    verbose: u8,
}

impl Ui {
    /// Applies the global options.
    pub(crate) fn new(global: &Global) -> Ui {
        match global.color {
            Color::Auto => {}
            Color::Always => ColorChoice::Always.write_global(),
            Color::Never => ColorChoice::Never.write_global(),
        }
        Ui { json: global.json, quiet: global.quiet, verbose: global.verbose }
    }

    /// Whether results are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// How often `-v` was given.
    pub(crate) fn verbose(&self) -> u8 {
        self.verbose
    }

    /// Whether bars may be drawn: on a terminal, and nobody asked for quiet.
    pub(crate) fn draws(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Prints one line of result.
    pub(crate) fn line(&self, text: impl fmt::Display) -> Result<()> {
        writeln!(anstream::stdout(), "{text}").context("standard output")
    }

    /// Prints a heading of a result.
    pub(crate) fn heading(&self, text: impl fmt::Display) -> Result<()> {
        self.line(format_args!("{HEADING}{text}{HEADING:#}"))
    }

    /// Columns of the terminal that results go to; more than enough when they go elsewhere.
    pub(crate) fn columns(&self) -> usize {
        let terminal = terminal_size::terminal_size_of(io::stdout());
        terminal.map_or(200, |(terminal_size::Width(columns), _)| usize::from(columns).max(40))
    }

    /// Prints a result as indented JSON.
    pub(crate) fn value(&self, value: &impl Serialize) -> Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// Prints a remark on standard error, unless quiet.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr(), "{DIM}{text}{DIM:#}");
        }
    }

    /// Prints an error and its way out.
    pub(crate) fn error(&self, message: &str, hint: Option<&str>) {
        let mut stderr = anstream::stderr();
        let _ = writeln!(stderr, "{ERROR}error:{ERROR:#} {}", plain(message));
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "{HINT}hint:{HINT:#} {}", plain(hint));
        }
    }

    /// Prints a line that belongs to an error.
    pub(crate) fn detail(&self, text: impl fmt::Display) {
        let _ = writeln!(anstream::stderr(), "{}", plain(&text.to_string()));
    }

    /// Prints an error as one line of JSON on standard error.
    pub(crate) fn error_json(&self, value: &impl fmt::Display) {
        let _ = writeln!(io::stderr(), "{value}");
    }
}
