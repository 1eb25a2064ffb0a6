//! Reading a request's fields one by one, with errors that name the field.
//!
//! Null counts as absent, as OpenAI has it.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// A request's JSON object.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(ApiError::invalid("The JSON body of your request must be an object.")),
            Err(error) => {
                Err(ApiError::invalid(format!("We could not parse the JSON body of your request: {error}.")))
            }
        }
    }

    /// An object within a request.
    pub(crate) fn of(fields: Map<String, Value>) -> Self {
        Fields(fields)
    }

    /// Takes a field out, whatever it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        let missing = || format!("Missing required parameter: '{name}'.");
        self.take(name).ok_or_else(|| ApiError::field(name, "missing_required_parameter", missing()))
    }

    pub(crate) fn bool(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "a boolean", |value| value.as_bool())
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.typed(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        self.typed(name, "an object", |value| value.as_object().cloned())
    }

    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(number) = self.typed(name, "a number", Value::as_f64)? else { return Ok(None) };
        if !range.contains(&number) {
            return Err(out_of_range(name, &number, range.start(), range.end()));
        }
        Ok(Some(number as f32))
    }

    pub(crate) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ApiError> {
        let integer =
            |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        let Some(number) = self.typed(name, "an integer", integer)? else { return Ok(None) };
        let fits = usize::try_from(number).ok().filter(|number| range.contains(number));
        fits.map(Some).ok_or_else(|| out_of_range(name, &number, range.start(), range.end()))
    }

    /// Any 64-bit integer; negative ones wrap.
    pub(crate) fn seed(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let seed = |value: &Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        self.typed(name, "an integer", seed)
    }

    /// An error if the field asks for anything but `harmless`.
    pub(crate) fn unsupported(&mut self, name: &str, harmless: &[Value]) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !harmless.contains(&value) => Err(ApiError::unsupported(name)),
            _ => Ok(()),
        }
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| wrong_type(name, expected, &value))
    }
}

/// The error for a value of another type than expected.
pub(crate) fn wrong_type(name: &str, expected: &str, value: &Value) -> ApiError {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let message = format!("Invalid type for '{name}': expected {expected}, but got {got} instead.");
    ApiError::field(name, "invalid_type", message)
}

/// The error for a value that the field cannot have.
pub(crate) fn wrong_value(name: &str, value: &str, expected: &str) -> ApiError {
    let message = format!("Invalid value for '{name}': '{value}'. Expected {expected}.");
    ApiError::field(name, "invalid_value", message)
}

fn out_of_range(name: &str, value: &dyn Display, low: &dyn Display, high: &dyn Display) -> ApiError {
    wrong_value(name, &value.to_string(), &format!("a value from {low} to {high}"))
}
