//! Metadata values as text and as JSON; lists as long as vocabularies are shortened.

use kinglet::tensor::MetaValue;
use serde_json::{Value, json};

use crate::ui::{brief, count};

/// Items of a long list that are shown.
const FIRST: usize = 8;

/// A value in at most about `room` characters.
pub(super) fn text(value: &MetaValue, room: usize) -> String {
    let whole = match value {
        MetaValue::Str(text) => return brief(text, room),
        MetaValue::Table(table) => {
            let entries = table.0.iter().map(|(key, value)| format!("{key}: {}", text(value, room)));
            format!("{{{}}}", entries.take(FIRST * 4).collect::<Vec<_>>().join(", "))
        }
        _ => match value_len(value) {
            Some(len) => return list(value, len, room),
            None => shortened(value).to_string(),
        },
    };
    brief(&whole, room)
}

/// The first items of a list as far as there is room, and how many there are.
fn list(value: &MetaValue, len: usize, room: usize) -> String {
    let items: Vec<String> = first(value).iter().map(|item| brief(&item.to_string(), 24)).collect();
    let tail = format!(" … {} in all", count(len as u64));
    let space = room.saturating_sub(tail.chars().count() + 2);
    let mut shown = items.first().cloned().unwrap_or_default();
    let rest = items.iter().skip(1).take_while(|item| {
        let fits = shown.chars().count() + 2 + item.chars().count() <= space;
        if fits {
            shown = format!("{shown}, {item}");
        }
        fits
    });
    let complete = rest.count() + 1 >= len;
    let tail = if complete { "" } else { &tail };
    format!("[{shown}{tail}]")
}

/// A value as JSON, a long list as its first items and its length.
pub(super) fn shortened(value: &MetaValue) -> Value {
    match value {
        MetaValue::Table(table) => table.0.iter().map(|(k, v)| (k.clone(), shortened(v))).collect(),
        _ => match value_len(value) {
            Some(length) if length > FIRST => json!({ "first": first(value), "length": length }),
            _ => whole(value),
        },
    }
}

/// A value as JSON.
pub(super) fn whole(value: &MetaValue) -> Value {
    match value {
        MetaValue::U64(n) => json!(n),
        MetaValue::I64(n) => json!(n),
        MetaValue::F64(x) => json!(x),
        MetaValue::Bool(b) => json!(b),
        MetaValue::Str(text) => json!(text),
        MetaValue::Strs(list) => list.iter().map(Value::from).collect(),
        MetaValue::U64s(list) => json!(list),
        MetaValue::I64s(list) => json!(list),
        MetaValue::F64s(list) => json!(list),
        MetaValue::Bools(list) => json!(list),
        MetaValue::Mixed(list) => list.iter().map(whole).collect(),
        MetaValue::Table(table) => table.0.iter().map(|(k, v)| (k.clone(), whole(v))).collect(),
        MetaValue::Null => Value::Null,
    }
}

/// The first items of a list, each shortened.
fn first(value: &MetaValue) -> Vec<Value> {
    match value {
        MetaValue::Strs(list) => list.iter().take(FIRST).map(Value::from).collect(),
        MetaValue::U64s(list) => list.iter().take(FIRST).map(|n| json!(n)).collect(),
        MetaValue::I64s(list) => list.iter().take(FIRST).map(|n| json!(n)).collect(),
        MetaValue::F64s(list) => list.iter().take(FIRST).map(|x| json!(x)).collect(),
        MetaValue::Bools(list) => list.iter().take(FIRST).map(|b| json!(b)).collect(),
        MetaValue::Mixed(list) => list.iter().take(FIRST).map(shortened).collect(),
        _ => Vec::new(),
    }
}

/// How many items a list has; `None` for what is no list.
fn value_len(value: &MetaValue) -> Option<usize> {
    match value {
        MetaValue::Strs(list) => Some(list.len()),
        MetaValue::U64s(list) => Some(list.len()),
        MetaValue::I64s(list) => Some(list.len()),
        MetaValue::F64s(list) => Some(list.len()),
        MetaValue::Bools(list) => Some(list.len()),
        MetaValue::Mixed(list) => Some(list.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_the_room_there_is() {
        let numbers = MetaValue::U64s((0..1_000).collect());
        let cases = [
            (MetaValue::Str("a\nb".into()), "a\\nb"),
            (MetaValue::F64(0.5), "0.5"),
            (MetaValue::Bool(true), "true"),
            (MetaValue::Null, "null"),
            (MetaValue::U64s(vec![1, 2]), "[1, 2]"),
            (numbers.clone(), "[0, 1, 2, 3, 4, 5, 6, 7 … 1,000 in all]"),
            (MetaValue::U64s(vec![]), "[]"),
            (MetaValue::Strs(["a", "b"].into_iter().collect()), r#"["a", "b"]"#),
        ];
        for (value, shown) in cases {
            assert_eq!(text(&value, 60), shown);
        }
        assert_eq!(text(&numbers, 30), "[0, 1, 2, 3, 4 … 1,000 in all]");
        assert_eq!(shortened(&numbers)["length"], 1_000);
        assert_eq!(whole(&numbers).as_array().map(Vec::len), Some(1_000));
    }
}
