//! Streaming text out of tokens.

use kinglet_text::detokenize::Detokenizer;
use kinglet_text::tokenizer::{TokenType, Tokenizer, TokenizerError, VocabKind};
use proptest::prelude::*;

use super::tiny::{Bpe, encode, spec};

/// One token a byte, each the byte's own number.
fn bytes() -> Tokenizer {
    Bpe::tiny().tokenizer("gpt-2", &[("<|end|>", TokenType::Control)])
}

/// Each step's text, then what the end gives.
fn steps(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<String>, String) {
    let mut detokenizer = Detokenizer::new(tokenizer);
    let steps = ids.iter().map(|&id| detokenizer.push(id).unwrap().to_owned()).collect();
    (steps, detokenizer.finish().to_owned())
}

proptest! {
    #[test]
    fn equals_lossy_decoding(data in prop::collection::vec(prop_oneof![any::<u8>(), 0xc0..=0xf4u8], 0..60)) {
        let tokenizer = bytes();
        let ids: Vec<u32> = data.iter().map(|&byte| u32::from(byte)).collect();
        let (steps, end) = steps(&tokenizer, &ids);
        prop_assert_eq!(steps.concat() + &end, String::from_utf8_lossy(&data));
    }
}

#[test]
fn characters_come_whole_and_errors_at_once() {
    let check = |data: &[u8], want: &[&str], want_end: &str| {
        let ids: Vec<u32> = data.iter().map(|&byte| u32::from(byte)).collect();
        assert_eq!(
            steps(&bytes(), &ids),
            (want.iter().map(|s| s.to_string()).collect(), want_end.to_owned())
        );
    };
    check("aé".as_bytes(), &["a", "", "é"], "");
    check("😀".as_bytes(), &["", "", "", "😀"], "");
    check(b"\xff", &["\u{fffd}"], "");
    check(b"\xe2\x82a", &["", "", "\u{fffd}a"], "");
    check(b"\xe2\x82", &["", ""], "\u{fffd}");
    // No character begins with these two bytes, so waiting for a third would be in vain.
    check(b"\xe0\x80", &["", "\u{fffd}\u{fffd}"], "");
}

#[test]
fn special_tokens_are_silent_unless_kept() {
    let tokenizer = bytes();
    let end = tokenizer.id_of("<|end|>").unwrap();
    assert_eq!(tokenizer.decode(&[97, end, 98]).unwrap(), "ab");
    let mut kept = Detokenizer::new(&tokenizer).keep_special();
    assert_eq!([97, end].map(|id| kept.push(id).unwrap().to_owned()).concat(), "a<|end|>");
}

#[test]
fn the_space_before_a_text_is_taken_away_once() {
    let kind = VocabKind::Spm { scores: vec![0.0; 3], add_space_prefix: true, strip_after_special: false };
    let tokenizer = Tokenizer::new(spec(kind, vec!["\u{2581}", "a", "\u{2581}a"], Vec::new())).unwrap();
    let ids = encode(&tokenizer, "a a");
    assert_eq!(ids, [2, 2]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "a a");
    assert_eq!(Detokenizer::new(&tokenizer).continuing().push(2).unwrap(), " a");
}

#[test]
fn ids_beyond_the_vocabulary_are_errors() {
    let error = bytes().decode(&[u32::MAX]).unwrap_err();
    assert!(matches!(error, TokenizerError::UnknownId { id: u32::MAX, .. }), "{error}");
}
