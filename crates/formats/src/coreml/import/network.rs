//! Neural networks: what the importer of a layer sees, and the walk over the layers.
//!
//! Values have the rank that their layers make; an array of one dimension that a layer of pictures reads becomes
//! `[1, C, 1, 1]`, one of three `[1, C, H, W]`. The sequence dimension of old networks is absent.

use kinglet_graph::ops::{Binary, Fun2, Identity, Reshape, Softmax, SoftmaxKind};
use kinglet_graph::{BuildError, Dim, Op, TensorType, ValueId};
use kinglet_tensor::DType;

use super::making::Making;
use super::{Stage, branching, layers, refuse};
use crate::coreml::CoreMlError;
use crate::coreml::interface::{Colour, FeatureKind, Interface, Size};
use crate::coreml::network::{Fields, Layer, Network, Scaler};
use crate::custom::CustomOps;
use crate::error::printable;

/// Adds the layers of a network.
pub(super) fn stage(
    network: &Network,
    interface: &Interface,
    custom: &CustomOps,
    making: &mut Making,
) -> Result<Stage, CoreMlError> {
    let mut missing = Vec::new();
    unsupported(&network.layers, custom, &mut missing);
    refuse(missing.into_iter())?;
    for feature in &interface.inputs {
        input(making, network, &feature.name, &feature.kind)?;
    }
    let outputs: Vec<&str> = interface.outputs.iter().map(|feature| feature.name.as_str()).collect();
    branching::network(&network.layers, &outputs, custom, making)?;
    let mut stage = Stage::default();
    let classes = interface.classes.as_ref().and_then(|classes| classes.layer.as_deref());
    // The class is the best of the probabilities: the caller's part.
    let numbers = |name: &str| interface.predicted.as_deref() != Some(name);
    for name in interface.outputs.iter().map(|feature| &feature.name).filter(|name| numbers(name)) {
        let last = network.layers.last().and_then(|layer| layer.outputs.first());
        let last = last.filter(|_| interface.probabilities.as_deref() == Some(name));
        let made = making.find(name).or_else(|| making.find(classes?)).or_else(|| making.find(last?));
        stage.outputs.push((name.clone(), made.ok_or_else(|| CoreMlError::Dangling(name.clone()))?));
    }
    Ok(stage)
}

/// Kind and name of each layer that has no importer, of nested networks too.
fn unsupported<'a>(layers: &'a [Layer], custom: &CustomOps, missing: &mut Vec<(String, &'a str)>) {
    for layer in layers {
        let class = layer.class();
        if layer.kind == "custom" && !custom.has(CustomOps::CORE_ML, &class) {
            let kind = format!("custom layer of class `{}`, to be registered from Rust", printable(&class));
            missing.push((kind, &layer.name));
        } else if !branching::knows(layer.kind) && layers::importer(layer.kind).is_none() {
            missing.push((layer.kind.into(), &layer.name));
        }
        layer.bodies.iter().for_each(|body| unsupported(body, custom, missing));
    }
}

/// Adds the ops for one layer that owns no others.
pub(super) fn layer(layer: &Layer, custom: &CustomOps, making: &mut Making) -> Result<(), CoreMlError> {
    let import = layers::importer(layer.kind).ok_or_else(|| layer.fails("it cannot be imported"))?;
    import(&mut Cx { layer, custom, making, temps: 0 })
}

/// Declares an input; a picture goes through the network's scaler.
fn input(making: &mut Making, network: &Network, name: &str, kind: &FeatureKind) -> Result<(), CoreMlError> {
    let sizes = match kind {
        FeatureKind::Image { width, height, colour } => {
            let channels = if *colour == Colour::Grey { 1 } else { 3 };
            [1, channels, *height, *width]
                .map(|n| usize::try_from(n).map_or(Dim::Unknown, Dim::Fixed))
                .to_vec()
        }
        FeatureKind::Array { shape, .. } => {
            let dim = |size: &Size| match size {
                Size::Fixed(n) | Size::Range { usual: n, .. } => {
                    usize::try_from(*n).map_or(Dim::Unknown, Dim::Fixed)
                }
            };
            let mut sizes: Vec<Dim> = shape.iter().map(dim).collect();
            if !network.exact_arrays && sizes.len() == 3 {
                sizes.insert(0, Dim::Fixed(1));
            }
            sizes
        }
        _ => return Err(CoreMlError::value(name, "inputs other than pictures and arrays cannot run")),
    };
    let id = making.input(name, TensorType { dtype: DType::F32, shape: sizes })?;
    let scaler = network.scalers.iter().find(|s| s.feature == name || s.feature.is_empty());
    let id = match (scaler, kind) {
        (Some(scaler), FeatureKind::Image { colour, .. }) => scaled(making, name, id, scaler, *colour)?,
        _ => id,
    };
    making.bind(name, id);
    Ok(())
}

/// `x * scale + bias`. Biases that would move every channel of 0..255 further from zero are a converter's error of sign.
fn scaled(
    making: &mut Making,
    name: &str,
    x: ValueId,
    scaler: &Scaler,
    colour: Colour,
) -> Result<ValueId, CoreMlError> {
    if !scaler.mean.is_empty() {
        return Err(CoreMlError::value(name, "mean images cannot be subtracted yet"));
    }
    let [red, green, blue] = scaler.bias;
    let mut bias = match colour {
        Colour::Grey => vec![scaler.grey],
        Colour::Rgb => vec![red, green, blue],
        Colour::Bgr => vec![blue, green, red],
    };
    if scaler.scale >= 1.0 && bias.iter().all(|b| *b > 1.0) {
        bias.iter_mut().for_each(|b| *b = -*b);
        making.notes.push(format!(
            "`{name}`: the file adds {:?} to pixels of 0 to 255, which no training does: subtracted instead",
            bias.iter().map(|b| -b).collect::<Vec<_>>()
        ));
    }
    let mut x = x;
    if scaler.scale != 1.0 {
        let scale = making.floats(&format!("{name}.scale"), &[], &[scaler.scale])?;
        x = making.op(&format!("{name}.scaled"), Binary(Fun2::Mul), &[x, scale])?;
    }
    if bias.iter().any(|b| *b != 0.0) {
        let bias = making.floats(&format!("{name}.bias"), &[bias.len(), 1, 1], &bias)?;
        x = making.op(&format!("{name}.shifted"), Binary(Fun2::Add), &[x, bias])?;
    }
    Ok(x)
}

/// Adds the ops for one layer.
pub(super) type Import = fn(&mut Cx<'_>) -> Result<(), CoreMlError>;

/// A layer being imported.
pub(super) struct Cx<'a> {
    pub(super) layer: &'a Layer,
    pub(super) custom: &'a CustomOps,
    pub(super) making: &'a mut Making,
    temps: usize,
}

impl Cx<'_> {
    pub(super) fn params(&self) -> &Fields {
        &self.layer.params
    }

    /// Input `i`.
    pub(super) fn input(&self, i: usize) -> Result<ValueId, CoreMlError> {
        let name = self.layer.inputs.get(i).ok_or_else(|| self.fail(format!("input {i} is missing")))?;
        self.making
            .find(name)
            .ok_or_else(|| self.fail(format!("it reads `{name}`, which nothing made before")))
    }

    pub(super) fn inputs(&self) -> Result<Vec<ValueId>, CoreMlError> {
        (0..self.layer.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// Input `i` as `[N, C, H, W]`.
    pub(super) fn picture(&mut self, i: usize) -> Result<ValueId, CoreMlError> {
        let x = self.input(i)?;
        let dims = self.making.dims(x);
        let shape: Vec<i64> = match (self.making.rank(x), dims) {
            (Some(4), _) => return Ok(x),
            (Some(1), Some(d)) => vec![1, d[0] as i64, 1, 1],
            (Some(2), Some(d)) => vec![d[0] as i64, d[1] as i64, 1, 1],
            (Some(3), Some(d)) => vec![1, d[0] as i64, d[1] as i64, d[2] as i64],
            _ => return Err(self.fail("its input has no shape of a picture")),
        };
        self.reshaped(x, &shape)
    }

    pub(super) fn reshaped(&mut self, x: ValueId, shape: &[i64]) -> Result<ValueId, CoreMlError> {
        let shape = self.ints(shape)?;
        self.temp(Reshape { allow_zero: false }, &[x, shape])
    }

    /// Weights in field `tag` as a constant of this shape.
    pub(super) fn weights(&mut self, tag: u32, shape: &[usize]) -> Result<ValueId, CoreMlError> {
        let what = format!("weights {tag}");
        let count = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        let weights = self.layer.weights(tag)?.ok_or_else(|| self.fail(format!("{what} are missing")))?;
        let values = count.and_then(|count| weights.floats(count));
        let values = values
            .ok_or_else(|| self.fail(format!("{what} are {} and not of shape {shape:?}", weights.len())))?;
        let name = format!("{}.{tag}", self.layer.name);
        Ok(self.making.floats(&name, shape, &values)?)
    }

    /// A size in field `tag`.
    pub(super) fn size(&self, tag: u32) -> usize {
        usize::try_from(self.params().int(tag)).unwrap_or(0)
    }

    /// Sizes in field `tag`; `default` when there are none.
    pub(super) fn sizes(&self, tag: u32, default: &[usize]) -> Vec<usize> {
        let list = self.params().ints(tag);
        if list.is_empty() {
            default.to_vec()
        } else {
            list.iter().map(|n| usize::try_from(*n).unwrap_or(0)).collect()
        }
    }

    /// The layer's outputs as those of one op.
    pub(super) fn emit(&mut self, op: impl Op, inputs: &[ValueId]) -> Result<(), CoreMlError> {
        let made = self.making.ops(&self.layer.outputs, op, inputs).map_err(|e| self.named(e))?;
        self.layer.outputs.iter().zip(made).for_each(|(name, id)| self.making.bind(name, id));
        Ok(())
    }

    /// Makes a value that was made by other means the only output.
    pub(super) fn pass(&mut self, id: ValueId) -> Result<(), CoreMlError> {
        self.emit(Identity, &[id])
    }

    /// The softmax over an axis.
    pub(super) fn softmax(&mut self, axis: i64, x: ValueId) -> Result<(), CoreMlError> {
        self.emit(Softmax { kind: SoftmaxKind::Soft, axis, flat: false }, &[x])
    }

    /// An intermediate value.
    pub(super) fn temp(&mut self, op: impl Op, inputs: &[ValueId]) -> Result<ValueId, CoreMlError> {
        let name = self.temp_name();
        self.making.op(&name, op, inputs).map_err(|e| self.named(e))
    }

    pub(super) fn scalar(&mut self, value: f32) -> Result<ValueId, CoreMlError> {
        let name = self.temp_name();
        Ok(self.making.floats(&name, &[], &[value])?)
    }

    pub(super) fn ints(&mut self, values: &[i64]) -> Result<ValueId, CoreMlError> {
        let name = self.temp_name();
        Ok(self.making.ints(&name, values)?)
    }

    pub(super) fn fail(&self, why: impl Into<String>) -> CoreMlError {
        self.layer.fails(why)
    }

    fn temp_name(&mut self) -> String {
        self.temps += 1;
        format!("{}.{}", self.layer.name, self.temps)
    }

    fn named(&self, error: BuildError) -> CoreMlError {
        match error {
            BuildError::Node { reason, .. } => self.fail(reason),
            other => other.into(),
        }
    }
}
