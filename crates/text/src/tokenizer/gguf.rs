//! From GGUF's metadata keys to a [`VocabSpec`], with the defaults that files rely on.
//!
//! The keys come through a trait, since this crate knows no file format. Defaults follow what writers of GGUF files
//! assume of readers: a SentencePiece vocabulary without `add_bos_token` begins texts with `bos`, and so on.

use super::error::TokenizerError;
use super::pre_table;
use super::spec::{SpecialIds, TokenType, VocabKind, VocabSpec};

/// Where the values of GGUF keys come from. A value of another type than asked for counts as absent.
pub trait GgufKeys {
    /// A text.
    fn str(&self, key: &str) -> Option<&str>;
    /// A non-negative integer.
    fn uint(&self, key: &str) -> Option<u64>;
    /// A truth value.
    fn bool(&self, key: &str) -> Option<bool>;
    /// A list of texts.
    fn strs(&self, key: &str) -> Option<Vec<&str>>;
    /// A list of integers.
    fn ints(&self, key: &str) -> Option<Vec<i64>>;
    /// A list of numbers.
    fn floats(&self, key: &str) -> Option<Vec<f64>>;
}

/// The tokenizer models there are, as `tokenizer.ggml.model` names them.
const MODELS: &[&str] = &["gpt2", "llama", "bert", "t5", "gemma4"];

impl<'a> VocabSpec<'a> {
    /// Reads the `tokenizer.ggml.*` keys.
    pub fn from_gguf(keys: &'a dyn GgufKeys) -> Result<Self, TokenizerError> {
        let missing = |key| TokenizerError::MissingKey { key };
        let model = keys.str("tokenizer.ggml.model").ok_or(missing("tokenizer.ggml.model"))?;
        let tokens = keys.strs("tokenizer.ggml.tokens").ok_or(missing("tokenizer.ggml.tokens"))?;
        let types = keys.ints("tokenizer.ggml.token_type").unwrap_or_default();
        let kind = kind(keys, model)?;
        let adds =
            |name: &str, default| keys.bool(&format!("tokenizer.ggml.add_{name}_token")).unwrap_or(default);
        let (bos, eos, sep) = match &kind {
            VocabKind::Bpe { pre, .. } => (pre_table::find(pre).is_some_and(|pre| pre.add_bos), false, false),
            VocabKind::Spm { .. } => (true, false, false),
            VocabKind::WordPiece { .. } => (true, false, true),
            VocabKind::Unigram { .. } => (false, true, false),
        };
        // Only BERT's texts end with `sep`; other models that name one add it between texts.
        let sep = sep && adds("sep", true);
        let mut special = special_ids(keys);
        set_defaults(&mut special, &kind, tokens.len());
        Ok(Self {
            special,
            types: types.into_iter().map(TokenType::from_gguf).collect(),
            add_bos: adds("bos", bos) || model == "gemma4",
            add_eos: adds("eos", eos),
            add_sep: sep,
            tokens,
            kind,
        })
    }
}

fn kind<'a>(keys: &'a dyn GgufKeys, model: &str) -> Result<VocabKind<'a>, TokenizerError> {
    let scores = || -> Vec<f32> {
        keys.floats("tokenizer.ggml.scores")
            .unwrap_or_default()
            .into_iter()
            .map(|score| score as f32)
            .collect()
    };
    let space_prefix = || keys.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    Ok(match model {
        "gpt2" | "gemma4" => VocabKind::Bpe {
            pre: match model {
                "gpt2" => keys.str("tokenizer.ggml.pre").filter(|pre| !pre.is_empty()).unwrap_or("default"),
                _ => "gemma4",
            },
            merges: keys
                .strs("tokenizer.ggml.merges")
                .ok_or(TokenizerError::MissingKey { key: "tokenizer.ggml.merges" })?,
        },
        "llama" => VocabKind::Spm {
            scores: scores(),
            add_space_prefix: space_prefix(),
            strip_after_special: is_phi3(keys.str("general.name").unwrap_or_default()),
        },
        "bert" => VocabKind::WordPiece {
            lowercase: keys.bool("tokenizer.ggml.normalizer.lowercase").unwrap_or(true),
        },
        "t5" => VocabKind::Unigram {
            scores: scores(),
            add_space_prefix: space_prefix(),
            collapse_spaces: keys.bool("tokenizer.ggml.remove_extra_whitespaces").unwrap_or(false),
            charsmap: keys
                .ints("tokenizer.ggml.precompiled_charsmap")
                .unwrap_or_default()
                .into_iter()
                .map(|byte| byte as u8)
                .collect(),
        },
        _ => {
            let known = MODELS.join(", ");
            return Err(TokenizerError::UnknownModel { found: model.to_owned(), known });
        }
    })
}

/// Phi-3's special tokens swallow the white space behind them, which only the model's name tells.
fn is_phi3(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}

fn special_ids(keys: &dyn GgufKeys) -> SpecialIds {
    let id = |names: &[&str]| {
        names.iter().find_map(|name| {
            let id = keys.uint(&format!("tokenizer.ggml.{name}_token_id"))?;
            u32::try_from(id).ok()
        })
    };
    SpecialIds {
        bos: id(&["bos", "cls"]),
        eos: id(&["eos"]),
        eot: id(&["eot"]),
        eom: id(&["eom"]),
        unk: id(&["unknown"]),
        // The format's own spelling.
        sep: id(&["seperator"]),
        pad: id(&["padding"]),
        mask: id(&["mask"]),
        fim_prefix: id(&["fim_pre", "prefix"]),
        fim_suffix: id(&["fim_suf", "suffix"]),
        fim_middle: id(&["fim_mid", "middle"]),
        fim_pad: id(&["fim_pad"]),
        fim_repo: id(&["fim_rep"]),
        fim_separator: id(&["fim_sep"]),
    }
}

/// What a file that names no ids means by that, and ids beyond the vocabulary, which such files carry, mean nothing.
fn set_defaults(ids: &mut SpecialIds, kind: &VocabKind<'_>, size: usize) {
    let (bos, eos, unk, sep, pad, mask) = match kind {
        VocabKind::Bpe { .. } => (None, None, None, None, None, None),
        VocabKind::Spm { .. } => (Some(1), Some(2), Some(0), None, None, None),
        VocabKind::WordPiece { .. } => (Some(101), None, Some(100), Some(102), Some(0), Some(103)),
        VocabKind::Unigram { .. } => (None, Some(1), Some(2), None, Some(0), None),
    };
    for (slot, default) in [
        (&mut ids.bos, bos),
        (&mut ids.eos, eos),
        (&mut ids.unk, unk),
        (&mut ids.sep, sep),
        (&mut ids.pad, pad),
        (&mut ids.mask, mask),
    ] {
        *slot = slot.or(default.filter(|&id: &u32| (id as usize) < size));
    }
}
