//! FastViT of timm, in its training form (branches) and reparameterised (one convolution each).
//!
//! Widths, depths, mixers and branches follow from the tensors. The graph keeps branches as the checkpoint has them;
//! folding them into one convolution is the passes' work.

use kinglet_graph::ValueId;
use kinglet_graph::ops::Fun;

use super::net::{EACH, Net, Stride};
use super::{Given, blocks, parts};
use crate::ModelError;

const EPS: f32 = 1e-5;
const HEAD: usize = 32;
const GELU: Fun = Fun::Gelu { tanh: false };

/// Whether timm builds a model of this name from these blocks.
pub(super) fn is_timm(name: &str) -> bool {
    name.starts_with("fastvit_")
}

/// A timm classifier, or an encoder of pictures (`fastvit_mci`), whose last product is its projection.
pub(super) fn timm(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    given.pooled_by(&["avg"])?;
    given.keys.flag("inference_mode", false)?;
    let image = net.image(given.channels, Some(given.size))?;
    let mut x = mobile_one(net, "stem.0", image, 2, Some(GELU))?;
    x = mobile_one(net, "stem.1", x, 2, Some(GELU))?;
    x = mobile_one(net, "stem.2", x, 1, Some(GELU))?;
    // The largest models' large kernels are followed by an activation; only they squeeze, or have five stages.
    let act = given.name.starts_with("fastvit_mci").then_some(GELU);
    for stage in net.modules("stages") {
        x = downsample(net, &parts(&stage, "downsample"), x, act)?;
        x = position(net, &parts(&stage, "pos_emb"), x)?;
        for block in net.modules(&parts(&stage, "blocks")) {
            x = mix(net, &block, x)?;
        }
    }
    x = mobile_one(net, "final_conv", x, 1, Some(GELU))?;
    let x = net.mean("head.global_pool", x, &[2, 3], false)?;
    super::classifier(net, "head.fc", x)
}

/// `act(se(sum of branches))`: convolutions of the kernel, one of a pixel, and the input, each with its norm.
fn mobile_one(
    net: &mut Net<'_>,
    at: &str,
    x: ValueId,
    stride: usize,
    act: Option<Fun>,
) -> Result<ValueId, ModelError> {
    let sum = branches(net, at, x, stride)?;
    let sum = blocks::squeeze_where(net, at, sum)?;
    act.map_or(Ok(sum), |act| net.map(&parts(at, "act"), act, sum))
}

fn branches(net: &mut Net<'_>, at: &str, x: ValueId, stride: usize) -> Result<ValueId, ModelError> {
    let single = parts(at, "reparam_conv");
    if net.has_module(&single) {
        return net.conv(&single, x, Stride::of(stride));
    }
    let mut terms = Vec::new();
    for branch in [parts(at, "conv_scale")].into_iter().chain(net.modules(&parts(at, "conv_kxk"))) {
        if net.has_module(&branch) {
            terms.push(conv_norm(net, &branch, x, stride)?);
        }
    }
    let identity = parts(at, "identity");
    if net.has_module(&identity) {
        terms.push(net.batch_norm(&identity, x, EPS)?);
    }
    total(net, at, &terms)
}

/// The sum of at least one term.
fn total(net: &mut Net<'_>, at: &str, terms: &[ValueId]) -> Result<ValueId, ModelError> {
    let missing =
        || ModelError::Tensor(kinglet_tensor::TensorError::Missing { name: parts(at, "reparam_conv") });
    let (first, rest) = terms.split_first().ok_or_else(missing)?;
    rest.iter().try_fold(*first, |sum, term| net.add(&parts(at, "sum"), sum, *term))
}

fn conv_norm(net: &mut Net<'_>, at: &str, x: ValueId, stride: usize) -> Result<ValueId, ModelError> {
    blocks::conv_norm(net, [&parts(at, "conv"), &parts(at, "bn")], x, Stride::of(stride), EPS)
}

/// A large kernel of depth groups at stride two, then a pixelwise block; the first stage has none.
fn downsample(net: &mut Net<'_>, at: &str, x: ValueId, act: Option<Fun>) -> Result<ValueId, ModelError> {
    if !net.has_module(at) {
        return Ok(x);
    }
    let large = parts(at, "proj.0");
    let single = parts(&large, "reparam_conv");
    let mut y = if net.has_module(&single) {
        net.conv(&single, x, Stride::of(2))?
    } else {
        let mut terms = vec![conv_norm(net, &parts(&large, "large_conv"), x, 2)?];
        let small = parts(&large, "small_conv");
        if net.has_module(&small) {
            terms.push(conv_norm(net, &small, x, 2)?);
        }
        total(net, &large, &terms)?
    };
    y = blocks::squeeze_where(net, &large, y)?;
    if let Some(act) = act {
        y = net.map(&parts(&large, "act"), act, y)?;
    }
    mobile_one(net, &parts(at, "proj.1"), y, 1, Some(GELU))
}

/// `x + conv(x)`, where a stage has it.
fn position(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let [single, branch] = ["reparam_conv", "pos_enc"].map(|part| parts(at, part));
    if net.has_module(&single) {
        return net.conv(&single, x, EACH);
    }
    if !net.has_module(&branch) {
        return Ok(x);
    }
    let encoded = net.conv(&branch, x, EACH)?;
    net.add(&parts(at, "sum"), encoded, x)
}

/// A token mixer and a convolutional MLP.
fn mix(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let mixer = parts(at, "token_mixer");
    let attends = net.has_module(&parts(&mixer, "qkv"));
    let mut x = x;
    if attends {
        let normed = norm(net, &parts(at, "norm"), x)?;
        let mixed = attention(net, &mixer, normed)?;
        x = residual(net, &parts(at, "layer_scale_1"), x, mixed)?;
    } else {
        x = rep_mixer(net, &mixer, x)?;
    }
    let y = mlp(net, &parts(at, "mlp"), x)?;
    residual(net, &parts(at, if attends { "layer_scale_2" } else { "layer_scale" }), x, y)
}

/// A batch norm, or a norm of each pixel's channels where there are no running statistics.
fn norm(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    if net.has(&parts(at, "running_mean")) {
        return net.batch_norm(at, x, EPS);
    }
    let rows = net.transpose(&parts(at, "rows"), x, &[0, 2, 3, 1])?;
    let rows = net.layer_norm(at, rows, EPS)?;
    net.transpose(&parts(at, "planes"), rows, &[0, 3, 1, 2])
}

/// `x + scale (mixer(x) - norm(x))`.
fn rep_mixer(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let single = parts(at, "reparam_conv");
    if net.has_module(&single) {
        return net.conv(&single, x, EACH);
    }
    let mixed = mobile_one(net, &parts(at, "mixer"), x, 1, None)?;
    let normed = mobile_one(net, &parts(at, "norm"), x, 1, None)?;
    let difference = net.node(
        &parts(at, "difference"),
        kinglet_graph::ops::Binary(kinglet_graph::ops::Fun2::Sub),
        &[mixed, normed],
    )?;
    residual(net, &parts(at, "layer_scale"), x, difference)
}

/// `x + gamma y`.
fn residual(net: &mut Net<'_>, at: &str, x: ValueId, y: ValueId) -> Result<ValueId, ModelError> {
    let gamma = parts(at, "gamma");
    let mut y = y;
    if net.has(&gamma) {
        let mut factor = net.weight(&gamma)?;
        if net.dim(factor, 1).is_none() {
            factor = net.reshape(&parts(at, "planes"), factor, &[-1, 1, 1])?;
        }
        y = net.mul(at, y, factor)?;
    }
    net.add(&parts(at, "sum"), x, y)
}

fn mlp(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let x = conv_norm(net, &parts(at, "conv"), x, 1)?;
    let x = net.conv(&parts(at, "fc1"), x, EACH)?;
    let x = net.map(&parts(at, "act"), GELU, x)?;
    net.conv(&parts(at, "fc2"), x, EACH)
}

/// Attention of all pixels to all, heads of [`HEAD`] channels.
fn attention(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let channels = net.dim(x, 1).unwrap_or(0);
    let sides = [2, 3].map(|axis| net.dim(x, axis).unwrap_or(0) as i64);
    let rows = blocks::pixels(net, at, x)?;
    let qkv = blocks::stacked(net, at, &parts(at, "qkv"), rows)?;
    let y = blocks::attention(net, at, &parts(at, "proj"), channels / HEAD, &qkv)?;
    let y = net.transpose(&parts(at, "columns"), y, &[0, 2, 1])?;
    net.reshape(&parts(at, "planes"), y, &[0, channels as i64, sides[0], sides[1]])
}
