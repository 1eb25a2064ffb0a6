//! Vision transformers: ViT and DeiT of timm and of transformers.
//!
//! Depth, widths, class and register tokens, position vectors, layer scales and norms follow from the tensors.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Concat, Expand, Fun, Gather, Shape, Slice};

use super::net::Net;
use super::{Given, blocks, parts};
use crate::ModelError;

/// How a library spells the modules of a transformer.
struct Spelling {
    /// Before everything but the classifier.
    root: &'static str,
    patches: &'static str,
    class: &'static str,
    positions: &'static str,
    blocks: &'static str,
    norms: [&'static str; 2],
    qkv: Qkv,
    out: &'static str,
    scales: [&'static str; 2],
    mlp: [&'static str; 2],
}

enum Qkv {
    /// One product for all three.
    Stacked(&'static str),
    /// Three products.
    Apart([&'static str; 3]),
}

const TIMM: Spelling = Spelling {
    root: "",
    patches: "patch_embed.proj",
    class: "cls_token",
    positions: "pos_embed",
    blocks: "blocks",
    norms: ["norm1", "norm2"],
    qkv: Qkv::Stacked("attn.qkv"),
    out: "attn.proj",
    scales: ["ls1.gamma", "ls2.gamma"],
    mlp: ["mlp.fc1", "mlp.fc2"],
};
const TRANSFORMERS: Spelling = Spelling {
    root: "vit.",
    patches: "embeddings.patch_embeddings.projection",
    class: "embeddings.cls_token",
    positions: "embeddings.position_embeddings",
    blocks: "encoder.layer",
    norms: ["layernorm_before", "layernorm_after"],
    qkv: Qkv::Apart(["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
    out: "attention.output.dense",
    scales: ["", ""],
    mlp: ["intermediate.dense", "output.dense"],
};

/// What the tensors do not say.
struct Transformer<'s> {
    spelling: &'s Spelling,
    heads: usize,
    act: Fun,
    eps: f32,
}

/// Whether timm builds a model of this name from plain blocks.
pub(super) fn is_timm(name: &str) -> bool {
    const OTHERS: [&str; 9] =
        ["relpos", "srelpos", "rope", "siglip", "hybrid", "_r26", "_r50", "parallel", "distilled"];
    let plain = name.starts_with("vit_") || name.starts_with("deit");
    plain && name.contains("_patch") && !OTHERS.iter().any(|part| name.contains(part))
}

/// A timm classifier.
pub(super) fn timm(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    let pool = given.pooled_by(&["token", "avg"])?;
    let width = net.shape("patch_embed.proj.weight")?.first().copied().unwrap_or(0);
    let sixteen = ["huge", "giant", "gigantic", "so400m"].iter().any(|size| given.name.contains(size));
    let usual = if sixteen { 16 } else { (width / 64).max(1) };
    let clip = given.name.contains("clip");
    let act = if given.name.contains("quickgelu") { Fun::Swish(1.702) } else { Fun::Gelu { tanh: false } };
    let this = Transformer {
        spelling: &TIMM,
        heads: given.keys.opt_usize("num_heads")?.unwrap_or(usual),
        act,
        eps: if clip { 1e-5 } else { 1e-6 },
    };
    let image = net.image(given.channels, Some(given.size))?;
    let (mut x, prefix) = this.embed(net, image)?;
    if net.has_module("norm_pre") {
        x = net.layer_norm("norm_pre", x, this.eps)?;
    }
    x = this.blocks(net, x)?;
    if net.has_module("norm") {
        x = net.layer_norm("norm", x, this.eps)?;
    }
    x = if pool == "avg" { mean_of_patches(net, x, prefix)? } else { first(net, x)? };
    if net.has_module("fc_norm") {
        x = net.layer_norm("fc_norm", x, this.eps)?;
    }
    super::classifier(net, "head", x)
}

/// A transformers model: a classifier, or the features alone.
pub(super) fn transformers(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    let classifies = given.name.ends_with("ForImageClassification");
    let known = ["ViTForImageClassification", "DeiTForImageClassification", "ViTModel", "DeiTModel"];
    if !known.contains(&given.name) {
        return Err(ModelError::UnknownArch(given.name.into()));
    }
    let root = match () {
        () if !classifies => "",
        () if given.name.starts_with("DeiT") => "deit.",
        () => "vit.",
    };
    let spelling = Spelling { root, ..TRANSFORMERS };
    let this = Transformer {
        spelling: &spelling,
        heads: given.keys.usize("num_attention_heads")?,
        act: given.activation("hidden_act", Fun::Gelu { tanh: false })?,
        eps: given.keys.f64("layer_norm_eps")? as f32,
    };
    for key in [
        "pooler_act",
        "image_size",
        "patch_size",
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "qkv_bias",
    ] {
        given.keys.get(key);
    }
    let image = net.image(given.channels, Some(given.size))?;
    let (mut x, _) = this.embed(net, image)?;
    x = this.blocks(net, x)?;
    x = net.layer_norm(&format!("{root}layernorm"), x, this.eps)?;
    if classifies {
        let x = first(net, x)?;
        return super::classifier(net, "classifier", x);
    }
    net.output("last_hidden_state", x)?;
    if net.has_module("pooler.dense") {
        let act = given.activation("pooler_act", Fun::Tanh)?;
        let x = first(net, x)?;
        let x = net.linear("pooler.dense", x)?;
        let x = net.map("pooler.act", act, x)?;
        net.output("pooler_output", x)?;
    }
    Ok(())
}

impl Transformer<'_> {
    fn path(&self, part: &str) -> String {
        format!("{}{part}", self.spelling.root)
    }

    /// Patches with tokens before them and positions added, `[N, tokens, width]`; and how many tokens stand before.
    fn embed(&self, net: &mut Net<'_>, image: ValueId) -> Result<(ValueId, usize), ModelError> {
        let at = self.path(self.spelling.patches);
        let kernel = net.shape(&parts(&at, "weight"))?;
        let side = kernel.last().copied().unwrap_or(1).max(1);
        let planes = net.conv_apart(&at, image, side)?;
        let x = blocks::pixels(net, &at, planes)?;
        let class = self.path(self.spelling.class);
        let distilled = self.path("embeddings.distillation_token");
        let mut tokens = Vec::new();
        for name in [class, distilled, "reg_token".into()] {
            if net.has(&name) {
                tokens.push(net.weight(&name)?);
            }
        }
        let prefix: usize = tokens.iter().map(|t| net.dim(*t, 1).unwrap_or(0)).sum();
        let positions = self.path(self.spelling.positions);
        if !net.has(&positions) {
            return Ok((prepend(net, &tokens, x)?, prefix));
        }
        let positions = net.weight(&positions)?;
        // Position vectors of the patches alone are added before the tokens stand there.
        let alone = net.dim(positions, 1) == net.dim(x, 1) && prefix > 0;
        let x = if alone { net.add("embeddings", x, positions)? } else { prepend(net, &tokens, x)? };
        let x = if alone { prepend(net, &tokens, x)? } else { net.add("embeddings", x, positions)? };
        Ok((x, prefix))
    }

    fn blocks(&self, net: &mut Net<'_>, mut x: ValueId) -> Result<ValueId, ModelError> {
        for at in net.modules(&self.path(self.spelling.blocks)) {
            let normed = net.layer_norm(&parts(&at, self.spelling.norms[0]), x, self.eps)?;
            let y = self.attention(net, &at, normed)?;
            x = self.residual(net, &at, 0, x, y)?;
            let normed = net.layer_norm(&parts(&at, self.spelling.norms[1]), x, self.eps)?;
            let [first, last] = self.spelling.mlp.map(|product| parts(&at, product));
            let y = blocks::mlp(net, &at, [&first, &last], self.act, normed)?;
            x = self.residual(net, &at, 1, x, y)?;
        }
        Ok(x)
    }

    fn attention(&self, net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
        let mut qkv = match self.spelling.qkv {
            Qkv::Stacked(name) => blocks::stacked(net, at, &parts(at, name), x)?,
            Qkv::Apart(names) => {
                let products = names.iter().map(|name| net.linear(&parts(at, name), x));
                products.collect::<Result<_, _>>()?
            }
        };
        for (i, name) in ["attn.q_norm", "attn.k_norm"].iter().enumerate() {
            let name = parts(at, name);
            if net.has_module(&name) {
                qkv[i] = self.norm_heads(net, &name, qkv[i])?;
            }
        }
        blocks::attention(net, at, &parts(at, self.spelling.out), self.heads, &qkv)
    }

    /// A norm of each head's part of a row.
    fn norm_heads(&self, net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
        let x = net.reshape(&parts(at, "heads"), x, &[0, 0, self.heads as i64, -1])?;
        let x = net.layer_norm(at, x, self.eps)?;
        net.reshape(&parts(at, "rows"), x, &[0, 0, -1])
    }

    /// `x + gamma y`, where blocks have a gamma.
    fn residual(
        &self,
        net: &mut Net<'_>,
        at: &str,
        i: usize,
        x: ValueId,
        y: ValueId,
    ) -> Result<ValueId, ModelError> {
        let gamma = parts(at, self.spelling.scales[i]);
        let mut y = y;
        if net.has(&gamma) {
            let factor = net.weight(&gamma)?;
            y = net.mul(&gamma, y, factor)?;
        }
        net.add(&parts(at, "sum"), x, y)
    }
}

/// Tokens before the rows of each picture.
fn prepend(net: &mut Net<'_>, tokens: &[ValueId], x: ValueId) -> Result<ValueId, ModelError> {
    if tokens.is_empty() {
        return Ok(x);
    }
    let batch = net.node("batch", Shape { start: 0, end: Some(1) }, &[x])?;
    let same = net.ints("tokens.rest", &[1, 1])?;
    let shape = net.node("tokens.shape", Concat { axis: 0 }, &[batch, same])?;
    let mut all = Vec::new();
    for token in tokens {
        all.push(net.node("tokens", Expand, &[*token, shape])?);
    }
    all.push(x);
    net.node("sequence", Concat { axis: 1 }, &all)
}

/// The first token's vector.
fn first(net: &mut Net<'_>, x: ValueId) -> Result<ValueId, ModelError> {
    let zero = net.index("first", 0)?;
    net.node("pooled", Gather { axis: 1 }, &[x, zero])
}

/// The mean over all tokens but the first ones.
fn mean_of_patches(net: &mut Net<'_>, x: ValueId, prefix: usize) -> Result<ValueId, ModelError> {
    let bounds = [
        net.ints("patches.from", &[prefix as i64])?,
        net.ints("patches.to", &[i64::MAX])?,
        net.ints("patches.axis", &[1])?,
    ];
    let patches = net.node("patches", Slice, &[x, bounds[0], bounds[1], bounds[2]])?;
    net.mean("pooled", patches, &[1], false)
}
