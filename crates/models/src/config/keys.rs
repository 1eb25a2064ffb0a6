//! Reading configuration keys while remembering which were read, so that none is silently ignored.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kinglet_tensor::{MetaValue, Metadata};

use crate::ModelError;

/// A table of keys, with a prefix for messages and lookups, that remembers what was asked for.
pub(crate) struct Keys<'a> {
    table: &'a Metadata,
    prefix: String,
    seen: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    /// Looks keys up as `prefix` + key.
    pub(crate) fn new(table: &'a Metadata, prefix: impl Into<String>) -> Self {
        Self { table, prefix: prefix.into(), seen: RefCell::default() }
    }

    /// The value, when present and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a MetaValue> {
        let full = format!("{}{key}", self.prefix);
        let value = self.table.get(&full).filter(|v| !matches!(v, MetaValue::Null));
        self.seen.borrow_mut().insert(full);
        value
    }

    /// A size, when present. A list of equal sizes, one a layer, counts as one size.
    pub(crate) fn opt_usize(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_i64s().filter(|list| !list.is_empty() && list.iter().all(|n| *n == list[0]));
        let size = value.as_usize().or_else(|| list.and_then(|list| usize::try_from(list[0]).ok()));
        size.map(Some).ok_or_else(|| self.wrong(key, value, "one non-negative integer"))
    }

    /// A size that must be there.
    pub(crate) fn usize(&self, key: &str) -> Result<usize, ModelError> {
        self.opt_usize(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number, when present.
    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a finite number"))
    }

    /// A number that must be there.
    pub(crate) fn f64(&self, key: &str) -> Result<f64, ModelError> {
        self.opt_f64(key)?.ok_or_else(|| self.missing(key))
    }

    /// A list of numbers, when present.
    pub(crate) fn opt_f64s(&self, key: &str) -> Result<Option<Vec<f64>>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_f64s().map(|list| list.to_vec());
        list.map(Some).ok_or_else(|| self.wrong(key, value, "a list of numbers"))
    }

    /// A table, when present.
    pub(crate) fn opt_table(&self, key: &str) -> Result<Option<&'a Metadata>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::Table(table)) => Ok(Some(table)),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// An error when the key is there and says another size than `expected`.
    pub(crate) fn must_equal(&self, key: &str, expected: Option<usize>) -> Result<(), ModelError> {
        match self.opt_usize(key)? {
            Some(found) if Some(found) != expected => Err(ModelError::UnsupportedKey {
                key: format!("{}{key}", self.prefix),
                value: found.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Text, when present.
    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "text"))
    }

    /// A truth value, or `default`.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// An error unless every key under the prefix was read or is named as inert. False, zero and null are inert.
    pub(crate) fn all_understood(&self, inert: &[&str]) -> Result<(), ModelError> {
        let seen = self.seen.borrow();
        let unknown = self.table.0.iter().find(|(key, value)| {
            let rest = key.strip_prefix(self.prefix.as_str());
            rest.is_some_and(|rest| !inert.contains(&rest)) && !seen.contains(*key) && !is_off(value)
        });
        match unknown {
            None => Ok(()),
            Some((key, value)) => Err(ModelError::UnsupportedKey { key: key.clone(), value: brief(value) }),
        }
    }

    /// The error for a key that must be there.
    pub(crate) fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingKey { key: format!("{}{key}", self.prefix) }
    }

    /// The error for a value of the wrong kind.
    pub(crate) fn wrong(&self, key: &str, value: &MetaValue, expected: &str) -> ModelError {
        super::bad(&format!("{}{key}", self.prefix), brief(value), expected)
    }
}

fn is_off(value: &MetaValue) -> bool {
    matches!(value, MetaValue::Null | MetaValue::Bool(false) | MetaValue::U64(0) | MetaValue::I64(0))
        || value.as_f64() == Some(0.0)
}

/// A value in at most some sixty characters.
fn brief(value: &MetaValue) -> String {
    let text = match value {
        MetaValue::Str(text) => format!("{text:?}"),
        other => other.as_f64().map_or_else(|| format!("{other:?}"), |x| x.to_string()),
    };
    shorten(&text)
}

/// At most sixty characters of a text.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some(_) => text.chars().take(MOST - 1).chain(['…']).collect(),
    }
}
