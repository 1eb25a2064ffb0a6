//! Byte pair encoding against the definition, one merge at a time.

use kinglet_text::tokenizer::{TokenType, Tokenizer, TokenizerError, VocabKind};
use proptest::prelude::*;

use super::tiny::{Bpe, encode, letter, pieces_of, spec, text};

/// The definition: the earliest merge line that applies anywhere, at its leftmost place, until none does.
fn naive(vocab: &Bpe, word: &str) -> Vec<u32> {
    let mut parts: Vec<String> = word.bytes().map(|byte| letter(byte).to_string()).collect();
    let merges: Vec<(&str, &str)> = vocab.merges.iter().map(|line| line.split_once(' ').unwrap()).collect();
    loop {
        let found = merges.iter().find_map(|(left, right)| {
            parts.windows(2).position(|pair| pair[0] == *left && pair[1] == *right)
        });
        let Some(at) = found else { break };
        let right = parts.remove(at + 1);
        parts[at].push_str(&right);
    }
    parts.iter().map(|part| vocab.tokens.iter().position(|token| token == part).unwrap() as u32).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn follows_the_definition(word in " ?[a-z]{0,3}[theinqu]{0,30}") {
        prop_assert_eq!(encode(&Bpe::tiny().tokenizer("gpt-2", &[]), &word), naive(Bpe::tiny(), &word));
    }

    #[test]
    fn decoding_gives_the_text_back(text in text()) {
        for pre in ["default", "gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-llm", "tekken", "bloom"] {
            let tokenizer = Bpe::tiny().tokenizer(pre, &[]);
            prop_assert_eq!(tokenizer.decode(&encode(&tokenizer, &text)).unwrap(), text.clone(), "{}", pre);
        }
    }
}

#[test]
fn long_texts_without_spaces() {
    let tokenizer = Bpe::tiny().tokenizer("llama-bpe", &[]);
    for text in ["a".repeat(200_000), " ".repeat(200_000) + "x", "the".repeat(70_000), "é".repeat(100_000)] {
        assert_eq!(tokenizer.decode(&encode(&tokenizer, &text)).unwrap(), text);
    }
}

#[test]
fn words_that_are_tokens_skip_the_merges() {
    let mut vocab = Bpe::tiny().clone();
    vocab.tokens.push("qxq".to_owned());
    let check = |pre: &str, want: &[&str]| {
        let tokenizer = vocab.tokenizer(pre, &[]);
        assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, "qxq")), want, "{pre}");
    };
    check("llama-bpe", &["qxq"]);
    check("qwen2", &["q", "x", "q"]);
}

#[test]
fn spaced_pieces_fall_back_to_bytes() {
    let tokens = vec!["a", "\u{2581}", "\u{2581}a", "\n\n", "<0xC3>", "<0xA9>"];
    let merges = vec!["\u{2581} a"];
    let types = [1, 1, 1, 1, 6, 6].map(TokenType::from_gguf).to_vec();
    let kind = VocabKind::Bpe { pre: "gemma4", merges };
    let tokenizer = Tokenizer::new(spec(kind, tokens, types)).unwrap();
    let ids = encode(&tokenizer, "a aé\n\n");
    assert_eq!(ids, [0, 2, 4, 5, 3]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "a aé\n\n");
}

#[test]
fn unknown_pre_tokenizers_are_named() {
    let kind = VocabKind::Bpe { pre: "no-such", merges: Vec::new() };
    let error = Tokenizer::new(spec(kind, vec!["a"], Vec::new())).unwrap_err();
    let TokenizerError::UnknownPre { found, known } = error else { panic!("{error}") };
    assert_eq!(found, "no-such");
    assert!(known.contains("qwen2") && known.contains("smollm"));
}
