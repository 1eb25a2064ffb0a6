//! Typed key-value metadata, as GGUF headers and JSON configs carry it.

use std::collections::BTreeMap;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// Any unsigned integer.
    U64(u64),
    /// Any signed integer.
    I64(i64),
    /// Any float.
    F64(f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8 text.
    Str(String),
    /// A list; GGUF lists are of one type.
    List(Vec<MetaValue>),
    /// A nested table (JSON configs only).
    Table(Metadata),
    /// JSON's null.
    Null,
}

/// Keys to values, in key order. GGUF keys are flat (`llama.block_count`), JSON ones nested.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub BTreeMap<String, MetaValue>);

impl Metadata {
    /// The value of `key`, when present.
    pub fn get(&self, key: &str) -> Option<&MetaValue> {
        self.0.get(key)
    }

    /// `key` as text.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// `key` as a non-negative integer.
    pub fn usize(&self, key: &str) -> Option<usize> {
        self.get(key)?.as_usize()
    }

    /// `key` as a number.
    pub fn f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// `key` as a truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// `key` as a list.
    pub fn list(&self, key: &str) -> Option<&[MetaValue]> {
        self.get(key)?.as_list()
    }

    /// `key` as a nested table.
    pub fn table(&self, key: &str) -> Option<&Metadata> {
        match self.get(key)? {
            MetaValue::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl MetaValue {
    /// Text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer that fits, if it is one.
    pub fn as_usize(&self) -> Option<usize> {
        match *self {
            Self::U64(n) => usize::try_from(n).ok(),
            Self::I64(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::U64(n) => Some(n as f64),
            Self::I64(n) => Some(n as f64),
            Self::F64(x) => Some(x),
            _ => None,
        }
    }

    /// A truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A list, if it is one.
    pub fn as_list(&self) -> Option<&[MetaValue]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}
