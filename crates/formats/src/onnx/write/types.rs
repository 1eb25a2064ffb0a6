//! Types of values as messages, and which version of the file format a set of operators asks for.

use kinglet_graph::{Dim, Graph, Type};
use kinglet_tensor::DType;

use super::tensor::number_of;
use crate::onnx::proto::{self, DimensionValue, TypeValue};

/// The message of a type; none when nothing is known of the elements.
pub(super) fn message(graph: &Graph, ty: &Type) -> Option<proto::Type> {
    let element = |ty: &Type| {
        let elem_type = Some(Box::new(message(graph, ty)?));
        Some(Box::new(proto::ElementType { elem_type }))
    };
    let value = match ty {
        Type::Tensor(ty) => {
            let dim = ty.shape.iter().map(|dim| dimension(graph, *dim)).collect();
            let elem_type = number_of(ty.dtype)?;
            TypeValue::Tensor(proto::TensorType { elem_type, shape: Some(proto::Shape { dim }) })
        }
        Type::Sequence(e) => TypeValue::Sequence(element(e)?),
        Type::Optional(e) => TypeValue::Optional(element(e)?),
        Type::Unknown | Type::Absent => return None,
    };
    Some(proto::Type { value: Some(value) })
}

/// The message of a tensor type of which only the elements are known.
pub(super) fn element(dtype: DType) -> Option<proto::Type> {
    let tensor = proto::TensorType { elem_type: number_of(dtype)?, shape: None };
    Some(proto::Type { value: Some(TypeValue::Tensor(tensor)) })
}

/// The set of operators that first took elements of this type.
pub(super) fn opset_of(dtype: DType) -> i64 {
    match dtype {
        DType::F8E4M3 | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 19,
        DType::I4 | DType::U4 => 21,
        DType::F4E2M1 => 23,
        DType::F8E8M0 => 24,
        DType::I2 | DType::U2 => 25,
        _ => 1,
    }
}

fn dimension(graph: &Graph, dim: Dim) -> proto::Dimension {
    let value = match dim {
        Dim::Fixed(n) => Some(DimensionValue::Value(n as i64)),
        Dim::Sym(s) => graph.dims().get(s).map(|d| DimensionValue::Param(d.name.clone())),
        Dim::Unknown => None,
    };
    proto::Dimension { value }
}

/// The version of the file format that came with a set of operators.
pub(super) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        25..=26 => 13,
        _ => 14,
    }
}
