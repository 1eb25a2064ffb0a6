//! What a model's files say about it, whether or not Kinglet can run it.
//!
//! Contract: whatever the files do not say is `None`; what would keep the model from running is collected, not returned
//! as an error. Weights are not read, but for a few small vectors. Deliberately absent: how it is shown.

use std::collections::BTreeMap;

use kinglet_models::DecoderConfig;
use kinglet_tensor::{DType, Metadata, Tensor};
use kinglet_text::tokenizer::{SpecialIds, Tokenizer};

use crate::footprint::Footprint;
use crate::{Error, ModelFiles, vocabulary};

/// What a model's files say about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Overview {
    /// The file format, with its version.
    pub format: String,
    /// The name that its makers gave it.
    pub title: Option<String>,
    /// The architecture, by the name it has in this format.
    pub architecture: Option<String>,
    /// The licence of the weights.
    pub license: Option<String>,
    /// Its sizes.
    pub sizes: Sizes,
    /// Sizes and switches as it would run.
    pub decoder: Option<DecoderConfig>,
    /// Tensors by type, the largest share first.
    pub mix: Vec<Share>,
    /// The tokenizer.
    pub vocabulary: Vocabulary,
    /// The source of its chat template.
    pub template: Option<String>,
    /// Memory that it takes to run; `None` when it cannot.
    pub footprint: Option<Footprint>,
    /// Why it cannot run; empty when it can.
    pub obstacles: Vec<Error>,
}

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Blocks.
    pub layers: Option<usize>,
    /// Length of the residual.
    pub dim: Option<usize>,
    /// Query heads.
    pub heads: Option<usize>,
    /// Key/value heads.
    pub kv_heads: Option<usize>,
    /// Elements of a query or key head.
    pub head_dim: Option<usize>,
    /// Width of the MLP.
    pub ff: Option<usize>,
    /// Tokens of the vocabulary.
    pub vocab: Option<usize>,
    /// Positions it was trained for.
    pub context: Option<usize>,
}

/// All tensors of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The type.
    pub dtype: DType,
    /// How many tensors.
    pub tensors: usize,
    /// Their elements.
    pub elements: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What the files say about the tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// `tokenizer.ggml.model`, or where else it comes from.
    pub kind: Option<String>,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// Number of tokens.
    pub size: Option<usize>,
    /// Tokens with a role: the role, the id, the text.
    pub special: Vec<(&'static str, u32, String)>,
}

impl Overview {
    /// Looks through opened files.
    pub fn of(files: &ModelFiles) -> Self {
        let mut obstacles = Vec::new();
        let decoder = files.decoder().map_err(|e| obstacles.push(e.into())).ok();
        let footprint = decoder
            .as_ref()
            .and_then(|decoder| Footprint::of(files, decoder).map_err(|e| obstacles.push(e)).ok());
        let tokenizer = vocabulary::tokenizer(files).map_err(|e| obstacles.push(e)).ok();
        let metadata = files.metadata();
        let text = |keys: &[&str]| keys.iter().find_map(|key| metadata.str(key)).map(str::to_owned);
        Self {
            format: format(files),
            title: text(&["general.name", "_name_or_path"]).filter(|name| !name.is_empty()),
            architecture: architecture(files),
            license: text(&["general.license", "general.license.name", "license"]),
            sizes: Sizes::of(files, decoder.as_ref(), tokenizer.as_ref()),
            decoder,
            mix: mix(files.tensors()),
            vocabulary: Vocabulary::of(metadata, tokenizer.as_ref()),
            template: vocabulary::template_source(files).map(str::to_owned),
            footprint,
            obstacles,
        }
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.mix.iter().map(|share| share.elements).sum()
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        self.mix.iter().map(|share| share.bytes).sum()
    }
}

impl Share {
    /// Stored bits for each element.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elements.max(1) as f64
    }
}

fn format(files: &ModelFiles) -> String {
    match files {
        ModelFiles::Gguf(gguf) => format!("GGUF {}", gguf.version()),
        ModelFiles::HuggingFace(_) => "Hugging Face".into(),
    }
}

fn architecture(files: &ModelFiles) -> Option<String> {
    match files {
        ModelFiles::Gguf(gguf) => gguf.metadata().str("general.architecture").map(str::to_owned),
        ModelFiles::HuggingFace(folder) => {
            folder.config.strs("architectures")?.iter().next().map(str::to_owned)
        }
    }
}

fn mix(tensors: &[Tensor]) -> Vec<Share> {
    let mut shares = BTreeMap::new();
    for tensor in tensors {
        let dtype = tensor.dtype();
        let share = shares.entry(dtype).or_insert(Share { dtype, tensors: 0, elements: 0, bytes: 0 });
        share.tensors += 1;
        share.elements += tensor.elements() as u64;
        share.bytes += tensor.data().len() as u64;
    }
    let mut shares: Vec<Share> = shares.into_values().collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    shares
}

impl Sizes {
    /// Of the decoder as it would run, or else whatever the usual keys say.
    fn of(files: &ModelFiles, decoder: Option<&DecoderConfig>, tokenizer: Option<&Tokenizer>) -> Self {
        let (keys, prefix, table): (_, _, &[&str]) = match files {
            ModelFiles::Gguf(_) => {
                (GGUF_KEYS, architecture(files).unwrap_or_default() + ".", &["token_embd.weight"])
            }
            ModelFiles::HuggingFace(_) => (HF_KEYS, String::new(), &["model.embed_tokens.weight"]),
        };
        let metadata = files.metadata();
        let [layers, dim, heads, kv_heads, head_dim, ff, vocab, context] =
            keys.map(|key| metadata.usize(&format!("{prefix}{key}")));
        let embedding = files.tensors().iter().find(|t| table.contains(&t.name()));
        let rows = embedding.and_then(|t| t.shape().first().copied());
        let vocab = vocab.or(rows).or(tokenizer.map(Tokenizer::vocab_size));
        let said = Self { layers, dim, heads, kv_heads, head_dim, ff, vocab, context };
        decoder.map_or(said, |d| Self {
            layers: Some(d.layers),
            dim: Some(d.dim),
            heads: Some(d.heads),
            kv_heads: Some(d.kv_heads),
            head_dim: Some(d.key_dim),
            ff: Some(d.ff),
            vocab,
            context: Some(d.context),
        })
    }
}

/// Keys in the order of [`Sizes`], behind the architecture's name.
const GGUF_KEYS: [&str; 8] = [
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "feed_forward_length",
    "vocab_size",
    "context_length",
];

/// Keys in the order of [`Sizes`].
const HF_KEYS: [&str; 8] = [
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
];

impl Vocabulary {
    fn of(metadata: &Metadata, tokenizer: Option<&Tokenizer>) -> Self {
        let text = |key: &str| metadata.str(key).map(str::to_owned);
        let stored = metadata.strs("tokenizer.ggml.tokens").map(|tokens| tokens.len());
        Self {
            kind: text("tokenizer.ggml.model").or(tokenizer.map(|_| "tokenizer.json".into())),
            pre: text("tokenizer.ggml.pre"),
            size: tokenizer.map(Tokenizer::vocab_size).or(stored),
            special: tokenizer.map(special).unwrap_or_default(),
        }
    }
}

fn special(tokenizer: &Tokenizer) -> Vec<(&'static str, u32, String)> {
    let SpecialIds { bos, eos, eot, eom, unk, sep, pad, mask, .. } = *tokenizer.special_ids();
    let SpecialIds { fim_prefix, fim_suffix, fim_middle, .. } = *tokenizer.special_ids();
    let roles = [
        ("bos", bos),
        ("eos", eos),
        ("eot", eot),
        ("eom", eom),
        ("unk", unk),
        ("sep", sep),
        ("pad", pad),
        ("mask", mask),
        ("fim_prefix", fim_prefix),
        ("fim_suffix", fim_suffix),
        ("fim_middle", fim_middle),
    ];
    let text = |id| tokenizer.token_text(id).map(|text| text.into_owned()).unwrap_or_default();
    roles.into_iter().filter_map(|(role, id)| Some((role, id?, text(id?)))).collect()
}
