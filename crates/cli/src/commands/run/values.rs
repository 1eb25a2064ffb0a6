//! Outputs of a model as they are: tensors, texts, lists; in a table, and as JSON.

use anyhow::Result;
use kinglet::graphs::{Value as Output, ValueArray, floats};
use kinglet::tensor::{DType, Tensor};
use serde_json::{Value, json};

use crate::ui::{Table, Ui, brief};

/// So many elements of a list, and texts of a tensor, are shown in a table.
const SHOWN: usize = 20;

/// Name, type, shape and range of each tensor.
pub(super) fn list(outputs: &[Tensor], ui: &Ui) -> Result<()> {
    let mut table = table();
    outputs.iter().for_each(|tensor| {
        table.row(row(tensor.name(), tensor));
    });
    ui.line(table)
}

/// The same of any outputs, elements of lists among them; then the texts.
pub(super) fn print(outputs: &[(String, Output)], ui: &Ui) -> Result<()> {
    let (mut table, mut texts) = (table(), Vec::new());
    outputs.iter().for_each(|(name, value)| rows(name, value, &mut table, &mut texts));
    ui.line(table)?;
    for (name, list) in texts {
        let shown: Vec<String> = list.iter().take(SHOWN).map(|text| brief(text, 200)).collect();
        let more = if list.len() > SHOWN { ", …" } else { "" };
        ui.line(format_args!("{}: {}{more}", brief(&name, 60), shown.join(", ")))?;
    }
    Ok(())
}

fn table() -> Table {
    Table::new(&["OUTPUT", "TYPE", "SHAPE", ">LEAST", ">MOST"])
}

fn rows(name: &str, value: &Output, table: &mut Table, texts: &mut Vec<(String, Vec<String>)>) {
    let mut plain = |kind: &str, shape: String| {
        table.row([brief(name, 60), kind.to_owned(), shape, String::new(), String::new()]);
    };
    match value {
        Output::Nothing => plain("nothing", String::new()),
        Output::Tensor(array) => match array.clone().into_tensor(name) {
            Some(tensor) => {
                table.row(row(name, &tensor));
            }
            None => {
                plain("STRING", sizes(array.shape()));
                texts.push((name.to_owned(), array.as_texts().to_vec()));
            }
        },
        Output::Sequence(list) => {
            plain("list", list.len().to_string());
            let elements = list.iter().take(SHOWN).enumerate();
            elements.for_each(|(i, value)| rows(&format!("{name}[{i}]"), value, table, texts));
        }
    }
}

fn row(name: &str, tensor: &Tensor) -> [String; 5] {
    let values = floats(tensor).map(|array| array.data).unwrap_or_default();
    let [least, most] = range(&values).map_or_else(Default::default, |ends| ends.map(|x| format!("{x:.4}")));
    [brief(name, 60), tensor.dtype().to_string(), sizes(tensor.shape()), least, most]
}

/// The least and the largest number, NaN where there is one among them; none of nothing.
fn range(values: &[f32]) -> Option<[f32; 2]> {
    let first = *values.first()?;
    let spread = |[least, most]: [f32; 2], x: &f32| {
        let nan = x.is_nan() || least.is_nan();
        if nan { [f32::NAN; 2] } else { [least.min(*x), most.max(*x)] }
    };
    Some(values.iter().fold([first; 2], spread))
}

fn sizes(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ")
}

/// An output: `value` holds texts and lists, tensors of numbers have type and shape alone.
pub(super) fn json(name: &str, value: &Output) -> Value {
    match value {
        Output::Tensor(array) if array.dtype() != DType::Str => {
            json!({ "name": name, "dtype": array.dtype().name(), "shape": array.shape() })
        }
        Output::Tensor(array) => {
            json!({ "name": name, "dtype": "string", "shape": array.shape(), "value": content(value) })
        }
        Output::Sequence(_) => json!({ "name": name, "dtype": "list", "value": content(value) }),
        Output::Nothing => json!({ "name": name, "dtype": "optional", "value": null }),
    }
}

/// Lists within lists, down to numbers and texts.
fn content(value: &Output) -> Value {
    match value {
        Output::Nothing => Value::Null,
        Output::Sequence(list) => Value::Array(list.iter().map(content).collect()),
        Output::Tensor(array) => nested(array.shape(), &elements(array)),
    }
}

fn nested(shape: &[usize], elements: &[Value]) -> Value {
    let Some((count, inner)) = shape.split_first() else {
        return elements.first().cloned().unwrap_or_default();
    };
    let size: usize = inner.iter().product();
    Value::Array((0..*count).map(|i| nested(inner, &elements[i * size..][..size])).collect())
}

/// The elements in their order; none for types that have no numbers of their own.
fn elements(array: &ValueArray) -> Vec<Value> {
    let bytes = array.bytes();
    let count = array.shape().iter().product();
    match array.dtype() {
        DType::Str => array.as_texts().iter().map(|text| json!(text)).collect(),
        DType::Bool => bytes.iter().map(|b| json!(*b != 0)).collect(),
        DType::U8 => bytes.iter().map(|b| json!(b)).collect(),
        DType::I8 => bytes.iter().map(|b| json!(b.cast_signed())).collect(),
        DType::U16 => each(bytes, |b| json!(u16::from_le_bytes(b))),
        DType::I16 => each(bytes, |b| json!(i16::from_le_bytes(b))),
        DType::U32 => each(bytes, |b| json!(u32::from_le_bytes(b))),
        DType::I32 => each(bytes, |b| json!(i32::from_le_bytes(b))),
        DType::U64 => each(bytes, |b| json!(u64::from_le_bytes(b))),
        DType::I64 => each(bytes, |b| json!(i64::from_le_bytes(b))),
        DType::F64 => each(bytes, |b| json!(f64::from_le_bytes(b))),
        _ => match array.to_f32() {
            Some(values) => values.iter().map(|x| json!(x)).collect(),
            None => vec![Value::Null; count],
        },
    }
}

fn each<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> Value) -> Vec<Value> {
    bytes.as_chunks::<N>().0.iter().map(|b| one(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_tells_of_nan() {
        assert_eq!(range(&[]), None);
        assert_eq!(range(&[2.0, -1.0, f32::INFINITY]), Some([-1.0, f32::INFINITY]));
        let nan = range(&[2.0, f32::NAN, 1.0]).expect("numbers");
        assert!(nan.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn texts_and_lists_are_told_whole() {
        let texts = ValueArray::texts(vec![2, 1], vec!["a".into(), "b".into()]).expect("fills");
        let shown = json("t", &texts.into());
        assert_eq!(
            shown,
            json!({ "name": "t", "dtype": "string", "shape": [2, 1], "value": [["a"], ["b"]] })
        );
        let numbers = ValueArray::from_slice(DType::I64, vec![2], &[i64::MAX, -1]).expect("fills");
        let none = ValueArray::from_slice::<f32>(DType::F32, vec![0, 3], &[]).expect("fills");
        let one = ValueArray::from_slice(DType::F32, vec![], &[0.5f32]).expect("fills");
        let list = Output::Sequence(vec![numbers.into(), none.into(), one.clone().into(), Output::Nothing]);
        let shown = json("l", &list);
        assert_eq!(shown, json!({ "name": "l", "dtype": "list", "value": [[i64::MAX, -1], [], 0.5, null] }));
        assert_eq!(json("x", &one.into()), json!({ "name": "x", "dtype": "F32", "shape": [] }));
    }
}
