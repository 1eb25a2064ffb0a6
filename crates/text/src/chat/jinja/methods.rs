//! The methods of Python's `str`, `dict` and `list` that templates call.
//!
//! Absent on purpose: what changes a list or dict; Jinja2's immutable sandbox refuses it too.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, FormatStyle, Value};

use super::{Meter, Res, fail, filters, ops, python};

/// `object.name(args)`
pub(super) fn call(meter: &Meter, object: &Value, name: &str, args: &[Value]) -> Res<Value> {
    match (object.as_str(), object.kind()) {
        (Some(text), _) => string(meter, text, name, args),
        (None, ValueKind::Map) => dict(meter, object, name, args),
        (None, ValueKind::Seq) if matches!(name, "index" | "count") => {
            let (wanted,): (&Value,) = from_args(args)?;
            let mut found = Vec::new();
            for (at, item) in ops::each(meter, object)?.iter().enumerate() {
                if ops::equal(meter, item, wanted)? {
                    found.push(at);
                }
            }
            match (name, found.first()) {
                ("count", _) => Ok(Value::from(found.len())),
                (_, Some(&at)) => Ok(Value::from(at)),
                _ => fail("the item is not in the list"),
            }
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn dict(meter: &Meter, object: &Value, name: &str, args: &[Value]) -> Res<Value> {
    let column = |pick: fn((Value, Value)) -> Value| {
        meter.items(object.len().unwrap_or(0))?;
        Ok(Value::from(ops::pairs(object).map(pick).collect::<Vec<_>>()))
    };
    match name {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = object.as_object().and_then(|map| map.get_value(key));
            Ok(found.or(default).unwrap_or(Value::from(())))
        }
        "items" => filters::items(meter, object),
        "keys" => column(|(key, _)| key),
        "values" => column(|(_, value)| value),
        "copy" => Ok(object.clone()),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn string(meter: &Meter, text: &str, name: &str, args: &[Value]) -> Res<Value> {
    meter.make(text.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(match set {
                Some(set) => strip(text, name, |c| set.contains(c)),
                None => strip(text, name, is_space),
            }))
        }
        "split" | "rsplit" => split(meter, text, name == "rsplit", args),
        "splitlines" => parts(meter, split_lines(text)),
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let cut =
                if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            parts(
                meter,
                match cut {
                    Some((before, after)) => vec![before, separator, after],
                    None if name == "partition" => vec![text, "", ""],
                    None => vec!["", "", text],
                },
            )
        }
        "startswith" | "endswith" => affix(meter, text, name == "endswith", args),
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            replaced(meter, text, old, new, count.and_then(|count| usize::try_from(count).ok()))
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            join(meter, text, items)
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            match if name.starts_with('r') { text.rfind(part) } else { text.find(part) } {
                Some(at) => Ok(Value::from(text[..at].chars().count())),
                None if name.ends_with("find") => Ok(Value::from(-1)),
                None => fail("substring not found"),
            }
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Ok(Value::from(text.matches(part).count()))
        }
        "format" => filters::formatted(meter, FormatStyle::StrFormat, text, args),
        _ => {
            let () = from_args(args)?;
            recased(text, name)
                .or_else(|| is(text, name))
                .ok_or_else(|| Error::from(ErrorKind::UnknownMethod))
        }
    }
}

/// The text in another case.
fn recased(text: &str, name: &str) -> Option<Value> {
    let capital = |c: char, first: bool| -> String {
        if first { c.to_uppercase().collect() } else { c.to_lowercase().collect() }
    };
    Some(Value::from(match name {
        "upper" => text.to_uppercase(),
        "lower" | "casefold" => text.to_lowercase(),
        "capitalize" => text.chars().enumerate().map(|(i, c)| capital(c, i == 0)).collect(),
        "title" => {
            let mut inside = false;
            let word = |c: char| capital(c, !std::mem::replace(&mut inside, c.is_alphabetic()));
            text.chars().map(word).collect()
        }
        _ => return None,
    }))
}

/// Whether the text consists of what the method asks for.
fn is(text: &str, name: &str) -> Option<Value> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    let cased =
        |is: fn(char) -> bool, other: fn(char) -> bool| text.chars().any(is) && !text.chars().any(other);
    Some(Value::from(match name {
        "isdigit" => all(|c| c.is_numeric() && !c.is_alphabetic()),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        _ => return None,
    }))
}

fn parts(meter: &Meter, parts: Vec<&str>) -> Res<Value> {
    meter.items(parts.len())?;
    Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}

fn strip<'a>(text: &'a str, name: &str, strips: impl Fn(char) -> bool) -> &'a str {
    let text = if name == "rstrip" { text } else { text.trim_start_matches(&strips) };
    if name == "lstrip" { text } else { text.trim_end_matches(&strips) }
}

fn split(meter: &Meter, text: &str, from_right: bool, args: &[Value]) -> Res<Value> {
    let (separator, most): (Option<&Value>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    match separator.map(|separator| (separator.as_str(), separator.is_none())) {
        None | Some((_, true)) => {
            meter.items(text.matches(is_space).count())?;
            parts(meter, words(text, from_right, most))
        }
        Some((Some(""), _)) => fail("empty separator"),
        Some((Some(separator), _)) => {
            meter.items(text.matches(separator).count())?;
            let mut pieces: Vec<&str> = match from_right {
                true => text.rsplitn(most.saturating_add(1), separator).collect(),
                false => text.splitn(most.saturating_add(1), separator).collect(),
            };
            if from_right {
                pieces.reverse();
            }
            parts(meter, pieces)
        }
        Some((None, _)) => fail("split needs a string"),
    }
}

/// Words between white space, at most `most` of them split off.
fn words(text: &str, from_right: bool, most: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let trim = |text| strip(text, if from_right { "rstrip" } else { "lstrip" }, is_space);
    let mut rest = trim(text);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match cut.filter(|_| pieces.len() < most) {
            Some(at) if from_right => {
                pieces.push(rest[at..].trim_start_matches(is_space));
                rest = trim(&rest[..at]);
            }
            Some(at) => {
                pieces.push(&rest[..at]);
                rest = trim(&rest[at..]);
            }
            None => pieces.push(std::mem::take(&mut rest)),
        }
    }
    if from_right {
        pieces.reverse();
    }
    pieces
}

fn affix(meter: &Meter, text: &str, at_end: bool, args: &[Value]) -> Res<Value> {
    let (affix,): (&Value,) = from_args(args)?;
    let options = if affix.as_str().is_some() { vec![affix.clone()] } else { ops::each(meter, affix)? };
    for option in &options {
        let Some(option) = option.as_str() else { return fail("a prefix must be a string") };
        if if at_end { text.ends_with(option) } else { text.starts_with(option) } {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn join(meter: &Meter, separator: &str, items: &Value) -> Res<Value> {
    let mut out = String::new();
    for (i, item) in ops::each(meter, items)?.iter().enumerate() {
        if item.as_str().is_none() {
            return fail(format!("item {i} to join is no string but a {}", item.kind()));
        }
        let text = python::display(meter, item)?;
        meter.make(separator.len())?;
        out.push_str(if i > 0 { separator } else { "" });
        out.push_str(&text);
    }
    Ok(Value::from(out))
}

/// Up to `count` occurrences of `old` replaced. An empty `old` matches before each character and at the end.
pub(super) fn replaced(meter: &Meter, text: &str, old: &str, new: &str, count: Option<usize>) -> Res<Value> {
    let count = count.unwrap_or(usize::MAX);
    let found = text.matches(old).take(count).count();
    meter.make(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::from(text.replacen(old, new, count)))
}

/// What Python's `str.isspace` accepts.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The lines of `text` without their ends, as Python's `str.splitlines` cuts them.
pub(super) fn split_lines(text: &str) -> Vec<&str> {
    let ends_line =
        |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((at, end)) = rest.char_indices().find(|&(_, c)| ends_line(c)) {
        let pair = rest[at..].starts_with("\r\n");
        lines.push(&rest[..at]);
        rest = &rest[at + if pair { 2 } else { end.len_utf8() }..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
