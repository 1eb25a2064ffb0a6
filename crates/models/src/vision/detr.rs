//! DETR of transformers: a ResNet, an encoder over its pixels, a decoder over queries, boxes and classes.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Cast, Concat, Expand, Fun, Fun2, Gather, Range, Shape, Unsqueeze};
use kinglet_tensor::DType;

use super::net::{EACH, Net};
use super::{Given, blocks, parts, resnet};
use crate::ModelError;

const EPS: f32 = 1e-5;
const BACKBONE: &str = "model.backbone.conv_encoder.model.";

/// Keys of a backbone's configuration that change nothing here, or that the tensors tell.
const BACKBONE_INERT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "backbone",
    "chunk_size_feed_forward",
    "dtype",
    "features_only",
    "freeze_batch_norm_2d",
    "id2label",
    "label2id",
    "model_type",
    "num_channels",
    "out_features",
    "out_indices",
    "return_dict",
    "stage_names",
    "use_pretrained_backbone",
    "torch_dtype",
    "transformers_version",
    "initializer_range",
];

struct Detr {
    width: usize,
    act: Fun,
}

/// What stands beside a sequence's values in attention: places in the picture, or queries.
#[derive(Clone, Copy)]
struct Sequence {
    values: ValueId,
    places: ValueId,
}

/// A detector; pictures may have any size.
pub(super) fn transformers(net: &mut Net<'_>, given: &Given<'_>) -> Result<(), ModelError> {
    if given.name != "DetrForObjectDetection" {
        return Err(ModelError::UnknownArch(given.name.into()));
    }
    let this = Detr {
        width: given.keys.usize("d_model")?,
        act: given.activation("activation_function", Fun::Relu)?,
    };
    let heads = [given.keys.usize("encoder_attention_heads")?, given.keys.usize("decoder_attention_heads")?];
    check(given, this.width, heads)?;
    let image = net.image(given.channels, None)?;
    let features = backbone(net, given, image)?;
    let planes = net.conv("model.input_projection", features, EACH)?;
    let mut memory = this.sequence(net, planes)?;
    for at in net.modules("model.encoder.layers") {
        memory.values = this.encoder_layer(net, &at, memory, heads[0])?;
    }
    let mut queries = this.queries(net, planes)?;
    for at in net.modules("model.decoder.layers") {
        queries.values = this.decoder_layer(net, &at, queries, memory, heads[1])?;
    }
    let y = net.layer_norm("model.decoder.layernorm", queries.values, EPS)?;
    let logits = net.linear("class_labels_classifier", y)?;
    net.output("logits", logits)?;
    let boxes = boxes(net, y)?;
    net.output("pred_boxes", boxes)
}

/// Refuses what the graph would not compute.
fn check(given: &Given<'_>, width: usize, heads: [usize; 2]) -> Result<(), ModelError> {
    for key in [
        "num_queries",
        "encoder_layers",
        "decoder_layers",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "backbone",
        "use_timm_backbone",
        "use_pretrained_backbone",
        "num_hidden_layers",
        "max_position_embeddings",
        "backbone_kwargs",
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "encoder_layerdrop",
        "decoder_layerdrop",
        "init_std",
        "init_xavier_std",
        "is_encoder_decoder",
        "auxiliary_loss",
        "scale_embedding",
        "class_cost",
        "bbox_cost",
        "giou_cost",
        "mask_loss_coefficient",
        "dice_loss_coefficient",
        "bbox_loss_coefficient",
        "giou_loss_coefficient",
        "eos_coefficient",
        "classifier_dropout",
    ] {
        given.keys.get(key);
    }
    let position = given.keys.opt_str("position_embedding_type")?.unwrap_or("sine");
    if position != "sine" {
        let key = "position_embedding_type".into();
        return Err(ModelError::UnsupportedKey { key, value: crate::config::keys::shorten(position) });
    }
    if given.keys.flag("dilation", false)? {
        return Err(ModelError::UnsupportedKey { key: "dilation".into(), value: "true".into() });
    }
    let even = heads.iter().all(|heads| *heads > 0 && width.is_multiple_of(*heads));
    if !even || width == 0 || !width.is_multiple_of(4) {
        let expected = format!("a multiple of 4 and of {heads:?} heads");
        return Err(ModelError::BadKey { key: "d_model".into(), found: width.to_string(), expected });
    }
    Ok(())
}

/// `[N, C, H / 32, W / 32]`; the tensors tell whose names the backbone uses.
fn backbone(net: &mut Net<'_>, given: &Given<'_>, image: ValueId) -> Result<ValueId, ModelError> {
    let inner = given.keys.opt_table("backbone_config")?;
    if net.has_module(&format!("{BACKBONE}conv1")) {
        if let Some(table) = inner {
            let keys = crate::config::keys::Keys::new(table, "");
            keys.must_equal("output_stride", Some(32))?;
            keys.all_understood(BACKBONE_INERT)?;
        }
        return resnet::timm_trunk(net, BACKBONE, image);
    }
    let table = inner.ok_or_else(|| given.keys.missing("backbone_config"))?;
    let inner = given.inner(table);
    let x = resnet::trunk(net, BACKBONE, &inner, image)?;
    inner.keys.all_understood(BACKBONE_INERT)?;
    Ok(x)
}

impl Detr {
    /// Pixels as a sequence `[N, pixels, width]`, and their places.
    fn sequence(&self, net: &mut Net<'_>, planes: ValueId) -> Result<Sequence, ModelError> {
        let flat = net.reshape("model.pixels", planes, &[0, self.width as i64, -1])?;
        let values = net.transpose("model.rows", flat, &[0, 2, 1])?;
        Ok(Sequence { values, places: self.places(net, planes)? })
    }

    /// Sines and cosines of rows, then of columns, `[pixels, width]`.
    fn places(&self, net: &mut Net<'_>, planes: ValueId) -> Result<ValueId, ModelError> {
        let [height, width] =
            [2, 3].map(|axis| net.node("model.side", Shape { start: axis, end: Some(axis + 1) }, &[planes]));
        let sides = [height?, width?];
        let half = net.ints("model.half", &[(self.width / 2) as i64])?;
        let shape = net.node("model.grid", Concat { axis: 0 }, &[sides[0], sides[1], half])?;
        let mut waves = Vec::new();
        for (i, side) in sides.iter().enumerate() {
            let wave = self.waves(net, *side)?;
            let axis = net.ints("model.axis", &[1 - i as i64])?;
            let spread = net.node("model.waves", Unsqueeze, &[wave, axis])?;
            waves.push(net.node("model.waves", Expand, &[spread, shape])?);
        }
        let grid = net.node("model.places", Concat { axis: 2 }, &waves)?;
        net.reshape("model.places", grid, &[-1, self.width as i64])
    }

    /// `[side, width / 2]`: sine and cosine, in turn, of each place at each frequency.
    fn waves(&self, net: &mut Net<'_>, side: ValueId) -> Result<ValueId, ModelError> {
        let count = self.width / 2;
        let zero = net.index("model.zero", 0)?;
        let [start, step] = [net.index("model.one", 1)?, net.index("model.step", 1)?];
        let side = net.node("model.side", Gather { axis: 0 }, &[side, zero])?;
        let end = net.add("model.end", side, start)?;
        let numbers = net.node("model.numbers", Range, &[start, end, step])?;
        let float = |net: &mut Net<'_>, x| net.node("model.float", Cast::to(DType::F32), &[x]);
        let (numbers, last) = (float(net, numbers)?, float(net, side)?);
        let eps = net.float("model.eps", 1e-6)?;
        let last = net.add("model.last", last, eps)?;
        let share = net.node("model.share", Binary(Fun2::Div), &[numbers, last])?;
        let turn = net.float("model.turn", std::f32::consts::TAU)?;
        let angle = net.mul("model.angle", share, turn)?;
        let axis = net.ints("model.axis", &[1])?;
        let angle = net.node("model.angle", Unsqueeze, &[angle, axis])?;
        let divisor = |i: usize| 10_000f64.powf((2 * (i / 2)) as f64 / count as f64) as f32;
        let divisors: Vec<f32> = (0..count).map(divisor).collect();
        let divisors = net.floats("model.divisors", &[1, count], &divisors)?;
        let angles = net.node("model.angles", Binary(Fun2::Div), &[angle, divisors])?;
        let (sine, cosine) =
            (net.map("model.sine", Fun::Sin, angles)?, net.map("model.cosine", Fun::Cos, angles)?);
        // One of each pair stays.
        let even: Vec<f32> = (0..count).map(|i| f32::from(i % 2 == 0)).collect();
        let odd: Vec<f32> = even.iter().map(|x| 1.0 - x).collect();
        let even = net.floats("model.even", &[1, count], &even)?;
        let odd = net.floats("model.odd", &[1, count], &odd)?;
        let (sine, cosine) = (net.mul("model.sine", sine, even)?, net.mul("model.cosine", cosine, odd)?);
        net.add("model.waves", sine, cosine)
    }

    /// Zeros for each query of each picture, and the queries' places.
    fn queries(&self, net: &mut Net<'_>, planes: ValueId) -> Result<Sequence, ModelError> {
        let places = net.weight("model.query_position_embeddings.weight")?;
        let count = net.dim(places, 0).unwrap_or(0) as i64;
        let batch = net.node("batch", Shape { start: 0, end: Some(1) }, &[planes])?;
        let rest = net.ints("queries.rest", &[count, self.width as i64])?;
        let shape = net.node("queries.shape", Concat { axis: 0 }, &[batch, rest])?;
        let zero = net.float("queries.zero", 0.0)?;
        let values = net.node("queries", Expand, &[zero, shape])?;
        Ok(Sequence { values, places })
    }

    fn encoder_layer(
        &self,
        net: &mut Net<'_>,
        at: &str,
        x: Sequence,
        heads: usize,
    ) -> Result<ValueId, ModelError> {
        let y = self.attention(net, &parts(at, "self_attn"), x, x, heads)?;
        let y = add_norm(net, &parts(at, "self_attn_layer_norm"), x.values, y)?;
        self.mlp(net, at, y)
    }

    fn decoder_layer(
        &self,
        net: &mut Net<'_>,
        at: &str,
        x: Sequence,
        memory: Sequence,
        heads: usize,
    ) -> Result<ValueId, ModelError> {
        let y = self.attention(net, &parts(at, "self_attn"), x, x, heads)?;
        let y = add_norm(net, &parts(at, "self_attn_layer_norm"), x.values, y)?;
        let x = Sequence { values: y, ..x };
        let y = self.attention(net, &parts(at, "encoder_attn"), x, memory, heads)?;
        let y = add_norm(net, &parts(at, "encoder_attn_layer_norm"), x.values, y)?;
        self.mlp(net, at, y)
    }

    /// Queries and keys know their places, values do not.
    fn attention(
        &self,
        net: &mut Net<'_>,
        at: &str,
        to: Sequence,
        from: Sequence,
        heads: usize,
    ) -> Result<ValueId, ModelError> {
        let q = net.add(&parts(at, "queries"), to.values, to.places)?;
        let q = net.linear(&parts(at, "q_proj"), q)?;
        let k = net.add(&parts(at, "keys"), from.values, from.places)?;
        let k = net.linear(&parts(at, "k_proj"), k)?;
        let v = net.linear(&parts(at, "v_proj"), from.values)?;
        let out = net.spelt(&[parts(at, "out_proj"), parts(at, "o_proj")]);
        blocks::attention(net, at, &out, heads, &[q, k, v])
    }

    fn mlp(&self, net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
        let [fc1, fc2] = ["fc1", "fc2"].map(|fc| net.spelt(&[parts(at, fc), format!("{at}.mlp.{fc}")]));
        let y = blocks::mlp(net, at, [&fc1, &fc2], self.act, x)?;
        add_norm(net, &parts(at, "final_layer_norm"), x, y)
    }
}

fn add_norm(net: &mut Net<'_>, at: &str, x: ValueId, y: ValueId) -> Result<ValueId, ModelError> {
    let sum = net.add(&parts(at, "sum"), x, y)?;
    net.layer_norm(at, sum, EPS)
}

/// Centre and size of each query's box, as shares of the picture.
fn boxes(net: &mut Net<'_>, x: ValueId) -> Result<ValueId, ModelError> {
    let layers = net.modules("bbox_predictor.layers");
    let mut x = x;
    for (i, at) in layers.iter().enumerate() {
        x = net.linear(at, x)?;
        let act = if i + 1 < layers.len() { Fun::Relu } else { Fun::Sigmoid };
        x = net.map(&parts(at, "act"), act, x)?;
    }
    Ok(x)
}
