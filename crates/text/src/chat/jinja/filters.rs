//! Filters on strings, numbers and whole values; those on sequences are in `sequences`.

use super::call::Given;
use super::execute::Vm;
use super::json::{Style, from_json, to_json};
use super::text::{Text, is_space, split_lines};
use super::value::{SeqKind, Value};
use super::{Res, error, format, ops, print, room};

impl Vm {
    /// `value | name(given)`
    pub(super) fn filter(&mut self, name: &str, value: Value, given: Given) -> Res<Value> {
        self.spend(value.cost() + given.cost())?;
        let result = match apply(name, &value, given)? {
            Applied::Done(result) => result,
            Applied::Other(given) => self.filter_sequence(name, &value, given)?,
        };
        self.spend(result.cost())?;
        Ok(result)
    }
}

enum Applied {
    Done(Value),
    /// No filter on single values: the arguments are handed back.
    Other(Given),
}

fn apply(name: &str, value: &Value, mut given: Given) -> Res<Applied> {
    let text = || print::display(value);
    Ok(Applied::Done(match name {
        "tojson" => tojson(value, given)?,
        "from_json" => parse_json(&text())?,
        "string" => Value::Str(text()),
        "safe" => Value::text(text().as_ref().clone().into_markup()),
        "trim" => trim(&text(), given)?,
        "upper" | "lower" | "capitalize" => Value::text(recase(&text(), name)),
        "title" => Value::text(title(&text(), |c| !(is_space(c) || "-({[<".contains(c)))),
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
            let [old, new] = [old, new].map(|v| v.map(|v| Value::Str(print::display(&v))));
            replace(&text(), old, new, count)?
        }
        "indent" => indent(&text(), given)?,
        "escape" | "e" => Value::text(text().escaped()),
        "wordcount" => {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            Value::Int(text().as_str().split(|c| !is_word(c)).filter(|word| !word.is_empty()).count() as i128)
        }
        "truncate" => truncate(&text(), given)?,
        "center" => super::methods::call(&Value::Str(text()), "center", given.or_one(Value::Int(80)))?,
        "format" if given.named.is_empty() => format::percent(&text(), &Value::tuple(given.args)?)?,
        "default" | "d" => default(value, given)?,
        "length" | "count" => Value::Int(value.len()? as i128),
        "attr" => {
            let [attribute] = given.bind(name, ["name"])?;
            ops::attribute(value, print::display(&attribute.unwrap_or(Value::None)).as_str())?
        }
        "items" => items(value, SeqKind::Lazy)?,
        "int" => int(value, given)?,
        "float" => float(value, given)?,
        "abs" => match value.number() {
            Some(number) if number < 0.0 => ops::negate(value)?,
            Some(_) => ops::positive(value)?,
            None => return error(format!("'{}' has no absolute value", value.kind())),
        },
        "round" => round(value, given)?,
        _ => return Ok(Applied::Other(given)),
    }))
}

impl Given {
    fn or_one(mut self, default: Value) -> Self {
        if self.args.is_empty() && self.named.is_empty() {
            self.args.push(default);
        }
        self
    }
}

fn tojson(value: &Value, mut given: Given) -> Res<Value> {
    let [ascii, indent, separators, sort] =
        given.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.as_str().to_string()),
        Some(other) => match other.int().map(|n| usize::try_from(n.max(0)).unwrap_or(usize::MAX)) {
            Some(width) if room(width).is_ok() => Some(" ".repeat(width)),
            _ => return error("tojson needs an integer or a string as indent"),
        },
    };
    let (items, keys) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some(pair) => match &pair.iterate()?[..] {
            [Value::Str(items), Value::Str(keys)] => (items.as_str().into(), keys.as_str().into()),
            _ => return error("tojson needs two strings as separators"),
        },
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let style = Style {
        ensure_ascii: is_set(ascii),
        sort_keys: is_set(sort),
        indent,
        item_separator: items,
        key_separator: keys,
    };
    to_json(value, &style).map(Value::text)
}

/// Not in Jinja2, but some templates that are shipped rely on it. What it reads is untrusted.
fn parse_json(text: &Text) -> Res<Value> {
    match serde_json::from_str(text.as_str()) {
        Ok(json) => from_json(&json),
        Err(reason) => error(format!("from_json: {reason}")),
    }
}

fn trim(text: &Text, mut given: Given) -> Res<Value> {
    let [set] = given.bind("trim", ["chars"])?;
    let trimmed = match set.as_ref().and_then(Value::str) {
        Some(set) => text.as_str().trim_matches(|c| set.as_str().contains(c)),
        None => text.as_str().trim_matches(is_space),
    };
    Ok(Value::text(text.part(trimmed)))
}

/// Each word with a capital first letter.
pub(super) fn title(text: &Text, is_word: fn(char) -> bool) -> Text {
    text.map_words(
        is_word,
        |c, first| if first { c.to_uppercase().collect() } else { c.to_lowercase().collect() },
    )
}

/// The text in another case: `upper`, `lower`, `capitalize`, `swapcase` or `casefold`.
pub(super) fn recase(text: &Text, name: &str) -> Text {
    let swapped =
        |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().collect() };
    match name {
        "upper" => text.map(str::to_uppercase),
        "capitalize" => title(text, |_| true),
        "swapcase" => text.map(|piece| piece.chars().map(swapped).collect()),
        _ => text.map(str::to_lowercase),
    }
}

pub(super) fn replace(
    text: &Text,
    old: Option<Value>,
    new: Option<Value>,
    count: Option<Value>,
) -> Res<Value> {
    let (Some(Value::Str(old)), Some(Value::Str(new))) = (old, new) else {
        return error("replace needs two strings");
    };
    let count =
        count.as_ref().and_then(Value::int).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let found = text.as_str().matches(old.as_str()).take(count).count();
    room(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::text(text.replace(old.as_str(), &new, count)))
}

fn indent(text: &Text, mut given: Given) -> Res<Value> {
    let [width, first, blank] = given.bind("indent", ["width", "first", "blank"])?;
    let unit = match width {
        Some(Value::Str(unit)) => unit.as_ref().clone(),
        Some(other) => match other.int().map(|n| usize::try_from(n.max(0)).unwrap_or(usize::MAX)) {
            Some(width) if room(width).is_ok() => Text::trusted(" ".repeat(width)),
            _ => return error("indent needs an integer or a string"),
        },
        None => Text::trusted("    "),
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let (first, blank) = (is_set(first), is_set(blank));
    let mut lines = split_lines(text.as_str());
    // A final line end leaves an empty line, which Python's splitlines does not count.
    if text.as_str().is_empty() || text.as_str().ends_with('\n') {
        lines.push("");
    }
    let mut out = Text::default();
    for (i, line) in lines.iter().enumerate() {
        room(out.len() + unit.len() + line.len() + 1)?;
        if i > 0 {
            out.push_str("\n", true);
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push(&unit);
        }
        if !line.is_empty() {
            out.push(&text.part(line));
        }
    }
    Ok(Value::text(out))
}

fn truncate(text: &Text, mut given: Given) -> Res<Value> {
    let [length, whole, end, leeway] = given.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let size = |value: Option<Value>, default: usize| {
        value.as_ref().and_then(Value::int).map_or(default, |n| usize::try_from(n).unwrap_or(0))
    };
    let (length, leeway) = (size(length, 255), size(leeway, 5));
    let end = end.map_or_else(|| Text::trusted("..."), |end| print::display(&end).as_ref().clone());
    let chars = text.as_str();
    if chars.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::text(text.clone()));
    }
    let kept = length.saturating_sub(end.as_str().chars().count());
    let cut = chars.char_indices().nth(kept).map_or(chars.len(), |(at, _)| at);
    let cut = match whole.is_some_and(|flag| flag.is_true()) {
        true => cut,
        false => chars[..cut].rfind(' ').unwrap_or(cut),
    };
    let mut out = text.slice(0..cut);
    out.push(&end);
    Ok(Value::text(out))
}

fn default(value: &Value, mut given: Given) -> Res<Value> {
    let [default, boolean] = given.bind("default", ["default_value", "boolean"])?;
    let by_truth = boolean.is_some_and(|flag| flag.is_true());
    let missing = matches!(value, Value::Undefined(_)) || (by_truth && !value.is_true());
    Ok(if missing { default.unwrap_or_else(|| Value::text(Text::default())) } else { value.clone() })
}

/// The pairs of a dict.
pub(super) fn items(value: &Value, kind: SeqKind) -> Res<Value> {
    match value {
        Value::Undefined(_) => Value::seq(kind, Vec::new()),
        Value::Dict(dict) => {
            let pairs = dict.map.iter().map(|(key, value)| Value::tuple(vec![key.value(), value.clone()]));
            Value::seq(kind, pairs.collect::<Res<_>>()?)
        }
        _ => error(format!("items needs a dict, not '{}'", value.kind())),
    }
}

fn int(value: &Value, mut given: Given) -> Res<Value> {
    let [default, _base] = given.bind("int", ["default", "base"])?;
    let parsed = match value {
        Value::Undefined(what) => return error(what.as_ref()),
        Value::Str(text) => {
            let text = text.as_str().trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(truncated))
        }
        Value::Float(float) => truncated(*float),
        other => other.int(),
    };
    Ok(parsed.map_or(default.unwrap_or(Value::Int(0)), Value::Int))
}

fn truncated(float: f64) -> Option<i128> {
    (float.abs() < 1e38).then_some(float as i128)
}

fn float(value: &Value, mut given: Given) -> Res<Value> {
    let [default] = given.bind("float", ["default"])?;
    let parsed = match value {
        Value::Undefined(what) => return error(what.as_ref()),
        Value::Str(text) => text.as_str().trim().parse().ok(),
        other => other.number(),
    };
    Ok(parsed.map_or(default.unwrap_or(Value::Float(0.0)), Value::Float))
}

fn round(value: &Value, mut given: Given) -> Res<Value> {
    let [precision, method] = given.bind("round", ["precision", "method"])?;
    let Some(number) = value.number() else { return error(format!("'{}' cannot be rounded", value.kind())) };
    let precision = precision.as_ref().and_then(Value::int).unwrap_or(0).clamp(-300, 300) as i32;
    let scale = 10f64.powi(precision);
    let rounded = match method.as_ref().and_then(Value::str).map_or("common", Text::as_str) {
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        _ if precision >= 0 => format!("{number:.0$}", precision as usize).parse().unwrap_or(number),
        _ => (number * scale).round_ties_even() / scale,
    };
    // Integers stay integers under the common method.
    match (value, &method) {
        (Value::Int(_) | Value::Bool(_), None) => Ok(Value::Int(rounded as i128)),
        _ => Ok(Value::Float(rounded)),
    }
}
