//! Types and values of ML Programs.

use kinglet_tensor::{Bytes, DType, Tensor};

use super::blob::{self, Blobs};
use super::{CoreMlError, proto};

/// Most dimensions of a value.
const MAX_RANK: usize = 16;

/// A size of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this.
    Fixed(usize),
    /// Known when the program runs.
    Unknown,
}

/// Type of a tensor. Integers of fewer than 8 bits are stored packed and read as one byte each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type; none for texts.
    pub dtype: Option<DType>,
    /// Bits of each element in the file.
    pub bits: u8,
    /// Sizes, outermost first.
    pub shape: Vec<Dim>,
}

/// A value that stands in the file.
#[derive(Clone, Debug)]
pub enum Literal {
    /// Numbers.
    Tensor(Tensor),
    /// Texts.
    Texts(Vec<String>),
    /// Values of any kind.
    List(Vec<Literal>),
}

/// MIL's number of an element type, its type here, its bits, and the weight storage's number.
#[rustfmt::skip]
const TYPES: [(i32, Option<DType>, u8, u32); 19] = [
    (1, Some(DType::Bool), 8, 0),    (2, None, 8, 0),
    (10, Some(DType::F16), 16, 1),   (11, Some(DType::F32), 32, 2),
    (12, Some(DType::F64), 64, 0),   (13, Some(DType::BF16), 16, 5),
    (21, Some(DType::I8), 8, 4),     (22, Some(DType::I16), 16, 6),
    (23, Some(DType::I32), 32, 14),  (24, Some(DType::I64), 64, 0),
    (25, Some(DType::I8), 4, 8),     (31, Some(DType::U8), 8, 3),
    (32, Some(DType::U16), 16, 7),   (33, Some(DType::U32), 32, 15),
    (34, Some(DType::U64), 64, 0),   (35, Some(DType::U8), 4, 11),
    (36, Some(DType::U8), 2, 10),    (37, Some(DType::U8), 1, 9),
    (39, Some(DType::U8), 3, 12),
];
/// `UINT6`, apart from the table for its size.
const UINT6: (i32, Option<DType>, u8, u32) = (38, Some(DType::U8), 6, 13);

fn row(number: i32) -> Option<&'static (i32, Option<DType>, u8, u32)> {
    TYPES.iter().chain([&UINT6]).find(|row| row.0 == number)
}

impl TensorType {
    pub(super) fn of(name: &str, ty: &proto::TensorType) -> Result<Self, CoreMlError> {
        let unknown = || CoreMlError::value(name, format!("element type {} cannot be read", ty.dtype));
        let (_, dtype, bits, _) = *row(ty.dtype).ok_or_else(unknown)?;
        if ty.dimensions.len() > MAX_RANK {
            return Err(CoreMlError::value(name, format!("it has more than {MAX_RANK} dimensions")));
        }
        let dim = |d: &proto::Dimension| match d.constant {
            None => Ok(Dim::Unknown),
            Some(constant) => usize::try_from(constant.size).map(Dim::Fixed),
        };
        let shape: Result<Vec<Dim>, _> = ty.dimensions.iter().map(dim).collect();
        let shape = shape.map_err(|_| CoreMlError::value(name, "a dimension is too large"))?;
        Ok(Self { dtype, bits, shape })
    }

    /// The shape, when every size is known and the bits of all elements can be counted.
    pub fn fixed(&self) -> Option<Vec<usize>> {
        let fixed = |d: &Dim| if let Dim::Fixed(n) = d { Some(*n) } else { None };
        let shape: Option<Vec<usize>> = self.shape.iter().map(fixed).collect();
        shape.filter(|shape| elements(shape).is_some_and(|n| n.checked_mul(64).is_some()))
    }
}

pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))
}

impl Literal {
    /// One number.
    pub fn int(&self) -> Option<i64> {
        self.ints().filter(|values| values.len() == 1).map(|values| values[0])
    }

    /// One number.
    pub fn float(&self) -> Option<f32> {
        self.floats().filter(|values| values.len() == 1).map(|values| values[0])
    }

    /// One truth value.
    pub fn bool(&self) -> Option<bool> {
        self.int().map(|value| value != 0)
    }

    /// One text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Texts(texts) if texts.len() == 1 => Some(&texts[0]),
            _ => None,
        }
    }

    /// The numbers of it.
    pub fn tensor(&self) -> Option<&Tensor> {
        if let Self::Tensor(tensor) = self { Some(tensor) } else { None }
    }

    /// All numbers, when they are whole.
    pub fn ints(&self) -> Option<Vec<i64>> {
        let tensor = self.tensor()?;
        let data = tensor.data();
        fn all<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> i64) -> Vec<i64> {
            data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
        }
        Some(match tensor.dtype() {
            DType::I64 => all(data, i64::from_le_bytes),
            DType::I32 => all(data, |b| i32::from_le_bytes(b).into()),
            DType::U32 => all(data, |b| u32::from_le_bytes(b).into()),
            DType::I16 => all(data, |b| i16::from_le_bytes(b).into()),
            DType::U16 => all(data, |b| u16::from_le_bytes(b).into()),
            DType::I8 => all(data, |b| i8::from_le_bytes(b).into()),
            DType::U8 | DType::Bool => all(data, |b: [u8; 1]| b[0].into()),
            _ => return None,
        })
    }

    /// All numbers.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let tensor = self.tensor()?;
        if let Some(ints) = self.ints() {
            return Some(ints.into_iter().map(|n| n as f32).collect());
        }
        let mut values = vec![0.0; tensor.elements()];
        kinglet_tensor::quant::dequantize(tensor.dtype(), tensor.data(), &mut values).ok()?;
        Some(values)
    }

    pub(super) fn of(name: &str, value: proto::Value, blobs: &dyn Blobs) -> Result<Self, CoreMlError> {
        let ty = value.ty.and_then(|ty| ty.kind);
        let fail = |why: &str| CoreMlError::value(name, why);
        if let Some(immediate) = value.immediate {
            if let Some(list) = immediate.list.or(immediate.tuple) {
                let items = list.values.into_iter().map(|item| Self::of(name, item, blobs));
                return Ok(Self::List(items.collect::<Result<_, _>>()?));
            }
            let elements = immediate.tensor.and_then(|tensor| tensor.elements);
            let Some(proto::TypeKind::Tensor(ty)) = ty else { return Err(fail("it has no tensor type")) };
            return immediate_tensor(name, &TensorType::of(name, &ty)?, elements);
        }
        let blob = value.blob.ok_or_else(|| fail("it has a type and no value"))?;
        let Some(proto::TypeKind::Tensor(ty)) = ty else { return Err(fail("it has no tensor type")) };
        stored(name, &ty, &blob, blobs)
    }
}

/// A tensor in a weight file.
fn stored(
    name: &str,
    ty: &proto::TensorType,
    at: &proto::BlobValue,
    blobs: &dyn Blobs,
) -> Result<Literal, CoreMlError> {
    let (data, storage) = blob::read(&blobs.blob(&at.file)?, &at.file, at.offset)?;
    let expected = row(ty.dtype).map_or(0, |row| row.3);
    if storage != expected {
        let why =
            format!("the program and the weight file disagree on its type ({} and {storage})", ty.dtype);
        return Err(CoreMlError::value(name, why));
    }
    numbers(name, &TensorType::of(name, ty)?, data)
}

/// A tensor that stands in the program itself.
fn immediate_tensor(
    name: &str,
    ty: &TensorType,
    elements: Option<proto::Elements>,
) -> Result<Literal, CoreMlError> {
    fn raw<T, const N: usize>(values: Vec<T>, bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        values.into_iter().flat_map(bytes).collect::<Vec<u8>>().into()
    }
    let data = match elements {
        None => Bytes::new(),
        Some(proto::Elements::Texts(texts)) if ty.dtype.is_none() => return Ok(Literal::Texts(texts.values)),
        Some(proto::Elements::Texts(_)) => {
            return Err(CoreMlError::value(name, "texts where numbers belong"));
        }
        Some(proto::Elements::Floats(list)) => raw(list.values, f32::to_le_bytes),
        Some(proto::Elements::Doubles(list)) => raw(list.values, f64::to_le_bytes),
        Some(proto::Elements::Ints(list)) => raw(list.values, i32::to_le_bytes),
        Some(proto::Elements::LongInts(list)) => raw(list.values, i64::to_le_bytes),
        Some(proto::Elements::Bools(list)) => raw(list.values, |b| [u8::from(b)]),
        Some(proto::Elements::Bytes(bytes)) => bytes.values,
    };
    numbers(name, ty, data)
}

/// Numbers of this type; packed ones are spread to a byte each.
fn numbers(name: &str, ty: &TensorType, data: Bytes) -> Result<Literal, CoreMlError> {
    let dtype = ty.dtype.ok_or_else(|| CoreMlError::value(name, "numbers where texts belong"))?;
    let open = || CoreMlError::value(name, "its shape is open or too large");
    let shape = ty.fixed().ok_or_else(open)?;
    let count = elements(&shape).ok_or_else(open)?;
    let expected = (count * usize::from(ty.bits)).div_ceil(8);
    if data.len() != expected {
        let why = format!("its type takes {expected} bytes, there are {}", data.len());
        return Err(CoreMlError::value(name, why));
    }
    let data = if ty.bits < 8 { spread(&data, ty.bits, count, dtype == DType::I8).into() } else { data };
    Ok(Literal::Tensor(Tensor::new(name, dtype, shape, data)?))
}

/// `count` numbers of `bits` bits each, the lowest bit first, to one byte each. There are enough bytes.
pub(super) fn spread(packed: &[u8], bits: u8, count: usize, signed: bool) -> Vec<u8> {
    let bits = usize::from(bits);
    let one = |i: usize| {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let next = packed.get(byte + 1).copied().unwrap_or(0);
        let code = (u16::from_le_bytes([packed[byte], next]) >> shift) as u8 & (0xFF >> (8 - bits));
        if signed && code >> (bits - 1) & 1 == 1 { code | (0xFF << bits) } else { code }
    };
    (0..count).map(one).collect()
}
