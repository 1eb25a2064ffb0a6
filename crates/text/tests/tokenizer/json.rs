//! `tokenizer.json` against this crate's own tokenizers over the same vocabulary.

use kinglet_text::span::Span;
use kinglet_text::tokenizer::{EncodeOptions, SpecialNames, TokenType, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::tiny::{Bpe, encode, pieces_of, text};

/// A pre-tokenizer's name here, and its expression in `tokenizer.json`.
const CUTS: &[(&str, &str)] = &[
    ("gpt-2", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

fn added(id: usize, text: &str, special: bool) -> Value {
    json!({"id": id, "content": text, "special": special, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false})
}

fn byte_level(vocab: &Bpe, expression: &str) -> Vec<u8> {
    let size = vocab.tokens.len();
    let tokens: serde_json::Map<String, Value> =
        vocab.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [added(size, "<|im_start|>", true), added(size + 1, "<|im_end|>", true), added(size + 2, "<|tool|>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
            byte_level,
        ]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [size], "tokens": ["<|im_start|>"]}}},
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": tokens, "merges": vocab.merges},
    })
    .to_string()
    .into_bytes()
}

fn load(json: &[u8]) -> Tokenizer {
    Tokenizer::from_json(json, &SpecialNames { eos: Some("<|im_end|>"), ..SpecialNames::default() }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_our_own(texts in prop::collection::vec(text(), 8)) {
        let vocab = Bpe::tiny();
        let special = [("<|im_start|>", TokenType::Control), ("<|im_end|>", TokenType::Control), ("<|tool|>", TokenType::UserDefined)];
        for (pre, expression) in CUTS {
            let (theirs, ours) = (load(&byte_level(vocab, expression)), vocab.tokenizer(pre, &special));
            // llama.cpp, which ours follows, leaves characters that are not assigned out of every class.
            let assigned = |text: &&String| !text.chars().any(|c| c.general_category() == GeneralCategory::Unassigned);
            for text in texts.iter().filter(assigned) {
                let ids = encode(&theirs, text);
                prop_assert_eq!(&ids, &encode(&ours, text), "{} {:?}", pre, text);
                prop_assert_eq!(theirs.decode(&ids).unwrap(), text.clone());
            }
        }
    }
}

#[test]
fn special_tokens_follow_trust() {
    let tokenizer = load(&byte_level(Bpe::tiny(), CUTS[0].1));
    let start = tokenizer.id_of("<|im_start|>").unwrap();
    let spans = [("<|im_start|>", true), ("<|im_end|><|tool|>", false), ("<|tool|>", true)]
        .map(|(text, trusted)| Span { text: text.to_owned(), trusted });
    let ids = tokenizer.encode_spans(&spans, true).unwrap();
    let special: Vec<u32> = ids.iter().copied().filter(|&id| tokenizer.is_special(id)).collect();
    assert_eq!(special, [start, start, tokenizer.id_of("<|tool|>").unwrap()]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "<|im_end|><|tool|>");
    assert_eq!(tokenizer.special_ids().eos, tokenizer.id_of("<|im_end|>"));
    assert!(tokenizer.is_end_of_generation(tokenizer.id_of("<|im_end|>").unwrap()));
}

/// Llama's shape: pieces with U+2581, bytes to fall back to, a space before the text's beginning only.
fn metaspace() -> Vec<u8> {
    let mut tokens = json!({"<unk>": 0, "<s>": 1, "a": 2, "\u{2581}": 3, "\u{2581}a": 4});
    for byte in 0..=255 {
        tokens[format!("<0x{byte:02X}>")] = json!(byte + 5);
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": tokens, "merges": ["\u{2581} a"]},
    })
    .to_string()
    .into_bytes()
}

#[test]
fn the_first_text_only_begins_with_a_space() {
    let tokenizer = load(&metaspace());
    let check = |text: &str, want: &[&str]| {
        let ids = tokenizer.encode(text, EncodeOptions { add_special: false, parse_special: true }).unwrap();
        assert_eq!(pieces_of(&tokenizer, &ids), want, "{text:?}");
    };
    check("a a", &[" a", " a"]);
    check("a<s>a", &[" a", "<s>", "a"]);
    check("<s>a", &["<s>", "a"]);
    let ids = encode(&tokenizer, "a é<s>");
    assert_eq!(tokenizer.decode(&ids).unwrap(), "a é<s>");
}

#[test]
fn files_that_are_none_are_errors() {
    for json in ["", "{}", "[1]", "{\"version\": \"1.0\", \"model\": {\"type\": \"Nonsense\"}}"] {
        assert!(Tokenizer::from_json(json.as_bytes(), &SpecialNames::default()).is_err(), "{json}");
    }
}

/// Every place in a JSON value that can be replaced, as a path of keys and indices.
fn places(value: &Value) -> Vec<String> {
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    // Of a vocabulary's hundreds of entries, a few will do.
    let some = inside.len().min(12);
    let deeper = inside[inside.len() - some..].iter().flat_map(|(key, value)| {
        std::iter::once(format!("/{key}"))
            .chain(places(value).into_iter().map(move |rest| format!("/{key}{rest}")))
    });
    deeper.collect()
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(7),
        json!(4294967295u32),
        json!(1e300),
        json!(""),
        json!("<|im_end|>"),
        json!("a"),
        json!([]),
        json!({}),
        json!(["a", "b"]),
        json!({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": true}),
        json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": true}),
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": true}),
        json!({"type": "WordPiece", "prefix": "", "cleanup": true}),
        json!({"type": "Replace", "pattern": {"String": "a"}, "content": ""}),
        json!({"type": "WordLevel", "vocab": {"a": 0, "b": 4000000000u32}, "unk_token": "zzz"}),
        json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}),
        json!({"type": "WordPiece", "vocab": {}, "unk_token": "x", "continuing_subword_prefix": "", "max_input_chars_per_word": 0}),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 1..4),
        text in text(),
        llama in any::<bool>(),
    ) {
        let bytes = if llama { metaspace() } else { byte_level(Bpe::tiny(), CUTS[0].1) };
        let mut file: Value = serde_json::from_slice(&bytes).unwrap();
        for (place, value) in changes {
            let all = places(&file);
            if let Some(slot) = all.get(place.index(all.len().max(1))).and_then(|path| file.pointer_mut(path)) {
                *slot = value;
            }
        }
        let options = EncodeOptions { add_special: true, parse_special: true };
        if let Ok(tokenizer) = Tokenizer::from_json(file.to_string().as_bytes(), &SpecialNames::default())
            && let Ok(ids) = tokenizer.encode(&text, options)
        {
            let _ = tokenizer.decode(&ids);
        }
    }
}
