//! What configurations say, and what they must not say: keys that change the computation are understood or refused.

use kinglet_formats::{Gguf, Limits, hf};
use kinglet_models::{DecoderConfig, ModelError};
use kinglet_tensor::MetaValue;
use kinglet_testkit::golden;
use serde_json::{Value, json};

/// The configuration of a golden decoder with these keys changed; null takes a key away.
fn hugging_face(decoder: &str, changes: &Value) -> Result<DecoderConfig, ModelError> {
    let mut config: Value = serde_json::from_slice(&golden::file(decoder, "config.json")).expect("committed");
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    let json = serde_json::to_vec(&config).expect("plain values");
    DecoderConfig::from_hf(&hf::parse("config.json", &json, &Limits::default()).expect("well-formed"))
}

/// The same of its GGUF file; keys without the architecture's name.
fn gguf(decoder: &str, changes: &[(&str, MetaValue)]) -> Result<DecoderConfig, ModelError> {
    let file = Gguf::parse(golden::file(decoder, "tiny.gguf"), &Limits::default()).expect("committed");
    let mut metadata = file.metadata().clone();
    let arch = metadata.str("general.architecture").expect("committed").to_owned();
    for (key, value) in changes {
        metadata.0.insert(format!("{arch}.{key}"), value.clone());
    }
    DecoderConfig::from_gguf(&metadata)
}

#[track_caller]
fn refused(config: Result<DecoderConfig, ModelError>, key: &str) {
    let error = config.expect_err(key).to_string();
    assert!(error.contains(key), "{key} not in: {error}");
}

#[test]
fn configurations_as_they_are_published_are_understood() {
    let harmless = json!({
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "_name_or_path": "x", "embd_pdrop": 0.0,
        "is_llama_config": true, "rope_interleaved": false, "use_mrope": false, "unsloth_fixed": true,
        "torch_dtype": "bfloat16", "transformers.js_config": {"dtype": "q4"}, "eos_token_id": [1, 106],
    });
    for decoder in golden::DECODERS {
        let (plain, more) = (hugging_face(decoder, &json!({})), hugging_face(decoder, &harmless));
        let shown = |config: Result<DecoderConfig, _>| format!("{:?}", config.expect(decoder));
        assert_eq!(shown(plain), shown(more));
    }
    let twice = hugging_face("gemma2", &json!({"sliding_window_size": 5})).expect("said twice");
    assert_eq!(twice.window, Some(5));
}

#[test]
fn both_spellings_of_rotary_settings_mean_the_same() {
    let newer = hugging_face("llama3-scaled", &json!({})).expect("committed");
    let table = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16});
    let changes = json!({"rope_parameters": null, "rope_theta": 500_000.0, "rope_scaling": table});
    assert_eq!(hugging_face("llama3-scaled", &changes).expect("older").rope, newer.rope);

    let newer = hugging_face("gemma3", &json!({})).expect("committed");
    let changes =
        json!({"rope_parameters": null, "layer_types": null, "rope_theta": 1e6, "rope_local_base_freq": 1e4});
    let older = hugging_face("gemma3", &changes).expect("older");
    assert_eq!(
        (older.rope, older.local_rope, older.windowed),
        (newer.rope, newer.local_rope, newer.windowed)
    );

    for changes in [
        json!({"partial_rotary_factor": 0.5}),
        json!({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}}),
    ] {
        assert_eq!(hugging_face("llama", &changes).expect("half").rope.dims, 4, "{changes}");
    }
}

#[test]
fn windows_apply_where_the_configuration_says() {
    let windows = |decoder, changes: Value| {
        let config = hugging_face(decoder, &changes).expect("understood");
        (0..config.layers).map(|layer| config.layer_window(layer)).collect::<Vec<_>>()
    };
    let plain = json!({"layer_types": null, "sliding_window": 8, "use_sliding_window": null});
    assert_eq!(windows("qwen2", plain), [None, None]);
    let on =
        json!({"layer_types": null, "sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1});
    assert_eq!(windows("qwen2", on), [None, Some(8)]);
    let types = json!(["sliding_attention", "full_attention"]);
    let typed = json!({"layer_types": types, "sliding_window": 8, "use_sliding_window": true});
    assert_eq!(windows("qwen3", typed), [Some(8), None]);
    assert_eq!(windows("mistral-window", json!({})), [Some(6), Some(6)]);

    let pattern = |value| gguf("gemma3", &[("attention.sliding_window_pattern", value)]).map(|c| c.windowed);
    let list = [true, false, true, false, true, false];
    assert_eq!(pattern(MetaValue::U64(2)).expect("a period"), list);
    assert_eq!(pattern(MetaValue::Bools(list.to_vec())).expect("a list"), list);
    assert_eq!(pattern(MetaValue::U64s(list.map(u64::from).to_vec())).expect("numbers"), list);
    refused(gguf("gemma3", &[("attention.sliding_window_pattern", MetaValue::Bools(vec![true]))]), "pattern");
}

#[test]
fn keys_that_change_the_computation_are_refused() {
    for (decoder, key, value) in [
        ("llama", "rope_interleaved", json!(true)),
        ("gemma3", "use_bidirectional_attention", json!(true)),
        ("llama", "quantization_config", json!({"bits": 4})),
        ("llama", "new_scaling", json!(2.0)),
        ("llama", "hidden_act", json!("gelu")),
        ("gemma2", "sliding_window_size", json!(6)),
        ("gemma3", "layer_types", json!(["sliding_attention"])),
        ("qwen2", "layer_types", json!(["linear_attention", "full_attention"])),
        ("qwen2", "layer_types", json!("full_attention")),
        ("llama", "rope_parameters", json!({"rope_type": "magic"})),
        ("llama", "rope_parameters", json!([1])),
        ("llama", "head_dim", json!("eight")),
        ("llama", "num_attention_heads", json!(4.5)),
    ] {
        let key_named = if key == "rope_parameters" && value.is_object() { "rope_type" } else { key };
        refused(hugging_face(decoder, &json!({ key: value })), key_named);
    }
    let missing = json!({"layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": true});
    refused(hugging_face("qwen2", &missing), "sliding_window");
    for (key, value) in [
        ("expert_count", MetaValue::U64(8)),
        ("attention.key_length_swa", MetaValue::U64(7)),
        ("attention.causal", MetaValue::Bool(true)),
        ("rope.scaling.type", MetaValue::Str("magic".into())),
    ] {
        refused(gguf("llama", &[(key, value)]), key);
    }
}

#[test]
fn numbers_that_leave_no_numbers_are_refused() {
    for (decoder, changes, says) in [
        ("llama", json!({"rope_parameters": {"rope_theta": 0}}), "rotary base"),
        ("llama", json!({"rope_parameters": {"rope_theta": -5.0}}), "rotary base"),
        (
            "llama",
            json!({"rope_parameters": {"rope_type": "linear", "factor": 0.0}}),
            "rotary scaling factor",
        ),
        ("llama", json!({"partial_rotary_factor": 0.0}), "rotary dimensions"),
        ("llama", json!({"partial_rotary_factor": 3.0}), "rotary dimensions"),
        (
            "phi3-long",
            json!({"rope_parameters": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}}),
            "rotary scaling factors",
        ),
        (
            "phi3-long",
            json!({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 1, 1, 0],
            "long_factor": [1, 1, 1, 1]}}),
            "rotary scaling factor",
        ),
        ("llama", json!({"rms_norm_eps": -1.0}), "norm epsilon"),
        ("gemma2", json!({"query_pre_attn_scalar": 0}), "attention scale"),
        ("gemma2", json!({"query_pre_attn_scalar": -4}), "attention scale"),
        ("gemma2", json!({"attn_logit_softcapping": 0.0}), "attention soft cap"),
        ("gemma2", json!({"final_logit_softcapping": -1.0}), "logit soft cap"),
    ] {
        refused(hugging_face(decoder, &changes), says);
    }
}

#[test]
fn an_output_matrix_that_is_not_tied_must_be_there() {
    use kinglet_models::build_decoder;
    let weights =
        kinglet_formats::Safetensors::parse(golden::file("qwen2", "model.safetensors"), &Limits::default());
    let config = hugging_face("qwen2", &json!({"tie_word_embeddings": false})).expect("understood");
    let error = build_decoder(&config, &weights.expect("committed"), &golden::options("qwen2"));
    assert!(error.expect_err("no output matrix").to_string().contains("lm_head.weight"));
}
