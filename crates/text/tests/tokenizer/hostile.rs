//! Vocabularies that make no sense: an error or some tokens, never a panic.

use kinglet_text::tokenizer::{EncodeOptions, SpecialIds, TokenType, Tokenizer, VocabKind, VocabSpec};
use proptest::prelude::*;

use super::tiny::text;

const PIECES: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "aba",
    "a b",
    " ",
    "\u{2581}",
    "\u{2581}a",
    "Ġ",
    "Ġa",
    "<s>",
    "</s>",
    "<|im_end|>",
    "<0x0A>",
    "<0x>",
    "<0xZZ>",
    "é",
    "Ã",
    "©",
    "Ã©",
    "\n",
    "'s",
    "0",
    "00",
    "\u{301}",
    "##a",
    "[UNK]",
    "😀",
    "\0",
];

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(PIECES)
}

/// A vocabulary of any kind whose parts need not fit together.
fn spec() -> impl Strategy<Value = VocabSpec<'static>> {
    let merge = (piece(), piece()).prop_map(|(a, b)| &*format!("{a} {b}").leak());
    let merges = prop::collection::vec(prop_oneof![4 => merge, 1 => piece()], 0..30);
    let scores = || prop::collection::vec(prop_oneof![any::<f32>(), Just(0.0), Just(f32::NAN)], 0..30);
    let pre = prop::sample::select(vec!["default", "llama-bpe", "smollm", "gemma4", "kimi-k2", "nonsense"]);
    let kind = prop_oneof![
        (pre, merges).prop_map(|(pre, merges)| VocabKind::Bpe { pre, merges }),
        (scores(), any::<bool>(), any::<bool>()).prop_map(
            |(scores, add_space_prefix, strip_after_special)| {
                VocabKind::Spm { scores, add_space_prefix, strip_after_special }
            }
        ),
        any::<bool>().prop_map(|lowercase| VocabKind::WordPiece { lowercase }),
        (scores(), any::<[bool; 2]>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(scores, [add_space_prefix, collapse_spaces], charsmap)| VocabKind::Unigram {
                scores,
                add_space_prefix,
                collapse_spaces,
                charsmap,
            }
        ),
    ];
    let tokens = prop::collection::vec(piece(), 0..30);
    let types = prop::collection::vec((0i64..9).prop_map(TokenType::from_gguf), 0..30);
    let ids = prop::option::of(0u32..40);
    (kind, tokens, types, any::<[bool; 4]>(), (ids.clone(), ids.clone(), ids)).prop_map(
        |(mut kind, tokens, mut types, [fit, add_bos, add_eos, add_sep], (bos, eos, unk))| {
            // Mostly, lists that must be of one length are, so that the test goes further than the first check.
            if fit {
                types.resize(tokens.len(), TokenType::Normal);
                if let VocabKind::Spm { scores, .. } | VocabKind::Unigram { scores, .. } = &mut kind {
                    scores.resize(tokens.len(), -1.0);
                }
            }
            let special = SpecialIds { bos, eos, unk, ..SpecialIds::default() };
            VocabSpec { kind, tokens, types, special, add_bos, add_eos, add_sep }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn nothing_panics(spec in spec(), text in text(), parse_special in any::<bool>()) {
        let size = spec.tokens.len();
        let Ok(tokenizer) = Tokenizer::new(spec) else { return Ok(()) };
        let ids = tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special }).unwrap();
        prop_assert!(ids.iter().all(|&id| (id as usize) < size));
        tokenizer.decode(&ids).unwrap();
        for id in 0..size as u32 {
            let text = tokenizer.token_text(id).unwrap();
            tokenizer.id_of(&text);
        }
    }
}
