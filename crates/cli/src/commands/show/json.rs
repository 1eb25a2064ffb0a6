//! Everything about a model as one JSON object.

use kinglet::catalog::Model;
use kinglet::models::{DecoderConfig, RopeConfig, RopeScaling};
use kinglet::tensor::{KvType, Tensor};
use kinglet::{Footprint, ModelFiles, Overview, Share};
use serde_json::{Value, json};

use super::super::pull::model_json;
use super::values;

/// The whole object; metadata lists in full with `full`.
pub(super) fn everything(model: &Model, files: &ModelFiles, full: bool) -> Value {
    let overview = Overview::of(files);
    let value = if full { values::whole } else { values::shortened };
    let metadata: Value = files.metadata().0.iter().map(|(key, v)| (key.clone(), value(v))).collect();
    let obstacles: Vec<String> = overview.obstacles.iter().map(ToString::to_string).collect();
    json!({
        "model": model_json(model),
        "format": overview.format,
        "title": overview.title,
        "architecture": overview.architecture,
        "license": overview.license,
        "parameters": overview.parameters(),
        "weight_bytes": overview.weight_bytes(),
        "sizes": sizes(&overview),
        "decoder": overview.decoder.as_ref().map(decoder),
        "mix": overview.mix.iter().map(share).collect::<Vec<_>>(),
        "memory": overview.footprint.as_ref().map(|f| memory(f, overview.sizes.context.unwrap_or(0))),
        "tokenizer": tokenizer(&overview),
        "chat_template": overview.template,
        "runs": obstacles.is_empty(),
        "obstacles": obstacles,
        "metadata": metadata,
        "tensors": files.tensors().iter().map(tensor).collect::<Vec<_>>(),
    })
}

fn sizes(overview: &Overview) -> Value {
    let sizes = &overview.sizes;
    json!({
        "layers": sizes.layers,
        "dim": sizes.dim,
        "heads": sizes.heads,
        "kv_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "ff": sizes.ff,
        "vocab": sizes.vocab,
        "context": sizes.context,
    })
}

fn decoder(decoder: &DecoderConfig) -> Value {
    json!({
        "norm_eps": decoder.norm_eps,
        "rope": rope(&decoder.rope),
        "local_rope": rope(&decoder.local_rope),
        "window": decoder.window,
        "windowed_layers": decoder.windowed,
        "attention_softcap": decoder.attn_softcap,
        "logit_softcap": decoder.logit_softcap,
    })
}

fn rope(rope: &RopeConfig) -> Value {
    let scaling = match &rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear(factor) => json!({ "type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low, high, original } => {
            json!({ "type": "llama3", "factor": factor, "low": low, "high": high, "original": original })
        }
        RopeScaling::Yarn(yarn) => {
            json!({ "type": "yarn", "factor": yarn.factor, "original": yarn.original })
        }
        RopeScaling::Factors(factors) => json!({ "type": "factors", "factors": factors }),
        RopeScaling::Long { short, long } => json!({ "type": "longrope", "short": short, "long": long }),
    };
    json!({ "base": rope.base, "dims": rope.dims, "scaling": scaling })
}

fn share(share: &Share) -> Value {
    json!({
        "type": share.dtype.name(),
        "tensors": share.tensors,
        "elements": share.elements,
        "bytes": share.bytes,
        "bits_per_weight": share.bits_per_weight(),
    })
}

fn memory(footprint: &Footprint, context: usize) -> Value {
    let at = |tokens: usize| {
        json!({
            "context": tokens,
            "kv_q16": footprint.kv_bytes(KvType::Q16, tokens),
            "kv_q8_0": footprint.kv_bytes(KvType::Q8_0, tokens),
            "total_q16": footprint.total(KvType::Q16, tokens),
            "total_q8_0": footprint.total(KvType::Q8_0, tokens),
        })
    };
    json!({
        "weights_packed": footprint.packed,
        "weights_beside_packed": footprint.beside,
        "weights_mapped_for_f32": footprint.mapped,
        "at": [at(1_024), at(4_096), at(context)],
    })
}

fn tokenizer(overview: &Overview) -> Value {
    let vocabulary = &overview.vocabulary;
    let special = vocabulary
        .special
        .iter()
        .map(|(role, id, text)| ((*role).to_owned(), json!({ "id": id, "text": text })));
    json!({
        "kind": vocabulary.kind,
        "pre": vocabulary.pre,
        "tokens": vocabulary.size,
        "special": special.collect::<Value>(),
    })
}

fn tensor(tensor: &Tensor) -> Value {
    json!({
        "name": tensor.name(),
        "type": tensor.dtype().name(),
        "shape": tensor.shape(),
        "bytes": tensor.data().len(),
    })
}
