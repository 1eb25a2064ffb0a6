//! `Custom`: an op that a user of the library brings, with the computation it stands for.

use std::fmt::Debug;
use std::sync::Arc;

use kinglet_tensor::Tensor;

use super::Op;
use crate::{Args, Type};

/// An operator from outside of this crate: what it makes of types, and of values.
///
/// It runs wherever a graph runs: in plans, in loops, and on constants.
pub trait CustomOp: Debug + Send + Sync + 'static {
    /// Its name in plans and profiles.
    fn name(&self) -> &'static str;

    /// Types of the outputs, or what is wrong with the inputs. [`Type::Unknown`] where only the data decides.
    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String>;

    /// The outputs for these inputs, each of the type that [`CustomOp::infer`] told; `None` stands for an input that was not
    /// given. Called from one thread at a time, for the same inputs with the same result.
    fn compute(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, String>;
}

/// The op of a graph that a [`CustomOp`] computes.
#[derive(Clone, Debug)]
pub struct Custom(pub Arc<dyn CustomOp>);

impl Op for Custom {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        self.0.infer(args)
    }

    fn describe(&self) -> String {
        "custom".into()
    }
}
