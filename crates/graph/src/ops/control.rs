//! Control flow: `If`, `Loop`, `Scan`. Bodies are closed graphs; what they read from around them are inputs of the node.

use std::sync::Arc;

use super::Op;
use crate::{Args, Dim, Graph, TensorType, Type, ValueId};

/// Inputs: a truth value, then the inputs of the first branch, then those of the second.
#[derive(Clone, Debug)]
pub struct If {
    /// Taken when true.
    pub then: Arc<Graph>,
    /// Taken when false.
    pub otherwise: Arc<Graph>,
}

impl If {
    /// The branch that a condition takes, and its arguments out of the node's.
    pub fn branch<'a, T>(&self, condition: bool, inputs: &'a [T]) -> (&Arc<Graph>, &'a [T]) {
        let split = (1 + self.then.inputs().len()).min(inputs.len());
        if condition { (&self.then, &inputs[1..split]) } else { (&self.otherwise, &inputs[split..]) }
    }
}

impl Op for If {
    fn name(&self) -> &'static str {
        "If"
    }

    fn infer(&self, _: &Args<'_>) -> Result<Vec<Type>, String> {
        let pairs = self.then.outputs().iter().zip(self.otherwise.outputs());
        Ok(pairs.map(|(a, b)| join(&self.then.value(*a).ty, &self.otherwise.value(*b).ty)).collect())
    }

    fn bodies(&self) -> Vec<&Graph> {
        vec![&self.then, &self.otherwise]
    }
}

/// What is known of a value that is one of two.
fn join(a: &Type, b: &Type) -> Type {
    match (a, b) {
        (Type::Tensor(a), Type::Tensor(b)) if a.dtype == b.dtype && a.rank() == b.rank() => {
            let one = |(x, y): (&Dim, &Dim)| if x == y { open(x) } else { Dim::Unknown };
            TensorType { dtype: a.dtype, shape: a.shape.iter().zip(&b.shape).map(one).collect() }.into()
        }
        _ => Type::Unknown,
    }
}

/// A body's dimension outside of it: its names mean nothing there.
fn open(dim: &Dim) -> Dim {
    dim.map(|n| n)
}

/// Runs its body while a condition holds.
///
/// Inputs: most rounds (optional), first condition (optional), `carried` values, then what the body reads from around
/// it. The body takes the round, the condition, the carried values and the surroundings; it makes the next condition, the
/// carried values, and one element of each scan output. Outputs: carried values, then scan outputs.
#[derive(Clone, Debug)]
pub struct Loop {
    /// One round.
    pub body: Arc<Graph>,
    /// Values that each round passes to the next.
    pub carried: usize,
}

impl Op for Loop {
    fn name(&self) -> &'static str {
        "Loop"
    }

    /// A carried value that starts with the number of dimensions that each round leaves has as many; its sizes are those of
    /// the start where all rounds keep what the body says of its inputs.
    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let kept = (0..self.carried).all(|i| self.keeps(i, args));
        let made = self.body.outputs().iter().skip(1).enumerate();
        let ty = |(i, id): (usize, &ValueId)| {
            let (first, round) = (args.optional(2 + i)?, self.body.tensor_type(*id)?);
            let same = i < self.carried && first.dtype == round.dtype && first.rank() == round.rank();
            let open = || TensorType::of_rank(first.dtype, first.rank());
            let joined = || join(&first.clone().into(), &round.clone().into());
            same.then(|| if kept { joined() } else { open().into() })
        };
        Ok(made.map(|value| ty(value).unwrap_or(Type::Unknown)).collect())
    }

    fn bodies(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
}

impl Loop {
    /// Whether carried value `i`, at the start and after a round, has every size that the body's input of it tells.
    fn keeps(&self, i: usize, args: &Args<'_>) -> bool {
        let told = self.body.inputs().get(2 + i).map(|id| &self.body.value(*id).ty);
        let made = self.body.outputs().get(1 + i).and_then(|id| self.body.tensor_type(*id));
        let Some(Type::Tensor(told)) = told else { return matches!(told, Some(Type::Unknown)) };
        let fits = |ty: &TensorType| {
            let sizes = told.shape.iter().zip(&ty.shape);
            ty.dtype == told.dtype
                && ty.rank() == told.rank()
                && sizes.into_iter().all(|(told, size)| *told == Dim::Unknown || told == size)
        };
        args.optional(2 + i).is_some_and(fits) && made.is_some_and(fits)
    }
}

/// Runs its body over the slices of its scan inputs.
///
/// Inputs: `carried` values, scan inputs, then what the body reads from around it. The body takes them in this order,
/// scan inputs without their axis; it makes the carried values and one element of each scan output.
#[derive(Clone, Debug)]
pub struct Scan {
    /// One round.
    pub body: Arc<Graph>,
    /// Values that each round passes to the next.
    pub carried: usize,
    /// Axis of each scan input, and whether it is walked backwards.
    pub inputs: Vec<(i64, bool)>,
    /// Axis of each scan output, and whether it is filled backwards.
    pub outputs: Vec<(i64, bool)>,
}

impl Op for Scan {
    fn name(&self) -> &'static str {
        "Scan"
    }

    fn infer(&self, _: &Args<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![Type::Unknown; self.body.outputs().len()])
    }

    fn bodies(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
}
