//! JSON in and out, as Python's `json` module writes it.

use minijinja::Value;
use minijinja::value::{Kwargs, ValueKind};
use serde_json::Value as Json;

use super::{Meter, Res, fail, ops, python};

/// Widest indentation of one level, in characters.
const MAX_INDENT: i64 = 1000;

/// The value of a JSON document.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_i128()) {
            (Some(int), _) => Value::from(int),
            (None, Some(int)) => Value::from(int),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(map) => map.iter().map(|(key, value)| (key.as_str(), from_json(value))).collect(),
    }
}

/// `json.dumps(value, …)` with the arguments that Transformers' filter takes.
pub(super) fn to_json(meter: &Meter, value: &Value, options: &Kwargs) -> Res<String> {
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(width) if !width.is_none() => match width.as_i64() {
            Some(width @ ..=MAX_INDENT) => Some(" ".repeat(width.max(0) as usize)),
            _ => return fail("tojson needs a string or a small integer as indent"),
        },
        _ => None,
    };
    let separators = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => match &ops::each(meter, &pair)?[..] {
            [items, keys] => [python::display(meter, items)?, python::display(meter, keys)?],
            _ => return fail("tojson needs two strings as separators"),
        },
        _ => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let is_set =
        |name| options.get::<Option<Value>>(name).map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let (ensure_ascii, sort_keys) = (is_set("ensure_ascii")?, is_set("sort_keys")?);
    options.assert_all_used()?;
    ops::weigh(meter, value, 0)?;
    let mut writer =
        Writer { out: String::new(), meter, indent, separators, ensure_ascii, sort_keys, level: 0 };
    writer.value(value)?;
    Ok(writer.out)
}

struct Writer<'m> {
    out: String,
    meter: &'m Meter,
    ensure_ascii: bool,
    sort_keys: bool,
    /// What one level is indented by; none keeps all on one line.
    indent: Option<String>,
    /// Between items; between a key and its value.
    separators: [String; 2],
    level: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Res<()> {
        match value.kind() {
            ValueKind::None => self.put("null"),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => match ops::number(value) {
                Some(ops::Number::Int(int)) => self.put(&int.to_string()),
                Some(ops::Number::Float(number)) => self.put(&float(number)),
                None => Ok(()),
            },
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = ops::each(self.meter, value)?;
                self.container(["[", "]"], items.len(), |writer, i| writer.value(&items[i]))
            }
            ValueKind::Map => self.dict(value),
            kind => fail(format!("a {kind} has no JSON form")),
        }
    }

    fn dict(&mut self, dict: &Value) -> Res<()> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        for (key, value) in ops::pairs(dict) {
            let key = match key.kind() {
                ValueKind::None => "null".to_owned(),
                ValueKind::Bool => key.is_true().to_string(),
                _ => python::display(self.meter, &key)?,
            };
            entries.push((key, value));
        }
        if self.sort_keys {
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        self.container(["{", "}"], entries.len(), |writer, i| {
            let (key, value) = &entries[i];
            writer.string(key)?;
            writer.put(&writer.separators[1].clone())?;
            writer.value(value)
        })
    }

    fn container(
        &mut self,
        [open, close]: [&str; 2],
        len: usize,
        mut item: impl FnMut(&mut Self, usize) -> Res<()>,
    ) -> Res<()> {
        self.put(open)?;
        self.level += 1;
        for i in 0..len {
            if i > 0 {
                self.put(&self.separators[0].clone())?;
            }
            self.new_line()?;
            item(self, i)?;
        }
        self.level -= 1;
        if len > 0 {
            self.new_line()?;
        }
        self.put(close)
    }

    fn new_line(&mut self) -> Res<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        self.meter.make(indent.len().saturating_mul(self.level))?;
        let indent = indent.repeat(self.level);
        self.put("\n")?;
        self.put(&indent)
    }

    fn string(&mut self, text: &str) -> Res<()> {
        self.meter.make(text.len() + 2)?;
        self.out.push('"');
        text.chars().for_each(|c| escape(&mut self.out, c, self.ensure_ascii));
        self.out.push('"');
        Ok(())
    }

    fn put(&mut self, notation: &str) -> Res<()> {
        self.meter.make(notation.len())?;
        self.out.push_str(notation);
        Ok(())
    }
}

fn float(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        v => python::float(v),
    }
}

fn escape(out: &mut String, c: char, ensure_ascii: bool) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        c if c < ' ' || (ensure_ascii && !c.is_ascii()) => {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
        c => out.push(c),
    }
}
