//! The JSON files of Hugging Face folders (`config.json`, `generation_config.json`, `tokenizer_config.json`, …) as metadata.
//!
//! Contract: an object at the top, each key once, no deeper than the limits. Deliberately absent: what the keys mean.

use std::fmt;

use kinglet_tensor::{MetaValue, Metadata};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::{FormatError, Limits, Place, Problem};

/// Reads the JSON file called `name`; the name is for messages only.
pub fn parse(name: &str, json: &[u8], limits: &Limits) -> Result<Metadata, FormatError> {
    let has = |problem| Place::named(name).has(problem);
    if json.len() > limits.max_json {
        let (found, limit) = (json.len() as u64, limits.max_json as u64);
        return Err(has(Problem::TooMuch { what: "bytes of JSON", found, limit, field: "max_json" }));
    }
    let mut from = serde_json::Deserializer::from_slice(json);
    let top = Node { depth: limits.max_depth }.deserialize(&mut from);
    match top.and_then(|value| from.end().map(|()| value)) {
        Ok(MetaValue::Table(table)) => Ok(table),
        Ok(_) => Err(has(Problem::Json("expected an object at the top".into()))),
        Err(error) => Err(has(Problem::json(&error))),
    }
}

/// Builds one value that may nest `depth` levels deep.
struct Node {
    depth: usize,
}

impl Node {
    fn below<E: Error>(&self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        depth
            .map(|depth| Self { depth })
            .ok_or_else(|| E::custom("values are nested deeper than `Limits::max_depth`"))
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = MetaValue;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<MetaValue, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = MetaValue;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<MetaValue, E> {
        Ok(MetaValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<MetaValue, E> {
        Ok(MetaValue::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<MetaValue, E> {
        Ok(MetaValue::U64(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<MetaValue, E> {
        Ok(MetaValue::I64(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<MetaValue, E> {
        Ok(MetaValue::F64(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<MetaValue, E> {
        Ok(MetaValue::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<MetaValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self.below()?)? {
            items.push(item);
        }
        Ok(MetaValue::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<MetaValue, A::Error> {
        let mut table = Metadata::default();
        while let Some(key) = from.next_key::<String>()? {
            let value = from.next_value_seed(self.below()?)?;
            if let Some(_twice) = table.0.insert(key.clone(), value) {
                let key = crate::error::printable(&key);
                return Err(A::Error::custom(format_args!("key `{key}` occurs twice")));
            }
        }
        Ok(MetaValue::Table(table))
    }
}
