//! Filters and tests that differ from MiniJinja's: by Python's rules, or because they count what they make.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, FormatStyle, State, Value, filters, format_filter};

use super::methods::{is_space, replaced, split_lines};
use super::{Meter, Res, fail, from_json, json, ops, python};

/// Filters of MiniJinja that Jinja2 lacks, some of which could make much of little.
const ABSENT: [&str; 7] = ["split", "lines", "chain", "zip", "pprint", "bool", "groupby"];
/// Most rows or columns of `batch` and `slice`, and widest field of a format.
const MAX_COUNT: usize = 10_000;

/// Replaces what differs.
pub(super) fn install(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    ABSENT.iter().for_each(|name| env.remove_filter(name));
    texts(env, meter);
    scalars(env, meter);
    lists(env, meter);
    tests(env, meter);
}

/// Filters that make text.
fn texts(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    env.add_filter("tojson", move |value: Value, options: Kwargs| json::to_json(&m, &value, &options));
    let m = meter.clone();
    env.add_filter("from_json", move |value: Value| {
        m.make(value.as_str().map_or(0, str::len).saturating_mul(size_of::<Value>()))?;
        match serde_json::from_str(value.as_str().unwrap_or_default()) {
            Ok(json) => Ok(from_json(&json)),
            Err(reason) => fail(format!("from_json: {reason}")),
        }
    });
    let m = meter.clone();
    env.add_filter("string", move |value: Value| python::display(&m, &value));
    let m = meter.clone();
    env.add_filter("trim", move |value: Value, set: Option<String>| {
        let text = python::display(&m, &value)?;
        m.text(match set {
            Some(set) => text.trim_matches(|c| set.contains(c)),
            None => text.trim_matches(is_space),
        })
    });
    let m = meter.clone();
    env.add_filter("replace", move |value: Value, old: Value, new: Value, count: Option<usize>| {
        let text = python::display(&m, &value)?;
        replaced(&m, &text, &python::display(&m, &old)?, &python::display(&m, &new)?, count)
    });
    let m = meter.clone();
    env.add_filter("indent", move |value: Value, args: Rest<Value>| indent(&m, &value, &args));
    let m = meter.clone();
    env.add_filter("join", move |value: Value, args: Rest<Value>| join(&m, &value, &args));
    let m = meter.clone();
    env.add_filter("format", move |value: Value, args: Rest<Value>| {
        formatted(&m, FormatStyle::Printf, value.as_str().unwrap_or_default(), &args)
    });
}

/// Filters that make numbers, or text for HTML.
fn scalars(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    for name in ["escape", "e"] {
        let m = meter.clone();
        env.add_filter(name, move |value: Value| ops::escaped(&m, &value).map(Value::from_safe_string));
    }
    env.add_filter("int", |value: Value, default: Option<Value>| {
        let parsed = match (value.as_str().map(str::trim), ops::number(&value)) {
            (Some(text), _) => {
                text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().map(|x| x as i64))
            }
            (None, Some(ops::Number::Float(number))) => Some(number as i64),
            (None, Some(ops::Number::Int(int))) => i64::try_from(int).ok(),
            (None, None) => None,
        };
        parsed.map_or_else(|| default.unwrap_or(Value::from(0)), Value::from)
    });
    env.add_filter("float", |value: Value, default: Option<Value>| {
        let parsed = match (value.as_str(), ops::number(&value)) {
            (Some(text), _) => text.trim().parse().ok(),
            (None, number) => number.map(ops::float),
        };
        parsed.map_or_else(|| default.unwrap_or(Value::from(0.0)), Value::from)
    });
}

/// Filters on sequences.
fn lists(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    for name in ["length", "count"] {
        env.add_filter(name, |value: Value| match (value.kind(), value.as_str(), value.len()) {
            (ValueKind::Undefined, ..) => Ok(0),
            (_, Some(text), _) => Ok(text.chars().count()),
            (_, None, Some(len)) => Ok(len),
            (ValueKind::Seq | ValueKind::Iterable, ..) => Ok(value.try_iter()?.count()),
            (kind, ..) => fail(format!("a {kind} has no length")),
        });
    }
    let m = meter.clone();
    env.add_filter("list", move |value: Value| ops::each(&m, &value).map(Value::from));
    let m = meter.clone();
    env.add_filter("items", move |value: Value| items(&m, &value));
    let m = meter.clone();
    env.add_filter("reverse", move |value: Value| {
        let mut items = ops::each(&m, &value)?;
        items.reverse();
        Ok::<_, minijinja::Error>(match value.as_str() {
            Some(_) => Value::from(items.iter().filter_map(Value::as_str).collect::<String>()),
            None => Value::from(items),
        })
    });
    let m = meter.clone();
    env.add_filter("sort", move |state: &State<'_, '_>, value: Value, options: Kwargs| {
        ops::weigh(&m, &value, 0)?;
        filters::sort(state, value, options)
    });
    let m = meter.clone();
    env.add_filter("unique", move |state: &State<'_, '_>, value: Value, options: Kwargs| {
        ops::weigh(&m, &value, 0)?;
        filters::unique(state, value, options)
    });
    env.add_filter("batch", |state: &State<'_, '_>, value: Value, count: usize, fill: Option<Value>| {
        filters::batch(state, value, at_most(count)?, fill)
    });
    env.add_filter("slice", |state: &State<'_, '_>, value: Value, count: usize, fill: Option<Value>| {
        filters::slice(state, value, at_most(count)?, fill)
    });
}

fn at_most(count: usize) -> Res<usize> {
    if count > MAX_COUNT { fail(format!("more than {MAX_COUNT} rows")) } else { Ok(count) }
}

fn tests(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    use ValueKind::{Bool, Iterable, Map, Number, Plain, Seq, String, Undefined};
    env.add_test("sequence", |value: &Value| matches!(value.kind(), Seq | String | Map | Undefined));
    env.add_test("iterable", |value: &Value| {
        matches!(value.kind(), Seq | Iterable | String | Map | Undefined)
    });
    env.add_test("number", |value: &Value| matches!(value.kind(), Number | Bool));
    env.add_test("callable", |value: &Value| value.kind() == Plain);
    for name in ["equalto", "eq", "=="] {
        let m = meter.clone();
        env.add_test(name, move |value: Value, other: Value| ops::equal(&m, &value, &other));
    }
}

/// The pairs of a dict.
pub(super) fn items(meter: &Meter, value: &Value) -> Res<Value> {
    if !matches!(value.kind(), ValueKind::Map | ValueKind::Undefined) {
        return fail(format!("a {} has no items", value.kind()));
    }
    meter.items(value.len().unwrap_or(0).saturating_mul(3))?;
    Ok(Value::from(ops::pairs(value).map(|(key, value)| Value::from(vec![key, value])).collect::<Vec<_>>()))
}

/// Positional and named arguments in the order of `names`.
fn bind<const N: usize>(args: &[Value], names: [&str; N]) -> Res<[Option<Value>; N]> {
    let (named, positional) = match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => (Kwargs::try_from(last.clone())?, rest),
        _ => (Kwargs::try_from(Value::from(Kwargs::from_iter(std::iter::empty::<(&str, Value)>())))?, args),
    };
    if positional.len() > N {
        return fail("too many arguments");
    }
    let mut bound = [const { None }; N];
    for (i, name) in names.iter().enumerate() {
        bound[i] = positional.get(i).cloned().or(named.get(name)?);
    }
    named.assert_all_used()?;
    Ok(bound)
}

fn join(meter: &Meter, value: &Value, args: &[Value]) -> Res<Value> {
    let [separator, attribute] = bind(args, ["d", "attribute"])?;
    let separator = separator.map_or_else(|| Ok(String::new()), |value| python::display(meter, &value))?;
    let mut out = String::new();
    for (i, mut item) in ops::each(meter, value)?.into_iter().enumerate() {
        if let Some(path) = attribute.as_ref().and_then(Value::as_str) {
            item = path.split('.').try_fold(item, |value, name| value.get_attr(name))?;
        }
        let text = python::display(meter, &item)?;
        meter.make(separator.len())?;
        out.push_str(if i > 0 { &separator } else { "" });
        out.push_str(&text);
    }
    Ok(Value::from(out))
}

fn indent(meter: &Meter, value: &Value, args: &[Value]) -> Res<Value> {
    let text = python::display(meter, value)?;
    let [width, first, blank] = bind(args, ["width", "first", "blank"])?;
    let unit = match width.as_ref().map(|width| (width.as_str(), width.as_usize())) {
        None => "    ".to_owned(),
        Some((Some(unit), _)) => unit.to_owned(),
        Some((_, Some(width))) => {
            meter.make(width)?;
            " ".repeat(width)
        }
        _ => return fail("indent needs an integer or a string"),
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let (first, blank) = (is_set(first), is_set(blank));
    let mut lines = split_lines(&text);
    // A final line end leaves an empty line, which Python's splitlines does not count.
    if text.is_empty() || text.ends_with('\n') {
        lines.push("");
    }
    meter.make(unit.len().saturating_mul(lines.len()).saturating_add(text.len()))?;
    let mut out = String::new();
    for (i, line) in lines.into_iter().enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&unit);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

/// `template % values`
pub(super) fn percent(meter: &Meter, template: &str, values: &Value) -> Res<Value> {
    let args = match values.kind() {
        ValueKind::Seq => ops::each(meter, values)?,
        _ => vec![values.clone()],
    };
    formatted(meter, FormatStyle::Printf, template, &args)
}

/// A format string filled in, unless it asks for wide fields.
pub(super) fn formatted(meter: &Meter, style: FormatStyle, template: &str, args: &[Value]) -> Res<Value> {
    let mut digits = template.split(|c: char| !c.is_ascii_digit());
    let wide =
        digits.any(|digits| digits.parse::<usize>().map_or(!digits.is_empty(), |width| width > MAX_COUNT));
    let computed = template.contains(":{") || (style == FormatStyle::Printf && template.contains('*'));
    if wide || computed {
        return fail("a format with fields this wide is not supported");
    }
    meter.make(template.len().saturating_mul(MAX_COUNT.min(template.len())))?;
    let mut plain = Vec::new();
    for arg in args {
        let as_text = matches!(arg.kind(), ValueKind::Bool | ValueKind::None | ValueKind::Seq);
        plain.push(if as_text { Value::from(python::display(meter, arg)?) } else { arg.clone() });
        meter.make(arg.as_str().map_or(64, str::len))?;
    }
    format_filter(style, template, &plain).map(Value::from)
}
