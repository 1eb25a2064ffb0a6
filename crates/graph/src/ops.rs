//! The op trait, and the ops: one file each, told without saying how they are computed.

mod attend;
mod attention;
mod binary;
mod boxes;
mod cast;
mod coded;
mod control;
mod conv;
mod custom;
mod dropout;
mod dynamic;
mod einsum;
mod elementwise;
mod embed;
mod gather;
mod glu;
mod integer;
mod layout;
mod linear;
mod loss;
mod matmul;
mod norm;
mod norms;
mod order;
mod place;
mod pool;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod rope;
mod sample;
mod select;
mod select_rows;
mod sequence;
mod shape;
mod signal;
mod softmax;
mod text;
mod trees;
mod unary;

pub use attend::{Attend, Blank, Rotate, heads_of};
pub use attention::Attention;
pub use binary::{Binary, Fun2};
pub use boxes::{BestBoxes, NonMaxSuppression};
pub use cast::{BitCast, Cast, CastLike, ScaleRound};
pub use coded::{Coded, Link, Source};
pub use control::{If, Loop, Scan};
pub use conv::{Axis, Conv, ConvTranspose, Pads, Window};
pub use custom::{Custom, CustomOp};
pub use dropout::Dropout;
pub use dynamic::{DynamicProduct, RoundWeights};
pub use einsum::{Einsum, Terms};
pub use elementwise::{Add, Scale, Softcap};
pub use embed::Embed;
pub use gather::{Gather, GatherElements, GatherNd, ScatterElements, ScatterKind, ScatterNd};
pub use glu::{Activation, Glu};
pub use integer::IntegerProduct;
pub use layout::{Concat, Cut, DepthSpace, Expand, Pad, PadMode, Slice, Split, Tile, Transpose, Trilu};
pub use linear::Linear;
pub use loss::{LossKind, NllLoss};
pub use matmul::{Gemm, MatMul};
pub use norm::{AddRmsNorm, RmsNorm};
pub use norms::{BatchNorm, GroupNorm, LayerNorm, LpNorm, Lrn};
pub use order::{Compress, Cumulative, NonZero, ReverseSequence, TopK, Unique};
pub use place::{CentreCropPad, Col2Im, Determinant, MaxUnpool, TensorScatter};
pub use pool::{Pool, PoolKind};
pub use quantize::{Dequantize, DynamicQuantize, Quantize};
pub use random::{Distribution, Random};
pub use recurrent::{Cell, LinearAttention, Recurrent};
pub use reduce::{ArgReduce, Reduce, ReduceKind};
pub use reshape::{Flatten, Identity, Reshape, Squeeze, Unsqueeze};
pub use resize::{Aspect, Coordinates, NearestRule, Resize, ResizeMode, Scaled};
pub use rope::{Rope, RopeStyle};
pub use sample::{AffineGrid, DeformConv, GridSample, RoiAlign, SampleMode, SamplePad};
pub use select::{Clip, Where};
pub use select_rows::SelectRows;
pub use sequence::Sequence;
pub use shape::{ConstantOfShape, EyeLike, OneHot, Range, Shape, Size, float_scalar, int_tensor, range_len};
pub use signal::{Dft, MelWeights, Stft};
pub use softmax::{Softmax, SoftmaxKind};
pub use text::{Case, Text, TextConstant, TfIdf};
pub use trees::{Test, TreeEnsemble, TreeNode};
pub use unary::{Fun, Unary};

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use kinglet_tensor::Tensor;

use crate::{Args, Graph, TensorType, Type};

/// An operation with its attributes. One op is one file under `ops/`.
pub trait Op: Any + Debug + Send + Sync {
    /// Name in the registry of backends, e.g. `RmsNorm`.
    fn name(&self) -> &'static str;

    /// Types of the outputs, or what is wrong with the inputs.
    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String>;

    /// Outputs that the inputs' types and constants alone decide, e.g. a shape.
    fn known(&self, args: &Args<'_>) -> Option<Vec<Tensor>> {
        let _ = args;
        None
    }

    /// The input that output 0 equals, when the op only passes it on.
    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        let _ = args;
        None
    }

    /// Whether equal inputs give equal outputs. Random ops say no; they are neither folded nor shared.
    fn pure(&self) -> bool {
        true
    }

    /// The graphs that it owns (control flow).
    fn bodies(&self) -> Vec<&Graph> {
        Vec::new()
    }

    /// Attributes in words, for `explain`.
    fn describe(&self) -> String {
        String::new()
    }

    /// The same computation in plainer ops, in running order: the reference in tests, and the fallback of a backend
    /// that lacks the op. `None` for plain ops, and for inputs and attributes that passes never make.
    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        let _ = args;
        None
    }
}

/// A decomposition: nodes in running order, and the constants that they read.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The nodes.
    pub nodes: Vec<Part>,
    /// What [`Slot::Constant`] stands for.
    pub constants: Vec<Tensor>,
    temporaries: usize,
}

impl Parts {
    /// Adds a node that makes outputs of the decomposed one, or reads them.
    pub fn node(&mut self, op: impl Op, inputs: &[Slot], outputs: &[Slot]) {
        self.put(Arc::new(op), inputs, outputs);
    }

    /// Adds a node of an op that is there already.
    pub fn put(&mut self, op: Arc<dyn Op>, inputs: &[Slot], outputs: &[Slot]) {
        self.nodes.push(Part { op, inputs: inputs.to_vec(), outputs: outputs.to_vec() });
    }

    /// A value between parts that no node makes yet.
    pub fn place(&mut self) -> Slot {
        self.temporaries += 1;
        Slot::Temp(self.temporaries - 1)
    }

    /// Adds a node with one output, a value between parts.
    pub fn temp(&mut self, op: impl Op, inputs: &[Slot]) -> Slot {
        let out = self.place();
        self.node(op, inputs, &[out]);
        out
    }

    /// A scalar of F32.
    pub fn float(&mut self, x: f32) -> Option<Slot> {
        self.constant(float_scalar(x)?)
    }

    /// A vector of I64.
    pub fn ints(&mut self, values: &[i64]) -> Option<Slot> {
        self.constant(int_tensor(vec![values.len()], values)?)
    }

    fn constant(&mut self, tensor: Tensor) -> Option<Slot> {
        self.constants.push(tensor);
        Some(Slot::Constant(self.constants.len() - 1))
    }
}

/// One node of a decomposition.
#[derive(Clone, Debug)]
pub struct Part {
    /// The plainer op.
    pub op: Arc<dyn Op>,
    /// What it reads.
    pub inputs: Vec<Slot>,
    /// What it makes.
    pub outputs: Vec<Slot>,
}

/// A value of a decomposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Input of the decomposed node.
    In(usize),
    /// Output of the decomposed node.
    Out(usize),
    /// A value between its parts.
    Temp(usize),
    /// One of [`Parts::constants`].
    Constant(usize),
}

impl dyn Op {
    /// The concrete op, when it is a `T`.
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// The fixed innermost dimension, or what is wrong.
pub(crate) fn cols(what: &str, ty: &TensorType) -> Result<usize, String> {
    ty.cols().ok_or_else(|| format!("{what} must have a fixed innermost dimension"))
}

/// `Ok` when two sizes agree.
pub(crate) fn same(what: &str, expected: usize, found: usize) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what} is {found}, expected {expected}")) }
}
