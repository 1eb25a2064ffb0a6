//! `Linear`: one input against one or several weight matrices.

use kinglet_tensor::DType;

use super::{Op, Parts, Slot, cols, same};
use crate::{Args, Dim, TensorType, Type};

/// `y_i[t, n] = sum_k x[t, k] * w_i[n, k] (+ b_i[n])` for each weight `i`.
///
/// Inputs: `x` f32 `[.., K]`, then the weights `[N_i, K]` of any type, then the biases f32 `[N_i]` of those weights that
/// have one, in order. Outputs: one f32 `[.., N_i]` a weight. Several weights share one pass over `x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// For each weight, whether it has a bias.
    pub biased: Vec<bool>,
}

impl Linear {
    /// One weight.
    pub fn one(biased: bool) -> Self {
        Self { biased: vec![biased] }
    }

    /// Position among the node's inputs of weight `i`, and of its bias when it has one.
    pub fn inputs_of(&self, i: usize) -> (usize, Option<usize>) {
        let before = self.biased[..i].iter().filter(|b| **b).count();
        (1 + i, self.biased[i].then_some(1 + self.biased.len() + before))
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.all()?;
        let expected = 1 + self.biased.len() + self.biased.iter().filter(|b| **b).count();
        same("number of inputs", expected, inputs.len())?;
        let k = cols("x", inputs[0])?;
        (0..self.biased.len()).map(|i| self.infer_one(i, &inputs, k)).collect()
    }

    fn describe(&self) -> String {
        if self.biased.len() == 1 { String::new() } else { format!("{} weights", self.biased.len()) }
    }

    fn decompose(&self, _: &Args<'_>) -> Option<Parts> {
        let mut parts = Parts::default();
        for i in 0..self.biased.len() {
            let (weight, bias) = self.inputs_of(i);
            let inputs: Vec<Slot> =
                [Some(0), Some(weight), bias].into_iter().flatten().map(Slot::In).collect();
            parts.node(Self::one(bias.is_some()), &inputs, &[Slot::Out(i)]);
        }
        (self.biased.len() > 1).then_some(parts)
    }
}

impl Linear {
    fn infer_one(&self, i: usize, inputs: &[&TensorType], k: usize) -> Result<Type, String> {
        let (weight, bias) = self.inputs_of(i);
        let &[Dim::Fixed(n), Dim::Fixed(wk)] = inputs[weight].shape.as_slice() else {
            return Err(format!("weight {i} must be a fixed [N, K] matrix"));
        };
        same(&format!("columns of weight {i}"), k, wk)?;
        if let Some(bias) = bias {
            same(&format!("length of bias {i}"), n, cols("bias", inputs[bias])?)?;
        }
        let mut shape = inputs[0].shape.clone();
        shape.pop();
        shape.push(Dim::Fixed(n));
        Ok(TensorType { dtype: DType::F32, shape }.into())
    }
}
