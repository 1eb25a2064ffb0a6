//! Tests: what stands behind `is`.

use super::ast::Compare;
use super::call::Given;
use super::execute::Vm;
use super::value::{SeqKind, Value};
use super::{Res, error, ops};

impl Vm {
    /// `value is name(given)`
    pub(super) fn test(&mut self, name: &str, value: &Value, mut given: Given) -> Res<bool> {
        self.spend(1)?;
        if let Some(kind) = is_kind(name, value) {
            return Ok(kind);
        }
        self.spend(value.cost() + given.cost())?;
        let compare = match name {
            "==" | "eq" | "equalto" => Compare::Eq,
            "!=" | "ne" => Compare::Ne,
            "<" | "lt" | "lessthan" => Compare::Lt,
            "<=" | "le" => Compare::Le,
            ">" | "gt" | "greaterthan" => Compare::Gt,
            ">=" | "ge" => Compare::Ge,
            "in" => Compare::In,
            _ => return by_argument(name, value, given),
        };
        let [other] = given.bind(name, ["other"])?;
        other.map_or_else(
            || error(format!("test '{name}' needs an argument")),
            |other| ops::compare(compare, value, &other),
        )
    }
}

/// Tests of what a value is.
fn is_kind(name: &str, value: &Value) -> Option<bool> {
    Some(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "boolean" => matches!(value, Value::Bool(_)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.number().is_some(),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => matches!(value, Value::Str(_) | Value::Seq(_) | Value::Dict(_) | Value::Undefined(_)),
        "sequence" => match value {
            Value::Seq(seq) => matches!(seq.kind, SeqKind::List | SeqKind::Tuple),
            _ => matches!(value, Value::Str(_) | Value::Dict(_) | Value::Undefined(_)),
        },
        "callable" => {
            matches!(value, Value::Function(_) | Value::Macro(_) | Value::Method(_) | Value::Undefined(_))
        }
        "escaped" => false,
        "upper" => {
            value.str().is_some_and(|text| is_cased(text.as_str(), char::is_uppercase, char::is_lowercase))
        }
        "lower" => {
            value.str().is_some_and(|text| is_cased(text.as_str(), char::is_lowercase, char::is_uppercase))
        }
        _ => return None,
    })
}

fn is_cased(text: &str, is: fn(char) -> bool, is_other: fn(char) -> bool) -> bool {
    text.chars().any(is) && !text.chars().any(is_other)
}

fn by_argument(name: &str, value: &Value, mut given: Given) -> Res<bool> {
    let modulo = |by: i128| match value.int() {
        Some(int) if by != 0 => Ok(int.checked_rem(by) == Some(0)),
        _ => error(format!("test '{name}' needs integers, and none to divide by zero")),
    };
    match name {
        "even" => modulo(2),
        "odd" => modulo(2).map(|even| !even),
        "divisibleby" => {
            let [by] = given.bind(name, ["num"])?;
            modulo(by.as_ref().and_then(Value::int).unwrap_or(0))
        }
        "sameas" => {
            let [other] = given.bind(name, ["other"])?;
            Ok(other.is_some_and(|other| other.kind() == value.kind() && other.equals(value)))
        }
        _ => error(format!("no test named '{name}'")),
    }
}
