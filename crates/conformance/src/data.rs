//! Test data files: tensors, sequences and optionals in protobuf.

use std::path::Path;

use kinglet_cpu::{Array, Value};
use kinglet_formats::onnx::{NoExternal, proto, tensor};
use kinglet_tensor::{Bytes, DType};
use prost::Message;

/// `input_0.pb`, `input_1.pb`, ... of a folder.
pub(crate) fn arrays(folder: &Path, stem: &str, types: &[Kind]) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    for i in 0.. {
        let path = folder.join(format!("{stem}_{i}.pb"));
        if !path.is_file() {
            break;
        }
        let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
        values.push(value(bytes, types.get(i).copied().unwrap_or_default())?);
    }
    Ok(values)
}

/// How a file stores a value.
#[derive(Clone, Copy, Default)]
pub(crate) enum Kind {
    #[default]
    Tensor,
    Sequence,
    Optional,
}

impl Kind {
    /// What a model declares.
    pub(crate) fn of(info: &proto::ValueInfo) -> Self {
        match info.r#type.as_ref().and_then(|ty| ty.value.as_ref()) {
            Some(proto::TypeValue::Sequence(_)) => Self::Sequence,
            Some(proto::TypeValue::Optional(_)) => Self::Optional,
            _ => Self::Tensor,
        }
    }
}

/// A value of this kind from its file.
pub(crate) fn value(bytes: Vec<u8>, kind: Kind) -> Result<Value, String> {
    let bytes = Bytes::from(bytes);
    let fail = |e: prost::DecodeError| e.to_string();
    match kind {
        Kind::Sequence => sequence(&proto::Sequence::decode(bytes).map_err(fail)?),
        Kind::Optional => optional(&proto::Optional::decode(bytes).map_err(fail)?),
        Kind::Tensor => array(&proto::Tensor::decode(bytes).map_err(fail)?),
    }
}

fn array(message: &proto::Tensor) -> Result<Value, String> {
    if message.data_type == 8 {
        let shape = message.dims.iter().map(|n| *n as usize).collect();
        let texts = message.string_data.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
        return Array::texts(shape, texts).map(Value::from).ok_or_else(|| "bad texts".into());
    }
    let tensor = tensor(message, &NoExternal).map_err(|e| e.to_string())?;
    Ok(Array::from(&tensor).into())
}

fn sequence(message: &proto::Sequence) -> Result<Value, String> {
    let tensors = message.tensor_values.iter().map(array);
    let lists = message.sequence_values.iter().map(sequence);
    let optionals = message.optional_values.iter().map(optional);
    tensors.chain(lists).chain(optionals).collect::<Result<_, _>>().map(Value::Sequence)
}

fn optional(message: &proto::Optional) -> Result<Value, String> {
    match (&message.tensor_value, &message.sequence_value) {
        (Some(t), _) => array(t),
        (None, Some(s)) => sequence(s),
        (None, None) => Ok(Value::Nothing),
    }
}

/// The input of the light suite: `0, 1/n, 2/n, ..`.
pub(crate) fn ramp(shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f64 / n as f64) as f32).collect();
    let array = Array::new(DType::F32, shape.to_vec(), Bytes::copy_from_slice(bytemuck::cast_slice(&values)));
    array.map_or(Value::Nothing, Value::from)
}
