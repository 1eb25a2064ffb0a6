//! Weights by role: one table of tensor names per format, and a record of what was used.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kinglet_tensor::{Bytes, DType, Tensor, WeightSource, quant};

use crate::config::Convention;
use crate::{Arch, ModelError, Norm};

/// What a tensor is for. Block roles are per layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embed,
    OutputNorm,
    Output,
    RopeFactors,
    RopeShort,
    RopeLong,
    AttnNorm,
    Q,
    K,
    V,
    Qkv,
    QNorm,
    KNorm,
    AttnOut,
    AttnPostNorm,
    MlpNorm,
    Gate,
    Up,
    GateUp,
    Down,
    MlpPostNorm,
}

/// Role, name in GGUF files, name in Hugging Face checkpoints; `{}` is the layer.
#[rustfmt::skip]
const NAMES: [(Role, &str, &str); 21] = [
    (Role::Embed,        "token_embd",                 "model.embed_tokens"),
    (Role::OutputNorm,   "output_norm",                "model.norm"),
    (Role::Output,       "output",                     "lm_head"),
    (Role::RopeFactors,  "rope_freqs",                 ""),
    (Role::RopeShort,    "rope_factors_short",         ""),
    (Role::RopeLong,     "rope_factors_long",          ""),
    (Role::AttnNorm,     "blk.{}.attn_norm",           "model.layers.{}.input_layernorm"),
    (Role::Q,            "blk.{}.attn_q",              "model.layers.{}.self_attn.q_proj"),
    (Role::K,            "blk.{}.attn_k",              "model.layers.{}.self_attn.k_proj"),
    (Role::V,            "blk.{}.attn_v",              "model.layers.{}.self_attn.v_proj"),
    (Role::Qkv,          "blk.{}.attn_qkv",            "model.layers.{}.self_attn.qkv_proj"),
    (Role::QNorm,        "blk.{}.attn_q_norm",         "model.layers.{}.self_attn.q_norm"),
    (Role::KNorm,        "blk.{}.attn_k_norm",         "model.layers.{}.self_attn.k_norm"),
    (Role::AttnOut,      "blk.{}.attn_output",         "model.layers.{}.self_attn.o_proj"),
    (Role::AttnPostNorm, "blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"),
    (Role::MlpNorm,      "blk.{}.ffn_norm",            "model.layers.{}.post_attention_layernorm"),
    (Role::Gate,         "blk.{}.ffn_gate",            "model.layers.{}.mlp.gate_proj"),
    (Role::Up,           "blk.{}.ffn_up",              "model.layers.{}.mlp.up_proj"),
    (Role::GateUp,       "blk.{}.ffn_up",              "model.layers.{}.mlp.gate_up_proj"),
    (Role::Down,         "blk.{}.ffn_down",            "model.layers.{}.mlp.down_proj"),
    (Role::MlpPostNorm,  "blk.{}.post_ffw_norm",       "model.layers.{}.post_feedforward_layernorm"),
];

/// Names that files carry although the computation does not need them.
const IGNORED: [&str; 3] = ["rotary_emb.inv_freq", "attn_rot_embd", "attn.masked_bias"];

/// A weight source seen through roles.
pub(crate) struct Weights<'a> {
    source: &'a dyn WeightSource,
    present: BTreeSet<String>,
    used: RefCell<BTreeSet<String>>,
    arch: &'static Arch,
    convention: Convention,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(source: &'a dyn WeightSource, arch: &'static Arch, convention: Convention) -> Self {
        let present = source.names().into_iter().collect();
        Self { source, present, used: RefCell::default(), arch, convention }
    }

    /// The matrix or vector of a role, with the shape it must have; `what` is `weight` or `bias`.
    pub(crate) fn get(
        &self,
        role: Role,
        layer: usize,
        what: &str,
        shape: &[usize],
    ) -> Result<Tensor, ModelError> {
        let tensor = self.any(role, layer, what)?;
        if tensor.shape() == shape {
            return Ok(tensor);
        }
        let (name, found) = (tensor.name().to_owned(), tensor.shape().to_vec());
        Err(ModelError::Shape { name, found, expected: shape.to_vec() })
    }

    /// The tensor of a role, whatever its shape.
    pub(crate) fn any(&self, role: Role, layer: usize, what: &str) -> Result<Tensor, ModelError> {
        let name = self.name(role, layer, what);
        let tensor = self.source.tensor(&name)?;
        self.used.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Whether the file has a tensor for this role.
    pub(crate) fn has(&self, role: Role, layer: usize, what: &str) -> bool {
        self.present.contains(&self.name(role, layer, what))
    }

    /// The factor of a norm over `len` elements, as f32.
    pub(crate) fn norm(&self, role: Role, layer: usize, len: usize) -> Result<Tensor, ModelError> {
        let tensor = self.get(role, layer, "weight", &[len])?;
        let plus_one = self.arch.norm == Norm::RmsPlusOne && self.convention == Convention::HuggingFace;
        if !plus_one {
            return Ok(tensor);
        }
        let values: Vec<f32> = self.values(&tensor)?.into_iter().map(|w| w + 1.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|w| w.to_le_bytes()).collect();
        Ok(Tensor::new(tensor.name(), DType::F32, vec![len], Bytes::from(bytes))?)
    }

    /// The elements of a small tensor as f32.
    pub(crate) fn values(&self, tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0; tensor.elements()];
        quant::dequantize(tensor.dtype(), tensor.data(), &mut values)
            .map_err(|source| ModelError::Values { name: tensor.name().into(), source })?;
        Ok(values)
    }

    /// An error when the file holds tensors that nothing asked for.
    pub(crate) fn all_used(&self) -> Result<(), ModelError> {
        let used = self.used.borrow();
        let ignored = |name: &str| IGNORED.iter().any(|part| name.contains(part));
        let mut unused = self.present.iter().filter(|name| !used.contains(*name) && !ignored(name));
        match unused.next() {
            None => Ok(()),
            Some(first) => Err(ModelError::UnusedTensors { first: first.clone(), count: 1 + unused.count() }),
        }
    }

    fn name(&self, role: Role, layer: usize, what: &str) -> String {
        let row = NAMES.iter().find(|row| row.0 == role).map_or(("", ""), |row| (row.1, row.2));
        let stem = match (self.convention, role) {
            (Convention::Gguf, _) => row.0,
            (Convention::HuggingFace, Role::MlpNorm) if self.arch.sandwich => {
                "model.layers.{}.pre_feedforward_layernorm"
            }
            (Convention::HuggingFace, _) => row.1,
        };
        format!("{}.{what}", stem.replace("{}", &layer.to_string()))
    }
}

/// Rows `start..start + rows` of a matrix or vector, without copying.
pub(crate) fn rows_of(
    tensor: &Tensor,
    suffix: &str,
    start: usize,
    rows: usize,
) -> Result<Tensor, ModelError> {
    let row_bytes = tensor.data().len() / tensor.shape()[0].max(1);
    let data = tensor.data().slice(start * row_bytes..(start + rows) * row_bytes);
    let shape = [&[rows], &tensor.shape()[1..]].concat();
    Ok(Tensor::new(format!("{}.{suffix}", tensor.name()), tensor.dtype(), shape, data)?)
}
