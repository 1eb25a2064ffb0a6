//! The op trait, and the ops: one file each, told without saying how they are computed.

mod attention;
mod elementwise;
mod embed;
mod glu;
mod linear;
mod norm;
mod rope;
mod select_rows;

pub use attention::Attention;
pub use elementwise::{Add, Scale, Softcap};
pub use embed::Embed;
pub use glu::{Activation, Glu};
pub use linear::Linear;
pub use norm::{AddRmsNorm, RmsNorm};
pub use rope::{Rope, RopeStyle};
pub use select_rows::SelectRows;

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use crate::TensorType;

/// An operation with its attributes. One op is one file under `ops/`.
pub trait Op: Any + Debug + Send + Sync {
    /// Name in the registry of backends, e.g. `RmsNorm`.
    fn name(&self) -> &'static str;

    /// Types of the outputs, or what is wrong with the inputs.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String>;

    /// Attributes in words, for `explain`.
    fn describe(&self) -> String {
        String::new()
    }

    /// The same computation in plainer ops, in running order: the reference in tests, and the fallback of a backend
    /// that lacks the op. `None` for plain ops.
    fn decompose(&self) -> Option<Vec<Part>> {
        None
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
}

impl dyn Op {
    /// The concrete op, when it is a `T`.
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// `Ok` when an op got as many inputs as it takes.
pub(crate) fn arity<const N: usize>(inputs: &[&TensorType]) -> Result<(), String> {
    if inputs.len() == N { Ok(()) } else { Err(format!("takes {N} inputs, got {}", inputs.len())) }
}

/// The fixed innermost dimension, or what is wrong.
pub(crate) fn cols(what: &str, ty: &TensorType) -> Result<usize, String> {
    ty.cols().ok_or_else(|| format!("{what} must have a fixed innermost dimension"))
}

/// `Ok` when two sizes agree.
pub(crate) fn same(what: &str, expected: usize, found: usize) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what} is {found}, expected {expected}")) }
}
