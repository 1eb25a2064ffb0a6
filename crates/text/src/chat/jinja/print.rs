//! Values as text: Python's `str`, `repr` and float notation.

use std::rc::Rc;

use super::text::Text;
use super::value::{Key, Seq, SeqKind, Value};

/// Python's `str`. Text that arrived with the conversation stays untrusted, and so does the notation around it.
pub(super) fn display(value: &Value) -> Rc<Text> {
    Rc::new(match value {
        Value::Str(text) => return text.clone(),
        Value::Undefined(_) => Text::default(),
        Value::None => Text::trusted("None"),
        Value::Bool(true) => Text::trusted("True"),
        Value::Bool(false) => Text::trusted("False"),
        Value::Int(value) => Text::trusted(value.to_string()),
        Value::Float(value) => Text::trusted(float(*value)),
        _ => repr(value),
    })
}

/// Python's `repr`.
pub(super) fn repr(value: &Value) -> Text {
    let mut out = Text::default();
    write_repr(&mut out, value);
    out
}

fn write_repr(out: &mut Text, value: &Value) {
    match value {
        Value::Str(text) => quote(out, text),
        Value::Undefined(_) => out.push_str("Undefined", true),
        Value::Seq(seq) => write_seq(out, seq),
        Value::Dict(dict) => {
            out.push_str("{", false);
            for (i, (key, value)) in dict.map.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" }, false);
                write_repr(out, &Key::value(key));
                out.push_str(": ", false);
                write_repr(out, value);
            }
            out.push_str("}", false);
        }
        Value::Namespace(_) | Value::Loop(_) | Value::Macro(_) | Value::Function(_) | Value::Method(_) => {
            out.push_str(&format!("<{}>", value.kind()), false);
        }
        plain => out.push(&display(plain)),
    }
}

fn write_seq(out: &mut Text, seq: &Seq) {
    let (open, close) = match seq.kind {
        SeqKind::List => ("[", "]"),
        SeqKind::Tuple if seq.items.len() == 1 => ("(", ",)"),
        SeqKind::Tuple => ("(", ")"),
        SeqKind::Lazy => return out.push_str("<generator>", false),
        SeqKind::View(name) => return write_view(out, name, seq),
    };
    out.push_str(open, false);
    write_items(out, seq);
    out.push_str(close, false);
}

fn write_items(out: &mut Text, seq: &Seq) {
    for (i, item) in seq.items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" }, false);
        write_repr(out, item);
    }
}

fn write_view(out: &mut Text, name: &str, seq: &Seq) {
    out.push_str(name, false);
    out.push_str("([", false);
    write_items(out, seq);
    out.push_str("])", false);
}

fn quote(out: &mut Text, text: &Text) {
    let double = text.as_str().contains('\'') && !text.as_str().contains('"');
    let mark = if double { "\"" } else { "'" };
    out.push_str(mark, false);
    out.push(&text.map(|piece| piece.chars().map(|c| escaped(c, double)).collect()));
    out.push_str(mark, false);
}

fn escaped(c: char, double: bool) -> String {
    match c {
        '\\' => "\\\\".into(),
        '\'' if !double => "\\'".into(),
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\t' => "\\t".into(),
        c if is_printable(c) => c.into(),
        c if (c as u32) < 0x100 => format!("\\x{:02x}", c as u32),
        c if (c as u32) < 0x10000 => format!("\\u{:04x}", c as u32),
        c => format!("\\U{:08x}", c as u32),
    }
}

fn is_printable(c: char) -> bool {
    // Behind another character combining marks count as printable, as they do in Python.
    matches!(c, '"' | '\'')
        || !['a', c].iter().collect::<String>().escape_debug().any(|escaped| escaped == '\\')
}

/// The shortest notation that reads back as the same number, laid out as Python does.
pub(super) fn float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        exponent @ -4..16 if exponent >= 0 => {
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
            (1.7976931348623157e308, "1.7976931348623157e+308"),
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
            assert_eq!(repr(&Value::text(Text::trusted(text))).as_str(), expected);
        }
    }
}
