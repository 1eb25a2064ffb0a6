//! The methods of Python's `str`, `dict` and `list` that templates call.
//!
//! Absent on purpose: what changes a list or dict; Jinja2's immutable sandbox refuses it too.

use std::ops::Range;

use super::call::Given;
use super::text::{Text, is_space, split_lines};
use super::value::{Dict, Key, Seq, SeqKind, Value};
use super::{Res, error, filters, format, print, room, room_for_items};

const STR: [&str; 33] = [
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "rsplit",
    "splitlines",
    "startswith",
    "endswith",
    "replace",
    "upper",
    "lower",
    "title",
    "capitalize",
    "swapcase",
    "casefold",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "join",
    "format",
    "isdigit",
    "isalpha",
    "isalnum",
    "isspace",
    "isupper",
    "islower",
    "zfill",
    "ljust",
    "rjust",
    "center",
    "removeprefix",
];
const STR_MORE: [&str; 3] = ["removesuffix", "partition", "rpartition"];
const DICT: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const LIST: [&str; 3] = ["index", "count", "copy"];
const CHANGES_DICT: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const CHANGES_LIST: [&str; 8] = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];

/// Whether a value has this method.
pub(super) fn exists(object: &Value, name: &str) -> bool {
    match object {
        Value::Str(_) => STR.contains(&name) || STR_MORE.contains(&name),
        Value::Dict(_) => DICT.contains(&name),
        Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => LIST.contains(&name),
        _ => false,
    }
}

/// Whether the sandbox keeps templates from this attribute.
pub(super) fn is_unsafe(object: &Value, name: &str) -> bool {
    match object {
        Value::Dict(_) => CHANGES_DICT.contains(&name),
        Value::Seq(seq) if seq.kind == SeqKind::List => CHANGES_LIST.contains(&name),
        _ => false,
    }
}

/// `object.name(given)`
pub(super) fn call(object: &Value, name: &str, given: Given) -> Res<Value> {
    match object {
        Value::Str(text) => match name {
            "format" => format::braces(text, &given),
            _ => string(text, name, given),
        },
        Value::Dict(dict) => self::dict(object, dict, name, given),
        Value::Seq(seq) => sequence(object, seq, name, given),
        _ => error(format!("'{}' object has no method '{name}'", object.kind())),
    }
}

fn dict(object: &Value, dict: &Dict, name: &str, mut given: Given) -> Res<Value> {
    match name {
        "get" => {
            let [key, default] = given.bind("get", ["key", "default"])?;
            let found = dict.map.get(&Key::new(&key.unwrap_or(Value::None))?).cloned();
            Ok(found.or(default).unwrap_or(Value::None))
        }
        "items" => filters::items(object, SeqKind::View("dict_items")),
        "keys" => Value::seq(SeqKind::View("dict_keys"), dict.map.keys().map(Key::value).collect()),
        "values" => Value::seq(SeqKind::View("dict_values"), dict.map.values().cloned().collect()),
        _ => Ok(object.clone()),
    }
}

fn sequence(object: &Value, seq: &Seq, name: &str, mut given: Given) -> Res<Value> {
    if name == "copy" {
        return Ok(object.clone());
    }
    let [item] = given.bind(name, ["value"])?;
    let item = item.unwrap_or(Value::None);
    let found = seq.items.iter().enumerate().filter(|(_, other)| other.equals(&item)).map(|(at, _)| at);
    match name {
        "count" => Ok(Value::Int(found.count() as i128)),
        _ => {
            found.min().map_or_else(|| error("the item is not in the list"), |at| Ok(Value::Int(at as i128)))
        }
    }
}

fn string(text: &Text, name: &str, mut given: Given) -> Res<Value> {
    let chars = text.as_str();
    match name {
        "strip" | "lstrip" | "rstrip" => strip(text, name, given),
        "split" | "rsplit" => split(text, name == "rsplit", given),
        "splitlines" => {
            room_for_items(chars.matches('\n').count())?;
            parts(text, split_lines(chars))
        }
        "partition" | "rpartition" => partition(text, name == "rpartition", given),
        "startswith" | "endswith" => affix(text, name == "endswith", given),
        "removeprefix" | "removesuffix" => {
            let [affix] = texts(name, given)?;
            let rest = if name == "removeprefix" {
                chars.strip_prefix(affix.as_str())
            } else {
                chars.strip_suffix(affix.as_str())
            };
            Ok(Value::text(text.part(rest.unwrap_or(chars))))
        }
        "replace" => {
            let [old, new, count] = given.bind("replace", ["old", "new", "count"])?;
            filters::replace(text, old, new, count)
        }
        "join" => {
            let [items] = given.bind("join", ["iterable"])?;
            join(text, &items.unwrap_or(Value::None))
        }
        "find" | "rfind" | "index" | "rindex" => find(text, name, given),
        "count" => {
            let [part] = texts(name, given)?;
            Ok(Value::Int(chars.matches(part.as_str()).count() as i128))
        }
        "zfill" | "ljust" | "rjust" | "center" => pad(text, name, given),
        _ => plain(text, name, given),
    }
}

/// Methods without arguments.
fn plain(text: &Text, name: &str, mut given: Given) -> Res<Value> {
    let [] = given.bind(name, [])?;
    let all = |is: fn(char) -> bool| text.len() > 0 && text.as_str().chars().all(is);
    let cased = |is: fn(char) -> bool, is_other: fn(char) -> bool| {
        text.as_str().chars().any(is) && !text.as_str().chars().any(is_other)
    };
    Ok(Value::Bool(match name {
        "isdigit" => all(|c| c.is_numeric() && !c.is_alphabetic()),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "title" => return Ok(Value::text(filters::title(text, char::is_alphabetic))),
        _ => return Ok(Value::text(filters::recase(text, name))),
    }))
}

/// The arguments of a method that takes strings only.
fn texts<const N: usize>(name: &str, mut given: Given) -> Res<[Text; N]> {
    let bound = given.bind(name, [""; N])?;
    let mut out = [const { None }; N];
    for (slot, value) in out.iter_mut().zip(&bound) {
        match value {
            Some(Value::Str(text)) => *slot = Some(text.as_ref().clone()),
            Some(other) => return error(format!("'{name}' needs a string, not '{}'", other.kind())),
            None => return error(format!("'{name}' needs {N} arguments")),
        }
    }
    Ok(out.map(Option::unwrap_or_default))
}

fn parts(text: &Text, parts: Vec<&str>) -> Res<Value> {
    Value::list(parts.into_iter().map(|part| Value::text(text.part(part))).collect())
}

fn strip(text: &Text, name: &str, mut given: Given) -> Res<Value> {
    let [set] = given.bind(name, ["chars"])?;
    let stripped = match set {
        None | Some(Value::None) => strip_set(text.as_str(), name, is_space),
        Some(Value::Str(set)) => strip_set(text.as_str(), name, |c| set.as_str().contains(c)),
        Some(other) => return error(format!("'{name}' needs a string, not '{}'", other.kind())),
    };
    Ok(Value::text(text.part(stripped)))
}

fn strip_set<'a>(text: &'a str, name: &str, strips: impl Fn(char) -> bool) -> &'a str {
    let text = if name == "rstrip" { text } else { text.trim_start_matches(&strips) };
    if name == "lstrip" { text } else { text.trim_end_matches(&strips) }
}

fn split(text: &Text, from_right: bool, mut given: Given) -> Res<Value> {
    let [separator, limit] = given.bind("split", ["sep", "maxsplit"])?;
    let limit =
        limit.as_ref().and_then(Value::int).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let chars = text.as_str();
    let separators = match separator.as_ref().and_then(Value::str) {
        Some(separator) => chars.matches(separator.as_str()).count(),
        None => chars.matches(is_space).count(),
    };
    room_for_items(separators.min(limit))?;
    let pieces: Vec<&str> = match &separator {
        None | Some(Value::None) => words(chars, from_right, limit),
        Some(Value::Str(separator)) if separator.len() == 0 => return error("empty separator"),
        Some(Value::Str(separator)) if from_right => {
            let mut pieces: Vec<&str> = chars.rsplitn(limit.saturating_add(1), separator.as_str()).collect();
            pieces.reverse();
            pieces
        }
        Some(Value::Str(separator)) => chars.splitn(limit.saturating_add(1), separator.as_str()).collect(),
        Some(other) => return error(format!("'split' needs a string, not '{}'", other.kind())),
    };
    parts(text, pieces)
}

/// Words between whitespace, at most `limit` of them split off.
fn words(text: &str, from_right: bool, limit: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest =
        if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match cut.filter(|_| pieces.len() < limit) {
            Some(at) if from_right => {
                pieces.push(rest[at..].trim_start_matches(is_space));
                rest = rest[..at].trim_end_matches(is_space);
            }
            Some(at) => {
                pieces.push(&rest[..at]);
                rest = rest[at..].trim_start_matches(is_space);
            }
            None => pieces.push(std::mem::take(&mut rest)),
        }
    }
    if from_right {
        pieces.reverse();
    }
    pieces
}

fn partition(text: &Text, from_right: bool, given: Given) -> Res<Value> {
    let [separator] = texts("partition", given)?;
    let (chars, separator) = (text.as_str(), separator.as_str());
    let at = if from_right { chars.rfind(separator) } else { chars.find(separator) };
    let ranges: [Range<usize>; 3] = match at {
        Some(at) => [0..at, at..at + separator.len(), at + separator.len()..chars.len()],
        None if from_right => [0..0, 0..0, 0..chars.len()],
        None => [0..chars.len(), 0..0, 0..0],
    };
    Value::tuple(ranges.map(|range| Value::text(text.slice(range))).into())
}

fn affix(text: &Text, at_end: bool, mut given: Given) -> Res<Value> {
    let [affix] = given.bind("startswith", ["prefix"])?;
    let options = match affix {
        Some(Value::Seq(seq)) if seq.kind == SeqKind::Tuple => seq.items.clone(),
        Some(other) => vec![other],
        None => Vec::new(),
    };
    for option in &options {
        let Some(option) = option.str() else {
            return error(format!("a prefix must be a string, not '{}'", option.kind()));
        };
        let (chars, option) = (text.as_str(), option.as_str());
        if if at_end { chars.ends_with(option) } else { chars.starts_with(option) } {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn join(separator: &Text, items: &Value) -> Res<Value> {
    let mut out = Text::default();
    for (i, item) in items.iterate()?.iter().enumerate() {
        let Some(text) = item.str() else {
            return error(format!("item {i} to join is no string but '{}'", item.kind()));
        };
        room(out.len() + separator.len() + text.len())?;
        if i > 0 {
            out.push(separator);
        }
        out.push(text);
    }
    Ok(Value::text(out))
}

fn find(text: &Text, name: &str, given: Given) -> Res<Value> {
    let [part] = texts(name, given)?;
    let chars = text.as_str();
    let at = if name.starts_with('r') { chars.rfind(part.as_str()) } else { chars.find(part.as_str()) };
    match at {
        Some(at) => Ok(Value::Int(chars[..at].chars().count() as i128)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => error("substring not found"),
    }
}

fn pad(text: &Text, name: &str, mut given: Given) -> Res<Value> {
    let [width, fill] = given.bind(name, ["width", "fillchar"])?;
    let Some(width) = width.as_ref().and_then(Value::int) else {
        return error(format!("'{name}' needs a width"));
    };
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let default = Text::trusted(if name == "zfill" { "0" } else { " " });
    let fill = fill.map_or(default, |fill| print::display(&fill).as_ref().clone());
    let len = text.as_str().chars().count();
    let missing = width.saturating_sub(len);
    room(text.len().saturating_add(missing.saturating_mul(fill.len())))?;
    // Python puts the odd blank left of a string whose width and length are both odd, else right.
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let sign = usize::from(name == "zfill" && text.as_str().starts_with(['+', '-']));
    let mut out = text.slice(0..sign);
    (0..left).for_each(|_| out.push(&fill));
    out.push(&text.slice(sign..text.len()));
    (left..missing).for_each(|_| out.push(&fill));
    Ok(Value::text(out))
}
