//! Special tokens: where they are read, where not, and which end an answer.

use kinglet_text::span::Span;
use kinglet_text::tokenizer::{EncodeOptions, SpecialIds, TokenType, Tokenizer, VocabKind};
use proptest::prelude::*;

use super::tiny::{Bpe, encode, pieces_of, spec, text};

const SPECIAL: &[(&str, TokenType)] = &[
    ("<|im_start|>", TokenType::Control),
    ("<|im_end|>", TokenType::Control),
    ("<|im_end|>x", TokenType::Control),
    ("    ", TokenType::UserDefined),
    ("<|tool|>", TokenType::UserDefined),
];

fn chat() -> Tokenizer {
    Bpe::tiny().tokenizer("qwen2", SPECIAL)
}

fn span(text: &str, trusted: bool) -> Span {
    Span { text: text.to_owned(), trusted }
}

#[test]
fn only_trusted_text_holds_special_tokens() {
    let tokenizer = chat();
    let check = |spans: &[(&str, bool)], want: &[&str]| {
        let spans: Vec<Span> = spans.iter().map(|(text, trusted)| span(text, *trusted)).collect();
        let ids = tokenizer.encode_spans(&spans, false).unwrap();
        let special: Vec<String> = pieces_of(&tokenizer, &ids)
            .into_iter()
            .zip(&ids)
            .filter(|(_, id)| tokenizer.is_special(**id))
            .map(|(text, _)| text)
            .collect();
        assert_eq!(special, want, "{spans:?}");
    };
    check(&[("<|im_start|>hi<|im_end|>", true)], &["<|im_start|>", "<|im_end|>"]);
    check(&[("<|im_start|>hi<|im_end|>", false)], &[]);
    check(
        &[("<|im_start|>", true), ("<|im_end|>", false), ("<|im_end|>", true)],
        &["<|im_start|>", "<|im_end|>"],
    );
    // A token that is only partly the template's own is none, whichever part the user wrote.
    check(&[("<|im_", true), ("end|>", false)], &[]);
    check(&[("<|im_", false), ("end|>", true)], &[]);
    // Parts of the template next to each other are one text.
    check(&[("<|im_", true), ("end|>", true)], &["<|im_end|>"]);
    // The longest token that is wholly trusted.
    check(&[("<|im_end|>x", true)], &["<|im_end|>x"]);
    check(&[("<|im_end|>", true), ("x", false)], &["<|im_end|>"]);
    // A marker that a file calls plain text is structure all the same.
    check(&[("<|tool|>", false)], &[]);
    check(&[("<|tool|>", true)], &["<|tool|>"]);
}

#[test]
fn user_defined_text_is_one_token_everywhere() {
    let tokenizer = chat();
    assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, "a    b")), ["a", "    ", "b"]);
}

proptest! {
    #[test]
    fn spans_do_not_change_plain_text(text in text(), cut in any::<prop::sample::Index>()) {
        let tokenizer = chat();
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (left, right) = text.split_at(cuts[cut.index(cuts.len())]);
        let ids = tokenizer.encode_spans(&[span(left, true), span(right, false)], false).unwrap();
        prop_assert_eq!(ids, encode(&tokenizer, &text));
    }

    #[test]
    fn outside_text_has_no_special_tokens(pieces in prop::collection::vec(0..8usize, 0..12)) {
        let tokenizer = chat();
        let parts = ["<|im_start|>", "<|im_end|>", "<|im_", "end|>", "<|tool|>", "x", " ", "<"];
        let text: String = pieces.into_iter().map(|i| parts[i]).collect();
        let ids = encode(&tokenizer, &text);
        prop_assert!(ids.iter().all(|&id| !tokenizer.is_special(id)));
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn tokens_around_a_text() {
    let spec_of = |add_bos, add_eos, special| {
        let kind = VocabKind::Bpe { pre: "gpt-2", merges: Vec::new() };
        let types = vec![TokenType::Normal, TokenType::Control, TokenType::Control];
        let mut spec = spec(kind, vec!["a", "<s>", "</s>"], types);
        (spec.add_bos, spec.add_eos, spec.special) = (add_bos, add_eos, special);
        Tokenizer::new(spec)
    };
    let ids = SpecialIds { bos: Some(1), eos: Some(2), ..SpecialIds::default() };
    let options = EncodeOptions { add_special: true, parse_special: false };
    let check = |add_bos, add_eos, want: &[u32]| {
        let tokenizer = spec_of(add_bos, add_eos, ids.clone()).unwrap();
        assert_eq!(tokenizer.encode("a", options).unwrap(), want);
        assert_eq!(encode(&tokenizer, "a"), [0]);
    };
    check(false, false, &[0]);
    check(true, false, &[1, 0]);
    check(true, true, &[1, 0, 2]);
    assert!(spec_of(true, false, SpecialIds::default()).is_err());
    assert!(spec_of(false, false, SpecialIds { pad: Some(3), ..SpecialIds::default() }).is_err());
}

#[test]
fn ends_of_generation_are_found_by_name() {
    let check = |special: &[(&str, TokenType)], want: &[&str]| {
        let tokenizer = Bpe::tiny().tokenizer("gpt-2", special);
        assert_eq!(pieces_of(&tokenizer, &tokenizer.end_of_generation_ids()), want);
    };
    use TokenType::{Control, Normal};
    check(&[("<|im_start|>", Control), ("<|im_end|>", Control)], &["<|im_end|>"]);
    check(&[("<|endoftext|>", Control), ("<|eot_id|>", Normal)], &["<|endoftext|>", "<|eot_id|>"]);
    // Struck-through text in HTML, where the file does not say otherwise.
    check(&[("</s>", Normal)], &[]);
    check(&[("</s>", Control)], &["</s>"]);
    check(
        &[("<|end|>", Control), ("<|return|>", Control), ("<|call|>", Control)],
        &["<|return|>", "<|call|>"],
    );
    let tokenizer = Bpe::tiny().tokenizer("gpt-2", &[("<|endoftext|>", Control), ("<|im_end|>", Control)]);
    assert_eq!(tokenizer.special_ids().eot, tokenizer.id_of("<|im_end|>"));
}

#[test]
fn white_space_behind_may_belong_to_a_special_token() {
    let kind = VocabKind::Spm { scores: vec![0.0; 4], add_space_prefix: false, strip_after_special: true };
    let types = [1, 1, 3, 3].map(TokenType::from_gguf).to_vec();
    let tokenizer = Tokenizer::new(spec(kind, vec!["a", "\u{2581}", "<|user|>", "<s>"], types)).unwrap();
    let options = EncodeOptions { add_special: false, parse_special: true };
    assert_eq!(tokenizer.encode("<|user|>  a<s> a", options).unwrap(), [2, 0, 3, 1, 0]);
}
