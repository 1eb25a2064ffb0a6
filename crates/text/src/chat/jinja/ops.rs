//! Operators, attributes and subscripts, as Python and Jinja2's sandbox define them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{Binary, Compare};
use super::text::Text;
use super::value::{Key, SeqKind, Value};
use super::{Res, error, format, methods, room};

/// `left op right`.
pub(super) fn binary(op: Binary, left: &Value, right: &Value) -> Res<Value> {
    for side in [left, right] {
        if let Value::Undefined(what) = side {
            return error(what.as_ref());
        }
    }
    match (op, left, right) {
        (Binary::Mod, Value::Str(template), _) => return format::percent(template, right),
        (Binary::Add, Value::Str(a), Value::Str(b)) => {
            room(a.len() + b.len())?;
            return Ok(Value::text(a.plus(b)));
        }
        (Binary::Add, Value::Seq(a), Value::Seq(b)) if a.kind == b.kind && a.kind != SeqKind::Lazy => {
            return Value::seq(a.kind, a.items.iter().chain(&b.items).cloned().collect());
        }
        (Binary::Mul, Value::Str(_) | Value::Seq(_), _) if right.int().is_some() => {
            return repeat(left, right);
        }
        (Binary::Mul, _, Value::Str(_) | Value::Seq(_)) if left.int().is_some() => {
            return repeat(right, left);
        }
        _ => {}
    }
    match (left.int(), right.int(), left.number(), right.number()) {
        (Some(a), Some(b), ..) => int_op(op, a, b),
        (_, _, Some(a), Some(b)) => float_op(op, a, b),
        _ => error(format!("'{}' and '{}' do not go together with {op:?}", left.kind(), right.kind())),
    }
}

fn repeat(value: &Value, times: &Value) -> Res<Value> {
    let times = usize::try_from(times.int().unwrap_or(0).max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Str(text) => {
            room(text.len().saturating_mul(times))?;
            Ok(Value::text(text.repeat(times)))
        }
        Value::Seq(seq) => {
            room(seq.items.len().saturating_mul(times).saturating_mul(size_of::<Value>()))?;
            let repeated =
                (0..if seq.items.is_empty() { 0 } else { times }).flat_map(|_| seq.items.iter().cloned());
            Value::seq(seq.kind, repeated.collect())
        }
        _ => error(format!("'{}' cannot be repeated", value.kind())),
    }
}

fn int_op(op: Binary, a: i128, b: i128) -> Res<Value> {
    let result = match op {
        Binary::Add => a.checked_add(b),
        Binary::Sub => a.checked_sub(b),
        Binary::Mul => a.checked_mul(b),
        Binary::Div => return float_op(op, a as f64, b as f64),
        Binary::Pow if b < 0 => return float_op(op, a as f64, b as f64),
        Binary::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        _ if b == 0 => return error("division by zero"),
        // Python rounds towards minus infinity.
        Binary::FloorDiv => {
            a.checked_div_euclid(b).map(|q| if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q })
        }
        Binary::Mod => a.checked_rem_euclid(b).map(|r| if b < 0 && r != 0 { r + b } else { r }),
    };
    result.map_or_else(|| error("the result is too large for an integer"), |value| Ok(Value::Int(value)))
}

fn float_op(op: Binary, a: f64, b: f64) -> Res<Value> {
    Ok(Value::Float(match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Pow => a.powf(b),
        _ if b == 0.0 => return error("division by zero"),
        Binary::Div => a / b,
        Binary::FloorDiv => (a / b).floor(),
        Binary::Mod => a - b * (a / b).floor(),
    }))
}

/// `-value`
pub(super) fn negate(value: &Value) -> Res<Value> {
    match (value.int(), value) {
        (Some(int), _) => int_op(Binary::Sub, 0, int),
        (_, Value::Float(float)) => Ok(Value::Float(-float)),
        (_, Value::Undefined(what)) => error(what.as_ref()),
        _ => error(format!("'{}' has no negative", value.kind())),
    }
}

/// `+value`
pub(super) fn positive(value: &Value) -> Res<Value> {
    match (value.int(), value) {
        (Some(int), _) => Ok(Value::Int(int)),
        (_, Value::Float(float)) => Ok(Value::Float(*float)),
        (_, Value::Undefined(what)) => error(what.as_ref()),
        _ => error(format!("'{}' is not a number", value.kind())),
    }
}

/// `left op right` as a truth.
pub(super) fn compare(op: Compare, left: &Value, right: &Value) -> Res<bool> {
    let order = |wanted: fn(Ordering) -> bool| {
        for side in [left, right] {
            if let Value::Undefined(what) = side {
                return error(what.as_ref());
            }
        }
        Ok(left.compare(right)?.is_some_and(wanted))
    };
    match op {
        Compare::Eq => Ok(left.equals(right)),
        Compare::Ne => Ok(!left.equals(right)),
        Compare::Lt => order(Ordering::is_lt),
        Compare::Le => order(Ordering::is_le),
        Compare::Gt => order(Ordering::is_gt),
        Compare::Ge => order(Ordering::is_ge),
        Compare::In => right.contains(left),
        Compare::NotIn => right.contains(left).map(|found| !found),
    }
}

/// `object.name`: an attribute or method, else the item of that name.
pub(super) fn attribute(object: &Value, name: &str) -> Res<Value> {
    Ok(match own_attribute(object, name)? {
        Some(value) => value,
        None => match object {
            Value::Dict(dict) => dict.map.get(&Key::name(name)).cloned(),
            _ => None,
        }
        .unwrap_or_else(|| missing(object, name)),
    })
}

/// `object[index]`: the item, else for a string the attribute of that name.
pub(super) fn item(object: &Value, index: &Value) -> Res<Value> {
    let found = match (object, index.int()) {
        (Value::Undefined(what), _) => return error(what.as_ref()),
        (Value::Dict(dict), _) => Key::new(index).ok().and_then(|key| dict.map.get(&key).cloned()),
        (Value::Seq(seq), Some(at)) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => {
            position(at, seq.items.len()).map(|at| seq.items[at].clone())
        }
        (Value::Str(text), Some(at)) => char_at(text, at),
        _ => None,
    };
    if let Some(value) = found {
        return Ok(value);
    }
    let Value::Str(name) = index else {
        return Ok(Value::undefined(format!("'{}' object has no such element", object.kind())));
    };
    Ok(own_attribute(object, name.as_str())?.unwrap_or_else(|| missing(object, name.as_str())))
}

fn own_attribute(object: &Value, name: &str) -> Res<Option<Value>> {
    match object {
        Value::Undefined(what) => error(what.as_ref()),
        Value::Namespace(map) => Ok(map.borrow().get(name).cloned()),
        Value::Loop(_) if matches!(name, "cycle" | "changed") => Ok(Some(bound(object, name))),
        Value::Loop(state) => Ok(state.attribute(name)),
        Value::Macro(closure) if name == "name" => {
            Ok(Some(Value::text(Text::trusted(closure.def.name.as_ref()))))
        }
        _ if methods::is_unsafe(object, name) => Ok(Some(Value::undefined(format!(
            "access to '{name}' of a '{}' object is unsafe",
            object.kind()
        )))),
        _ => Ok(methods::exists(object, name).then(|| bound(object, name))),
    }
}

fn bound(object: &Value, name: &str) -> Value {
    Value::Method(Rc::new((object.clone(), name.into())))
}

fn missing(object: &Value, name: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{name}'", object.kind()))
}

/// A Python index, which may count from the end, as an offset.
fn position(index: i128, len: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add(len as i128)? } else { index };
    usize::try_from(at).ok().filter(|&at| at < len)
}

fn char_at(text: &Text, index: i128) -> Option<Value> {
    let chars = text.as_str();
    let at = position(index, chars.chars().count())?;
    let (start, c) = chars.char_indices().nth(at)?;
    Some(Value::text(text.slice(start..start + c.len_utf8())))
}

/// `object[start:stop:step]`
pub(super) fn slice(object: &Value, [start, stop, step]: [Option<i128>; 3]) -> Res<Value> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return error("the step of a slice cannot be zero");
    }
    match object {
        Value::Str(text) => slice_text(text, start, stop, step),
        Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => {
            let picked = picks(seq.items.len(), start, stop, step);
            Value::seq(seq.kind, picked.map(|at| seq.items[at].clone()).collect())
        }
        Value::Undefined(what) => error(what.as_ref()),
        _ => error(format!("'{}' object cannot be sliced", object.kind())),
    }
}

fn slice_text(text: &Text, start: Option<i128>, stop: Option<i128>, step: i128) -> Res<Value> {
    let chars = text.as_str();
    let len = chars.chars().count();
    let mut picked = picks(len, start, stop, step).peekable();
    if step == 1 {
        let offset = |at: usize| chars.char_indices().nth(at).map_or(chars.len(), |(offset, _)| offset);
        let first = picked.peek().copied().unwrap_or(0);
        return Ok(Value::text(text.slice(offset(first)..offset(first + picked.count()))));
    }
    super::room_for_items(len)?;
    let offsets: Vec<usize> = chars.char_indices().map(|(at, _)| at).chain([chars.len()]).collect();
    let mut out = Text::default();
    picked.for_each(|at| out.push(&text.slice(offsets[at]..offsets[at + 1])));
    Ok(Value::text(out))
}

/// The offsets a slice picks.
fn picks(len: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> impl Iterator<Item = usize> {
    let len = len as i128;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |bound: i128| if bound < 0 { bound.saturating_add(len).max(low) } else { bound.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    let inside = move |at: &i128| if step > 0 { *at < stop } else { *at > stop };
    std::iter::successors(Some(start), move |at| at.checked_add(step))
        .take_while(inside)
        .map(|at| at as usize)
}
