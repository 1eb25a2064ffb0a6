//! Decoders from golden models with mutated configurations and tensors: built, or refused with an error.
//!
//! An input is one byte that picks the golden model, then edits of eleven bytes: what is edited, which of those, how, and
//! a number of eight bytes.

use std::sync::LazyLock;

use bytes::Bytes;
use kinglet_formats::{Gguf, Limits, Safetensors, hf};
use kinglet_models::{DecoderConfig, DecoderOptions, build_decoder};
use kinglet_tensor::{DType, KvType, MemoryWeights, MetaValue, Metadata, Tensor};

/// A golden model, taken apart.
#[derive(Clone)]
struct Model {
    metadata: Metadata,
    weights: MemoryWeights,
    is_gguf: bool,
}

macro_rules! golden {
    ($name:literal, $file:literal) => {
        include_bytes!(concat!("../../crates/testkit/tests/data/tiny/", $name, "/", $file)).as_slice()
    };
}

static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    vec![
        gguf(golden!("llama", "tiny.gguf")),
        gguf(golden!("gemma3", "tiny.gguf")),
        gguf(golden!("phi3-long", "tiny.gguf")),
        gguf(golden!("qwen3", "tiny.gguf")),
        hugging_face(golden!("llama3-scaled", "config.json"), golden!("llama3-scaled", "model.safetensors")),
        hugging_face(golden!("gemma3", "config.json"), golden!("gemma3", "model.safetensors")),
        hugging_face(golden!("phi3-long", "config.json"), golden!("phi3-long", "model.safetensors")),
        hugging_face(golden!("qwen2", "config.json"), golden!("qwen2", "model.safetensors")),
    ]
});

fn gguf(file: &'static [u8]) -> Model {
    let file = Gguf::parse(Bytes::from_static(file), &Limits::default()).expect("sound");
    let weights = file.tensors().iter().cloned().collect();
    Model { metadata: file.metadata().clone(), weights, is_gguf: true }
}

fn hugging_face(config: &[u8], weights: &'static [u8]) -> Model {
    let metadata = hf::parse("config.json", config, &Limits::default()).expect("sound");
    let weights = Safetensors::parse(Bytes::from_static(weights), &Limits::default()).expect("sound");
    Model { metadata, weights: weights.tensors().iter().cloned().collect(), is_gguf: false }
}

/// Keys that golden models lack, behind the architecture's name in GGUF files.
const KEYS: [&str; 20] = [
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.freq_base",
    "rope.freq_base_swa",
    "attention.sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope_scaling",
    "rope_parameters",
    "rope_theta",
    "partial_rotary_factor",
    "sliding_window",
    "sliding_window_pattern",
    "layer_types",
    "max_window_layers",
    "query_pre_attn_scalar",
    "original_max_position_embeddings",
];

/// Keys of the tables among them.
const NESTED: [&str; 12] = [
    "rope_type",
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "short_factor",
    "long_factor",
    "attention_factor",
    "partial_rotary_factor",
    "full_attention",
    "sliding_attention",
];

/// Texts that mean something somewhere.
const WORDS: [&str; 14] = [
    "linear",
    "yarn",
    "longrope",
    "llama3",
    "default",
    "none",
    "silu",
    "gelu",
    "sliding_attention",
    "full_attention",
    "llama",
    "gemma2",
    "LlamaForCausalLM",
    "",
];

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let Some((&pick, edits)) = bytes.split_first() else { return };
    let mut model = MODELS[pick as usize % MODELS.len()].clone();
    for edit in edits.as_chunks().0 {
        model.edit(edit);
    }
    let read = if model.is_gguf { DecoderConfig::from_gguf } else { DecoderConfig::from_hf };
    let Ok(config) = read(&model.metadata) else { return };
    assert_eq!(config.rope.inv_freq(config.context).len(), config.rope.dims / 2);
    let options = DecoderOptions {
        context: config.context,
        max_rows: 8,
        max_outputs: 8,
        kv_type: KvType::default(),
        page_tokens: 16,
    };
    if let Ok(graph) = build_decoder(&config, &model.weights, &options) {
        assert!(graph.outputs().len() == 1 && graph.kv().is_some_and(|kv| kv.layers.len() == config.layers));
    }
}

impl Model {
    fn edit(&mut self, &[what, which, how, number @ ..]: &[u8; 11]) {
        let number = u64::from_le_bytes(number);
        match what % 4 {
            0 => self.edit_tensor(which, how, number),
            1 => {
                let prefix = self.metadata.str("general.architecture").map(|id| format!("{id}."));
                let key = prefix.unwrap_or_default() + KEYS[which as usize % KEYS.len()];
                self.metadata.0.insert(key, value(how, number));
            }
            _ => {
                let Some(key) = self.metadata.0.keys().nth(which as usize % self.metadata.0.len().max(1))
                else {
                    return;
                };
                let key = key.clone();
                match how % 16 {
                    15 => drop(self.metadata.0.remove(&key)),
                    how => drop(self.metadata.0.insert(key, value(how, number))),
                }
            }
        }
    }

    /// Removes, renames or reshapes a tensor.
    fn edit_tensor(&mut self, which: u8, how: u8, number: u64) {
        let len = self.weights.0.len().max(1);
        let Some(name) = self.weights.0.keys().nth(which as usize % len).cloned() else { return };
        let Some(old) = self.weights.0.remove(&name) else { return };
        let dims = number.to_le_bytes().map(|dim| usize::from(dim) + 1);
        let (name, shape) = match how % 4 {
            0 => return,
            1 => (format!("{name}.x"), old.shape().to_vec()),
            2 => (name, dims[..2].to_vec()),
            _ => (name, dims[..usize::from(how / 4) % 4].to_vec()),
        };
        let data = vec![0; 4 * shape.iter().product::<usize>()];
        if let Ok(tensor) = Tensor::new(name.clone(), DType::F32, shape, data.into()) {
            self.weights.0.insert(name, tensor);
        }
    }
}

fn value(how: u8, number: u64) -> MetaValue {
    let word = || WORDS[number as usize % WORDS.len()].to_owned();
    match how % 16 {
        0 | 1 => MetaValue::U64(number),
        2 | 3 => MetaValue::U64(number % 128),
        4 => MetaValue::I64(number as i64),
        5 => MetaValue::F64(f64::from_bits(number)),
        6 => MetaValue::F64(number as f64 / 256.0),
        7 => MetaValue::Bool(number % 2 == 1),
        8 | 9 => MetaValue::Str(word()),
        10 => MetaValue::Strs([word(), word()].iter().collect()),
        11 => MetaValue::U64s(vec![number; number as usize % 8]),
        12 => MetaValue::F64s(vec![f64::from_bits(number); number as usize % 8]),
        13 => MetaValue::Null,
        _ => {
            let entry = |n: u64| {
                let key = NESTED[(number >> (8 * n)) as usize % NESTED.len()];
                let inner = (number >> (16 + 4 * n)) as u8;
                (key, value(inner % 13, number >> 24))
            };
            MetaValue::Table((0..4).map(entry).collect())
        }
    }
}
