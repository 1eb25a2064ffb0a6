//! MobileNetV2, MobileNetV3 and EfficientNet of timm: depthwise blocks in stages.
//!
//! Widths, depths, kernels and squeeze-and-excitation follow from the tensors; a variant is a row of [`VARIANTS`] that says the rest.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Clip, Fun};

use super::net::{EACH, Net, Stride};
use super::{Given, blocks, parts};
use crate::ModelError;

/// Functions between the layers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Relu,
    Relu6,
    HardSwish,
    Silu,
}

/// What the tensors of a family do not say.
struct Variant {
    /// The beginnings of timm's names, without `tf_`; the first row that fits counts.
    ids: &'static [&'static str],
    /// Strides of the first blocks of the stages.
    strides: &'static [usize],
    /// What follows the convolutions.
    act: Act,
    /// Stages from the first on with ReLU in its place.
    relu_stages: usize,
    /// What makes gates of squeezed channels.
    gate: Fun,
    /// What follows the first squeezed product; the block's own when none.
    squeezed: Option<Act>,
    /// The first stage adds nothing to its input.
    no_first_skip: bool,
    /// The head's convolution follows the mean over all pixels.
    pools_first: bool,
    /// Added to variances.
    eps: f32,
}

const HARD: Fun = Fun::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
/// Of TensorFlow's checkpoints.
const TF_EPS: f32 = 1e-3;

const V3: Variant = Variant {
    ids: &["mobilenetv3_large_0", "mobilenetv3_large_1"],
    strides: &[1, 2, 2, 2, 1, 2, 1],
    act: Act::HardSwish,
    relu_stages: 3,
    gate: HARD,
    squeezed: Some(Act::Relu),
    no_first_skip: false,
    pools_first: true,
    eps: 1e-5,
};
const V2: Variant = Variant {
    ids: &["mobilenetv2_"],
    strides: &[1, 2, 2, 2, 1, 2, 1],
    act: Act::Relu6,
    relu_stages: 0,
    gate: Fun::Sigmoid,
    squeezed: None,
    pools_first: false,
    ..V3
};

/// The families, the more particular names first.
const VARIANTS: &[Variant] = &[
    Variant { ids: &["mobilenetv3_large_minimal_"], act: Act::Relu, ..V3 },
    V3,
    Variant { ids: &["mobilenetv3_small_minimal_"], act: Act::Relu, strides: &[2, 2, 2, 1, 2, 1], ..V3 },
    Variant { ids: &["mobilenetv3_small_"], strides: &[2, 2, 2, 1, 2, 1], relu_stages: 2, ..V3 },
    Variant { ids: &["mobilenetv3_rw"], squeezed: None, no_first_skip: true, eps: TF_EPS, ..V3 },
    V2,
    Variant { ids: &["efficientnet_lite"], ..V2 },
    Variant {
        ids: &[
            "efficientnet_b0",
            "efficientnet_b1",
            "efficientnet_b2",
            "efficientnet_b3",
            "efficientnet_b4",
            "efficientnet_b5",
            "efficientnet_b6",
            "efficientnet_b7",
            "efficientnet_b8",
        ],
        act: Act::Silu,
        ..V2
    },
];

fn find(name: &str) -> Option<&'static Variant> {
    let bare = name.strip_prefix("tf_").unwrap_or(name);
    // Ghost batch norms, pruned widths and other paddings go by longer names.
    let plain = !["_g8", "_g16", "_gn", "_pruned", "_b0_dw"].iter().any(|part| bare.contains(part));
    VARIANTS.iter().find(|v| plain && v.ids.iter().any(|id| bare.starts_with(id)))
}

/// Whether timm builds a model of this name from these blocks.
pub(super) fn is_timm(name: &str) -> bool {
    find(name).is_some()
}

/// A timm classifier.
pub(super) fn timm(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    let variant = find(given.name).ok_or_else(|| ModelError::UnknownArch(given.name.into()))?;
    let same = given.name.starts_with("tf_");
    let eps = given.keys.opt_f64("bn_eps")?.map(|eps| eps as f32);
    let eps = eps.unwrap_or(if same { TF_EPS } else { variant.eps });
    given.pooled_by(&["avg"])?;
    let mut stack = Stack { net, variant, same, eps };
    let image = stack.net.image(given.channels, Some(given.size))?;
    let mut x = stack.layer("conv_stem", "bn1", image, 2, Some(variant.act))?;
    for (i, stage) in stack.net.modules("blocks").iter().enumerate() {
        x = stack.stage(i, stage, x)?;
    }
    x = stack.head(x)?;
    super::classifier(net, "classifier", x)
}

struct Stack<'n, 'a> {
    net: &'n mut Net<'a>,
    variant: &'static Variant,
    /// TensorFlow's padding.
    same: bool,
    eps: f32,
}

impl Stack<'_, '_> {
    fn stage(&mut self, index: usize, at: &str, mut x: ValueId) -> Result<ValueId, ModelError> {
        let stride = self.variant.strides.get(index).copied();
        let stride = stride.ok_or_else(|| ModelError::UnusedTensors { first: at.into(), count: 1 })?;
        let act = if index < self.variant.relu_stages { Act::Relu } else { self.variant.act };
        let skips = index > 0 || !self.variant.no_first_skip;
        for (i, block) in self.net.modules(at).iter().enumerate() {
            x = self.block(block, x, if i == 0 { stride } else { 1 }, act, skips)?;
        }
        Ok(x)
    }

    /// Wide, depthwise, narrow; the input is added where the shape stays.
    fn block(
        &mut self,
        at: &str,
        x: ValueId,
        stride: usize,
        act: Act,
        skips: bool,
    ) -> Result<ValueId, ModelError> {
        let at = |part: &str| parts(at, part);
        if self.net.has(&at("conv.weight")) {
            return self.layer(&at("conv"), &at("bn1"), x, stride, Some(act));
        }
        let expands = self.net.has(&at("conv_pwl.weight"));
        let mut y = x;
        if expands {
            y = self.layer(&at("conv_pw"), &at("bn1"), y, 1, Some(act))?;
        }
        let norms = if expands { ["bn2", "bn3"] } else { ["bn1", "bn2"] };
        y = self.layer(&at("conv_dw"), &at(norms[0]), y, stride, Some(act))?;
        if self.net.has_module(&at("se")) {
            y = self.squeeze(&at("se"), y, act)?;
        }
        y = self.layer(&at(if expands { "conv_pwl" } else { "conv_pw" }), &at(norms[1]), y, 1, None)?;
        let same = stride == 1 && self.net.dim(x, 1) == self.net.dim(y, 1);
        if skips && same { self.net.add(&at("sum"), y, x) } else { Ok(y) }
    }

    fn squeeze(&mut self, at: &str, x: ValueId, act: Act) -> Result<ValueId, ModelError> {
        let inner = match self.variant.squeezed.unwrap_or(act) {
            Act::Relu | Act::Relu6 => Fun::Relu,
            Act::HardSwish => Fun::HardSwish,
            Act::Silu => Fun::Swish(1.0),
        };
        blocks::squeeze(self.net, at, ["conv_reduce", "conv_expand"], [inner, self.variant.gate], x)
    }

    fn layer(
        &mut self,
        conv: &str,
        norm: &str,
        x: ValueId,
        stride: usize,
        act: Option<Act>,
    ) -> Result<ValueId, ModelError> {
        let stride = Stride { by: stride, same: self.same };
        let x = blocks::conv_norm(self.net, [conv, norm], x, stride, self.eps)?;
        act.map_or(Ok(x), |act| activate(self.net, &parts(norm, "act"), act, x))
    }

    /// `[N, features]`.
    fn head(&mut self, x: ValueId) -> Result<ValueId, ModelError> {
        if !self.variant.pools_first {
            let x = self.layer("conv_head", "bn2", x, 1, Some(self.variant.act))?;
            return self.net.mean("global_pool", x, &[2, 3], false);
        }
        let x = self.net.mean("global_pool", x, &[2, 3], true)?;
        let x = self.net.conv("conv_head", x, EACH)?;
        let x = activate(self.net, "act2", self.variant.act, x)?;
        self.net.reshape("flatten", x, &[0, -1])
    }
}

fn activate(net: &mut Net<'_>, at: &str, act: Act, x: ValueId) -> Result<ValueId, ModelError> {
    match act {
        Act::Relu => net.map(at, Fun::Relu, x),
        Act::HardSwish => net.map(at, Fun::HardSwish, x),
        Act::Silu => net.map(at, Fun::Swish(1.0), x),
        Act::Relu6 => {
            let bounds = [net.float(&parts(at, "low"), 0.0)?, net.float(&parts(at, "high"), 6.0)?];
            net.node(at, Clip, &[x, bounds[0], bounds[1]])
        }
    }
}
