//! JSON in and out, as Python's `json` module writes it.

use serde_json::Value as Json;

use super::text::Text;
use super::value::{Dict, Key, Map, Value};
use super::{Res, error, print};

/// The value of a JSON document; its strings are untrusted.
pub(crate) fn from_json(json: &Json) -> Res<Value> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i128() {
            Some(int) => Value::Int(int),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::text(Text::untrusted(text.as_str())),
        Json::Array(items) => Value::list(items.iter().map(from_json).collect::<Res<_>>()?)?,
        Json::Object(map) => Value::dict(
            map.iter()
                .map(|(key, value)| Ok((Key::Str(Text::untrusted(key.as_str()).into()), from_json(value)?)))
                .collect::<Res<Map>>()?,
        )?,
    })
}

/// How `json.dumps` is told to write.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    /// What one level is indented by; none keeps all on one line.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
}

/// `json.dumps(value)`; notation is untrusted, as it stands between strings that may be.
pub(super) fn to_json(value: &Value, style: &Style) -> Res<Text> {
    let mut writer = Writer { out: Text::default(), style, level: 0 };
    writer.value(value)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: Text,
    style: &'a Style,
    level: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Res<()> {
        match value {
            Value::None => self.put("null"),
            Value::Bool(true) => self.put("true"),
            Value::Bool(false) => self.put("false"),
            Value::Int(int) => self.put(&int.to_string()),
            Value::Float(float) => self.put(&json_float(*float)),
            Value::Str(text) => self.string(text),
            Value::Seq(seq)
                if matches!(seq.kind, super::value::SeqKind::List | super::value::SeqKind::Tuple) =>
            {
                self.container("[", "]", seq.items.len(), |w, i| w.value(&seq.items[i]))?;
            }
            Value::Dict(dict) => self.dict(dict)?,
            _ => return error(format!("an object of type '{}' has no JSON form", value.kind())),
        }
        super::room(self.out.len())
    }

    fn dict(&mut self, dict: &Dict) -> Res<()> {
        let mut entries: Vec<(&Key, &Value)> = dict.map.iter().collect();
        if self.style.sort_keys {
            if !entries.iter().all(|(key, _)| matches!(key, Key::Str(_))) {
                return error("keys of different kinds cannot be sorted");
            }
            entries.sort_by_cached_key(|(key, _)| key_text(key));
        }
        self.container("{", "}", entries.len(), |w, i| {
            let (key, value) = entries[i];
            match key {
                Key::Str(text) => w.string(text),
                _ => w.put(&format!("\"{}\"", key_text(key))),
            }
            w.put(&w.style.key_separator.clone());
            w.value(value)
        })
    }

    fn container(
        &mut self,
        open: &str,
        close: &str,
        len: usize,
        mut item: impl FnMut(&mut Self, usize) -> Res<()>,
    ) -> Res<()> {
        self.put(open);
        self.level += 1;
        for i in 0..len {
            if i > 0 {
                self.put(&self.style.item_separator.clone());
            }
            self.new_line()?;
            item(self, i)?;
        }
        self.level -= 1;
        if len > 0 {
            self.new_line()?;
        }
        self.put(close);
        Ok(())
    }

    fn new_line(&mut self) -> Res<()> {
        if let Some(indent) = &self.style.indent {
            super::room(self.out.len() + indent.len().saturating_mul(self.level))?;
            let indent = indent.repeat(self.level);
            self.put("\n");
            self.put(&indent);
        }
        Ok(())
    }

    fn string(&mut self, text: &Text) {
        self.put("\"");
        for (piece, trusted) in text.pieces() {
            let mut escaped = String::with_capacity(piece.len());
            piece.chars().for_each(|c| escape(&mut escaped, c, self.style.ensure_ascii));
            self.out.push_str(&escaped, trusted);
        }
        self.put("\"");
    }

    fn put(&mut self, notation: &str) {
        self.out.push_str(notation, false);
    }
}

fn key_text(key: &Key) -> String {
    match key {
        Key::None => "null".into(),
        Key::Bool(value) => value.to_string(),
        Key::Int(value) => value.to_string(),
        Key::Str(text) => text.as_str().into(),
    }
}

fn json_float(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        v => print::float(v),
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
