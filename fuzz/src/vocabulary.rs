//! Tokenizers from hostile vocabularies: whatever is accepted encodes and decodes any text.
//!
//! An input is sections between bytes 0xFF, which no text contains: switches, tokens, merges, types, scores, ids of
//! special tokens, normalisation table, text. Entries of a list of texts stand between bytes 0xFE.

use kinglet_text::tokenizer::{EncodeOptions, SpecialIds, TokenType, Tokenizer, VocabKind, VocabSpec};

/// Rules for cutting words, one of each kind.
const PRES: [&str; 8] =
    ["default", "llama-bpe", "qwen2", "gpt-2", "smollm", "deepseek-llm", "tekken", "no such rule"];

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let mut sections = bytes.split(|&byte| byte == 0xff);
    let [switches, tokens, merges, types, scores, ids, charsmap, text] =
        std::array::from_fn(|_| sections.next().unwrap_or_default());
    let (tokens, merges) = (texts(tokens), texts(merges));
    let kind = kind(switches, strs(&merges), scores, charsmap);
    let on = |bit: u8| switches.get(2).is_some_and(|byte| byte >> bit & 1 == 1);
    let spec = VocabSpec {
        kind,
        tokens: strs(&tokens),
        types: types.iter().map(|&byte| TokenType::from_gguf(byte.into())).collect(),
        special: special(ids),
        add_bos: on(0),
        add_eos: on(1),
        add_sep: on(2),
    };
    let text = String::from_utf8_lossy(text);
    if let Ok(tokenizer) = Tokenizer::new(spec) {
        use_it(&tokenizer, &text);
    }
}

fn use_it(tokenizer: &Tokenizer, text: &str) {
    for (add_special, parse_special) in [(false, false), (true, true)] {
        let ids = tokenizer.encode(text, EncodeOptions { add_special, parse_special });
        let ids = ids.expect("a short text can be encoded");
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "an id beyond the vocabulary");
        tokenizer.decode(&ids).expect("what was encoded can be decoded");
        let structure = |&&id: &&u32| tokenizer.token_type(id) == TokenType::Control;
        let unk = tokenizer.special_ids().unk;
        let leaked = ids.iter().filter(structure).find(|&&id| Some(id) != unk);
        assert!(parse_special || leaked.is_none(), "plain text became the control token {leaked:?}");
    }
    for id in 0..tokenizer.vocab_size() as u32 + 1 {
        let known = (id as usize) < tokenizer.vocab_size();
        assert_eq!(tokenizer.token_text(id).is_ok(), known);
        assert!(known || !tokenizer.is_special(id));
    }
}

fn kind<'a>(switches: &[u8], merges: Vec<&'a str>, scores: &[u8], charsmap: &[u8]) -> VocabKind<'a> {
    let at = |index: usize| switches.get(index).copied().unwrap_or_default();
    let on = |bit: u8| at(1) >> bit & 1 == 1;
    let scores = scores.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    match at(0) % 4 {
        0 => VocabKind::Bpe { pre: PRES[at(1) as usize % PRES.len()], merges },
        1 => VocabKind::Spm { scores, add_space_prefix: on(0), strip_after_special: on(1) },
        2 => VocabKind::WordPiece { lowercase: on(0) },
        _ => VocabKind::Unigram {
            scores,
            add_space_prefix: on(0),
            collapse_spaces: on(1),
            charsmap: charsmap.to_vec(),
        },
    }
}

/// Ids of a byte each, in the order of the fields; a zero stands for none.
fn special(ids: &[u8]) -> SpecialIds {
    let id = |index: usize| ids.get(index).and_then(|id| id.checked_sub(1)).map(u32::from);
    SpecialIds {
        bos: id(0),
        eos: id(1),
        eot: id(2),
        unk: id(3),
        sep: id(4),
        pad: id(5),
        fim_prefix: id(6),
        ..SpecialIds::default()
    }
}

fn texts(section: &[u8]) -> Vec<String> {
    let entries =
        section.split(|&byte| byte == 0xfe).map(|entry| String::from_utf8_lossy(entry).into_owned());
    entries.filter(|_| !section.is_empty()).collect()
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
