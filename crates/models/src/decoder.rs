//! The one decoder builder: architecture + sizes + weights in, graph out.
//!
//! Every intermediate has the name that GGUF gives its neighbourhood (`blk.3.attn_norm`), whatever the format was.

use kinglet_graph::ops::{Add, Attention, Embed, Glu, Linear, RmsNorm, Rope, SelectRows, Softcap};
use kinglet_graph::{Dim, Graph, GraphBuilder, TensorType, ValueId};
use kinglet_tensor::{DType, KvLayer, KvSpec, KvType, Tensor, WeightSource};

use crate::ModelError;
use crate::config::{Convention, DecoderConfig};
use crate::rope::{RopeConfig, RopeScaling};
use crate::weights::{Role, Weights, rows_of};

/// What the caller decides about a decoder.
#[derive(Clone, Debug)]
pub struct DecoderOptions {
    /// Positions that sequences may have; long-context rotary schemes depend on it.
    pub context: usize,
    /// Most rows of a batch.
    pub max_rows: usize,
    /// Most rows of a batch whose logits are wanted.
    pub max_outputs: usize,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Positions of a key/value page.
    pub page_tokens: usize,
}

/// Builds the graph: inputs `tokens` i32 `[T]` and `rows` i32 `[R]`, output `logits` f32 `[R, vocab]`.
pub fn build_decoder(
    config: &DecoderConfig,
    source: &dyn WeightSource,
    options: &DecoderOptions,
) -> Result<Graph, ModelError> {
    let weights = Weights::new(source, config.arch, config.convention);
    let mut decoder = Decoder { config, weights, graph: GraphBuilder::new(), ropes: [None, None] };
    decoder.ropes = decoder.ropes(options.context)?;
    decoder.build(options)?;
    decoder.weights.all_used()?;
    Ok(kinglet_graph::passes::optimise(decoder.graph.finish())?)
}

/// A graph under construction.
struct Decoder<'a> {
    config: &'a DecoderConfig,
    weights: Weights<'a>,
    graph: GraphBuilder,
    /// Rotation of global and of windowed layers.
    ropes: [Option<Rope>; 2],
}

impl Decoder<'_> {
    fn build(&mut self, options: &DecoderOptions) -> Result<(), ModelError> {
        let tokens_dim = self.graph.dim("T", options.max_rows);
        let rows_dim = self.graph.dim("R", options.max_outputs);
        self.graph.kv(self.kv_spec(options));
        let index = |dim: Dim| TensorType { dtype: DType::I32, shape: vec![dim] };
        let tokens = self.graph.input("tokens", index(tokens_dim))?;
        let rows = self.graph.input("rows", index(rows_dim))?;
        let (table, mut x) = self.embed(tokens)?;
        for layer in 0..self.config.layers {
            x = self.attention_block(layer, x)?;
            x = self.mlp_block(layer, x)?;
        }
        let x = self.graph.node("select_rows", SelectRows, &[x, rows])?;
        let x = self.norm("output_norm", Role::OutputNorm, 0, x, self.config.dim)?;
        let logits = self.logits(x, table)?;
        self.graph.output(logits);
        Ok(())
    }

    fn kv_spec(&self, options: &DecoderOptions) -> KvSpec {
        let c = self.config;
        let layer = KvLayer { heads: c.kv_heads, key_dim: c.key_dim, value_dim: c.value_dim };
        KvSpec { layers: vec![layer; c.layers], kind: options.kv_type, page_tokens: options.page_tokens }
    }

    /// The embedding table and the first residual.
    fn embed(&mut self, tokens: ValueId) -> Result<(ValueId, ValueId), ModelError> {
        let table = self.weights.any(Role::Embed, 0, "weight")?;
        let rows = self.config.vocab.or(table.shape().first().copied()).unwrap_or(0);
        let table = self.shaped(table, &[rows, self.config.dim])?;
        let table = self.graph.weight(table)?;
        let scale = if self.config.arch.scale_embedding { (self.config.dim as f32).sqrt() } else { 1.0 };
        Ok((table, self.graph.node("embed", Embed { scale }, &[tokens, table])?))
    }

    fn attention_block(&mut self, layer: usize, x: ValueId) -> Result<ValueId, ModelError> {
        let c = self.config;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let h = self.norm(&name("attn_norm"), Role::AttnNorm, layer, x, c.dim)?;
        let [mut q, mut k, v] = self.qkv(layer, h)?;
        if c.arch.qk_norm {
            q = self.norm(&name("attn_q_norm"), Role::QNorm, layer, q, c.key_dim)?;
            k = self.norm(&name("attn_k_norm"), Role::KNorm, layer, k, c.key_dim)?;
        }
        let window = c.layer_window(layer);
        let op = Attention {
            layer,
            heads: c.heads,
            kv_heads: c.kv_heads,
            key_dim: c.key_dim,
            value_dim: c.value_dim,
            scale: c.attn_scale,
            window,
            softcap: c.attn_softcap,
            rope: self.ropes[usize::from(window.is_some())].clone(),
        };
        let a = self.graph.node(&name("attn"), op, &[q, k, v])?;
        let mut o =
            self.linear(&name("attn_output"), Role::AttnOut, layer, a, [c.dim, c.heads * c.value_dim])?;
        if c.arch.sandwich {
            o = self.norm(&name("post_attention_norm"), Role::AttnPostNorm, layer, o, c.dim)?;
        }
        Ok(self.graph.node(&name("attn_residual"), Add, &[x, o])?)
    }

    /// Queries, keys and values, from three matrices or from one that stacks them.
    fn qkv(&mut self, layer: usize, h: ValueId) -> Result<[ValueId; 3], ModelError> {
        let c = self.config;
        let sizes = [c.heads * c.key_dim, c.kv_heads * c.key_dim, c.kv_heads * c.value_dim];
        let names = ["q", "k", "v"].map(|part| format!("blk.{layer}.attn_{part}"));
        if self.weights.has(Role::Qkv, layer, "weight") {
            return self.stacked(names, Role::Qkv, layer, h, sizes);
        }
        let mut outputs = [h; 3];
        for (i, role) in [Role::Q, Role::K, Role::V].into_iter().enumerate() {
            outputs[i] = self.linear(&names[i], role, layer, h, [sizes[i], c.dim])?;
        }
        Ok(outputs)
    }

    fn mlp_block(&mut self, layer: usize, x: ValueId) -> Result<ValueId, ModelError> {
        let c = self.config;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let h = self.norm(&name("ffn_norm"), Role::MlpNorm, layer, x, c.dim)?;
        let names = [name("ffn_gate"), name("ffn_up")];
        let [gate, up] = if self.weights.has(Role::Gate, layer, "weight") {
            let gate = self.linear(&names[0], Role::Gate, layer, h, [c.ff, c.dim])?;
            [gate, self.linear(&names[1], Role::Up, layer, h, [c.ff, c.dim])?]
        } else {
            self.stacked(names, Role::GateUp, layer, h, [c.ff; 2])?
        };
        let y = self.graph.node(&name("ffn_act"), Glu { act: c.arch.act }, &[gate, up])?;
        let mut d = self.linear(&name("ffn_out"), Role::Down, layer, y, [c.dim, c.ff])?;
        if c.arch.sandwich {
            d = self.norm(&name("post_ffw_norm"), Role::MlpPostNorm, layer, d, c.dim)?;
        }
        Ok(self.graph.node(&name("ffn_residual"), Add, &[x, d])?)
    }

    /// The output matrix is the embedding table when the file has none of its own.
    fn logits(&mut self, x: ValueId, table: ValueId) -> Result<ValueId, ModelError> {
        let softcap = self.config.logit_softcap;
        let name = if softcap.is_some() { "logits_raw" } else { "logits" };
        let mut logits = if self.config.own_output || self.weights.has(Role::Output, 0, "weight") {
            let rows = self.graph.ty(table).tensor().and_then(|ty| ty.shape.first()?.fixed());
            let Some(vocab) = rows else { return Ok(x) };
            self.linear(name, Role::Output, 0, x, [vocab, self.config.dim])?
        } else {
            self.graph.node(name, Linear::one(false), &[x, table])?
        };
        if let Some(cap) = softcap {
            logits = self.graph.node("logits", Softcap { cap }, &[logits])?;
        }
        Ok(logits)
    }

    fn norm(
        &mut self,
        name: &str,
        role: Role,
        layer: usize,
        x: ValueId,
        len: usize,
    ) -> Result<ValueId, ModelError> {
        let w = self.weights.norm(role, layer, len)?;
        let w = self.graph.weight(w)?;
        Ok(self.graph.node(name, RmsNorm { eps: self.config.norm_eps }, &[x, w])?)
    }

    /// `shape` is `[outputs, inputs]`; a bias is used where the file has one.
    fn linear(
        &mut self,
        name: &str,
        role: Role,
        layer: usize,
        x: ValueId,
        shape: [usize; 2],
    ) -> Result<ValueId, ModelError> {
        let w = self.weights.get(role, layer, "weight", &shape)?;
        let bias = self.weights.has(role, layer, "bias");
        let bias = bias.then(|| self.weights.get(role, layer, "bias", &shape[..1])).transpose()?;
        self.linear_of(name, x, w, bias)
    }

    fn linear_of(
        &mut self,
        name: &str,
        x: ValueId,
        w: Tensor,
        bias: Option<Tensor>,
    ) -> Result<ValueId, ModelError> {
        let mut inputs = vec![x, self.graph.weight(w)?];
        let op = Linear::one(bias.is_some());
        inputs.extend(bias.map(|b| self.graph.weight(b)).transpose()?);
        Ok(self.graph.node(name, op, &inputs)?)
    }

    /// One product for each part of a matrix whose rows stack several.
    fn stacked<const N: usize>(
        &mut self,
        names: [String; N],
        role: Role,
        layer: usize,
        x: ValueId,
        sizes: [usize; N],
    ) -> Result<[ValueId; N], ModelError> {
        let all = self.weights.get(role, layer, "weight", &[sizes.iter().sum(), self.config.dim])?;
        let (mut outputs, mut start) = ([x; N], 0);
        for (i, (name, size)) in names.iter().zip(sizes).enumerate() {
            let part = rows_of(&all, &i.to_string(), start, size)?;
            outputs[i] = self.linear_of(name, x, part, None)?;
            start += size;
        }
        Ok(outputs)
    }

    fn shaped(&self, tensor: Tensor, expected: &[usize]) -> Result<Tensor, ModelError> {
        if tensor.shape() == expected {
            return Ok(tensor);
        }
        let (name, found) = (tensor.name().to_owned(), tensor.shape().to_vec());
        Err(ModelError::Shape { name, found, expected: expected.to_vec() })
    }

    /// Rotation of global and of windowed layers, with the factors that GGUF files keep in tensors.
    fn ropes(&self, context: usize) -> Result<[Option<Rope>; 2], ModelError> {
        let c = self.config;
        let style = match c.convention {
            Convention::Gguf => c.arch.gguf_rope,
            Convention::HuggingFace => c.arch.rope,
        };
        let global = self.with_factors(&c.rope)?;
        let rope = |rope: &RopeConfig| {
            Some(Rope { style, inv_freq: rope.inv_freq(context), magnitude: rope.magnitude() as f32 })
        };
        let local = if c.arch.local_rope_base.is_some() { rope(&c.local_rope) } else { rope(&global) };
        Ok([rope(&global), local])
    }

    fn with_factors(&self, rope: &RopeConfig) -> Result<RopeConfig, ModelError> {
        let has = |role| self.config.convention == Convention::Gguf && self.weights.has(role, 0, "weight");
        let list = |role| -> Result<Vec<f64>, ModelError> {
            let tensor = self.weights.get(role, 0, "weight", &[rope.dims / 2])?;
            Ok(self.weights.values(&tensor)?.into_iter().map(f64::from).collect())
        };
        let scaling = if has(Role::RopeFactors) {
            RopeScaling::Factors(list(Role::RopeFactors)?)
        } else if has(Role::RopeShort) && has(Role::RopeLong) {
            RopeScaling::Long { short: list(Role::RopeShort)?, long: list(Role::RopeLong)? }
        } else {
            rope.scaling.clone()
        };
        RopeConfig { scaling, ..rope.clone() }.checked(self.config.key_dim)
    }
}
