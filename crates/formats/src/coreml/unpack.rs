//! Compressed weights of ML Programs (`constexpr_…`) to what they stand for.
//!
//! Each kind is one line of [`KINDS`]. Values are computed in f32 and rounded to the type that the operation declares.
//! The forms of iOS 16 (packed bits, parameters as attributes) and of iOS 18 (typed small integers, groups) are both read.

use kinglet_tensor::{DType, Tensor};

use super::CoreMlError;
use super::program::{Op, ValueType};
use super::value::{Dim, Literal, elements, spread};

type Known<'a> = &'a dyn Fn(&str) -> Option<Literal>;
type Unpacker = fn(&Params<'_>) -> Result<Vec<Dense>, CoreMlError>;

/// Most elements that one weight may be unpacked to: sparse ones say less than they stand for.
const MAX_ELEMENTS: usize = 1 << 31;

const KINDS: &[(&str, Unpacker)] = &[
    ("constexpr_affine_dequantize", affine),
    ("constexpr_blockwise_shift_scale", blockwise),
    ("constexpr_cast", cast),
    ("constexpr_lut_to_dense", lut),
    ("constexpr_lut_to_sparse", lut_sparse),
    ("constexpr_sparse_blockwise_shift_scale", blockwise_sparse),
    ("constexpr_sparse_to_dense", sparse),
];

/// The values that a `constexpr_…` operation makes; `known` resolves the names of earlier ones.
pub fn unpack(op: &Op, known: Known<'_>) -> Result<Vec<Literal>, CoreMlError> {
    let unpacker = KINDS.iter().find(|(kind, _)| *kind == op.kind);
    let (_, unpacker) = unpacker.ok_or_else(|| op.fails("compressed weights of this kind cannot be read"))?;
    let made = unpacker(&Params { op, known })?;
    let outputs = op.outputs.iter().zip(made);
    outputs.map(|((name, ty), dense)| dense.rounded(op, name, ty).map(Literal::Tensor)).collect()
}

/// Unpacked numbers.
struct Dense {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Dense {
    /// As the type that the operation declares.
    fn rounded(self, op: &Op, name: &str, ty: &ValueType) -> Result<Tensor, CoreMlError> {
        let ValueType::Tensor(ty) = ty else { return Err(op.fails("its output is no tensor")) };
        let declared = ty.shape.iter().zip(&self.shape);
        let agrees =
            |(declared, found): (&Dim, &usize)| *declared == Dim::Fixed(*found) || *declared == Dim::Unknown;
        if ty.shape.len() != self.shape.len() || !declared.into_iter().all(agrees) {
            return Err(
                op.fails(format!("it declares the shape {:?}, its weights have {:?}", ty.shape, self.shape))
            );
        }
        let data: Vec<u8> = match ty.dtype {
            Some(DType::F32) => self.data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Some(DType::F16) => {
                let half = |x: &f32| kinglet_tensor::quant::f32_to_f16(*x).to_le_bytes();
                self.data.iter().flat_map(half).collect()
            }
            Some(DType::U8 | DType::Bool) => self.data.iter().map(|x| *x as u8).collect(),
            Some(DType::I8) => self.data.iter().map(|x| *x as i8 as u8).collect(),
            other => return Err(op.fails(format!("weights cannot be unpacked to {other:?}"))),
        };
        let dtype = ty.dtype.unwrap_or(DType::F32);
        Ok(Tensor::new(name, dtype, self.shape, data.into())?)
    }
}

/// The parameters of an operation.
struct Params<'a> {
    op: &'a Op,
    known: Known<'a>,
}

impl Params<'_> {
    fn maybe(&self, name: &str) -> Option<Literal> {
        self.op.value(name, self.known)
    }

    fn get(&self, name: &str) -> Result<Literal, CoreMlError> {
        self.maybe(name).ok_or_else(|| self.op.fails(format!("`{name}` is missing or not constant")))
    }

    /// A tensor parameter: its shape and values.
    fn tensor(&self, name: &str) -> Result<Dense, CoreMlError> {
        let value = self.get(name)?;
        let shape = value.tensor().map(|tensor| tensor.shape().to_vec());
        let (shape, data) =
            shape.zip(value.floats()).ok_or_else(|| self.op.fails(format!("`{name}` is no numbers")))?;
        Ok(Dense { shape, data })
    }

    /// The shape that an iOS 16 form gives.
    fn shape(&self) -> Result<Option<Vec<usize>>, CoreMlError> {
        let Some(shape) = self.maybe("shape").and_then(|shape| shape.ints()) else { return Ok(None) };
        let shape: Option<Vec<usize>> = shape.iter().map(|n| usize::try_from(*n).ok()).collect();
        let shape = shape.filter(|shape| elements(shape).is_some_and(|n| n <= MAX_ELEMENTS));
        shape.map(Some).ok_or_else(|| self.op.fails("its shape is impossible"))
    }

    /// Whether each place is stored: a mask of one-bit numbers, or of packed bits with a shape beside it.
    fn mask(&self, name: &str) -> Result<(Vec<usize>, Vec<bool>), CoreMlError> {
        let value = self.get(name)?;
        let tensor = value.tensor().ok_or_else(|| self.op.fails(format!("`{name}` is no numbers")))?;
        let Some(shape) = self.shape()? else {
            return Ok((tensor.shape().to_vec(), tensor.data().iter().map(|bit| *bit != 0).collect()));
        };
        let count = elements(&shape).unwrap_or(usize::MAX);
        if tensor.data().len() != count.div_ceil(8) {
            return Err(self
                .op
                .fails(format!("`{name}` has {} bytes for {count} bits", tensor.data().len())));
        }
        Ok((shape, spread(tensor.data(), 1, count, false).into_iter().map(|bit| bit != 0).collect()))
    }
}

/// `(quantized_data - zero_point) * scale`, both for each place of `axis` or for all.
fn affine(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    let mut data = params.tensor("quantized_data")?;
    let (zero, scale) = (params.tensor("zero_point")?.data, params.tensor("scale")?.data);
    let rank = data.shape.len() as i64;
    let axis = params.maybe("axis").and_then(|axis| axis.int()).unwrap_or(0);
    let axis = if axis < 0 { axis + rank } else { axis };
    let places = usize::try_from(axis).ok().and_then(|axis| data.shape.get(axis).map(|n| (axis, *n)));
    let (axis, count) = places.ok_or_else(|| params.op.fails(format!("it has no axis {axis}")))?;
    if [&zero, &scale].iter().any(|list| list.len() != 1 && list.len() != count) {
        return Err(params.op.fails(format!("its scales or zero points are not {count}, or one")));
    }
    let inner: usize = data.shape[axis + 1..].iter().product();
    let pick = |list: &[f32], place: usize| if list.len() == 1 { list[0] } else { list[place] };
    for (i, x) in data.data.iter_mut().enumerate() {
        let place = i / inner % count;
        *x = (*x - pick(&zero, place)) * pick(&scale, place);
    }
    Ok(vec![data])
}

/// `(data - offset) * scale`, each for a block of places.
fn blockwise(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    let mut data = params.tensor("data")?;
    let groups = Groups::of(params, &data.shape, &params.tensor("scale")?.shape)?;
    let shift = ShiftScale::of(params, &groups)?;
    data.data.iter_mut().enumerate().for_each(|(i, x)| *x = shift.apply(*x, groups.index(i)));
    Ok(vec![data])
}

/// The same of the places that are stored.
fn blockwise_sparse(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    let (shape, mask) = params.mask("data_mask")?;
    let mut stored = params.tensor("nonzero_data")?;
    check_stored(params, &mask, stored.data.len())?;
    let groups = Groups::of(params, &shape, &params.tensor("scale")?.shape)?;
    let shift = ShiftScale::of(params, &groups)?;
    let places = mask.iter().enumerate().filter(|(_, kept)| **kept);
    for (x, (i, _)) in stored.data.iter_mut().zip(places) {
        *x = shift.apply(*x, groups.index(i));
    }
    Ok(vec![as_numbers(shape, &mask), stored])
}

struct ShiftScale {
    scale: Vec<f32>,
    offset: Option<Vec<f32>>,
}

impl ShiftScale {
    fn of(params: &Params<'_>, groups: &Groups) -> Result<Self, CoreMlError> {
        let scale = params.tensor("scale")?.data;
        let offset = params.maybe("offset").map(|_| params.tensor("offset")).transpose()?.map(|o| o.data);
        if [Some(scale.len()), offset.as_ref().map(Vec::len)].iter().flatten().any(|n| *n != groups.count) {
            return Err(params.op.fails("its scales and offsets have different shapes"));
        }
        Ok(Self { scale, offset })
    }

    fn apply(&self, x: f32, group: usize) -> f32 {
        (x - self.offset.as_ref().map_or(0.0, |offset| offset[group])) * self.scale[group]
    }
}

/// `source_val` in another type.
fn cast(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    Ok(vec![params.tensor("source_val")?])
}

/// The entries of a table that `indices` name.
fn lut(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    let table = params.tensor("lut")?;
    if let Some(shape) = params.shape()? {
        return packed_lut(params, &table.data, shape).map(|dense| vec![dense]);
    }
    let indices = params.tensor("indices")?;
    let tables = Tables::of(params, &indices.shape, table)?;
    let mut shape = indices.shape.clone();
    shape[tables.axis] = shape[tables.axis].saturating_mul(tables.width);
    let inner: usize = indices.shape[tables.axis + 1..].iter().product();
    let mut data = vec![
        0.0;
        elements(&shape)
            .filter(|n| *n <= MAX_ELEMENTS)
            .ok_or_else(|| params.op.fails("it is too large"))?
    ];
    for (i, code) in indices.data.iter().enumerate() {
        let (outer, inside) = (i / inner, i % inner);
        for lane in 0..tables.width {
            data[(outer * tables.width + lane) * inner + inside] = tables.entry(params, i, *code, lane)?;
        }
    }
    Ok(vec![Dense { shape, data }])
}

/// The form of iOS 16: one table, and indices of as few bits as it needs in a row.
fn packed_lut(params: &Params<'_>, table: &[f32], shape: Vec<usize>) -> Result<Dense, CoreMlError> {
    let indices = params.get("indices")?;
    let packed = indices.tensor().map(|t| t.data().clone()).unwrap_or_default();
    let bits = table.len().checked_ilog2().unwrap_or(0);
    let count = elements(&shape).unwrap_or(usize::MAX);
    if !(1..=8).contains(&bits) || table.len() != 1 << bits {
        return Err(params.op.fails(format!("a table of {} entries is not of 1 to 8 bits", table.len())));
    }
    if packed.len() != count.saturating_mul(bits as usize).div_ceil(8) {
        return Err(params
            .op
            .fails(format!("{} bytes are not {count} indices of {bits} bits", packed.len())));
    }
    let data =
        spread(&packed, bits as u8, count, false).into_iter().map(|code| table[usize::from(code)]).collect();
    Ok(Dense { shape, data })
}

/// The same of the places that are stored.
fn lut_sparse(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    let (shape, mask) = params.mask("indices_mask")?;
    let mut stored = params.tensor("indices_nonzero_data")?;
    check_stored(params, &mask, stored.data.len())?;
    let tables = Tables::of(params, &shape, params.tensor("lut")?)?;
    if tables.width != 1 {
        return Err(params.op.fails("sparse tables of vectors cannot be read"));
    }
    let places = mask.iter().enumerate().filter(|(_, kept)| **kept);
    for (code, (i, _)) in stored.data.iter_mut().zip(places) {
        *code = tables.entry(params, i, *code, 0)?;
    }
    Ok(vec![as_numbers(shape, &mask), stored])
}

/// Tables for blocks of places: `[groups…, entries, width]`.
struct Tables {
    groups: Groups,
    entries: usize,
    /// Numbers that one entry stands for, along `axis`.
    width: usize,
    axis: usize,
    data: Vec<f32>,
}

impl Tables {
    fn of(params: &Params<'_>, shape: &[usize], table: Dense) -> Result<Self, CoreMlError> {
        let [groups @ .., entries, width] = &table.shape[..] else {
            return Err(params.op.fails("its table has too few dimensions"));
        };
        let axis = params.maybe("vector_axis").and_then(|axis| axis.int()).unwrap_or(0);
        let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
        let axis = usize::try_from(axis).ok().filter(|axis| *axis < shape.len());
        let axis = axis.ok_or_else(|| params.op.fails("its vector axis does not exist"))?;
        let groups = Groups::of(params, shape, groups)?;
        Ok(Self { groups, entries: *entries, width: *width, axis, data: table.data })
    }

    fn entry(&self, params: &Params<'_>, place: usize, code: f32, lane: usize) -> Result<f32, CoreMlError> {
        let code = code as usize;
        if code >= self.entries {
            return Err(params.op.fails(format!("index {code} is not among {} entries", self.entries)));
        }
        Ok(self.data[(self.groups.index(place) * self.entries + code) * self.width + lane])
    }
}

/// Zeros but where the mask says that a value is stored.
fn sparse(params: &Params<'_>) -> Result<Vec<Dense>, CoreMlError> {
    let (shape, mask) = params.mask("mask")?;
    let stored = params.tensor("nonzero_data")?.data;
    check_stored(params, &mask, stored.len())?;
    let mut next = stored.into_iter();
    let data = mask.iter().map(|kept| if *kept { next.next().unwrap_or(0.0) } else { 0.0 }).collect();
    Ok(vec![Dense { shape, data }])
}

fn check_stored(params: &Params<'_>, mask: &[bool], stored: usize) -> Result<(), CoreMlError> {
    let kept = mask.iter().filter(|kept| **kept).count();
    if kept == stored {
        Ok(())
    } else {
        Err(params.op.fails(format!("its mask keeps {kept} places, {stored} are stored")))
    }
}

fn as_numbers(shape: Vec<usize>, mask: &[bool]) -> Dense {
    Dense { shape, data: mask.iter().map(|kept| f32::from(u8::from(*kept))).collect() }
}

/// Blocks of places that share a scale or a table: how many along each dimension.
struct Groups {
    /// Size, and places that share one group, of each dimension.
    dims: Vec<(usize, usize)>,
    count: usize,
}

impl Groups {
    fn of(params: &Params<'_>, shape: &[usize], groups: &[usize]) -> Result<Self, CoreMlError> {
        let fits =
            |(size, groups): (&usize, &usize)| *groups > 0 && size.is_multiple_of(*groups) && *size > 0;
        if shape.len() != groups.len() || !shape.iter().zip(groups).all(fits) {
            return Err(params.op.fails(format!("blocks of {groups:?} do not divide the shape {shape:?}")));
        }
        let dims = shape.iter().zip(groups).map(|(size, groups)| (*size, size / groups)).collect();
        Ok(Self { dims, count: groups.iter().product() })
    }

    /// The group of a place.
    fn index(&self, mut place: usize) -> usize {
        let (mut index, mut stride) = (0, 1);
        for (size, share) in self.dims.iter().rev() {
            index += place % size / share * stride;
            stride *= size / share;
            place /= size;
        }
        index
    }
}
