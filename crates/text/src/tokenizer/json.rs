//! Hugging Face's `tokenizer.json`, run by the `tokenizers` crate.
//!
//! That crate normalises, cuts and merges; special tokens and decoding are this crate's own, so that trusted and
//! untrusted text, streaming and token bytes are the same for every kind of file. Truncation and padding that a file
//! asks for are left out: they are about training batches. Where the crate panics, as it does over some damaged files,
//! that becomes an error (in a browser, where panics cannot be caught, the page's module ends).

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokenizers::{AddedToken, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer as Hf};

use super::bpe::{spell_bytes, spell_spaced};
use super::error::TokenizerError;
use super::spec::{SpecialIds, TokenType};
use super::special::{Specials, is_marker};
use super::vocab::{Spell, Vocab};

/// What `tokenizer.json` leaves to `tokenizer_config.json`: the texts of the tokens with a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialNames<'a> {
    /// Begins a text.
    pub bos: Option<&'a str>,
    /// Ends a text.
    pub eos: Option<&'a str>,
    /// Stands for what cannot be spelt.
    pub unk: Option<&'a str>,
    /// Separates two texts.
    pub sep: Option<&'a str>,
    /// Fills a batch.
    pub pad: Option<&'a str>,
    /// Hides a word.
    pub mask: Option<&'a str>,
    /// Further tokens that generation ends at, by number; numbers that no token has mean nothing.
    pub ends: &'a [u32],
}

/// The pipeline of a `tokenizer.json`.
#[derive(Debug)]
pub(crate) struct Json {
    first: Box<Hf>,
    /// For text behind a special token, where the pipeline treats a text's beginning in its own way.
    later: Option<Box<Hf>>,
    pub(crate) adds_space: bool,
}

/// Everything a tokenizer is made of.
pub(crate) struct Parts {
    pub(crate) vocab: Vocab,
    pub(crate) specials: Specials,
    pub(crate) ids: SpecialIds,
    pub(crate) json: Json,
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
}

/// Reads a `tokenizer.json`.
pub(crate) fn parse(json: &[u8], names: &SpecialNames<'_>) -> Result<Parts, TokenizerError> {
    // Of JSON that is not, the other crate's parser panics.
    serde_json::from_slice::<Value>(json).map_err(problem)?;
    let mut hf = guarded(|| Hf::from_bytes(json))?;
    hf.with_truncation(None).map_err(problem)?;
    hf.with_padding(None);
    let (before, after) = around(&serde_json::to_value(hf.get_post_processor()).map_err(problem)?);
    hf.with_post_processor(None::<PostProcessorWrapper>);
    let markers: Vec<AddedToken> = hf
        .get_added_tokens_decoder()
        .into_values()
        .filter(|token| !token.special && is_marker(&token.content))
        .map(|token| token.special(true))
        .collect();
    guarded(|| hf.add_special_tokens(markers))?;
    hf.set_encode_special_tokens(true);

    let decoder = serde_json::to_value(hf.get_decoder()).map_err(problem)?;
    let mut vocab = vocab(&hf, &decoder)?;
    if let Some(&id) = before.iter().chain(&after).find(|&&id| id as usize >= vocab.len()) {
        return Err(TokenizerError::SpecialOutOfRange { name: "post_processor", id, size: vocab.len() });
    }
    let id = |name: Option<&str>| hf.token_to_id(name?);
    let mut ids = SpecialIds {
        bos: id(names.bos),
        eos: id(names.eos),
        unk: id(names.unk),
        sep: id(names.sep),
        pad: id(names.pad),
        mask: id(names.mask),
        ..SpecialIds::default()
    };
    let mut specials = Specials::new(&mut vocab, &mut ids)?;
    specials.end_at(names.ends.iter().copied().filter(|&id| (id as usize) < vocab.len()));
    let added = hf.get_added_tokens_decoder();
    specials
        .strip_around(|id, _| added.get(&id).map_or((false, false), |token| (token.lstrip, token.rstrip)));
    vocab.index();
    let adds_space = mentions(&decoder, &["Strip", "WordPiece"])
        || find(&decoder, "Metaspace").is_some_and(|part| part["prepend_scheme"] != "never");
    let later = later(&hf)?.map(Box::new);
    Ok(Parts { vocab, specials, ids, json: Json { first: Box::new(hf), later, adds_space }, before, after })
}

impl Json {
    /// Appends the tokens of a text between special ones; `at_start` for the first of all.
    pub(crate) fn encode(
        &self,
        text: &str,
        at_start: bool,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let hf = self.later.as_ref().filter(|_| !at_start).unwrap_or(&self.first);
        out.extend_from_slice(guarded(|| hf.encode_fast(text, false))?.get_ids());
        Ok(())
    }
}

/// The tokens that the file's post-processor puts before and after a text.
fn around(processor: &Value) -> (Vec<u32>, Vec<u32>) {
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().into_iter().flatten().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
    };
    match processor["type"].as_str() {
        Some("BertProcessing" | "RobertaProcessing") => (ids(&processor["cls"]), ids(&processor["sep"])),
        Some("TemplateProcessing") => {
            let template = processor["single"].as_array().map(Vec::as_slice).unwrap_or_default();
            let text =
                template.iter().position(|part| part.get("Sequence").is_some()).unwrap_or(template.len());
            let (before, after) = template.split_at(text);
            let all = |parts: &[Value]| -> Vec<u32> {
                let name = |part: &Value| part["SpecialToken"]["id"].as_str().map(str::to_owned);
                parts
                    .iter()
                    .filter_map(name)
                    .flat_map(|name| ids(&processor["special_tokens"][name]["ids"]))
                    .collect()
            };
            (all(before), all(after))
        }
        Some("Sequence") => {
            let parts = processor["processors"].as_array().into_iter().flatten().map(around);
            parts.fold(Default::default(), |outer, inner| {
                ([inner.0, outer.0].concat(), [outer.1, inner.1].concat())
            })
        }
        _ => Default::default(),
    }
}

/// The tokens in order of their ids, with what each stands for in text.
fn vocab(hf: &Hf, decoder: &Value) -> Result<Vocab, TokenizerError> {
    let by_text = hf.get_vocab(true);
    let size = by_text.values().max().map_or(0, |&id| id as usize + 1);
    // A vocabulary may have holes, but one made of holes is damaged.
    if size > by_text.len() * 2 + 65_536 {
        return Err(TokenizerError::TooLarge { what: "the largest token id", size });
    }
    let (mut tokens, mut types) = (vec![""; size], vec![TokenType::Unused; size]);
    let bytes = mentions(decoder, &["ByteFallback"]);
    for (text, &id) in &by_text {
        tokens[id as usize] = text;
        let is_byte = bytes && text.len() == 6 && text.starts_with("<0x");
        types[id as usize] = if is_byte { TokenType::Byte } else { TokenType::Normal };
    }
    let added = hf.get_added_tokens_decoder();
    for (&id, token) in &added {
        types[id as usize] = if token.special { TokenType::Control } else { TokenType::UserDefined };
    }
    let spell: Spell = if mentions(decoder, &["ByteLevel"]) {
        spell_bytes
    } else if mentions(decoder, &["WordPiece"]) {
        spell_wordpiece
    } else {
        spell_spaced
    };
    let mut vocab = Vocab::new(&tokens, &types, spell)?;
    // The pipeline finds these itself, in the text's normal form where a token asks for that.
    added
        .iter()
        .filter(|(_, token)| !token.special)
        .for_each(|(&id, _)| vocab.set_kind(id, TokenType::Normal));
    Ok(vocab)
}

/// The pipeline without a space before each text, if it puts one before the first text only.
fn later(hf: &Hf) -> Result<Option<Hf>, TokenizerError> {
    let mut cutter = serde_json::to_value(hf.get_pre_tokenizer()).map_err(problem)?;
    let Some(scheme) = find_mut(&mut cutter, "Metaspace").and_then(|part| part.get_mut("prepend_scheme"))
    else {
        return Ok(None);
    };
    if scheme != "first" {
        return Ok(None);
    }
    *scheme = Value::from("never");
    let cutter: PreTokenizerWrapper = serde_json::from_value(cutter).map_err(problem)?;
    let mut later = hf.clone();
    later.with_pre_tokenizer(Some(cutter));
    Ok(Some(later))
}

/// Appends a word's beginning with a space, a `##` continuation without.
fn spell_wordpiece(text: &str, out: &mut Vec<u8>) -> bool {
    match text.strip_prefix("##") {
        Some(rest) => out.extend_from_slice(rest.as_bytes()),
        None => {
            out.push(b' ');
            out.extend_from_slice(text.as_bytes());
        }
    }
    true
}

/// The component of this type, be it `part` itself or one of its sequence.
fn find<'v>(part: &'v Value, kind: &str) -> Option<&'v Value> {
    if part["type"] == kind {
        return Some(part);
    }
    ["decoders", "pretokenizers"]
        .iter()
        .find_map(|list| part[list].as_array()?.iter().find_map(|p| find(p, kind)))
}

fn find_mut<'v>(part: &'v mut Value, kind: &str) -> Option<&'v mut Value> {
    if part["type"] == kind {
        return Some(part);
    }
    part.get_mut("pretokenizers")?.as_array_mut()?.iter_mut().find_map(|p| find_mut(p, kind))
}

fn mentions(part: &Value, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| find(part, kind).is_some())
}

/// Runs the other crate's code.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(problem),
        Err(_) => Err(problem("its parts do not fit together")),
    }
}

fn problem(error: impl ToString) -> TokenizerError {
    TokenizerError::Json { problem: error.to_string() }
}
