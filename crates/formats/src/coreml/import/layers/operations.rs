//! Layers that are operations of programs under another name: a table says which, and where their parameters stand.
//!
//! All values of a network are floats: places and truth values are made of them on the way in, and floats of them on the
//! way out.

use std::collections::{BTreeMap, HashMap};

use kinglet_graph::ops::{Cast, Identity};
use kinglet_graph::{Def, ValueId};
use kinglet_tensor::{DType, Tensor};

use crate::coreml::CoreMlError;
use crate::coreml::import::network::Cx;
use crate::coreml::import::program;
use crate::coreml::program::{Argument, Op, ValueType};
use crate::coreml::value::{Literal, TensorType};

type Done = Result<(), CoreMlError>;

/// Layer, operation, inputs by parameter, parameters of the layer.
type Row = (&'static str, &'static str, &'static [In], &'static [Of]);

/// What an input is for an operation.
#[derive(Clone, Copy)]
enum In {
    /// Numbers.
    Numbers(&'static str),
    /// Places, sizes, counts.
    Whole(&'static str),
    /// Truth values.
    Truth(&'static str),
    /// Numbers, or the one in this field when there are fewer inputs.
    Else(&'static str, u32),
    /// A whole number that may be missing.
    Maybe(&'static str),
    /// The sizes of this input.
    Sizes(&'static str),
    /// All inputs that are left.
    All(&'static str),
}

/// Where a parameter of an operation stands in the layer.
#[derive(Clone, Copy)]
enum Of {
    Int(&'static str, u32),
    /// Not given when empty.
    Ints(&'static str, u32),
    Flag(&'static str, u32),
    Unless(&'static str, u32),
    Float(&'static str, u32),
    /// A float that is this one when absent or zero.
    Usual(&'static str, u32, f32),
    /// The text at the number in this field.
    Text(&'static str, u32, &'static [&'static str]),
}

use In::{All, Else, Maybe, Numbers, Sizes, Truth, Whole};
use Of::{Flag, Float, Int, Ints, Text, Unless, Usual};

const SCATTERS: &[&str] = &["update", "add", "sub", "mul", "div", "max", "min"];
const PAIR: &[In] = &[Numbers("x"), Numbers("y")];
const TRUTHS: &[In] = &[Truth("x"), Truth("y")];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("NonMaximumSuppression", "non_maximum_suppression", &[Numbers("boxes"), Numbers("scores")], &[Float("iou_threshold", 1), Float("score_threshold", 2), Int("max_boxes", 3), Flag("per_class_suppression", 4)]),
    ("argMax", "reduce_argmax", &[Numbers("x")], &[Int("axis", 1), Unless("keep_dims", 2)]),
    ("argMin", "reduce_argmin", &[Numbers("x")], &[Int("axis", 1), Unless("keep_dims", 2)]),
    ("argSort", "argsort", &[Numbers("x")], &[Int("axis", 1), Unless("ascending", 2)]),
    ("clampedReLU", "clamped_relu", &[Numbers("x")], &[Float("alpha", 1), Float("beta", 2)]),
    ("cumSum", "cumsum", &[Numbers("x")], &[Int("axis", 1), Flag("exclusive", 2), Flag("reverse", 3)]),
    ("equal", "equal", &[Numbers("x"), Else("y", 1)], &[]),
    ("exp2", "exp2", &[Numbers("x")], &[]),
    ("fillDynamic", "fill", &[Whole("shape")], &[Float("value", 1)]),
    ("fillLike", "fill_like", &[Numbers("ref_tensor")], &[Float("value", 1)]),
    ("fillStatic", "fill", &[], &[Ints("shape", 2), Float("value", 1)]),
    ("floorDivBroadcastable", "floor_div", PAIR, &[]),
    ("gather", "gather", &[Numbers("x"), Whole("indices")], &[Int("axis", 1)]),
    ("gatherAlongAxis", "gather_along_axis", &[Numbers("x"), Whole("indices")], &[Int("axis", 1)]),
    ("gatherND", "gather_nd", &[Numbers("x"), Whole("indices")], &[]),
    ("getShape", "shape", &[Numbers("x")], &[]),
    ("greaterEqual", "greater_equal", &[Numbers("x"), Else("y", 2)], &[]),
    ("greaterThan", "greater", &[Numbers("x"), Else("y", 2)], &[]),
    ("l2normalize", "l2_norm", &[Numbers("x")], &[Usual("epsilon", 1, 1e-6)]),
    ("lessEqual", "less_equal", &[Numbers("x"), Else("y", 2)], &[]),
    ("lessThan", "less", &[Numbers("x"), Else("y", 2)], &[]),
    ("logicalAnd", "logical_and", TRUTHS, &[]),
    ("logicalNot", "logical_not", &[Truth("x")], &[]),
    ("logicalOr", "logical_or", TRUTHS, &[]),
    ("logicalXor", "logical_xor", TRUTHS, &[]),
    ("matrixBandPart", "band_part", &[Numbers("x")], &[Int("lower", 1), Int("upper", 2)]),
    ("modBroadcastable", "mod", PAIR, &[]),
    ("notEqual", "not_equal", &[Numbers("x"), Else("y", 1)], &[]),
    ("oneHot", "one_hot", &[Whole("indices")], &[Int("one_hot_vector_size", 1), Int("axis", 2), Float("on_value", 3), Float("off_value", 4)]),
    ("randomBernoulliDynamic", "random_bernoulli", &[Whole("shape")], &[Int("seed", 1), Float("prob", 2)]),
    ("randomBernoulliLike", "random_bernoulli", &[Sizes("shape")], &[Int("seed", 1), Float("prob", 2)]),
    ("randomBernoulliStatic", "random_bernoulli", &[], &[Int("seed", 1), Float("prob", 2), Ints("shape", 3)]),
    ("randomNormalDynamic", "random_normal", &[Whole("shape")], &[Int("seed", 1), Float("mean", 2), Float("stddev", 3)]),
    ("randomNormalLike", "random_normal", &[Sizes("shape")], &[Int("seed", 1), Float("mean", 2), Float("stddev", 3)]),
    ("randomNormalStatic", "random_normal", &[], &[Int("seed", 1), Float("mean", 2), Float("stddev", 3), Ints("shape", 4)]),
    ("randomUniformDynamic", "random_uniform", &[Whole("shape")], &[Int("seed", 1), Float("low", 2), Float("high", 3)]),
    ("randomUniformLike", "random_uniform", &[Sizes("shape")], &[Int("seed", 1), Float("low", 2), Float("high", 3)]),
    ("randomUniformStatic", "random_uniform", &[], &[Int("seed", 1), Float("low", 2), Float("high", 3), Ints("shape", 4)]),
    ("rangeDynamic", "range_1d", &[Numbers("end"), Else("start", 2), Else("step", 3)], &[]),
    ("rangeStatic", "range_1d", &[], &[Float("end", 1), Float("start", 2), Float("step", 3)]),
    ("rankPreservingReshape", "reshape", &[Numbers("x")], &[Ints("shape", 1)]),
    ("reshapeDynamic", "reshape", &[Numbers("x"), Whole("shape")], &[]),
    ("reshapeLike", "reshape", &[Numbers("x"), Sizes("shape")], &[]),
    ("reverseSeq", "reverse_sequence", &[Numbers("x"), Whole("lengths")], &[Int("batch_axis", 1), Int("seq_axis", 2)]),
    ("scatter", "scatter", &[Numbers("data"), Whole("indices"), Numbers("updates")], &[Int("axis", 1), Text("mode", 2, SCATTERS)]),
    ("scatterAlongAxis", "scatter_along_axis", &[Numbers("data"), Whole("indices"), Numbers("updates")], &[Int("axis", 1), Text("mode", 2, SCATTERS)]),
    ("scatterND", "scatter_nd", &[Numbers("data"), Whole("indices"), Numbers("updates")], &[Text("mode", 1, SCATTERS)]),
    ("sliceDynamic", "slice_by_index", &[Numbers("x"), Whole("begin"), Maybe("end"), Maybe("stride"), Maybe("begin_mask"), Maybe("end_mask"), Maybe("squeeze_mask")], &[Ints("begin_mask", 2), Ints("end", 3), Ints("end_mask", 4), Ints("stride", 5), Ints("squeeze_mask", 6)]),
    ("slidingWindows", "sliding_windows", &[Numbers("x")], &[Int("axis", 1), Int("size", 2), Int("stride", 3)]),
    ("splitND", "split", &[Numbers("x")], &[Int("axis", 1), Ints("split_sizes", 3)]),
    ("stack", "stack", &[All("values")], &[Int("axis", 1)]),
    ("topK", "topk", &[Numbers("x"), Maybe("k")], &[Int("axis", 1), Int("k", 2), Flag("ascending", 3)]),
    ("whereBroadcastable", "select", &[Truth("cond"), Numbers("a"), Numbers("b")], &[]),
    ("whereNonZero", "non_zero", &[Numbers("x")], &[]),
];

/// Whether a layer is an operation under another name.
pub(super) fn knows(layer: &str) -> bool {
    ROWS.iter().any(|row| row.0 == layer)
}

/// Imports a layer of the table.
pub(super) fn import(cx: &mut Cx<'_>) -> Done {
    let row = ROWS.iter().find(|row| row.0 == cx.layer.kind);
    let (_, operation, inputs, params) = row.ok_or_else(|| cx.fail("it cannot be imported"))?;
    let mut bound = BTreeMap::new();
    for param in *params {
        if let Some((name, literal)) = fixed(cx, *param)? {
            bound.insert(name.to_owned(), vec![Argument::Value(literal)]);
        }
    }
    for (i, input) in inputs.iter().enumerate() {
        if let Some((name, arguments)) = given(cx, *input, i)? {
            bound.insert(name.to_owned(), arguments);
        }
    }
    let all = inputs.iter().any(|input| matches!(input, All(_)));
    if !all && cx.layer.inputs.len() > inputs.len() {
        return Err(cx.fail(format!(
            "it takes {} inputs, more than {}",
            cx.layer.inputs.len(),
            inputs.len()
        )));
    }
    run(cx, operation, bound)
}

/// The layer's outputs as those of an operation with these parameters.
pub(super) fn run(cx: &mut Cx<'_>, operation: &str, inputs: BTreeMap<String, Vec<Argument>>) -> Done {
    let floats = TensorType { dtype: Some(DType::F32), bits: 32, shape: Vec::new() };
    let raw: Vec<String> = cx.layer.outputs.iter().map(|name| format!("{name}.raw")).collect();
    let op = Op {
        kind: operation.into(),
        name: cx.layer.name.clone(),
        inputs,
        outputs: raw.iter().map(|name| (name.clone(), ValueType::Tensor(floats.clone()))).collect(),
        attributes: BTreeMap::new(),
        blocks: Vec::new(),
    };
    program::operation(&op, &HashMap::new(), cx.making)?;
    for (raw, output) in raw.iter().zip(&cx.layer.outputs) {
        let made = cx.making.find(raw).ok_or_else(|| cx.fail(format!("it does not make `{output}`")))?;
        let made = match cx.making.builder.dtype(made) {
            Some(DType::F32) => cx.making.op(output, Identity, &[made])?,
            _ => cx.making.op(output, Cast::to(DType::F32), &[made])?,
        };
        cx.making.bind(output, made);
    }
    Ok(())
}

/// A parameter that the layer itself fixes.
fn fixed(cx: &Cx<'_>, param: Of) -> Result<Option<(&'static str, Literal)>, CoreMlError> {
    let params = cx.params();
    Ok(Some(match param {
        Int(name, tag) => (name, whole(&[params.int(tag)], true)?),
        Ints(_, tag) if params.ints(tag).is_empty() => return Ok(None),
        Ints(name, tag) => (name, whole(&params.ints(tag), false)?),
        Flag(name, tag) => (name, whole(&[params.int(tag)], true)?),
        Unless(name, tag) => (name, whole(&[i64::from(!params.bool(tag))], true)?),
        Float(name, tag) => (name, number(params.float(tag))?),
        Usual(name, tag, usual) => {
            (name, number(Some(params.float(tag)).filter(|x| *x != 0.0).unwrap_or(usual))?)
        }
        Text(name, tag, texts) => {
            let text = usize::try_from(params.int(tag)).ok().and_then(|i| texts.get(i));
            let text = text.ok_or_else(|| cx.fail(format!("{name} {} does not exist", params.int(tag))))?;
            (name, self::text(text))
        }
    }))
}

/// Input `i` as a parameter.
fn given(cx: &mut Cx<'_>, input: In, i: usize) -> Result<Option<(&'static str, Vec<Argument>)>, CoreMlError> {
    let there = i < cx.layer.inputs.len();
    let (name, to) = match input {
        Numbers(name) => (name, None),
        Truth(name) => (name, Some(DType::Bool)),
        Whole(name) => (name, Some(DType::I64)),
        Maybe(_) if !there => return Ok(None),
        Maybe(name) => (name, Some(DType::I64)),
        Else(name, tag) if !there => {
            return Ok(Some((name, vec![Argument::Value(number(cx.params().float(tag))?)])));
        }
        Else(name, _) => (name, None),
        Sizes(name) => {
            let x = cx.input(i)?;
            let sizes = cx.temp(kinglet_graph::ops::Shape { start: 0, end: None }, &[x])?;
            return Ok(Some((name, vec![bound(cx, name, sizes)])));
        }
        All(name) => {
            let rest = cx.layer.inputs[i.min(cx.layer.inputs.len())..].iter();
            return Ok(Some((name, rest.map(|input| Argument::Name(input.clone())).collect())));
        }
    };
    let x = cx.input(i)?;
    let Some(dtype) = to else { return Ok(Some((name, vec![bound(cx, name, x)]))) };
    if let Some(list) = constant(cx, x).filter(|_| dtype == DType::I64) {
        return Ok(Some((name, vec![Argument::Value(list)])));
    }
    let cast = cx.temp(Cast::to(dtype), &[x])?;
    Ok(Some((name, vec![bound(cx, name, cast)])))
}

/// A value under a name that no layer has.
fn bound(cx: &mut Cx<'_>, parameter: &str, id: ValueId) -> Argument {
    let name = format!("{}/{parameter}", cx.layer.name);
    cx.making.bind(&name, id);
    Argument::Name(name)
}

/// A constant as whole numbers.
fn constant(cx: &Cx<'_>, id: ValueId) -> Option<Literal> {
    let Def::Weight(tensor) = &cx.making.builder.graph().value(id).def else { return None };
    let list: Vec<i64> = Literal::Tensor(tensor.clone()).floats()?.iter().map(|x| *x as i64).collect();
    let data: Vec<u8> = list.iter().flat_map(|n| n.to_le_bytes()).collect();
    Some(Literal::Tensor(Tensor::new("", DType::I64, tensor.shape().to_vec(), data.into()).ok()?))
}

/// Whole numbers as a literal: one alone, or a list.
pub(super) fn whole(list: &[i64], alone: bool) -> Result<Literal, CoreMlError> {
    let shape = if alone { Vec::new() } else { vec![list.len()] };
    let data: Vec<u8> = list.iter().flat_map(|n| n.to_le_bytes()).collect();
    Ok(Literal::Tensor(Tensor::new("", DType::I64, shape, data.into())?))
}

pub(super) fn number(x: f32) -> Result<Literal, CoreMlError> {
    Ok(Literal::Tensor(Tensor::new("", DType::F32, Vec::new(), x.to_le_bytes().to_vec().into())?))
}

pub(super) fn text(text: &str) -> Literal {
    Literal::Texts(vec![text.into()])
}

/// A parameter with a literal.
pub(super) fn fixed_to(name: &str, literal: Literal) -> (String, Vec<Argument>) {
    (name.into(), vec![Argument::Value(literal)])
}

/// A parameter with a value of the graph.
pub(super) fn bound_to(cx: &mut Cx<'_>, name: &str, id: ValueId) -> (String, Vec<Argument>) {
    (name.into(), vec![bound(cx, name, id)])
}
