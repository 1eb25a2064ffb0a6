//! Host kernels: one plain, correct function for each op and every element type, for what has no fast kernel, for values
//! whose shape only the data decides, and for folding constants. Numbers are computed in f64 or i64.
//!
//! Adding one is an `impl HostOp` in a file under `host/` and its name in [`HOSTS`].

mod attend;
mod boxes;
mod cast;
pub(crate) mod coded;
mod custom;
mod einsum;
mod elementwise;
mod fill;
mod functions;
mod index;
mod layout;
mod linear_attention;
mod matmul;
mod norm;
pub(crate) mod numbers;
mod order;
mod place;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod sequence;
mod signal;
mod text;
mod trees;
mod window;

use std::any::TypeId;
use std::borrow::Cow;

use kinglet_graph::ops::*;
use kinglet_graph::{Arg as GraphArg, Args, Op, TensorType, Type};
use kinglet_tensor::{Bytes, DType, Tensor};

use crate::value::{Array, Value};

/// What a kernel answers: nothing, or what is wrong with the values.
pub(crate) type Outcome = Result<(), String>;

/// An op that can be computed here.
pub(crate) trait HostOp: Op {
    /// Computes the outputs that are wanted.
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome;
}

/// A kernel by op.
pub(crate) type Host = fn(&dyn Op, &Call<'_>, &mut dyn Outs) -> Outcome;

macro_rules! hosts {
    ($($op:ty),* $(,)?) => { &[$((TypeId::of::<$op>, run::<$op>)),*] };
}

/// An op's type and its kernel.
type Row = (fn() -> TypeId, Host);

/// Every op that can be computed here.
const HOSTS: &[Row] = hosts![
    ArgReduce,
    BatchNorm,
    Binary,
    BitCast,
    Cast,
    Clip,
    Concat,
    ConstantOfShape,
    Conv,
    ConvTranspose,
    DepthSpace,
    Dropout,
    Expand,
    EyeLike,
    Flatten,
    Gather,
    GatherElements,
    GatherNd,
    Gemm,
    GroupNorm,
    Identity,
    LayerNorm,
    LpNorm,
    Lrn,
    MatMul,
    OneHot,
    Pad,
    Pool,
    Range,
    Reduce,
    Reshape,
    ScatterElements,
    ScatterNd,
    Shape,
    Size,
    Slice,
    Softmax,
    Split,
    Squeeze,
    TextConstant,
    Tile,
    Transpose,
    Trilu,
    Unary,
    Unsqueeze,
    Where,
    Attend,
    CastLike,
    Coded,
    Compress,
    Cumulative,
    Custom,
    Dequantize,
    DynamicProduct,
    DynamicQuantize,
    Einsum,
    IntegerProduct,
    NllLoss,
    NonZero,
    Quantize,
    Resize,
    ReverseSequence,
    Rotate,
    RoundWeights,
    Sequence,
    TopK,
    Unique,
    AffineGrid,
    BestBoxes,
    CentreCropPad,
    Col2Im,
    DeformConv,
    Determinant,
    Dft,
    GridSample,
    LinearAttention,
    MaxUnpool,
    MelWeights,
    NonMaxSuppression,
    Random,
    Recurrent,
    RoiAlign,
    Stft,
    TensorScatter,
    Text,
    TfIdf,
    TreeEnsemble,
];

fn run<T: HostOp>(op: &dyn Op, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
    let op = op.downcast::<T>().ok_or("the registry named another op")?;
    if emptied(outs)? { Ok(()) } else { op.host(call, outs) }
}

/// Makes the outputs when all of them are known to have no elements: then there is nothing to compute.
fn emptied(outs: &mut dyn Outs) -> Result<bool, String> {
    let planned: Vec<_> = (0..).take_while(|i| outs.wants(*i)).map(|i| outs.planned(i)).collect();
    if planned.is_empty()
        || !planned.iter().all(|ty| ty.as_ref().is_some_and(|(_, shape)| shape.contains(&0)))
    {
        return Ok(false);
    }
    for (i, (dtype, shape)) in planned.into_iter().flatten().enumerate() {
        outs.make(i, dtype, &shape)?;
    }
    Ok(true)
}

/// The kernel of an op, when there is one.
pub(crate) fn host(op: &dyn Op) -> Option<Host> {
    let id = op.type_id();
    HOSTS.iter().find(|(of, _)| of() == id).map(|(_, host)| *host)
}

/// A tensor being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) dtype: DType,
    pub(crate) shape: &'a [usize],
    pub(crate) data: &'a [u8],
    pub(crate) texts: &'a [String],
}

impl<'a> View<'a> {
    pub(crate) fn of(array: &'a Array) -> Self {
        Self { dtype: array.dtype(), shape: array.shape(), data: array.bytes(), texts: array.as_texts() }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Bytes of an element.
    pub(crate) fn width(&self) -> usize {
        self.dtype.block_bytes()
    }

    /// The elements, converted.
    pub(crate) fn f64s(&self) -> Result<Vec<f64>, String> {
        numbers::to_f64(self.dtype, self.data)
    }

    /// The elements of an integer or boolean tensor.
    pub(crate) fn i64s(&self) -> Result<Cow<'a, [i64]>, String> {
        numbers::to_i64(self.dtype, self.data)
    }
}

/// One input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    /// Not given.
    Absent,
    /// A tensor.
    Tensor(View<'a>),
    /// A list or an optional.
    Other(&'a Value),
}

/// The inputs of a node.
pub(crate) struct Call<'a> {
    pub(crate) args: &'a [Arg<'a>],
}

impl<'a> Call<'a> {
    /// Tensor `i`.
    pub(crate) fn view(&self, i: usize) -> Result<View<'a>, String> {
        self.get(i).ok_or_else(|| format!("input {i} is missing or no tensor"))
    }

    /// Tensor `i`, when it was given.
    pub(crate) fn get(&self, i: usize) -> Option<View<'a>> {
        match self.args.get(i) {
            Some(Arg::Tensor(view)) => Some(*view),
            _ => None,
        }
    }

    /// The only integer of tensor `i`.
    pub(crate) fn int(&self, i: usize) -> Result<i64, String> {
        let values = self.view(i)?.i64s()?;
        values.first().copied().filter(|_| values.len() == 1).ok_or_else(|| format!("input {i} is no scalar"))
    }

    /// The inputs as inference sees them: types, and the values of small tensors.
    pub(crate) fn with_args<R>(&self, f: impl FnOnce(&Args<'_>) -> R) -> R {
        const SMALL: usize = 4096;
        let types: Vec<Type> = self.args.iter().map(type_of).collect();
        let constant = |arg: &Arg<'_>| match arg {
            Arg::Tensor(v) if v.dtype != DType::Str && v.len() <= SMALL => {
                Tensor::new("", v.dtype, v.shape.to_vec(), Bytes::copy_from_slice(v.data)).ok()
            }
            _ => None,
        };
        let constants: Vec<Option<Tensor>> = self.args.iter().map(constant).collect();
        let args: Vec<GraphArg<'_>> =
            types.iter().zip(&constants).map(|(ty, c)| GraphArg { ty, constant: c.as_ref() }).collect();
        f(&Args(&args))
    }
}

fn type_of(arg: &Arg<'_>) -> Type {
    match arg {
        Arg::Absent => Type::Absent,
        Arg::Tensor(view) => TensorType::fixed(view.dtype, view.shape).into(),
        Arg::Other(value) => value.ty(),
    }
}

/// Where outputs go.
pub(crate) trait Outs {
    /// Whether output `i` is wanted.
    fn wants(&self, i: usize) -> bool;

    /// Type and shape that inference gave output `i`; none when only the data decides.
    fn planned(&self, i: usize) -> Option<(DType, Vec<usize>)>;

    /// Room for output `i` of this type and shape. The content is unspecified.
    fn make(&mut self, i: usize, dtype: DType, shape: &[usize]) -> Result<&mut [u8], String>;

    /// Output `i` as a whole value.
    fn put(&mut self, i: usize, value: Value) -> Outcome;
}

/// The planned shape of output `i`.
pub(crate) fn shape_of(outs: &dyn Outs, i: usize) -> Result<Vec<usize>, String> {
    outs.planned(i).map(|(_, shape)| shape).ok_or_else(|| "the shape of the result is not known".to_owned())
}

/// Room for output `i` as planned.
pub(crate) fn room(outs: &mut dyn Outs, i: usize) -> Result<&mut [u8], String> {
    let (dtype, shape) = outs.planned(i).ok_or("the shape of the result is not known")?;
    outs.make(i, dtype, &shape)
}

/// Stores output `i` as planned, converted to its type.
pub(crate) fn store(outs: &mut dyn Outs, i: usize, values: &[f64]) -> Outcome {
    let (dtype, shape) = outs.planned(i).ok_or("the shape of the result is not known")?;
    numbers::from_f64(dtype, values, outs.make(i, dtype, &shape)?)
}

/// Stores integers as output `i`, cut to the width of its type.
pub(crate) fn store_ints(outs: &mut dyn Outs, i: usize, values: &[i64]) -> Outcome {
    let (dtype, shape) = outs.planned(i).ok_or("the shape of the result is not known")?;
    numbers::from_i64(dtype, values, outs.make(i, dtype, &shape)?)
}

/// Row-major distances of neighbouring elements along each dimension.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Distances in an input broadcast to `shape`: 0 where it repeats.
pub(crate) fn broadcast_strides(from: &[usize], shape: &[usize]) -> Result<Vec<usize>, String> {
    let own = strides(from);
    let skip = shape.len().checked_sub(from.len());
    let fits = |skip: usize| from.iter().zip(&shape[skip..]).all(|(a, b)| *a == 1 || a == b);
    let skip = skip.filter(|skip| fits(*skip));
    let skip = skip.ok_or_else(|| format!("{from:?} cannot be broadcast to {shape:?}"))?;
    Ok((0..shape.len()).map(|i| if i < skip || from[i - skip] == 1 { 0 } else { own[i - skip] }).collect())
}

/// Calls `f` with the offset in each input for every element of `shape` in order.
pub(crate) fn walk<const N: usize>(shape: &[usize], strides: [&[usize]; N], mut f: impl FnMut([usize; N])) {
    let Some((&inner, outer)) = shape.split_last() else { return f([0; N]) };
    let steps = strides.map(|strides| strides[outer.len()]);
    let mut index = vec![0usize; outer.len()];
    let mut row = [0usize; N];
    for _ in 0..outer.iter().product::<usize>() {
        let mut at = row;
        for _ in 0..inner {
            f(at);
            (0..N).for_each(|n| at[n] += steps[n]);
        }
        for d in (0..outer.len()).rev() {
            index[d] += 1;
            (0..N).for_each(|n| row[n] += strides[n][d]);
            if index[d] < outer[d] {
                break;
            }
            (0..N).for_each(|n| row[n] -= strides[n][d] * outer[d]);
            index[d] = 0;
        }
    }
}

/// `[outer, n, inner]` of a shape around an axis.
pub(crate) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}
