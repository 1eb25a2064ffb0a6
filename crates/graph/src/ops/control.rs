//! Control flow: `If`, `Loop`, `Scan`. Bodies are closed graphs; what they read from around them are inputs of the node.

use std::sync::Arc;

use super::Op;
use crate::{Args, Dim, Graph, TensorType, Type};

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
        Ok(pairs.map(|(a, b)| self.then.value(*a).ty.join(&self.otherwise.value(*b).ty)).collect())
    }

    fn bodies(&self) -> Vec<&Graph> {
        vec![&self.then, &self.otherwise]
    }
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

    /// A carried value that starts with the number of dimensions that each round leaves has as many. Where all rounds keep
    /// what the body says of its inputs, sizes are those of the start, and scan outputs are as the body tells.
    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let kept = (0..self.carried).all(|i| self.keeps(i, args));
        let made = self.body.outputs().iter().skip(1).enumerate();
        Ok(made.map(|(i, id)| self.left(i, &self.body.value(*id).ty, kept, args)).collect())
    }

    fn bodies(&self) -> Vec<&Graph> {
        vec![&self.body]
    }
}

impl Loop {
    /// The type of output `i`, which a round makes as `round`.
    fn left(&self, i: usize, round: &Type, kept: bool, args: &Args<'_>) -> Type {
        let Type::Tensor(ty) = round else { return Type::Unknown };
        if i >= self.carried {
            let shape =
                std::iter::once(Dim::Unknown).chain(ty.shape.iter().map(|dim| dim.map(|n| n))).collect();
            return if kept { TensorType { dtype: ty.dtype, shape }.into() } else { Type::Unknown };
        }
        match args.ty(2 + i).join(round) {
            Type::Tensor(ty) if !kept => TensorType::of_rank(ty.dtype, ty.rank()).into(),
            joined => joined,
        }
    }

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
