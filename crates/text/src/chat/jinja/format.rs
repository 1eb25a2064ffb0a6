//! Python's two ways of filling in a string: `'…' % values` and `'…'.format(values)`.

use super::call::Given;
use super::text::Text;
use super::value::{SeqKind, Value};
use super::{Res, error, ops, print, room};

/// Largest width and precision of a field.
const MAX_WIDTH: usize = 10_000;

/// How a field is laid out: `[[fill]align][sign][0][width][.precision][type]`.
#[derive(Debug, Default)]
struct Spec {
    fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    align: Option<char>,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
}

/// `template % values`
pub(super) fn percent(template: &Text, values: &Value) -> Res<Value> {
    let args = match values {
        Value::Seq(seq) if seq.kind == SeqKind::Tuple => seq.items.clone(),
        other => vec![other.clone()],
    };
    let mut args = args.iter();
    let mut out = Text::default();
    let mut rest = template.as_str();
    while let Some(at) = rest.find('%') {
        out.push(&template.part(&rest[..at]));
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| c.is_ascii_alphabetic() || c == '%');
        let Some(end) = end else { return error("a '%' is not followed by a format") };
        let kind = rest.as_bytes()[end] as char;
        let spec = percent_spec(&rest[..end], kind)?;
        rest = &rest[end + 1..];
        if kind == '%' {
            out.push_str("%", true);
            continue;
        }
        let Some(arg) = args.next() else { return error("not enough arguments for the format string") };
        fill(&mut out, arg, &spec)?;
    }
    out.push(&template.part(rest));
    let unused = args.next().is_some_and(|arg| !matches!(arg, Value::Dict(_)));
    if unused { error("not all arguments are used by the format string") } else { Ok(Value::text(out)) }
}

fn percent_spec(flags: &str, kind: char) -> Res<Spec> {
    let digits = flags.trim_start_matches(['-', '+', ' ', '0', '#']);
    let (width, precision) = digits.split_once('.').map_or((digits, None), |(w, p)| (w, Some(p)));
    let set = &flags[..flags.len() - digits.len()];
    let align = if set.contains('-') { '<' } else { '>' };
    let zero = set.contains('0') && align == '>';
    Ok(Spec {
        fill: zero.then_some('0'),
        align: Some(if zero { '=' } else { align }),
        plus: set.contains('+'),
        width: number(width)?,
        precision: precision.map(number).transpose()?,
        kind: Some(if kind == 'i' || kind == 'u' { 'd' } else { kind }),
    })
}

fn number(digits: &str) -> Res<usize> {
    if digits.is_empty() {
        return Ok(0);
    }
    let number = digits.parse().ok().filter(|&number| number <= MAX_WIDTH);
    number.map_or_else(|| error(format!("'{digits}' is no width of a format")), Ok)
}

/// `template.format(…)`
pub(super) fn braces(template: &Text, given: &Given) -> Res<Value> {
    let mut out = Text::default();
    let mut rest = template.as_str();
    let mut auto = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&template.part(&rest[..at]));
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            out.push(&template.part(&rest[..1]));
            rest = &rest[1..];
            continue;
        }
        let Some(end) = rest.find('}').filter(|_| brace == "{") else {
            return error("a single brace in a format string");
        };
        field(&mut out, &rest[..end], given, &mut auto)?;
        rest = &rest[end + 1..];
    }
    out.push(&template.part(rest));
    Ok(Value::text(out))
}

/// One `{name!conversion:spec}`.
fn field(out: &mut Text, field: &str, given: &Given, auto: &mut usize) -> Res<()> {
    let (path, spec) = field.split_once(':').unwrap_or((field, ""));
    let (path, conversion) = path.split_once('!').unwrap_or((path, ""));
    let value = lookup(path, given, auto)?;
    let value = match conversion {
        "" => value,
        "s" => Value::Str(print::display(&value)),
        "r" => Value::text(print::repr(&value)),
        other => return error(format!("unknown conversion '{other}' in a format string")),
    };
    fill(out, &value, &brace_spec(spec)?)
}

fn lookup(path: &str, given: &Given, auto: &mut usize) -> Res<Value> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, mut rest) = path.split_at(end);
    let found = if name.is_empty() {
        *auto += 1;
        given.args.get(*auto - 1).cloned()
    } else if let Ok(index) = name.parse::<usize>() {
        given.args.get(index).cloned()
    } else {
        given.named.iter().find(|(key, _)| key.as_ref() == name).map(|(_, value)| value.clone())
    };
    let Some(mut value) = found else {
        return error(format!("nothing given for '{name}' of a format string"));
    };
    while !rest.is_empty() {
        let inner = &rest[1..];
        let end = inner.find(if rest.starts_with('[') { "]" } else { "." }).unwrap_or(inner.len());
        let end = if rest.starts_with('.') { inner.find(['.', '[']).unwrap_or(inner.len()) } else { end };
        value = match (rest.starts_with('['), inner[..end].parse()) {
            (true, Ok(index)) => ops::item(&value, &Value::Int(index))?,
            (true, _) => ops::item(&value, &Value::text(Text::trusted(&inner[..end])))?,
            _ => ops::attribute(&value, &inner[..end])?,
        };
        rest = inner[end..].trim_start_matches(']');
    }
    Ok(value)
}

fn brace_spec(spec: &str) -> Res<Spec> {
    let mut parsed = Spec::default();
    let is_align = |c: &char| matches!(c, '<' | '>' | '^' | '=');
    let mut chars = spec.chars();
    let (first, second) = (chars.next(), chars.next());
    let mut rest = spec;
    if let Some(align) = second.filter(is_align) {
        (parsed.fill, parsed.align) = (first, Some(align));
        rest = &spec[first.map_or(0, char::len_utf8) + 1..];
    } else if let Some(align) = first.filter(is_align) {
        parsed.align = Some(align);
        rest = &spec[1..];
    }
    parsed.plus = rest.starts_with('+');
    rest = rest.trim_start_matches(['+', '-', ' ']);
    if let Some(digits) = rest.strip_prefix('0').filter(|_| parsed.align.is_none()) {
        (parsed.fill, parsed.align, rest) = (Some('0'), Some('='), digits);
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    parsed.width = number(&rest[..end])?;
    rest = &rest[end..];
    if let Some(precision) = rest.strip_prefix('.') {
        let end = precision.find(|c: char| !c.is_ascii_digit()).unwrap_or(precision.len());
        parsed.precision = Some(number(&precision[..end])?);
        rest = &precision[end..];
    }
    let mut kinds = rest.chars();
    parsed.kind = kinds.next();
    if kinds.next().is_some() { error(format!("'{spec}' is no format")) } else { Ok(parsed) }
}

/// Writes `value` as `spec` says.
fn fill(out: &mut Text, value: &Value, spec: &Spec) -> Res<()> {
    room(out.len().saturating_add(spec.width).saturating_add(spec.precision.unwrap_or(0)))?;
    let body = body(value, spec)?;
    let missing = spec.width.saturating_sub(body.as_str().chars().count());
    let numeric = value.number().is_some() && !matches!(spec.kind, Some('s' | 'r'));
    let (before, after) = match spec.align.unwrap_or(if numeric { '>' } else { '<' }) {
        '<' => (0, missing),
        '^' => (missing / 2, missing - missing / 2),
        _ => (missing, 0),
    };
    let pad = |count: usize| spec.fill.unwrap_or(' ').to_string().repeat(count);
    let sign = if spec.align == Some('=') && body.as_str().starts_with(['-', '+']) { 1 } else { 0 };
    out.push(&body.slice(0..sign));
    out.push_str(&pad(before), true);
    out.push(&body.slice(sign..body.len()));
    out.push_str(&pad(after), true);
    room(out.len())
}

fn body(value: &Value, spec: &Spec) -> Res<Text> {
    let signed = |digits: String| match spec.plus && !digits.starts_with('-') {
        true => Text::trusted(format!("+{digits}")),
        false => Text::trusted(digits),
    };
    let precision = spec.precision.unwrap_or(6);
    match (spec.kind, value.int(), value.number()) {
        (Some('r'), ..) => Ok(print::repr(value)),
        (Some('d'), Some(int), _) => Ok(signed(int.to_string())),
        (Some('d'), None, Some(float)) => Ok(signed(format!("{}", float.trunc()))),
        (Some('x'), Some(int), _) => Ok(signed(format!("{int:x}"))),
        (Some('f' | 'F'), _, Some(float)) => Ok(signed(format!("{float:.precision$}"))),
        (Some('s') | None, ..) => {
            let text = print::display(value);
            let cut = spec.precision.and_then(|n| text.as_str().char_indices().nth(n));
            Ok(text.slice(0..cut.map_or(text.len(), |(at, _)| at)))
        }
        (Some(kind), ..) => error(format!("format '{kind}' does not go with '{}'", value.kind())),
    }
}
