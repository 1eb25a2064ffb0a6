//! The registry of binders: for each op, how its nodes become steps. One op is one file.

mod attention;
mod elementwise;
mod embed;
mod glu;
pub(crate) mod linear;
mod norm;
mod select_rows;

use std::any::TypeId;

use kinglet_graph::ops::{
    Add, AddRmsNorm, Attend, Attention, BatchNorm, Binary, Clip, Coded, Concat, Conv, ConvTranspose,
    Dequantize, DynamicProduct, Embed, Expand, Gather, Gemm, Glu, LayerNorm, Linear, MatMul, Pool, Quantize,
    Recurrent, Reduce, Resize, RmsNorm, Scale, SelectRows, Slice, Softcap, Softmax, Split, Transpose, Unary,
};
use kinglet_graph::{ExecError, Node, Op};

use crate::fast;
use crate::lower::Lowering;

/// Turns one node into steps.
pub(crate) type Binder = fn(&mut Lowering<'_>, &Node) -> Result<(), ExecError>;

/// Turns one node into steps when its types and attributes suit a fast kernel; says whether it did.
pub(crate) type FastBinder = fn(&mut Lowering<'_>, &Node) -> Result<bool, ExecError>;

/// An op type and its fast binder.
type Fast = (fn() -> TypeId, FastBinder);

/// Op type to binder, for ops that host kernels compute as well.
const FAST: &[Fast] = &[
    (TypeId::of::<Attend>, fast::attend),
    (TypeId::of::<BatchNorm>, fast::batch_norm),
    (TypeId::of::<Binary>, fast::binary),
    (TypeId::of::<Clip>, fast::clip),
    (TypeId::of::<Coded>, fast::coded),
    (TypeId::of::<Concat>, fast::concat),
    (TypeId::of::<Conv>, fast::conv),
    (TypeId::of::<ConvTranspose>, fast::conv_transpose),
    (TypeId::of::<Dequantize>, fast::dequantize),
    (TypeId::of::<DynamicProduct>, fast::rounded),
    (TypeId::of::<Expand>, fast::expand),
    (TypeId::of::<Gather>, fast::gather),
    (TypeId::of::<Gemm>, fast::gemm),
    (TypeId::of::<LayerNorm>, fast::layer_norm),
    (TypeId::of::<MatMul>, fast::matmul),
    (TypeId::of::<Pool>, fast::pool),
    (TypeId::of::<Quantize>, fast::quantize),
    (TypeId::of::<Recurrent>, fast::recurrent),
    (TypeId::of::<Reduce>, fast::reduce),
    (TypeId::of::<Resize>, fast::resize),
    (TypeId::of::<Slice>, fast::slice),
    (TypeId::of::<Softmax>, fast::softmax),
    (TypeId::of::<Split>, fast::split),
    (TypeId::of::<Transpose>, fast::transpose),
    (TypeId::of::<Unary>, fast::unary),
];

/// Op type to binder.
const BINDERS: [(fn() -> TypeId, Binder); 10] = [
    (TypeId::of::<Add>, elementwise::add),
    (TypeId::of::<AddRmsNorm>, norm::add_rms_norm),
    (TypeId::of::<Attention>, attention::attention),
    (TypeId::of::<Embed>, embed::embed),
    (TypeId::of::<Glu>, glu::glu),
    (TypeId::of::<Linear>, linear::linear),
    (TypeId::of::<RmsNorm>, norm::rms_norm),
    (TypeId::of::<Scale>, elementwise::scale),
    (TypeId::of::<SelectRows>, select_rows::select_rows),
    (TypeId::of::<Softcap>, elementwise::softcap),
];

/// The binder of an op, when there is one.
pub(crate) fn binder(op: &dyn Op) -> Option<Binder> {
    let id = op.type_id();
    BINDERS.iter().find(|(of, _)| of() == id).map(|(_, binder)| *binder)
}

/// The fast binder of an op, when there is one.
pub(crate) fn fast(op: &dyn Op) -> Option<FastBinder> {
    let id = op.type_id();
    FAST.iter().find(|(of, _)| of() == id).map(|(_, binder)| *binder)
}
