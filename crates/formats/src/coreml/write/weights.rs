//! Values and types as messages, and the weight file that large ones go to.

use kinglet_graph::TensorType;
use kinglet_tensor::{Bytes, DType, Tensor};

use crate::coreml::proto::{self, Elements, TypeKind};
use crate::coreml::value::Literal;

/// Constants of more elements go to the weight file.
const SMALL: usize = 10;
const SENTINEL: u32 = 0xDEAD_BEEF;
const RECORD: usize = 64;
/// The name by which a program calls its weight file.
const FILE: &str = "@model_path/weights/weight.bin";

/// A weight file in the making: storage version 2.
#[derive(Default)]
pub(super) struct Weights {
    pieces: Vec<Bytes>,
    len: u64,
    count: u32,
}

impl Weights {
    /// Adds a weight; where its record lies.
    fn add(&mut self, data: Bytes, storage: u32) -> u64 {
        if self.pieces.is_empty() {
            self.push(Bytes::from(vec![0; RECORD]));
        }
        let (at, size) = (self.len, data.len());
        let mut record = vec![0; RECORD];
        record[..4].copy_from_slice(&SENTINEL.to_le_bytes());
        record[4..8].copy_from_slice(&storage.to_le_bytes());
        record[8..16].copy_from_slice(&(size as u64).to_le_bytes());
        record[16..24].copy_from_slice(&(at + RECORD as u64).to_le_bytes());
        self.push(record.into());
        self.push(data);
        self.push(vec![0; size.next_multiple_of(RECORD) - size].into());
        self.count += 1;
        at
    }

    fn push(&mut self, piece: Bytes) {
        self.len += piece.len() as u64;
        self.pieces.push(piece);
    }

    /// The file: its head, then all weights.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        let mut head = vec![0; RECORD];
        head[..4].copy_from_slice(&self.count.to_le_bytes());
        head[4..8].copy_from_slice(&2u32.to_le_bytes());
        match self.pieces.first_mut() {
            Some(first) => *first = head.into(),
            None => self.pieces.push(head.into()),
        }
        self.pieces
    }
}

/// The element type that a program computes with in the place of another one.
pub(super) fn computed(dtype: DType, half: bool) -> Result<DType, String> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F64 => Ok(if half { DType::F16 } else { DType::F32 }),
        DType::Bool => Ok(DType::Bool),
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::U16 | DType::U32 => {
            Ok(DType::I32)
        }
        other => Err(format!("whose elements are {other}")),
    }
}

/// A constant, and the type that its elements have.
pub(super) fn value(
    tensor: &Tensor,
    half: bool,
    weights: &mut Weights,
) -> Result<(proto::Value, DType), String> {
    let dtype = computed(tensor.dtype(), half)?;
    let ty = Some(value_type(&TensorType::fixed(dtype, tensor.shape()), half));
    let literal = Literal::Tensor(tensor.clone());
    let elements = match dtype {
        DType::Bool => {
            Elements::Bools(proto::Bools { values: tensor.data().iter().map(|b| *b != 0).collect() })
        }
        DType::I32 => {
            let ints = literal.ints().ok_or("whose numbers cannot be read")?;
            // The ends of 64-bit numbers stand for the ends of dimensions.
            let narrow = |n: i64| n.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
            Elements::Ints(proto::Ints { values: ints.into_iter().map(narrow).collect() })
        }
        _ => {
            let values = floats(tensor, &literal)?;
            if tensor.elements() > SMALL {
                let (data, storage) = stored(tensor, values, half)?;
                let blob = proto::BlobValue { file: FILE.into(), offset: weights.add(data, storage) };
                return Ok((proto::Value { ty, blob: Some(blob), ..Default::default() }, dtype));
            }
            match half {
                true => Elements::Bytes(proto::RawBytes { values: halves(&values)? }),
                false => Elements::Floats(proto::Floats { values }),
            }
        }
    };
    Ok((immediate(ty, elements), dtype))
}

fn floats(tensor: &Tensor, literal: &Literal) -> Result<Vec<f32>, String> {
    if tensor.dtype() == DType::F64 {
        return Ok(tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect());
    }
    literal.floats().ok_or_else(|| "whose numbers cannot be read".into())
}

/// Elements for the weight file, and the storage's number of their type.
fn stored(tensor: &Tensor, values: Vec<f32>, half: bool) -> Result<(Bytes, u32), String> {
    if half {
        return Ok((halves(&values)?, 1));
    }
    if tensor.dtype() == DType::F32 {
        return Ok((tensor.data().clone(), 2));
    }
    Ok((values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(), 2))
}

/// Numbers beyond the range, as masks use them, become its ends: infinities times zero would be no numbers.
fn halves(values: &[f32]) -> Result<Bytes, String> {
    const MOST: f32 = 65504.0;
    let within = |x: &f32| if x.is_finite() { x.clamp(-MOST, MOST) } else { *x };
    let (values, mut bytes): (Vec<f32>, _) = (values.iter().map(within).collect(), Vec::new());
    kinglet_tensor::quant::quantize(DType::F16, &values, &mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes.into())
}

/// A text.
pub(super) fn text(text: &str) -> proto::Value {
    let ty = proto::ValueType {
        kind: Some(TypeKind::Tensor(proto::TensorType { dtype: 2, ..Default::default() })),
    };
    immediate(Some(ty), Elements::Texts(proto::Texts { values: vec![text.into()] }))
}

fn immediate(ty: Option<proto::ValueType>, elements: Elements) -> proto::Value {
    let tensor = Some(proto::TensorValue { elements: Some(elements) });
    proto::Value {
        ty,
        immediate: Some(proto::Immediate { tensor, ..Default::default() }),
        ..Default::default()
    }
}

/// Codes of 8 bits as they are, when they are codes.
pub(super) fn codes(tensor: &Tensor, weights: &mut Weights) -> Option<proto::Value> {
    let storage = if tensor.dtype() == DType::I8 { 4 } else { 3 };
    if !matches!(tensor.dtype(), DType::I8 | DType::U8) {
        return None;
    }
    let ty = Some(code_type(&TensorType::fixed(tensor.dtype(), tensor.shape())));
    if tensor.elements() > SMALL {
        let blob =
            proto::BlobValue { file: FILE.into(), offset: weights.add(tensor.data().clone(), storage) };
        return Some(proto::Value { ty, blob: Some(blob), ..Default::default() });
    }
    Some(immediate(ty, Elements::Bytes(proto::RawBytes { values: tensor.data().clone() })))
}

/// The type of codes of 8 bits.
pub(super) fn code_type(ty: &TensorType) -> proto::ValueType {
    tensor_type(ty, if ty.dtype == DType::I8 { 21 } else { 31 })
}

/// The type of a list of values of this type.
pub(super) fn list_type(ty: &TensorType, half: bool) -> proto::ValueType {
    let length = Some(proto::Dimension { constant: None, unknown: Some(proto::Unknown { variadic: false }) });
    let list = proto::ListType { item: Some(Box::new(value_type(ty, half))), length };
    proto::ValueType { kind: Some(TypeKind::List(Box::new(list))) }
}

/// The type of a value that is computed in the place of this one.
pub(super) fn value_type(ty: &TensorType, half: bool) -> proto::ValueType {
    let number = match computed(ty.dtype, half) {
        Ok(DType::Bool) => 1,
        Ok(DType::F16) => 10,
        Ok(DType::I32) => 23,
        _ => 11,
    };
    tensor_type(ty, number)
}

/// A type of this shape, with elements of a number.
fn tensor_type(ty: &TensorType, number: i32) -> proto::ValueType {
    let dimension = |dim: &kinglet_graph::Dim| match dim.fixed() {
        Some(n) => proto::Dimension { constant: Some(proto::Constant { size: n as u64 }), unknown: None },
        None => proto::Dimension { constant: None, unknown: Some(proto::Unknown { variadic: false }) },
    };
    let dimensions: Vec<_> = ty.shape.iter().map(dimension).collect();
    let tensor = proto::TensorType { dtype: number, rank: dimensions.len() as i64, dimensions };
    proto::ValueType { kind: Some(TypeKind::Tensor(tensor)) }
}
