//! `DecoderConfig` from a Hugging Face `config.json`.

use kinglet_tensor::Metadata;

use super::keys::{Keys, shorten};
use super::{Convention, DecoderConfig};
use crate::rope::{RopeConfig, RopeScaling, Yarn};
use crate::{Arch, ModelError, Windows, find_arch};

/// Keys that do not change what the model computes.
const INERT: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "resid_pdrop",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "problem_type",
    "return_dict",
];

pub(super) fn read(config: &Metadata) -> Result<DecoderConfig, ModelError> {
    let id = config.get("architectures").and_then(|v| v.as_strs()).and_then(|list| list.iter().next());
    let id = id.ok_or(ModelError::NoArch("architectures"))?;
    let arch = find_arch(id).ok_or_else(|| ModelError::UnknownArch(shorten(id)))?;
    let keys = Keys::new(config, "");
    let config = sizes(&keys, arch)?;
    keys.all_understood(INERT)?;
    Ok(config)
}

fn sizes(keys: &Keys<'_>, arch: &'static Arch) -> Result<DecoderConfig, ModelError> {
    let (dim, heads, layers) =
        (keys.usize("hidden_size")?, keys.usize("num_attention_heads")?, keys.usize("num_hidden_layers")?);
    let per_head =
        dim.checked_div(heads).ok_or_else(|| super::bad("num_attention_heads", heads, "at least 1"))?;
    let key_dim = keys.opt_usize("head_dim")?.unwrap_or(per_head);
    let context = keys.usize("max_position_embeddings")?;
    let (rope, local_rope) = ropes(keys, arch, key_dim, context)?;
    let (window, windowed) = windows(keys, arch, layers)?;
    let scalar = keys.opt_f64("query_pre_attn_scalar")?.unwrap_or(key_dim as f64);
    check_switches(keys, arch)?;
    Ok(DecoderConfig {
        arch,
        convention: Convention::HuggingFace,
        vocab: keys.opt_usize("vocab_size")?,
        dim,
        layers,
        heads,
        kv_heads: keys.opt_usize("num_key_value_heads")?.unwrap_or(heads),
        key_dim,
        value_dim: key_dim,
        ff: keys.usize("intermediate_size")?,
        context,
        norm_eps: keys.f64("rms_norm_eps")? as f32,
        rope,
        local_rope,
        window,
        windowed,
        attn_scale: (1.0 / scalar.sqrt()) as f32,
        attn_softcap: keys.opt_f64("attn_logit_softcapping")?.map(|x| x as f32),
        logit_softcap: keys.opt_f64("final_logit_softcapping")?.map(|x| x as f32),
        own_output: !keys.flag("tie_word_embeddings", true)?,
    })
}

/// Switches whose other position would compute something else. Biases need none: their tensors speak for themselves.
fn check_switches(keys: &Keys<'_>, arch: &Arch) -> Result<(), ModelError> {
    use kinglet_graph::ops::Activation::{GeluErf, GeluTanh, Silu};
    for key in ["hidden_activation", "hidden_act"] {
        let found = match keys.opt_str(key)? {
            None => continue,
            Some("silu" | "swish") => Silu,
            Some("gelu_pytorch_tanh" | "gelu_new") => GeluTanh,
            // Gemma configs written before `hidden_activation` existed say `gelu` and mean the tanh form.
            Some("gelu") if arch.act == GeluTanh => GeluTanh,
            Some("gelu") => GeluErf,
            Some(other) => return Err(ModelError::UnsupportedKey { key: key.into(), value: shorten(other) }),
        };
        if found != arch.act {
            return Err(ModelError::UnsupportedKey { key: key.into(), value: format!("{found:?}") });
        }
    }
    for key in ["attention_bias", "mlp_bias"] {
        keys.flag(key, false)?;
    }
    Ok(())
}

/// Window and, for each layer, whether it applies.
fn windows(keys: &Keys<'_>, arch: &Arch, layers: usize) -> Result<(Option<usize>, Vec<bool>), ModelError> {
    let window = keys.opt_usize("sliding_window")?.filter(|w| *w > 0);
    // Gemma 2 9B says it twice.
    keys.must_equal("sliding_window_size", window)?;
    let switched = arch.windows == Windows::Switched;
    let used = keys.flag("use_sliding_window", !switched)?;
    let first = keys.opt_usize("max_window_layers")?.filter(|_| switched);
    let pattern = keys.opt_usize("sliding_window_pattern")?.or(keys.opt_usize("_sliding_window_pattern")?);
    let rule = pattern.filter(|n| *n > 0).map_or(arch.windows, Windows::AllButLastOf);
    if let Some(windowed) = layer_types(keys, layers)? {
        if used && window.is_none() && windowed.contains(&true) {
            return Err(keys.missing("sliding_window"));
        }
        return Ok((window.filter(|_| used), windowed));
    }
    if switched && used && window.is_some() && first.is_none() {
        return Err(keys.missing("max_window_layers"));
    }
    let windowed = rule.layers(layers).into_iter().enumerate().map(|(i, w)| w && i >= first.unwrap_or(0));
    Ok((window.filter(|_| used), windowed.collect()))
}

/// For each layer, whether `layer_types` says that it is windowed.
fn layer_types(keys: &Keys<'_>, layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
    const KEY: &str = "layer_types";
    let Some(value) = keys.get(KEY) else { return Ok(None) };
    let types = value.as_strs().filter(|types| types.len() == layers);
    let types = types.ok_or_else(|| keys.wrong(KEY, value, "a text for each layer"))?;
    let windowed = types.iter().map(|kind| match kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(ModelError::UnsupportedKey { key: KEY.into(), value: shorten(other) }),
    });
    windowed.collect::<Result<_, _>>().map(Some)
}

/// Rotary settings of global and of windowed layers, in the older (`rope_theta`, `rope_scaling`) and the newer
/// (`rope_parameters`) spelling.
fn ropes(
    keys: &Keys<'_>,
    arch: &Arch,
    key_dim: usize,
    context: usize,
) -> Result<(RopeConfig, RopeConfig), ModelError> {
    let plain = RopeConfig {
        dims: rotated(keys, key_dim)?.unwrap_or(key_dim),
        base: keys.opt_f64("rope_theta")?.unwrap_or(10_000.0),
        scaling: RopeScaling::None,
        original: keys.opt_usize("original_max_position_embeddings")?,
        magnitude: None,
    };
    let local_base = keys.opt_f64("rope_local_base_freq")?.or(arch.local_rope_base);
    let (newer, older) = (keys.opt_table("rope_parameters")?, keys.opt_table("rope_scaling")?);
    let Some(given) = newer.or(older) else { return Ok((plain.clone(), plain.local(local_base))) };
    let scaled = |table| scaled(table, &plain, key_dim, context);
    if let (2, Some(full), Some(sliding)) =
        (given.0.len(), given.table("full_attention"), given.table("sliding_attention"))
    {
        return Ok((scaled(full)?, scaled(sliding)?));
    }
    let global = scaled(given)?;
    let local = global.local(local_base);
    Ok((global, local))
}

/// How many elements of a head are rotated, when not all.
fn rotated(keys: &Keys<'_>, key_dim: usize) -> Result<Option<usize>, ModelError> {
    let partial = keys.opt_f64("partial_rotary_factor")?;
    Ok(partial.map(|partial| (key_dim as f64 * partial) as usize))
}

/// `plain` with what a `rope_scaling` or `rope_parameters` table says.
fn scaled(
    table: &Metadata,
    plain: &RopeConfig,
    key_dim: usize,
    context: usize,
) -> Result<RopeConfig, ModelError> {
    let keys = Keys::new(table, "");
    let kind = keys.opt_str("rope_type")?.or(keys.opt_str("type")?).unwrap_or("default");
    let base = keys.opt_f64("rope_theta")?.unwrap_or(plain.base);
    let dims = rotated(&keys, key_dim)?.unwrap_or(plain.dims);
    let original = keys.opt_usize("original_max_position_embeddings")?.or(plain.original);
    let magnitude = keys.opt_f64("attention_factor")?;
    let scaling = scaling(&keys, kind, original, context)?;
    keys.all_understood(&[])?;
    let magnitude = match (&scaling, original) {
        (RopeScaling::Long { .. }, Some(original)) => magnitude.or(Some(long_magnitude(context, original))),
        _ => magnitude,
    };
    Ok(RopeConfig { dims, base, scaling, original, magnitude })
}

fn scaling(
    keys: &Keys<'_>,
    kind: &str,
    original: Option<usize>,
    context: usize,
) -> Result<RopeScaling, ModelError> {
    let list = |key: &str| keys.opt_f64s(key)?.ok_or_else(|| keys.missing(key));
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear(keys.f64("factor")?),
        "llama3" => RopeScaling::Llama3 {
            factor: keys.f64("factor")?,
            low: keys.f64("low_freq_factor")?,
            high: keys.f64("high_freq_factor")?,
            original: original.unwrap_or(context) as f64,
        },
        "yarn" => {
            let plain = Yarn::new(keys.f64("factor")?);
            RopeScaling::Yarn(Yarn {
                original: original.unwrap_or(context),
                beta_fast: keys.opt_f64("beta_fast")?.unwrap_or(plain.beta_fast),
                beta_slow: keys.opt_f64("beta_slow")?.unwrap_or(plain.beta_slow),
                ..plain
            })
        }
        "longrope" | "su" => {
            keys.opt_f64("factor")?;
            RopeScaling::Long { short: list("short_factor")?, long: list("long_factor")? }
        }
        other => return Err(ModelError::UnsupportedKey { key: "rope_type".into(), value: shorten(other) }),
    })
}

/// LongRoPE's factor on rotated elements: `sqrt(1 + ln(context / original) / ln(original))`.
fn long_magnitude(context: usize, original: usize) -> f64 {
    let stretch = context as f64 / original as f64;
    if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / (original as f64).ln()).sqrt() }
}
