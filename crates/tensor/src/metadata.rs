//! Typed key-value metadata, as GGUF headers and JSON configs carry it.
//!
//! Contract: every number keeps its value exactly; lists of one kind are stored compactly (a vocabulary of 150,000
//! texts is two allocations). Deliberately absent: integer widths, which only file writers need.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::StrList;

/// One metadata value. Build lists with [`MetaValue::list`], which picks the compact variant.
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
    /// A list of texts.
    Strs(StrList),
    /// A list of unsigned integers.
    U64s(Vec<u64>),
    /// A list of integers, some of which may be negative.
    I64s(Vec<i64>),
    /// A list of numbers, some of which may be fractions.
    F64s(Vec<f64>),
    /// A list of truth values.
    Bools(Vec<bool>),
    /// A list that no variant above can hold: nested lists, tables, mixed kinds, or nothing.
    Mixed(Vec<MetaValue>),
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

    /// `key` as a list of texts.
    pub fn strs(&self, key: &str) -> Option<&StrList> {
        self.get(key)?.as_strs()
    }

    /// `key` as a list of integers.
    pub fn i64s(&self, key: &str) -> Option<Cow<'_, [i64]>> {
        self.get(key)?.as_i64s()
    }

    /// `key` as a list of numbers.
    pub fn f64s(&self, key: &str) -> Option<Cow<'_, [f64]>> {
        self.get(key)?.as_f64s()
    }

    /// `key` as a list of any values, one by one.
    pub fn items(&self, key: &str) -> Option<Vec<MetaValue>> {
        self.get(key)?.items()
    }

    /// `key` as a nested table.
    pub fn table(&self, key: &str) -> Option<&Metadata> {
        match self.get(key)? {
            MetaValue::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl<K: Into<String>> FromIterator<(K, MetaValue)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, MetaValue)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl MetaValue {
    /// A list in its most compact variant: texts, truth values, integers, numbers, else [`MetaValue::Mixed`].
    pub fn list(items: Vec<MetaValue>) -> Self {
        if items.is_empty() {
            return Self::Mixed(items);
        }
        let all = |one: fn(&MetaValue) -> bool| items.iter().all(one);
        let compact = if all(|v| matches!(v, Self::Str(_))) {
            items.iter().map(Self::as_str).collect::<Option<_>>().map(Self::Strs)
        } else if all(|v| matches!(v, Self::Bool(_))) {
            items.iter().map(Self::as_bool).collect::<Option<_>>().map(Self::Bools)
        } else if all(|v| matches!(v, Self::U64(_))) {
            items.iter().map(Self::as_u64).collect::<Option<_>>().map(Self::U64s)
        } else if all(|v| matches!(v, Self::U64(_) | Self::I64(_))) {
            items.iter().map(Self::as_i64).collect::<Option<_>>().map(Self::I64s)
        } else if all(|v| v.as_f64().is_some()) {
            items.iter().map(Self::as_f64).collect::<Option<_>>().map(Self::F64s)
        } else {
            None
        };
        compact.unwrap_or(Self::Mixed(items))
    }

    /// Text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer that fits, if it is one.
    pub fn as_usize(&self) -> Option<usize> {
        usize::try_from(self.as_u64()?).ok()
    }

    /// A non-negative integer, if it is one.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U64(n) => Some(n),
            Self::I64(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    /// An integer that fits, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::U64(n) => i64::try_from(n).ok(),
            Self::I64(n) => Some(n),
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

    /// A list of texts, if it is one (an empty list is).
    pub fn as_strs(&self) -> Option<&StrList> {
        static EMPTY: StrList = StrList::new();
        match self {
            Self::Strs(list) => Some(list),
            Self::Mixed(items) if items.is_empty() => Some(&EMPTY),
            _ => None,
        }
    }

    /// A list of integers that fit, if it is one (an empty list is).
    pub fn as_i64s(&self) -> Option<Cow<'_, [i64]>> {
        match self {
            Self::I64s(list) => Some(Cow::Borrowed(list)),
            Self::U64s(list) => list.iter().map(|&n| i64::try_from(n).ok()).collect(),
            Self::Mixed(items) if items.is_empty() => Some(Cow::Borrowed(&[])),
            _ => None,
        }
    }

    /// A list of numbers, if it is one (an empty list is).
    pub fn as_f64s(&self) -> Option<Cow<'_, [f64]>> {
        match self {
            Self::F64s(list) => Some(Cow::Borrowed(list)),
            Self::I64s(list) => Some(list.iter().map(|&n| n as f64).collect()),
            Self::U64s(list) => Some(list.iter().map(|&n| n as f64).collect()),
            Self::Mixed(items) if items.is_empty() => Some(Cow::Borrowed(&[])),
            _ => None,
        }
    }

    /// The items of any list, one by one; use the typed accessors for long lists.
    pub fn items(&self) -> Option<Vec<MetaValue>> {
        Some(match self {
            Self::Strs(list) => list.iter().map(|text| Self::Str(text.to_owned())).collect(),
            Self::U64s(list) => list.iter().map(|&n| Self::U64(n)).collect(),
            Self::I64s(list) => list.iter().map(|&n| Self::I64(n)).collect(),
            Self::F64s(list) => list.iter().map(|&x| Self::F64(x)).collect(),
            Self::Bools(list) => list.iter().map(|&b| Self::Bool(b)).collect(),
            Self::Mixed(items) => items.clone(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(items: Vec<MetaValue>, want: MetaValue) {
        let list = MetaValue::list(items.clone());
        assert_eq!(list, want);
        assert_eq!(list.items().map(|back| back.len()), Some(items.len()));
    }

    #[test]
    fn lists_take_the_most_compact_variant() {
        use MetaValue::*;
        check(vec![], Mixed(vec![]));
        check(vec![Str("a".into()), Str("".into())], Strs(["a", ""].into_iter().collect()));
        check(vec![U64(1), U64(u64::MAX)], U64s(vec![1, u64::MAX]));
        check(vec![U64(1), I64(-1)], I64s(vec![1, -1]));
        check(vec![U64(u64::MAX), I64(-1)], Mixed(vec![U64(u64::MAX), I64(-1)]));
        check(vec![U64(1), F64(0.5)], F64s(vec![1.0, 0.5]));
        check(vec![Bool(true)], Bools(vec![true]));
        check(vec![Bool(true), Null], Mixed(vec![Bool(true), Null]));
    }

    #[test]
    fn number_lists_convert_when_they_fit() {
        assert_eq!(MetaValue::U64s(vec![7]).as_i64s().as_deref(), Some(&[7][..]));
        assert_eq!(MetaValue::U64s(vec![u64::MAX]).as_i64s(), None);
        assert_eq!(MetaValue::I64s(vec![-2]).as_f64s().as_deref(), Some(&[-2.0][..]));
        assert_eq!(MetaValue::Mixed(vec![]).as_strs().map(StrList::len), Some(0));
    }
}
