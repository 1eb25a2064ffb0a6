//! The template language of chat templates: MiniJinja, with Python's values as Transformers' templates expect them.
//!
//! Contract: what renders, renders as Jinja2 renders it in an `ImmutableSandboxedEnvironment` with `trim_blocks`,
//! `lstrip_blocks`, loop controls and the `generation` tag; `tests/chat.rs` lists what differs. A hostile template ends
//! with an error: nesting, work, and the bytes it may ever make are bounded ([`Meter`]).
//! How: MiniJinja parses the template; [`source`] writes it out again with each operator as a call of a function of
//! [`ops`], which counts what it does; MiniJinja compiles and runs the result. Nothing but control flow, scopes and
//! calls is left to its own operators, so that none of them can take time or memory unseen.
//! Absent on purpose: template inheritance and inclusion, autoescaping.

mod filters;
mod json;
mod marks;
mod methods;
mod ops;
mod python;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::DateTime;
pub(super) use json::from_json;
pub(super) use marks::Marks;
pub(super) use source::Reach;

/// Bytes a template may make in all its strings and lists together, kept or not.
const MAX_BYTES: u64 = 256 << 20;
/// Most tokens between the marks of one tag.
const MAX_TAG: usize = 2000;
/// Most `elif` of one template; each nests the rest of its chain.
const MAX_ELIF: usize = 300;
/// Deepest nesting of calls and loops at run time.
const MAX_RECURSION: usize = 200;
/// Units of work that one instruction may count for.
const WORK_PER_INSTRUCTION: u64 = 10;

/// Why a template stopped, where that is neither a mistake in it nor in the conversation.
#[derive(Clone, Debug, thiserror::Error)]
enum Halt {
    #[error("refused")]
    Refused(String),
    #[error("exceeds the limit on {0}")]
    Limit(&'static str),
}

/// Why a template could not be read or rendered.
#[derive(Debug)]
pub(super) enum Fault {
    /// A mistake at a line, from 1.
    Error { line: u32, reason: String },
    /// The template called `raise_exception`.
    Refused(String),
    /// A resource ran out.
    Limit(&'static str),
}

type Res<T> = Result<T, Error>;

fn fail<T>(reason: impl Into<String>) -> Res<T> {
    Err(Error::new(ErrorKind::InvalidOperation, reason.into()))
}

fn limit(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, "too much").with_source(Halt::Limit(what))
}

/// What a rendering may still spend.
#[derive(Debug)]
pub(super) struct Meter {
    work: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// Counts units of work.
    fn spend(&self, units: usize) -> Res<()> {
        take(&self.work, units as u64).ok_or_else(|| limit("work"))
    }

    /// Counts bytes that are about to be made.
    fn make(&self, bytes: usize) -> Res<()> {
        self.spend(1 + bytes / 32)?;
        take(&self.bytes, bytes as u64).ok_or_else(|| limit("memory"))
    }

    /// Counts a list that is about to be made.
    fn items(&self, count: usize) -> Res<()> {
        self.make(count.saturating_mul(size_of::<Value>()))
    }

    /// A string, counted.
    fn text(&self, text: &str) -> Res<Value> {
        self.make(text.len())?;
        Ok(Value::from(text))
    }
}

fn take(left: &AtomicU64, amount: u64) -> Option<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount)).ok().map(drop)
}

const WHITESPACE: WhitespaceConfig =
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

/// A template that can be read.
#[derive(Debug)]
pub(super) struct Program(String);

/// What a template is given.
pub(super) struct Input<'a> {
    pub(super) names: &'a [(String, Value)],
    pub(super) now: Option<DateTime>,
    pub(super) work: u64,
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Program, Fault> {
    let program = Program(without_generation(text).map_err(fault)?);
    let written = source::write(&program.0, None).map_err(fault)?;
    Environment::new().template_from_str(&written).map_err(fault)?;
    Ok(program)
}

/// Renders a template: as it stands, or with its own special tokens marked.
pub(super) fn render(
    program: &Program,
    input: &Input<'_>,
    marks: Option<(&Marks, Reach)>,
) -> Result<String, Fault> {
    let written = source::write(&program.0, marks).map_err(fault)?;
    let meter = Arc::new(Meter { work: AtomicU64::new(input.work), bytes: AtomicU64::new(MAX_BYTES) });
    let mut env = Environment::new();
    env.set_fuel(Some(input.work / WORK_PER_INSTRUCTION));
    configure(&mut env, &meter, input.now);
    let names = input.names.iter().map(|(name, value)| match (marks, value.as_str()) {
        (Some((marks, _)), Some(text)) if source::is_token_name(name) => {
            (name, Value::from(marks.mark(text)))
        }
        _ => (name, value.clone()),
    });
    let context: Value = names.map(|(name, value)| (name.as_str(), value)).collect();
    env.template_from_str(&written).and_then(|template| template.render(context)).map_err(fault)
}

/// Writes `generation` blocks, which mean nothing outside of training, as plain scopes; refuses tags too long to read
/// with a stack of bounded depth.
fn without_generation(text: &str) -> Res<String> {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut length, mut elifs, mut opens) = (0, 0, 0, false);
    for token in tokenize(text, false, SyntaxConfig, WHITESPACE) {
        let (token, span) = token?;
        length = if matches!(token, Token::BlockStart | Token::VariableStart) { 0 } else { length + 1 };
        elifs += usize::from(matches!(token, Token::Ident("elif")));
        if length > MAX_TAG || elifs > MAX_ELIF {
            return Err(limit("nesting"));
        }
        let plain = match token {
            Token::Ident("generation") if opens => "with",
            Token::Ident("endgeneration") if opens => "endwith",
            _ => "",
        };
        if !plain.is_empty() {
            out.push_str(&text[copied..span.start_offset as usize]);
            out.push_str(plain);
            copied = span.end_offset as usize;
        }
        opens = matches!(token, Token::BlockStart);
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

fn configure(env: &mut Environment<'_>, meter: &Arc<Meter>, now: Option<DateTime>) {
    env.set_recursion_limit(MAX_RECURSION);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    let m = meter.clone();
    env.set_formatter(move |out, _, value| {
        let text = python::display(&m, value)?;
        out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
    });
    let m = meter.clone();
    env.set_unknown_method_callback(move |_, value, name, args| methods::call(&m, value, name, args));
    ops::install(env, meter);
    filters::install(env, meter);
    let m = meter.clone();
    env.add_function("raise_exception", move |message: Value| -> Res<Value> {
        let message = python::display(&m, &message)?;
        Err(Error::new(ErrorKind::InvalidOperation, "refused").with_source(Halt::Refused(message)))
    });
    if let Some(now) = now {
        let m = meter.clone();
        env.add_function("strftime_now", move |format: &str| m.text(&now.format(format)));
    }
    let m = meter.clone();
    env.add_function("range", move |bounds: Rest<i64>| ops::range(&m, &bounds));
    let m = meter.clone();
    env.add_function("dict", move |pairs: Option<Value>, named: Kwargs| ops::dict(&m, pairs, &named));
}

/// The cause of a failure, in the words of [`Fault`].
fn fault(error: Error) -> Fault {
    let mut source = std::error::Error::source(&error);
    let mut line = error.line();
    while let Some(inner) = source {
        match inner.downcast_ref::<Halt>() {
            Some(Halt::Refused(reason)) => return Fault::Refused(reason.clone()),
            Some(Halt::Limit(what)) => return Fault::Limit(what),
            None => {}
        }
        line = inner.downcast_ref::<Error>().and_then(Error::line).or(line);
        source = inner.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return Fault::Limit("work");
    }
    let kind = error.kind().to_string();
    let reason = match error.detail() {
        Some(detail) if detail.contains("recursion limit") => return Fault::Limit("nesting"),
        Some(detail) => detail.to_owned(),
        None => kind,
    };
    Fault::Error { line: line.map_or(1, |line| line as u32), reason }
}
