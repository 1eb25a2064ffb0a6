//! Models that are one computation: preparation of features, linear models, support vectors, trees, choice of boxes.
//!
//! Numbers of their own are vectors of one; everything a step reads is one vector, its features in order.

use kinglet_graph::ops::{
    BestBoxes, Binary, Cast, Compress, Concat, Fun, Fun2, Gather, Identity, LpNorm, MatMul, Reduce,
    ReduceKind, Reshape, Softmax, SoftmaxKind, Squeeze, TreeEnsemble, Unary, Unsqueeze, Where,
};
use kinglet_graph::{BuildError, Dim, Op, TensorType, ValueId};
use kinglet_tensor::DType;

use super::Stage;
use super::making::Making;
use super::trees;
use crate::coreml::interface::{FeatureKind, Interface, Size};
use crate::coreml::{CoreMlError, Fields, Step};

type Made = Result<ValueId, CoreMlError>;

/// Boxes that are chosen at most, where the model leaves their number open.
const MAX_BOXES: usize = 1 << 14;

/// Adds a step.
pub(super) fn stage(step: &Step, interface: &Interface, making: &mut Making) -> Result<Stage, CoreMlError> {
    let mut cx = Cx { step, interface, making };
    let made = match step.kind {
        "identity" => {
            let feature = interface.inputs.first().ok_or_else(|| step.fails("it reads nothing"))?;
            cx.feature(&feature.name, &feature.kind)?
        }
        "nonMaximumSuppression" => return boxes(&mut cx),
        kind => {
            let x = cx.vector()?;
            match kind {
                "featureVectorizer" => x,
                "scaler" => scaler(&mut cx, x)?,
                "normalizer" => normalizer(&mut cx, x)?,
                "imputer" => imputer(&mut cx, x)?,
                "arrayFeatureExtractor" => extract(&mut cx, x)?,
                "oneHotEncoder" => one_hot(&mut cx, x)?,
                "glmRegressor" => linear(&mut cx, x, false)?,
                "glmClassifier" => linear(&mut cx, x, true)?,
                "supportVectorRegressor" => support(&mut cx, x)?,
                _ => tree(&mut cx, x)?,
            }
        }
    };
    let label = interface.predicted.as_deref();
    let number = |name: &&str| interface.classes.is_none() || Some(*name) != label;
    let names = interface.outputs.iter().map(|feature| feature.name.as_str());
    let own = interface.probabilities.as_deref().or_else(|| names.clone().find(number));
    let name = own.ok_or_else(|| step.fails("it has no output of numbers"))?;
    Ok(Stage { outputs: vec![(name.into(), made)], states: Vec::new() })
}

struct Cx<'a> {
    step: &'a Step,
    interface: &'a Interface,
    making: &'a mut Making,
}

impl Cx<'_> {
    fn params(&self) -> &Fields {
        &self.step.params
    }

    fn op(&mut self, op: impl Op, inputs: &[ValueId]) -> Made {
        let made = self.making.op(self.step.kind, op, inputs);
        made.map_err(|e| match e {
            BuildError::Node { reason, .. } => self.step.fails(reason),
            other => other.into(),
        })
    }

    fn floats(&mut self, values: &[f64]) -> Made {
        self.matrix(&[values.len()], values)
    }

    fn matrix(&mut self, shape: &[usize], values: &[f64]) -> Made {
        let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
        Ok(self.making.floats(self.step.kind, shape, &values)?)
    }

    fn scalar(&mut self, value: f64) -> Made {
        self.matrix(&[], &[value])
    }

    fn ints(&mut self, values: &[i64]) -> Made {
        Ok(self.making.ints(self.step.kind, values)?)
    }

    fn binary(&mut self, fun: Fun2, a: ValueId, b: ValueId) -> Made {
        self.op(Binary(fun), &[a, b])
    }

    fn feature(&mut self, name: &str, kind: &FeatureKind) -> Made {
        let shape = match kind {
            FeatureKind::Int64 | FeatureKind::Double => vec![Dim::Fixed(1)],
            FeatureKind::Array { shape, .. } => {
                let size = |size: &Size| match size {
                    Size::Fixed(n) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Fixed),
                    Size::Range { .. } => Dim::Unknown,
                };
                shape.iter().map(size).collect()
            }
            _ => {
                return Err(CoreMlError::value(name, "inputs other than numbers and arrays cannot run here"));
            }
        };
        Ok(self.making.input(name, TensorType { dtype: DType::F32, shape })?)
    }

    /// All features as one vector of floats.
    fn vector(&mut self) -> Made {
        let mut parts = Vec::new();
        for feature in &self.interface.inputs {
            let x = self.feature(&feature.name, &feature.kind)?;
            let (x, flat) = (self.op(Cast::to(DType::F32), &[x])?, self.ints(&[-1])?);
            parts.push(if self.making.rank(x) == Some(1) {
                x
            } else {
                self.op(Reshape { allow_zero: false }, &[x, flat])?
            });
        }
        match parts[..] {
            [] => Err(self.step.fails("it reads nothing")),
            [one] => Ok(one),
            _ => self.op(Concat { axis: 0 }, &parts),
        }
    }
}

/// `(x + shift) * scale`.
fn scaler(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let (shift, scale) = (cx.params().doubles(1), cx.params().doubles(2));
    let mut x = x;
    for (list, fun) in [(shift, Fun2::Add), (scale, Fun2::Mul)] {
        if !list.is_empty() {
            let list = cx.floats(&list)?;
            x = cx.binary(fun, x, list)?;
        }
    }
    Ok(x)
}

fn normalizer(cx: &mut Cx<'_>, x: ValueId) -> Made {
    match cx.params().int(1) {
        0 => {
            let size = cx.op(Unary(Fun::Abs), &[x])?;
            let most = cx.op(Reduce { kind: ReduceKind::Max, keep_dims: true, keep_all: false }, &[size])?;
            cx.binary(Fun2::Div, x, most)
        }
        1 => cx.op(LpNorm { axis: 0, p: 1 }, &[x]),
        2 => cx.op(LpNorm { axis: 0, p: 2 }, &[x]),
        other => Err(cx.step.fails(format!("norm {other} does not exist"))),
    }
}

/// Another number in the place of those that are missing.
fn imputer(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let params = cx.params();
    let list = |tag: u32| params.message(tag).map(|m| m.map(|m| m.doubles(1)));
    let (array, whole) = (list(4)?, params.message(5)?.map(|m| m.ints(1)));
    let values = match (array, whole) {
        (Some(list), _) => list,
        (None, Some(list)) => list.iter().map(|n| *n as f64).collect(),
        _ if params.has(1) => vec![params.double(1)],
        _ if params.has(2) => vec![params.int(2) as f64],
        _ => return Err(cx.step.fails("it puts no number in the place of missing ones")),
    };
    let replaced = match (params.has(11), params.has(12)) {
        (true, _) => params.double(11),
        (_, true) => params.int(12) as f64,
        _ => return Err(cx.step.fails("texts cannot be replaced")),
    };
    let missing = if replaced.is_nan() {
        cx.op(Unary(Fun::IsNan), &[x])?
    } else {
        let replaced = cx.scalar(replaced)?;
        cx.binary(Fun2::Equal, x, replaced)?
    };
    let values = cx.floats(&values)?;
    cx.op(Where, &[missing, values, x])
}

fn extract(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let places = cx.params().ints(1);
    let places = cx.ints(&places)?;
    cx.op(Gather { axis: 0 }, &[x, places])
}

/// A number for each category: 1 where the feature is it.
fn one_hot(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let categories = cx.params().message(2)?.map(|m| m.ints(1)).unwrap_or_default();
    if categories.is_empty() || cx.params().bool(10) {
        return Err(cx.step.fails("texts and sparse codes cannot run; dense codes of whole numbers can"));
    }
    let categories: Vec<f64> = categories.iter().map(|n| *n as f64).collect();
    let categories = cx.floats(&categories)?;
    let same = cx.binary(Fun2::Equal, x, categories)?;
    cx.op(Cast::to(DType::F32), &[same])
}

/// `weights * x + offset`, and the function behind it.
fn linear(cx: &mut Cx<'_>, x: ValueId, classifier: bool) -> Made {
    let rows = cx.params().messages(1)?.iter().map(|row| row.doubles(1)).collect::<Vec<_>>();
    let (width, offset) = (rows.first().map_or(0, Vec::len), cx.params().doubles(2));
    if width == 0 || rows.iter().any(|row| row.len() != width) || offset.len() != rows.len() {
        return Err(cx.step.fails("its weights and offsets do not fit together"));
    }
    // A row for each input, so that a vector stands on the left.
    let turned: Vec<f64> = (0..width).flat_map(|i| rows.iter().map(move |row| row[i])).collect();
    let weights = cx.matrix(&[width, rows.len()], &turned)?;
    let (product, offset) = (cx.op(MatMul, &[x, weights])?, cx.floats(&offset)?);
    let score = cx.binary(Fun2::Add, product, offset)?;
    let (transform, one_by_one) = (cx.params().int(3), cx.params().int(4) == 1);
    match (classifier, transform) {
        (false, 0) => Ok(score),
        (false, 1) => cx.op(Unary(Fun::Sigmoid), &[score]),
        (_, 2) | (true, 1) => probit(cx, score, classifier),
        (true, 0) if one_by_one && rows.len() > 1 => {
            let each = cx.op(Unary(Fun::Sigmoid), &[score])?;
            let sum = cx.op(Reduce { kind: ReduceKind::Sum, keep_dims: true, keep_all: false }, &[each])?;
            cx.binary(Fun2::Div, each, sum)
        }
        (true, 0) => against_zero(cx, score),
        (_, other) => Err(cx.step.fails(format!("transformation {other} does not exist"))),
    }
}

/// Shares of classes, the first of which scores 0.
fn against_zero(cx: &mut Cx<'_>, score: ValueId) -> Made {
    let zero = cx.floats(&[0.0])?;
    let all = cx.op(Concat { axis: 0 }, &[zero, score])?;
    cx.op(Softmax { kind: SoftmaxKind::Soft, axis: 0, flat: false }, &[all])
}

/// `(1 + erf(x / sqrt 2)) / 2`; of a classifier of two classes, their shares.
fn probit(cx: &mut Cx<'_>, score: ValueId, classifier: bool) -> Made {
    let (root, one, half) = (cx.scalar(std::f64::consts::FRAC_1_SQRT_2)?, cx.scalar(1.0)?, cx.scalar(0.5)?);
    let scaled = cx.binary(Fun2::Mul, score, root)?;
    let error = cx.op(Unary(Fun::Erf), &[scaled])?;
    let sum = cx.binary(Fun2::Add, error, one)?;
    let share = cx.binary(Fun2::Mul, sum, half)?;
    if !classifier {
        return Ok(share);
    }
    let rest = cx.binary(Fun2::Sub, one, share)?;
    cx.op(Concat { axis: 0 }, &[rest, share])
}

/// `sum(alpha * kernel(x, vector)) + rho` over the support vectors.
fn support(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let dense = cx.params().message(3)?.map(|list| list.messages(1)).transpose()?;
    let sparse = cx.params().message(2)?.map(|list| list.messages(1)).transpose()?;
    let width = cx.making.dims(x).filter(|dims| dims.len() == 1).map(|dims| dims[0]);
    let width = width.ok_or_else(|| cx.step.fails("the number of its features is open"))?;
    let vectors: Vec<Vec<f64>> = match (dense, sparse) {
        (Some(list), _) => list.iter().map(|vector| vector.doubles(1)).collect(),
        (None, Some(list)) => {
            let rows: Result<Vec<_>, _> = list.iter().map(|vector| trees::sparse(vector, width)).collect();
            rows?
        }
        (None, None) => Vec::new(),
    };
    let alpha = cx.params().message(4)?.map(|m| m.doubles(1)).unwrap_or_default();
    if vectors.is_empty() || alpha.len() != vectors.len() || vectors.iter().any(|v| v.len() != width) {
        return Err(cx.step.fails("its support vectors and coefficients do not fit together"));
    }
    let rho = cx.params().double(5);
    let matrix = cx.matrix(&[vectors.len(), width], &vectors.concat())?;
    let near = kernel(cx, x, matrix)?;
    let (alpha, rho) = (cx.floats(&alpha)?, cx.scalar(rho)?);
    let weighted = cx.binary(Fun2::Mul, near, alpha)?;
    let sum = cx.op(Reduce { kind: ReduceKind::Sum, keep_dims: true, keep_all: false }, &[weighted])?;
    cx.binary(Fun2::Add, sum, rho)
}

/// How near `x` is to each row of a matrix.
fn kernel(cx: &mut Cx<'_>, x: ValueId, rows: ValueId) -> Made {
    let kernel = cx.params().message(1)?.unwrap_or_default();
    let (rbf, poly, sigmoid) = (kernel.message(2)?, kernel.message(3)?, kernel.message(4)?);
    if let Some(rbf) = rbf {
        let gap = cx.binary(Fun2::Sub, rows, x)?;
        let axis = cx.ints(&[1])?;
        let far = Reduce { kind: ReduceKind::SumSquare, keep_dims: false, keep_all: false };
        let (far, gamma) = (cx.op(far, &[gap, axis])?, cx.scalar(-rbf.double(1))?);
        let power = cx.binary(Fun2::Mul, far, gamma)?;
        return cx.op(Unary(Fun::Exp), &[power]);
    }
    let product = cx.op(MatMul, &[rows, x])?;
    let (gamma, c) = match (&poly, &sigmoid) {
        (Some(poly), _) => (poly.double(3), poly.double(2)),
        (_, Some(sigmoid)) => (sigmoid.double(1), sigmoid.double(2)),
        _ => return Ok(product),
    };
    let (gamma, c) = (cx.scalar(gamma)?, cx.scalar(c)?);
    let scaled = cx.binary(Fun2::Mul, product, gamma)?;
    let moved = cx.binary(Fun2::Add, scaled, c)?;
    match poly {
        Some(poly) => {
            let degree = cx.scalar(poly.int(1) as f64)?;
            cx.binary(Fun2::Pow, moved, degree)
        }
        None => cx.op(Unary(Fun::Tanh), &[moved]),
    }
}

fn tree(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let trees: TreeEnsemble = trees::read(cx.step)?;
    let (one, two) =
        (trees.base.len() == 1, cx.step.classes().is_some_and(|classes| classes.names.len() == 2));
    let score = cx.op(trees, &[x])?;
    let made = transformed(cx, score)?;
    // One number for two classes is the probability of the second.
    if !(one && two && cx.step.kind == "treeEnsembleClassifier") || cx.making.dims(made) != Some(vec![1]) {
        return Ok(made);
    }
    let whole = cx.scalar(1.0)?;
    let rest = cx.binary(Fun2::Sub, whole, made)?;
    cx.op(Concat { axis: 0 }, &[rest, made])
}

/// What the model says stands behind the trees.
fn transformed(cx: &mut Cx<'_>, score: ValueId) -> Made {
    match cx.params().int(2) {
        0 => Ok(score),
        1 => cx.op(Softmax { kind: SoftmaxKind::Soft, axis: 0, flat: false }, &[score]),
        2 => cx.op(Unary(Fun::Sigmoid), &[score]),
        3 => against_zero(cx, score),
        other => Err(cx.step.fails(format!("transformation {other} does not exist"))),
    }
}

/// Of boxes `[B, 4]` with scores `[B, classes]` those that are kept: as many rows as there are.
fn boxes(cx: &mut Cx<'_>) -> Result<Stage, CoreMlError> {
    let name = |cx: &Cx<'_>, tag: u32, usual: &str| {
        cx.params().texts(tag).pop().filter(|name| !name.is_empty()).unwrap_or_else(|| usual.to_owned())
    };
    let (scores, boxes) = (name(cx, 200, "confidence"), name(cx, 201, "coordinates"));
    let results = [name(cx, 210, "confidence"), name(cx, 211, "coordinates")];
    let mut values = Vec::new();
    for input in [&boxes, &scores] {
        let declared = cx.interface.inputs.iter().find(|feature| feature.name == *input);
        let declared = declared.ok_or_else(|| CoreMlError::Dangling(input.clone()))?;
        let x = cx.feature(input, &declared.kind)?;
        // Some models leave a batch of one before the boxes.
        let shape = cx.ints(&[-1, if input == &boxes { 4 } else { class_count(cx, x)? }])?;
        values.push(if cx.making.rank(x) == Some(2) {
            x
        } else {
            cx.op(Reshape { allow_zero: false }, &[x, shape])?
        });
    }
    let most = cx.making.dims(values[0]).map_or(MAX_BOXES, |dims| dims[0].min(MAX_BOXES));
    let by_class = cx.params().message(1)?.unwrap_or_default().bool(1);
    let (overlap, threshold) = (cx.params().double(110) as f32, cx.params().double(111) as f32);
    let op = BestBoxes { most, overlap, threshold, by_class, at_least_one: false };
    let front = cx.ints(&[0])?;
    let stacked = [cx.op(Unsqueeze, &[values[0], front])?, cx.op(Unsqueeze, &[values[1], front])?];
    let chosen = cx.op(op, &stacked)?;
    let chosen = cx.op(Squeeze, &[chosen, front])?;
    let zero = cx.ints(&[0])?;
    let there = cx.binary(Fun2::GreaterOrEqual, chosen, zero)?;
    let kept = cx.op(Compress { axis: Some(0) }, &[chosen, there])?;
    let mut outputs = Vec::new();
    for (name, from) in results.into_iter().zip([values[1], values[0]]) {
        let rows = cx.op(Gather { axis: 0 }, &[from, kept])?;
        outputs.push((name, cx.op(Identity, &[rows])?));
    }
    Ok(Stage { outputs, states: Vec::new() })
}

/// The last size of scores.
fn class_count(cx: &Cx<'_>, scores: ValueId) -> Result<i64, CoreMlError> {
    let last = cx.making.builder.ty(scores).tensor().and_then(|ty| ty.shape.last()?.fixed());
    last.map(|n| n as i64).ok_or_else(|| cx.step.fails("the number of its classes is open"))
}
