//! Values as text: Python's `str`, `repr` and float notation.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::{Meter, Res, ops};

/// Python's `str`.
pub(super) fn display(meter: &Meter, value: &Value) -> Res<String> {
    match value.as_str() {
        Some(text) => {
            meter.make(text.len())?;
            Ok(text.to_owned())
        }
        None if value.is_undefined() => Ok(String::new()),
        None => repr(meter, value),
    }
}

/// Python's `repr`.
pub(super) fn repr(meter: &Meter, value: &Value) -> Res<String> {
    ops::weigh(meter, value, 0)?;
    let mut out = String::new();
    write(meter, &mut out, value)?;
    Ok(out)
}

fn write(meter: &Meter, out: &mut String, value: &Value) -> Res<()> {
    match value.kind() {
        ValueKind::String => quote(meter, out, value.as_str().unwrap_or_default())?,
        ValueKind::Undefined => put(meter, out, "Undefined")?,
        ValueKind::None => put(meter, out, "None")?,
        ValueKind::Bool => put(meter, out, if value.is_true() { "True" } else { "False" })?,
        ValueKind::Number => match ops::number(value) {
            Some(ops::Number::Int(int)) => put(meter, out, &int.to_string())?,
            Some(ops::Number::Float(number)) => put(meter, out, &float(number))?,
            None => {}
        },
        ValueKind::Seq | ValueKind::Iterable => {
            put(meter, out, "[")?;
            for (i, item) in value.try_iter()?.enumerate() {
                put(meter, out, if i > 0 { ", " } else { "" })?;
                write(meter, out, &item)?;
            }
            put(meter, out, "]")?;
        }
        ValueKind::Map => {
            put(meter, out, "{")?;
            for (i, (key, value)) in ops::pairs(value).enumerate() {
                put(meter, out, if i > 0 { ", " } else { "" })?;
                write(meter, out, &key)?;
                put(meter, out, ": ")?;
                write(meter, out, &value)?;
            }
            put(meter, out, "}")?;
        }
        kind => put(meter, out, &format!("<{kind}>"))?,
    }
    Ok(())
}

fn put(meter: &Meter, out: &mut String, text: &str) -> Res<()> {
    meter.make(text.len())?;
    out.push_str(text);
    Ok(())
}

fn quote(meter: &Meter, out: &mut String, text: &str) -> Res<()> {
    meter.make(text.len())?;
    let double = text.contains('\'') && !text.contains('"');
    let mark = if double { '"' } else { '\'' };
    out.push(mark);
    text.chars().for_each(|c| escape(out, c, double));
    out.push(mark);
    Ok(())
}

fn escape(out: &mut String, c: char, double: bool) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\'' if !double => out.push_str("\\'"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_printable(c) => out.push(c),
        c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
        c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push_str(&format!("\\U{:08x}", c as u32)),
    }
}

fn is_printable(c: char) -> bool {
    // Behind another character combining marks count as printable, as they do in Python.
    matches!(c, '"' | '\'')
        || !['a', c].iter().collect::<String>().escape_debug().any(|escaped| escaped == '\\')
}

/// The shortest notation that reads back as the same number, laid out as Python does.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        0..16 => {
            let plain = format!("{value}");
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        -4..0 => format!("{value}"),
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        for (value, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (f64::MAX, "1.7976931348623157e+308"),
            (123456.789, "123456.789"),
        ] {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn strings_are_quoted_as_in_python() {
        for (text, expected) in [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("\\\n\u{1}\u{7f}é\u{301}\u{200b}\u{e000}", "'\\\\\\n\\x01\\x7fé\u{301}\\u200b\\ue000'"),
        ] {
            let meter = Meter { work: 1000.into(), bytes: 1000.into() };
            assert_eq!(repr(&meter, &Value::from(text)).unwrap(), expected);
        }
    }
}
