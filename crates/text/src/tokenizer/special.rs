//! Tokens that are recognised before anything else: control tokens in trusted text, user-defined ones everywhere.
//!
//! Also what a file leaves out about them: which tokens end a turn, which belong to fill-in-the-middle, and which of
//! those typed as plain words are in truth structure.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::error::TokenizerError;
use super::spec::{SpecialIds, TokenType};
use super::vocab::Vocab;

/// Ends of a turn, the likeliest first.
const EOT: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_utterance>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
];
const EOM: &[&str] = &["<|eom_id|>"];
const FIM_PREFIX: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FIM_SUFFIX: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FIM_MIDDLE: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>"];
const FIM_REPO: &[&str] =
    &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<repo_name>", "<REPO>", "<reponame>"];
const FIM_SEPARATOR: &[&str] = &["<|file_sep|>", "<file_sep>"];
/// Whatever role they have besides, generation ends at these.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];
/// Turn markers without the usual bars.
const MARKERS: &[&str] = &["<start_of_turn>", "[INST]", "[/INST]", "<s>", "<bos>"];

/// The recognised tokens of a vocabulary.
#[derive(Debug, Default)]
pub(crate) struct Specials {
    by_text: FxHashMap<Box<[u8]>, u32>,
    /// For each first byte the lengths that occur, longest first.
    lengths: Vec<Vec<usize>>,
    /// White space before and behind these belongs to them.
    strip_before: FxHashSet<u32>,
    strip_after: FxHashSet<u32>,
    ends: FxHashSet<u32>,
}

/// A part of a text: one recognised token, or text between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    Token(u32),
    Text(&'t str),
}

impl Specials {
    /// Completes `ids` and the token types of `vocab`, which is not indexed yet, and collects what is recognised.
    pub(crate) fn new(vocab: &mut Vocab, ids: &mut SpecialIds) -> Result<Self, TokenizerError> {
        check_ids(ids, vocab.len())?;
        let names = names_of(vocab);
        let ends = complete(ids, &names);
        for &id in &ends {
            vocab.set_kind(id, TokenType::Control);
        }
        let mut specials = Self { lengths: vec![Vec::new(); 256], ends, ..Self::default() };
        for (text, id) in names {
            if vocab.kind(id) == TokenType::UserDefined && is_marker(&text) {
                vocab.set_kind(id, TokenType::Control);
            }
            specials.add(text.into_bytes(), id);
        }
        specials.lengths.iter_mut().for_each(|lengths| lengths.sort_unstable_by(|a, b| b.cmp(a)));
        Ok(specials)
    }

    /// What is recognised, in no order.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.by_text.iter().map(|(text, &id)| (&**text, id))
    }

    /// Lets tokens take white space with them; the rule says for each whether before and whether behind.
    pub(crate) fn strip_around(&mut self, rule: impl Fn(u32, &[u8]) -> (bool, bool)) {
        for (text, &id) in &self.by_text {
            let (before, after) = rule(id, text);
            if before {
                self.strip_before.insert(id);
            }
            if after {
                self.strip_after.insert(id);
            }
        }
    }

    /// Generation ends at these, too.
    pub(crate) fn end_at(&mut self, ids: impl Iterator<Item = u32>) {
        self.ends.extend(ids);
    }

    /// The token of exactly this text.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.by_text.get(text.as_bytes()).copied()
    }

    /// Whether generation ends at `id`.
    pub(crate) fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The ids generation ends at, in ascending order.
    pub(crate) fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = self.ends.iter().copied().collect();
        ends.sort_unstable();
        ends
    }

    /// Cuts `text` at recognised tokens, the leftmost first and the longest of those. A control token counts only where
    /// it lies within one of the `trusted` ranges, which are in order and do not touch.
    pub(crate) fn partition<'t>(
        &self,
        vocab: &Vocab,
        text: &'t str,
        trusted: &[Range<usize>],
        mut emit: impl FnMut(Fragment<'t>),
    ) {
        let bytes = text.as_bytes();
        let (mut from, mut at, mut region) = (0, 0, 0);
        while at < bytes.len() {
            if self.lengths.get(bytes[at] as usize).is_none_or(Vec::is_empty) {
                at += 1;
                continue;
            }
            while trusted.get(region).is_some_and(|range| range.end <= at) {
                region += 1;
            }
            let limit = trusted.get(region).filter(|range| range.start <= at).map_or(0, |range| range.end);
            let Some((id, len)) = self.longest_at(vocab, bytes, at, limit) else {
                at += 1;
                continue;
            };
            let mut before = &text[from..at];
            if self.strip_before.contains(&id) {
                before = before.trim_end();
            }
            if !before.is_empty() {
                emit(Fragment::Text(before));
            }
            emit(Fragment::Token(id));
            at += len;
            if self.strip_after.contains(&id) {
                at = text.len() - text[at..].trim_start().len();
            }
            from = at;
        }
        if from < text.len() {
            emit(Fragment::Text(&text[from..]));
        }
    }

    /// The longest token at `at`; control tokens only up to byte `limit`.
    fn longest_at(&self, vocab: &Vocab, bytes: &[u8], at: usize, limit: usize) -> Option<(u32, usize)> {
        self.lengths[bytes[at] as usize].iter().find_map(|&len| {
            let id = *self.by_text.get(bytes.get(at..at + len)?)?;
            let allowed = vocab.kind(id) == TokenType::UserDefined || at + len <= limit;
            allowed.then_some((id, len))
        })
    }

    fn add(&mut self, text: Vec<u8>, id: u32) {
        let Some(&first) = text.first() else { return };
        let lengths = &mut self.lengths[first as usize];
        if !lengths.contains(&text.len()) {
            lengths.push(text.len());
        }
        self.by_text.entry(text.into()).or_insert(id);
    }
}

/// Every token that is not plain text, with its text. One typed as plain text whose name gives its role away is not; but
/// without bars, as in `</s>`, it may well be text.
fn names_of(vocab: &Vocab) -> Vec<(String, u32)> {
    let known: FxHashSet<&[u8]> =
        [EOT, EOM, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, FIM_PAD, FIM_REPO, FIM_SEPARATOR, ENDS]
            .concat()
            .into_iter()
            .map(str::as_bytes)
            .collect();
    let named = |id: &u32| match vocab.kind(*id) {
        TokenType::Control | TokenType::Unknown | TokenType::UserDefined => true,
        TokenType::Normal => {
            vocab.bytes(*id).is_some_and(|text| text.starts_with(b"<|") && known.contains(text))
        }
        TokenType::Byte | TokenType::Unused => false,
    };
    let text = |id| Some((String::from_utf8(vocab.bytes(id)?.to_vec()).ok()?, id));
    (0..vocab.len() as u32).filter(named).filter_map(text).collect()
}

/// Fills in the roles that are named by their texts, and gives the set of ids that end generation.
fn complete(ids: &mut SpecialIds, names: &[(String, u32)]) -> FxHashSet<u32> {
    let by_name: FxHashMap<&str, u32> = names.iter().rev().map(|(text, id)| (text.as_str(), *id)).collect();
    let first = |known: &[&str]| known.iter().find_map(|name| by_name.get(name).copied());
    for (slot, known) in [
        (&mut ids.eot, EOT),
        (&mut ids.eom, EOM),
        (&mut ids.fim_prefix, FIM_PREFIX),
        (&mut ids.fim_suffix, FIM_SUFFIX),
        (&mut ids.fim_middle, FIM_MIDDLE),
        (&mut ids.fim_pad, FIM_PAD),
        (&mut ids.fim_repo, FIM_REPO),
        (&mut ids.fim_separator, FIM_SEPARATOR),
    ] {
        *slot = slot.or_else(|| first(known));
    }
    let mut ends: FxHashSet<u32> = ENDS.iter().filter_map(|name| by_name.get(name).copied()).collect();
    ends.extend(
        [ids.eos, ids.eot, ids.eom, ids.fim_pad, ids.fim_repo, ids.fim_separator].into_iter().flatten(),
    );
    let has = |name| by_name.contains_key(name);
    let harmony =
        has("<|end|>") && (has("<|call|>") && has("<|return|>") || has("<|calls|>") && has("<|flush|>"));
    if let Some(id) = by_name.get("<|end|>").filter(|_| harmony) {
        ends.remove(id);
    }
    if let Some(id) = by_name.get("</s>").filter(|_| has("<|tool_response>")) {
        ends.remove(id);
    }
    ends
}

/// Whether a token typed as a plain word is written like structure.
pub(crate) fn is_marker(text: &str) -> bool {
    let bars = |open: &str, close: &str| text.len() > 4 && (text.starts_with(open) || text.ends_with(close));
    bars("<|", "|>") || bars("<｜", "｜>") || MARKERS.contains(&text)
}

fn check_ids(ids: &SpecialIds, size: usize) -> Result<(), TokenizerError> {
    let named = [
        ("bos", ids.bos),
        ("eos", ids.eos),
        ("eot", ids.eot),
        ("eom", ids.eom),
        ("unk", ids.unk),
        ("sep", ids.sep),
        ("pad", ids.pad),
        ("mask", ids.mask),
        ("fim_prefix", ids.fim_prefix),
        ("fim_suffix", ids.fim_suffix),
        ("fim_middle", ids.fim_middle),
        ("fim_pad", ids.fim_pad),
        ("fim_repo", ids.fim_repo),
        ("fim_separator", ids.fim_separator),
    ];
    for (name, id) in named {
        if let Some(id) = id.filter(|&id| id as usize >= size) {
            return Err(TokenizerError::SpecialOutOfRange { name, id, size });
        }
    }
    Ok(())
}
