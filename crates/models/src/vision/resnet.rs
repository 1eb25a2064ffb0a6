//! ResNet, ResNeXt, Wide ResNet and SE-ResNet, as timm and transformers store them; also the backbone of DETR.
//!
//! Blocks, widths, groups, deep stems and squeeze-and-excitation follow from the tensors. All activations are ReLU.

use kinglet_graph::ValueId;
use kinglet_graph::ops::Fun;

use super::net::{EACH, Net, Stride};
use super::{Given, blocks, parts};
use crate::ModelError;

const EPS: f32 = 1e-5;

/// Whether timm builds a model of this name from these blocks, with plain strides and batch norms.
pub(super) fn is_timm(name: &str) -> bool {
    const STEMS: [&str; 6] = ["seresnext", "seresnet", "resnetrs", "resnext", "resnet", "wide_resnet"];
    let Some(rest) = STEMS.iter().find_map(|stem| name.strip_prefix(stem)) else { return false };
    let kind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let kind = kind.strip_prefix(['c', 'd', 's', 't']).unwrap_or(kind);
    let kind = kind.strip_prefix('n').unwrap_or(kind);
    let sizes = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == 'x' || c == 'd');
    rest.len() > kind.len() && (kind.is_empty() || kind.strip_prefix('_').is_some_and(sizes))
}

/// A timm classifier.
pub(super) fn timm(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    given.keys.must_equal("output_stride", Some(32))?;
    given.pooled_by(&["avg"])?;
    let image = net.image(given.channels, Some(given.size))?;
    let x = timm_trunk(net, "", image)?;
    let x = net.mean("global_pool", x, &[2, 3], false)?;
    super::classifier(net, "fc", x)
}

/// All stages of a timm network whose modules lie at `root`; `[N, C, H / 32, W / 32]`.
pub(super) fn timm_trunk(net: &mut Net<'_>, root: &str, image: ValueId) -> Result<ValueId, ModelError> {
    let at = |part: &str| format!("{root}{part}");
    let mut x = stem(net, &at("conv1"), image)?;
    x = norm_relu(net, &at("bn1"), x)?;
    x = if net.has_module(&at("maxpool")) {
        x = net.conv(&at("maxpool.0"), x, Stride::of(2))?;
        norm_relu(net, &at("maxpool.1"), x)?
    } else {
        net.max_pool(&at("maxpool"), x, 3, 2)?
    };
    for stage in 1..=4 {
        for (i, block) in net.modules(&at(&format!("layer{stage}"))).iter().enumerate() {
            let stride = if i == 0 && stage > 1 { 2 } else { 1 };
            x = timm_block(net, block, x, stride)?;
        }
    }
    Ok(x)
}

/// One convolution of seven pixels, or three of three.
fn stem(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    if net.has(&parts(at, "weight")) {
        return net.conv(at, x, Stride::of(2));
    }
    let mut x = net.conv(&parts(at, "0"), x, Stride::of(2))?;
    x = norm_relu(net, &parts(at, "1"), x)?;
    x = net.conv(&parts(at, "3"), x, EACH)?;
    x = norm_relu(net, &parts(at, "4"), x)?;
    net.conv(&parts(at, "6"), x, EACH)
}

/// Two convolutions of three pixels (stride in the first), or three with a narrow middle (stride in the second).
fn timm_block(net: &mut Net<'_>, at: &str, x: ValueId, stride: usize) -> Result<ValueId, ModelError> {
    let last = if net.has_module(&parts(at, "conv3")) { 3 } else { 2 };
    let mut y = x;
    for i in 1..=last {
        let by = if i == last - 1 { stride } else { 1 };
        let [conv, norm] = ["conv", "bn"].map(|part| format!("{at}.{part}{i}"));
        y = blocks::conv_norm(net, [&conv, &norm], y, Stride::of(by), EPS)?;
        if i < last {
            y = net.map(&parts(at, &format!("act{i}")), Fun::Relu, y)?;
        }
    }
    y = blocks::squeeze_where(net, at, y)?;
    let short = timm_shortcut(net, &parts(at, "downsample"), x, stride)?;
    let sum = net.add(&parts(at, "sum"), y, short)?;
    net.map(&parts(at, "act"), Fun::Relu, sum)
}

/// The input itself, a convolution of it, or one of its means over squares.
fn timm_shortcut(net: &mut Net<'_>, at: &str, x: ValueId, stride: usize) -> Result<ValueId, ModelError> {
    if !net.has_module(at) {
        return Ok(x);
    }
    if net.has(&parts(at, "0.weight")) {
        return blocks::conv_norm(net, [&parts(at, "0"), &parts(at, "1")], x, Stride::of(stride), EPS);
    }
    let x = if stride > 1 { net.average_pool(&parts(at, "0"), x, stride)? } else { x };
    blocks::conv_norm(net, [&parts(at, "1"), &parts(at, "2")], x, EACH, EPS)
}

fn norm_relu(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let x = net.batch_norm(at, x, EPS)?;
    net.map(&parts(at, "act"), Fun::Relu, x)
}

/// A transformers model: a classifier, or the features alone.
pub(super) fn transformers(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    let image = net.image(given.channels, Some(given.size))?;
    let classifies = given.name == "ResNetForImageClassification";
    let x = trunk(net, if classifies { "resnet." } else { "" }, given, image)?;
    if !classifies {
        net.output("last_hidden_state", x)?;
        let pooled = net.mean("pooler", x, &[2, 3], true)?;
        return net.output("pooler_output", pooled);
    }
    let x = net.mean("pooler", x, &[2, 3], false)?;
    super::classifier(net, "classifier.1", x)
}

/// All stages of a transformers network whose modules lie at `root`.
pub(super) fn trunk(
    net: &mut Net<'_>,
    root: &str,
    given: &Given<'_>,
    image: ValueId,
) -> Result<ValueId, ModelError> {
    let act = given.activation("hidden_act", Fun::Relu)?;
    let early = given.keys.flag("downsample_in_first_stage", false)?;
    let first = given.keys.flag("downsample_in_bottleneck", false)?;
    for key in ["embedding_size", "hidden_sizes", "depths", "layer_type"] {
        given.keys.get(key);
    }
    let embedder = format!("{root}embedder.embedder");
    let mut x = layer(net, &embedder, image, 2)?;
    x = net.map(&parts(&embedder, "activation"), act, x)?;
    x = net.max_pool(&format!("{root}embedder.pooler"), x, 3, 2)?;
    for (s, stage) in net.modules(&format!("{root}encoder.stages")).iter().enumerate() {
        for (i, at) in net.modules(&format!("{stage}.layers")).iter().enumerate() {
            let stride = if i == 0 && (s > 0 || early) { 2 } else { 1 };
            x = block(net, at, x, stride, first, act)?;
        }
    }
    Ok(x)
}

fn block(
    net: &mut Net<'_>,
    at: &str,
    x: ValueId,
    stride: usize,
    first: bool,
    act: Fun,
) -> Result<ValueId, ModelError> {
    let layers = net.modules(&parts(at, "layer"));
    let last = layers.len().saturating_sub(1);
    let strided = if first || last < 2 { 0 } else { 1 };
    let mut y = x;
    for (i, path) in layers.iter().enumerate() {
        y = layer(net, path, y, if i == strided { stride } else { 1 })?;
        if i < last {
            y = net.map(&parts(path, "activation"), act, y)?;
        }
    }
    let shortcut = parts(at, "shortcut");
    let short = if net.has_module(&shortcut) { layer(net, &shortcut, x, stride)? } else { x };
    let sum = net.add(&parts(at, "sum"), y, short)?;
    net.map(&parts(at, "act"), act, sum)
}

fn layer(net: &mut Net<'_>, at: &str, x: ValueId, stride: usize) -> Result<ValueId, ModelError> {
    let [conv, norm] = ["convolution", "normalization"].map(|part| parts(at, part));
    blocks::conv_norm(net, [&conv, &norm], x, Stride::of(stride), EPS)
}
