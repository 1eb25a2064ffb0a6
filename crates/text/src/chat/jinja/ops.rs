//! Operators, subscripts and iteration as Python defines them, counted.

use std::cmp::Ordering;
use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::{Meter, Res, fail, filters, limit, python};

/// Deepest nesting of lists and dicts in one another.
const MAX_DEPTH: usize = 160;
/// Longest list `range` makes, as in Jinja2's sandbox.
const MAX_RANGE: i64 = 100_000;

/// Adds the functions that [`source`](super::source) calls.
pub(super) fn install(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    env.add_function("__do", move |args: Rest<Value>| chain(&args, |op, a, b| arithmetic(&m, op, a, b)));
    let m = meter.clone();
    env.add_function("__compare", move |args: Rest<Value>| compare_chain(&m, &args));
    let m = meter.clone();
    env.add_function("__negate", move |value: Value| match number(&value) {
        Some(Number::Float(float)) => Ok(Value::from(-float)),
        _ => arithmetic(&m, "-", &Value::from(0), &value),
    });
    let m = meter.clone();
    env.add_function("__item", move |object: Value, index: Value| item(&m, &object, &index));
    let m = meter.clone();
    env.add_function("__slice", move |object: Value, start: Value, stop: Value, step: Value| {
        slice(&m, &object, [&start, &stop, &step])
    });
    let m = meter.clone();
    env.add_function("__each", move |value: Value| each(&m, &value).map(Value::from));
    let m = meter.clone();
    env.add_function("__look", move |value: Value| look(&m, &value).map(|()| value));
    let m = meter.clone();
    env.add_function("__hold", move |value: Value| match is_structure(&value) {
        true => Ok(value),
        false => weigh(&m, &value, 0).map(|()| value),
    });
    let m = meter.clone();
    env.add_function("__share", move |value: Value| weigh(&m, &value, 0).map(|()| value));
    env.add_function("__float", |text: &str| text.parse::<f64>().unwrap_or(f64::NAN));
}

/// Whether `value` is part of the machinery: a namespace, loop or macro, which may refer to itself.
fn is_structure(value: &Value) -> bool {
    let name = value.as_object().map_or("", |object| object.type_name());
    ["Namespace", "Loop", "Macro", "Closure"].iter().any(|part| name.ends_with(part))
}

/// Counts everything in `value`, and refuses what nests too deeply or holds itself.
pub(super) fn weigh(meter: &Meter, value: &Value, depth: usize) -> Res<()> {
    if depth > MAX_DEPTH {
        return Err(limit("nesting"));
    }
    meter.spend(1)?;
    match value.kind() {
        ValueKind::Map if is_structure(value) => fail("a namespace, loop or macro cannot be shared"),
        ValueKind::Map => pairs(value).try_for_each(|(_, value)| weigh(meter, &value, depth + 1)),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.try_for_each(|item| weigh(meter, &item, depth + 1))
        }
        ValueKind::String => meter.spend(value.as_str().map_or(0, str::len) / 32),
        _ => Ok(()),
    }
}

/// Counts the items of `value` itself.
pub(super) fn look(meter: &Meter, value: &Value) -> Res<()> {
    meter.spend(value.as_str().map_or_else(|| value.len().unwrap_or(1), |text| text.len() / 32))
}

/// Keys and values of a dict.
pub(super) fn pairs(value: &Value) -> Box<dyn Iterator<Item = (Value, Value)> + '_> {
    match value.as_object().and_then(|object| object.try_iter_pairs()) {
        Some(pairs) => pairs,
        None => Box::new(std::iter::empty()),
    }
}

/// What a loop over `value` goes through.
pub(super) fn each(meter: &Meter, value: &Value) -> Res<Vec<Value>> {
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            meter.items(text.len())?;
            Ok(text.chars().map(Value::from).collect())
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            meter.items(value.len().unwrap_or(1))?;
            let mut items = Vec::new();
            for item in value.try_iter()? {
                meter.items(1)?;
                items.push(item);
            }
            Ok(items)
        }
        kind => fail(format!("a {kind} has no items")),
    }
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

/// A number or, as in Python, a truth.
pub(super) fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Int(value.is_true().into())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Number::Int),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

pub(super) fn int(value: &Value) -> Option<i128> {
    match number(value) {
        Some(Number::Int(int)) => Some(int),
        _ => None,
    }
}

fn from_int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// `first op second op …`, from left to right.
fn chain(args: &[Value], apply: impl Fn(&str, &Value, &Value) -> Res<Value>) -> Res<Value> {
    let mut result = args.first().cloned().unwrap_or_default();
    for pair in args.get(1..).unwrap_or_default().chunks_exact(2) {
        result = apply(pair[0].as_str().unwrap_or_default(), &result, &pair[1])?;
    }
    Ok(result)
}

/// `left op right`
pub(super) fn arithmetic(meter: &Meter, op: &str, left: &Value, right: &Value) -> Res<Value> {
    if op == "~" {
        let mut text = python::display(meter, left)?;
        let right = python::display(meter, right)?;
        meter.make(text.len() + right.len())?;
        text.push_str(&right);
        return Ok(Value::from(text));
    }
    for side in [left, right] {
        if side.is_undefined() {
            return Err(Error::new(ErrorKind::UndefinedError, format!("undefined value beside '{op}'")));
        }
    }
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    match (op, left.as_str(), right.as_str()) {
        ("+", Some(a), Some(b)) => {
            meter.make(a.len() + b.len())?;
            return Ok(match left.is_safe() || right.is_safe() {
                true => Value::from_safe_string(escaped(meter, left)? + &escaped(meter, right)?),
                false => Value::from([a, b].concat()),
            });
        }
        ("%", Some(template), _) => return filters::percent(meter, template, right),
        ("*", Some(text), _) if int(right).is_some() => return repeat(meter, text, right),
        ("*", _, Some(text)) if int(left).is_some() => return repeat(meter, text, left),
        ("+", None, None) if is_list(left) && is_list(right) => {
            let mut items = each(meter, left)?;
            items.extend(each(meter, right)?);
            return Ok(Value::from(items));
        }
        ("*", None, None) if is_list(left) || is_list(right) => return repeat_list(meter, left, right),
        _ => {}
    }
    match (number(left), number(right)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => int_op(op, a, b),
        (Some(a), Some(b)) => float_op(op, float(a), float(b)),
        _ => fail(format!("'{op}' does not go with {} and {}", left.kind(), right.kind())),
    }
}

/// The text of a value for HTML, unless it is marked as that already.
pub(super) fn escaped(meter: &Meter, value: &Value) -> Res<String> {
    let text = python::display(meter, value)?;
    if value.is_safe() {
        return Ok(text);
    }
    meter.make(text.len().saturating_mul(5))?;
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(escaped.replace('"', "&#34;").replace('\'', "&#39;"))
}

pub(super) fn float(number: Number) -> f64 {
    match number {
        Number::Int(int) => int as f64,
        Number::Float(float) => float,
    }
}

fn times(count: &Value) -> usize {
    usize::try_from(int(count).unwrap_or(0).max(0)).unwrap_or(usize::MAX)
}

fn repeat(meter: &Meter, text: &str, count: &Value) -> Res<Value> {
    meter.make(text.len().saturating_mul(times(count)))?;
    Ok(Value::from(text.repeat(times(count))))
}

fn repeat_list(meter: &Meter, left: &Value, right: &Value) -> Res<Value> {
    let (list, count) = if int(right).is_some() { (left, right) } else { (right, left) };
    let items = each(meter, list)?;
    meter.items(items.len().saturating_mul(times(count)))?;
    let count = if items.is_empty() { 0 } else { times(count) };
    Ok(Value::from((0..count).flat_map(|_| items.iter().cloned()).collect::<Vec<_>>()))
}

fn int_op(op: &str, a: i128, b: i128) -> Res<Value> {
    let result = match op {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" => return float_op(op, a as f64, b as f64),
        "**" if b < 0 => return float_op(op, a as f64, b as f64),
        "**" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        _ if b == 0 => return fail("division by zero"),
        // Python rounds towards minus infinity.
        "//" => a.checked_div_euclid(b).map(|q| if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q }),
        _ => a.checked_rem_euclid(b).map(|r| if b < 0 && r != 0 { r + b } else { r }),
    };
    result.map_or_else(|| fail("the result is too large for an integer"), |value| Ok(from_int(value)))
}

fn float_op(op: &str, a: f64, b: f64) -> Res<Value> {
    Ok(Value::from(match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "**" => a.powf(b),
        _ if b == 0.0 => return fail("division by zero"),
        "/" => a / b,
        "//" => (a / b).floor(),
        _ => a - b * (a / b).floor(),
    }))
}

/// `first op second op …`, as far as it holds.
fn compare_chain(meter: &Meter, args: &[Value]) -> Res<bool> {
    for step in args.windows(3).step_by(2) {
        if !compare(meter, step[1].as_str().unwrap_or_default(), &step[0], &step[2])? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare(meter: &Meter, op: &str, left: &Value, right: &Value) -> Res<bool> {
    let order = |wanted: fn(Ordering) -> bool| Ok(order(meter, left, right)?.is_some_and(wanted));
    match op {
        "==" => equal(meter, left, right),
        "!=" => equal(meter, left, right).map(|equal| !equal),
        "<" => order(Ordering::is_lt),
        "<=" => order(Ordering::is_le),
        ">" => order(Ordering::is_gt),
        ">=" => order(Ordering::is_ge),
        "in" => contains(meter, right, left),
        _ => contains(meter, right, left).map(|found| !found),
    }
}

pub(super) fn equal(meter: &Meter, left: &Value, right: &Value) -> Res<bool> {
    match (left.as_str(), right.as_str(), number(left), number(right)) {
        (Some(a), Some(b), ..) => {
            meter.spend(1 + a.len().min(b.len()) / 32)?;
            Ok(a == b)
        }
        (_, _, Some(Number::Int(a)), Some(Number::Int(b))) => Ok(a == b),
        (_, _, Some(a), Some(b)) => Ok(float(a) == float(b)),
        _ if left.kind() != right.kind() => Ok(false),
        _ => {
            weigh(meter, left, 0)?;
            weigh(meter, right, 0)?;
            Ok(left == right)
        }
    }
}

fn order(meter: &Meter, left: &Value, right: &Value) -> Res<Option<Ordering>> {
    match (left.as_str(), right.as_str(), number(left), number(right)) {
        (Some(a), Some(b), ..) => {
            meter.spend(1 + a.len().min(b.len()) / 32)?;
            Ok(Some(a.cmp(b)))
        }
        (_, _, Some(Number::Int(a)), Some(Number::Int(b))) => Ok(Some(a.cmp(&b))),
        (_, _, Some(a), Some(b)) => Ok(float(a).partial_cmp(&float(b))),
        _ if left.kind() == ValueKind::Seq && right.kind() == ValueKind::Seq => {
            weigh(meter, left, 0)?;
            weigh(meter, right, 0)?;
            Ok(left.partial_cmp(right))
        }
        _ => fail(format!("{} and {} have no order", left.kind(), right.kind())),
    }
}

fn contains(meter: &Meter, container: &Value, item: &Value) -> Res<bool> {
    match (container.kind(), container.as_str(), item.as_str()) {
        (_, Some(text), Some(part)) => {
            meter.spend(1 + text.len() / 32)?;
            Ok(text.contains(part))
        }
        (ValueKind::Undefined, ..) => Ok(false),
        (ValueKind::Map, ..) => Ok(container.as_object().is_some_and(|map| map.get_value(item).is_some())),
        (ValueKind::Seq | ValueKind::Iterable, ..) => {
            for other in container.try_iter()? {
                if equal(meter, &other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (kind, ..) => fail(format!("a {kind} does not contain a {}", item.kind())),
    }
}

/// `object[index]`
fn item(meter: &Meter, object: &Value, index: &Value) -> Res<Value> {
    match (object.as_str(), int(index)) {
        (Some(text), Some(at)) => {
            meter.spend(1 + text.len() / 32)?;
            let count = text.chars().count() as i128;
            let at = usize::try_from(if at < 0 { at + count } else { at }).ok();
            Ok(at.and_then(|at| text.chars().nth(at)).map_or(Value::UNDEFINED, Value::from))
        }
        _ => object.get_item(index),
    }
}

/// `object[start:stop:step]`
fn slice(meter: &Meter, object: &Value, bounds: [&Value; 3]) -> Res<Value> {
    let bound = |value: &Value| match (value.is_none(), int(value)) {
        (true, _) => Ok(None),
        (_, Some(int)) => Ok(Some(int)),
        _ => fail("the bounds of a slice are integers"),
    };
    let [start, stop, step] = [bound(bounds[0])?, bound(bounds[1])?, bound(bounds[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("the step of a slice cannot be zero");
    }
    if let Some(text) = object.as_str() {
        meter.make(text.len())?;
        if step == 1 {
            let offset = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(offset, _)| offset);
            let mut picked = picks(text.chars().count(), start, stop, step).peekable();
            let first = picked.peek().copied().unwrap_or(0);
            return Ok(Value::from(&text[offset(first)..offset(first + picked.count())]));
        }
        meter.make(text.len().saturating_mul(size_of::<char>()))?;
        let chars: Vec<char> = text.chars().collect();
        return Ok(Value::from(
            picks(chars.len(), start, stop, step).map(|at| chars[at]).collect::<String>(),
        ));
    }
    if !matches!(object.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return fail(format!("a {} cannot be sliced", object.kind()));
    }
    let items = each(meter, object)?;
    let picked = picks(items.len(), start, stop, step).map(|at| items[at].clone());
    Ok(Value::from(picked.collect::<Vec<_>>()))
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

/// Python's `range`, as a list.
pub(super) fn range(meter: &Meter, bounds: &[i64]) -> Res<Value> {
    let (start, stop, step) = match *bounds {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        _ => return fail("range needs one to three integers and a step that is not zero"),
    };
    let span = if step > 0 { stop.checked_sub(start) } else { start.checked_sub(stop) };
    let count = span.map(|span| if span > 0 { (span - 1) / step.saturating_abs() + 1 } else { 0 });
    let Some(count) = count.filter(|&count| count <= MAX_RANGE) else {
        return fail(format!("range of more than {MAX_RANGE} numbers"));
    };
    meter.items(count as usize)?;
    Ok(Value::from((0..count).map(|i| Value::from(start + i * step)).collect::<Vec<_>>()))
}

/// Python's `dict`.
pub(super) fn dict(meter: &Meter, given: Option<Value>, named: &Kwargs) -> Res<Value> {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    match given {
        Some(map) if map.kind() == ValueKind::Map => entries.extend(pairs(&map)),
        Some(list) => {
            for pair in each(meter, &list)? {
                let [key, value] = &each(meter, &pair)?[..] else { return fail("a dict is made of pairs") };
                entries.push((key.clone(), value.clone()));
            }
        }
        None => {}
    }
    for name in named.args() {
        entries.push((Value::from(name), named.get(name)?));
    }
    meter.items(entries.len())?;
    Ok(entries.into_iter().collect())
}
