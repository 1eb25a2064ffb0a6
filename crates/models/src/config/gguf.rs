//! `DecoderConfig` from GGUF metadata (key names: the GGUF specification).

use kinglet_tensor::{MetaValue, Metadata};

use super::keys::{Keys, shorten};
use super::{Convention, DecoderConfig};
use crate::rope::{RopeConfig, RopeScaling, Yarn};
use crate::{Arch, ModelError, Windows, find_arch};

/// Keys that do not change what the model computes.
const INERT: &[&str] = &["vocab_size", "rope.scaling.finetuned", "rope.scaling.yarn_log_multiplier"];

pub(super) fn read(metadata: &Metadata) -> Result<DecoderConfig, ModelError> {
    let id = metadata.str("general.architecture").ok_or(ModelError::NoArch("general.architecture"))?;
    let arch = find_arch(id).ok_or_else(|| ModelError::UnknownArch(shorten(id)))?;
    let keys = Keys::new(metadata, format!("{id}."));
    let config = sizes(&keys, arch)?;
    keys.all_understood(INERT)?;
    Ok(config)
}

fn sizes(keys: &Keys<'_>, arch: &'static Arch) -> Result<DecoderConfig, ModelError> {
    let (dim, heads, layers) =
        (keys.usize("embedding_length")?, keys.usize("attention.head_count")?, keys.usize("block_count")?);
    let per_head = dim.checked_div(heads).ok_or_else(|| super::bad("head count", heads, "at least 1"))?;
    let key_dim = keys.opt_usize("attention.key_length")?.unwrap_or(per_head);
    let rope = rope(keys, key_dim)?;
    let wide = arch.wide_scale_layers == Some(layers);
    let base = keys.opt_f64("rope.freq_base_swa")?.or(arch.local_rope_base);
    let value_dim = keys.opt_usize("attention.value_length")?.unwrap_or(per_head);
    keys.must_equal("attention.key_length_swa", Some(key_dim))?;
    keys.must_equal("attention.value_length_swa", Some(value_dim))?;
    keys.must_equal("rope.dimension_count_swa", Some(rope.dims))?;
    Ok(DecoderConfig {
        arch,
        convention: Convention::Gguf,
        vocab: keys.opt_usize("vocab_size")?,
        dim,
        layers,
        heads,
        kv_heads: keys.opt_usize("attention.head_count_kv")?.unwrap_or(heads),
        key_dim,
        value_dim,
        ff: keys.usize("feed_forward_length")?,
        context: keys.usize("context_length")?,
        norm_eps: keys.f64("attention.layer_norm_rms_epsilon")? as f32,
        local_rope: rope.local(base),
        rope,
        window: keys.opt_usize("attention.sliding_window")?.filter(|w| *w > 0),
        windowed: windowed(keys, arch, layers)?,
        attn_scale: 1.0 / (if wide { per_head } else { key_dim } as f32).sqrt(),
        attn_softcap: keys.opt_f64("attn_logit_softcapping")?.map(|x| x as f32),
        logit_softcap: keys.opt_f64("final_logit_softcapping")?.map(|x| x as f32),
        own_output: false,
    })
}

/// For each layer, whether it is windowed: by a period (all but the last of each run), by a list, or as the architecture
/// has it.
fn windowed(keys: &Keys<'_>, arch: &Arch, layers: usize) -> Result<Vec<bool>, ModelError> {
    const KEY: &str = "attention.sliding_window_pattern";
    let Some(value) = keys.get(KEY) else { return Ok(arch.windows.layers(layers)) };
    let list = match (value, value.as_usize()) {
        (_, Some(0)) => Windows::Every.layers(layers),
        (_, Some(period)) => Windows::AllButLastOf(period).layers(layers),
        (MetaValue::Bools(list), _) => list.clone(),
        _ => value.as_i64s().map(|list| list.iter().map(|n| *n != 0).collect()).unwrap_or_default(),
    };
    if list.len() == layers {
        Ok(list)
    } else {
        Err(keys.wrong(KEY, value, "a period, or a value for each layer"))
    }
}

/// Rotary settings; per-pair factors that stand in tensors are added when the weights are at hand.
fn rope(keys: &Keys<'_>, key_dim: usize) -> Result<RopeConfig, ModelError> {
    let dims = keys.opt_usize("rope.dimension_count")?.unwrap_or(key_dim);
    let base = keys.opt_f64("rope.freq_base")?.unwrap_or(10_000.0);
    let factor = keys.opt_f64("rope.scaling.factor")?.or(keys.opt_f64("rope.scale_linear")?);
    let original = keys.opt_usize("rope.scaling.original_context_length")?;
    let magnitude = keys.opt_f64("rope.scaling.attn_factor")?;
    let scaling = match (keys.opt_str("rope.scaling.type")?, factor) {
        (Some("linear"), Some(factor)) | (None, Some(factor)) if factor != 1.0 => RopeScaling::Linear(factor),
        (Some("yarn"), Some(factor)) => {
            let original = original.ok_or_else(|| keys.missing("rope.scaling.original_context_length"))?;
            RopeScaling::Yarn(Yarn { original, ..Yarn::new(factor) })
        }
        (None | Some("none" | "linear" | "longrope"), _) => RopeScaling::None,
        (Some(other), _) => {
            return Err(ModelError::UnsupportedKey {
                key: "rope.scaling.type".into(),
                value: shorten(other),
            });
        }
    };
    Ok(RopeConfig { dims, base, scaling, original, magnitude })
}
