//! Graph rewrites. Each pass is one file and says in [`crate::Node::note`] what it did.

mod add_norm;
mod affine;
mod attention;
mod attention_parts;
mod bounds;
mod branches;
mod codes;
mod decompose;
mod dynamic;
#[cfg(test)]
mod fusion_tests;
mod layer_norm;
mod left;
mod log;
mod look;
mod prune;
mod rewrite;
mod scans;
mod share;
mod siblings;
mod simplify;
mod spellings;
mod widen;

pub use add_norm::fuse_add_norm;
pub use affine::fold_affine;
pub use attention::fuse_attention;
pub use bounds::join_bounds;
pub use branches::merge_branches;
pub use codes::{fuse_codes, spell_codes};
pub use decompose::decompose;
pub use dynamic::{fuse_dynamic, round_products};
pub use layer_norm::fuse_layer_norm;
pub use log::{Entry, Log};
pub use prune::prune;
pub use scans::spell_scans;
pub use share::share_equal;
pub use siblings::share_input;
pub use simplify::simplify;
pub use spellings::name_activations;
pub use widen::widen;

use kinglet_tensor::Tensor;

use crate::ops::Dequantize;
use crate::{Binding, BuildError, Evaluate, Graph, Op, Type, specialise};

/// Every pass that keeps values exactly as they were, in the order that suits them.
pub fn optimise(graph: Graph) -> Result<Graph, BuildError> {
    fuse_add_norm(&share_input(&graph)?)
}

/// Every pass for graphs of bound types: clean-ups, then fusion.
pub fn fuse(graph: Graph) -> Result<Graph, BuildError> {
    fuse_floats(&fuse_dynamic(&fuse_codes(&graph)?)?)
}

/// Every fusion but that of pairs of quantisation: numbers stay numbers.
fn fuse_floats(graph: &Graph) -> Result<Graph, BuildError> {
    let graph = merge_branches(graph)?;
    fuse_attention(&name_activations(&join_bounds(&fuse_layer_norm(&graph)?)?)?)
}

/// Which products are computed over codes of 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// None: what stands between pairs of quantisation is computed in floats.
    None,
    /// Those that the graph quantises itself.
    Given,
    /// All with constant weights that kernels have.
    All,
}

/// Every pass for graphs that are to be run: for inputs bound like this, folded and fused.
pub fn plan(
    graph: &Graph,
    inputs: &[Binding],
    evaluate: &dyn Evaluate,
    integers: Integers,
) -> Result<Graph, BuildError> {
    match integers {
        Integers::None => fuse_floats(&specialise(graph, inputs, evaluate)?),
        Integers::Given => plan_codes(graph, inputs, evaluate),
        Integers::All => round_products(&plan_codes(graph, inputs, evaluate)?),
    }
}

/// The same, with codes where the graph has some.
fn plan_codes(graph: &Graph, inputs: &[Binding], evaluate: &dyn Evaluate) -> Result<Graph, BuildError> {
    let codes = graph.nodes().iter().any(|node| node.op.downcast::<Dequantize>().is_some());
    if !codes {
        return fuse(specialise(graph, inputs, evaluate)?);
    }
    // Codes that integer kernels read stay codes; the others become numbers.
    let coded = fuse_codes(&specialise(graph, inputs, &KeepCodes(evaluate))?)?;
    let types: Vec<Binding> =
        coded.inputs().iter().map(|id| Binding::Input(coded.value(*id).ty.clone())).collect();
    fuse(specialise(&coded, &types, evaluate)?)
}

/// Folds all but numbers made of codes: who reads the graph may compute with the codes.
struct KeepCodes<'a>(&'a dyn Evaluate);

impl Evaluate for KeepCodes<'_> {
    fn evaluate(&self, op: &dyn Op, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Option<Vec<Tensor>> {
        op.downcast::<Dequantize>().is_none().then(|| self.0.evaluate(op, inputs, outputs))?
    }
}

/// Every pass for graphs that are to be written: for inputs bound like this, folded, cleaned up, shared and fused. `log`
/// learns what was done and what was left.
pub fn improve(
    graph: &Graph,
    inputs: &[Binding],
    evaluate: &dyn Evaluate,
    log: &mut Log,
) -> Result<Graph, BuildError> {
    let live = prune(graph)?;
    log.gone("dead", graph, &live);
    let bound = specialise(&live, inputs, &KeepCodes(evaluate))?;
    log.gone("fold", &live, &bound);
    let mut clean = simplify::rounds(&bound, log)?;
    clean = share::share(&clean, log)?;
    clean = branches::merge(&clean, log)?;
    clean = affine::fold(&clean, log)?;
    clean = simplify::rounds(&clean, log)?;
    let fused = fuse(clean.clone())?;
    log.notes("fuse", &clean, &fused);
    left::explain(&fused, log);
    Ok(fused)
}

#[cfg(test)]
mod tests {
    use kinglet_tensor::{Bytes, DType, Tensor};

    use super::*;
    use crate::ops::{Add, Linear, RmsNorm, Sequence};
    use crate::{GraphBuilder, TensorType, ValueId};

    fn weight(b: &mut GraphBuilder, name: &str, shape: &[usize]) -> ValueId {
        let bytes = Bytes::from(vec![0; 4 * shape.iter().product::<usize>()]);
        b.weight(Tensor::new(name, DType::F32, shape.to_vec(), bytes).expect("sizes agree"))
            .expect("new name")
    }

    /// `x + linear(x)`, normed, then two products of the norm.
    fn block() -> Result<Graph, BuildError> {
        let mut b = GraphBuilder::new();
        let rows = b.dim("T", 8);
        let x = b.input("x", TensorType::rows_of(rows, 4))?;
        let (w, scale) = (weight(&mut b, "w", &[4, 4]), weight(&mut b, "scale", &[4]));
        let (q, k, bias) =
            (weight(&mut b, "wq", &[6, 4]), weight(&mut b, "wk", &[2, 4]), weight(&mut b, "bk", &[2]));
        let o = b.node("o", Linear::one(false), &[x, w])?;
        let sum = b.node("sum", Add, &[x, o])?;
        let h = b.node("h", RmsNorm { eps: 1e-5 }, &[sum, scale])?;
        let q = b.node("q", Linear::one(false), &[h, q])?;
        let k = b.node("k", Linear::one(true), &[h, k, bias])?;
        [sum, q, k].into_iter().for_each(|v| b.output(v));
        Ok(b.finish())
    }

    fn ops(graph: &Graph) -> Vec<String> {
        let text = |n: &crate::Node| {
            let inputs: Vec<&str> = n.inputs.iter().map(|v| graph.value(*v).name.as_str()).collect();
            let outputs: Vec<&str> = n.outputs.iter().map(|v| graph.value(*v).name.as_str()).collect();
            format!("{} = {}({})", outputs.join(", "), n.op.name(), inputs.join(", "))
        };
        graph.nodes().iter().map(text).collect()
    }

    /// Knows no values.
    struct Unknown;

    impl Evaluate for Unknown {
        fn evaluate(&self, _: &dyn Op, _: &[Option<&Tensor>], _: &[Type]) -> Option<Vec<Tensor>> {
            None
        }
    }

    #[test]
    fn nodes_without_inputs_stay() -> Result<(), BuildError> {
        let mut b = GraphBuilder::new();
        let list = b.node("list", Sequence::Empty, &[])?;
        b.output(list);
        let found = improve(&b.finish(), &[], &Unknown, &mut Log::default())?;
        assert_eq!(ops(&found), ["list = Sequence()"]);
        Ok(())
    }

    #[test]
    fn neighbours_fuse_and_values_keep_their_names() -> Result<(), BuildError> {
        let expected =
            ["o = Linear(x, w)", "sum, h = AddRmsNorm(x, o, scale)", "q, k = Linear(h, wq, wk, bk)"];
        assert_eq!(ops(&optimise(block()?)?), expected);
        Ok(())
    }

    #[test]
    fn decomposing_undoes_fusion_and_fusing_again_redoes_it() -> Result<(), BuildError> {
        let (plain, fused) = (block()?, optimise(block()?)?);
        assert_eq!(ops(&decompose(&fused)?), ops(&plain));
        assert_eq!(ops(&optimise(decompose(&fused)?)?), ops(&fused));
        Ok(())
    }

    #[test]
    fn ill_typed_nodes_are_refused_with_the_reason() -> Result<(), BuildError> {
        let mut b = GraphBuilder::new();
        let rows = b.dim("T", 8);
        let x = b.input("x", TensorType::rows_of(rows, 4))?;
        let w = weight(&mut b, "w", &[4, 5]);
        let error = b.node("y", Linear::one(false), &[x, w]).expect_err("4 columns against 5");
        assert_eq!(error.to_string(), "node `y` (Linear): columns of weight 0 is 5, expected 4");
        let error = b.input("w", TensorType::rows_of(rows, 1)).expect_err("taken");
        assert_eq!(error, BuildError::DuplicateName("w".into()));
        Ok(())
    }
}
