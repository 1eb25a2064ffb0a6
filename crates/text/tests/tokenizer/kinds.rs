//! SentencePiece, WordPiece and unigram vocabularies.

use kinglet_text::tokenizer::{SpecialIds, TokenType, Tokenizer, TokenizerError, VocabKind, VocabSpec};
use proptest::prelude::*;

use super::tiny::{encode, pieces, pieces_of, spec, text};

/// Pieces with scores, `unk` first, and byte tokens behind if asked for.
fn scored<'a>(pieces: &'a [(String, f32)], bytes: &'a [String]) -> (Vec<&'a str>, Vec<TokenType>, Vec<f32>) {
    let mut tokens = vec!["<unk>"];
    let mut types = vec![TokenType::Unknown];
    let mut scores = vec![0.0];
    for (piece, score) in pieces {
        tokens.push(piece);
        types.push(TokenType::Normal);
        scores.push(*score);
    }
    for byte in bytes {
        tokens.push(byte);
        types.push(TokenType::Byte);
        scores.push(0.0);
    }
    (tokens, types, scores)
}

fn with_unk(mut spec: VocabSpec<'_>) -> Tokenizer {
    spec.special = SpecialIds { unk: Some(0), ..SpecialIds::default() };
    Tokenizer::new(spec).unwrap()
}

fn spm(bytes: bool) -> Tokenizer {
    let pieces = pieces();
    let bytes: Vec<String> = (0..=255).filter(|_| bytes).map(|byte| format!("<0x{byte:02X}>")).collect();
    let (tokens, types, scores) = scored(&pieces, &bytes);
    with_unk(spec(
        VocabKind::Spm { scores, add_space_prefix: false, strip_after_special: false },
        tokens,
        types,
    ))
}

/// The definition: of all neighbours whose joint piece is a token, the best-scored and leftmost merges.
fn naive_spm(pieces: &[(String, f32)], text: &str) -> Vec<String> {
    let mut parts: Vec<String> = text.chars().map(String::from).collect();
    let score = |piece: &str| pieces.iter().find(|(known, _)| known == piece).map(|(_, score)| *score);
    loop {
        let mut best: Option<(f32, usize)> = None;
        for at in 1..parts.len() {
            let joint = score(&format!("{}{}", parts[at - 1], parts[at]));
            if let Some(joint) = joint.filter(|&joint| best.is_none_or(|(so_far, _)| joint > so_far)) {
                best = Some((joint, at));
            }
        }
        let Some((_, at)) = best else { return parts };
        let right = parts.remove(at);
        parts[at - 1].push_str(&right);
    }
}

/// The best sum of scores over all ways to cut a text that pieces can spell.
fn best_score(pieces: &[(String, f32)], text: &str) -> f64 {
    let chars: Vec<char> = text.chars().collect();
    let mut best = vec![0.0; chars.len() + 1];
    for end in 1..=chars.len() {
        let reach = |start: usize| {
            let piece: String = chars[start..end].iter().collect();
            let known = pieces.iter().find(|(known, _)| *known == piece)?;
            Some(best[start] + f64::from(known.1))
        };
        best[end] = (0..end).filter_map(reach).fold(f64::NEG_INFINITY, f64::max);
    }
    best[chars.len()]
}

fn unigram(collapse_spaces: bool, add_space_prefix: bool, charsmap: Vec<u8>) -> Tokenizer {
    let pieces = pieces();
    let (tokens, types, scores) = scored(&pieces, &[]);
    with_unk(spec(VocabKind::Unigram { scores, add_space_prefix, collapse_spaces, charsmap }, tokens, types))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn spm_follows_the_definition(text in "[a-z ]{0,6}[thenisak ]{0,24}") {
        let tokenizer = spm(true);
        let got = pieces_of(&tokenizer, &encode(&tokenizer, &text)).concat();
        prop_assert_eq!(&got, &text);
        let want: Vec<String> = naive_spm(&pieces(), &text.replace(' ', "\u{2581}"))
            .into_iter()
            .map(|piece| piece.replace('\u{2581}', " "))
            .collect();
        prop_assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, &text)), want);
    }

    #[test]
    fn spm_with_bytes_loses_nothing(text in text()) {
        let tokenizer = spm(true);
        let want = text.replace('\u{2581}', " ");
        prop_assert_eq!(tokenizer.decode(&encode(&tokenizer, &text)).unwrap(), want);
    }

    #[test]
    fn unigram_finds_the_best_cut(text in "[thenisakdog, ]{0,24}") {
        let tokenizer = unigram(false, false, Vec::new());
        let pieces = pieces();
        let score = |id: u32| f64::from(pieces[id as usize - 1].1);
        let got: f64 = encode(&tokenizer, &text).into_iter().map(score).sum();
        let best = best_score(&pieces, &text.replace(' ', "\u{2581}"));
        prop_assert!((got - best).abs() < 1e-4, "{} {}", got, best);
    }
}

#[test]
fn unknown_characters_are_one_token_a_run() {
    let tokenizer = unigram(false, false, Vec::new());
    assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, "theΩЖΩthe")), ["the", "<unk>", "the"]);
}

#[test]
fn spm_without_bytes_gives_unk() {
    let tokenizer = spm(false);
    assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, "t京Ω")), ["t", "京", "<unk>"]);
}

#[test]
fn unigram_spaces() {
    let check = |collapse, prefix, text: &str, want: &str| {
        let tokenizer = unigram(collapse, prefix, Vec::new());
        assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, text)).concat(), want, "{text:?}");
    };
    check(false, false, " the  dog ", " the  dog ");
    check(false, true, "the dog", " the dog");
    check(true, true, "  the   dog ", " the dog");
    check(true, false, "  the   dog ", "the dog");
    check(true, true, "   ", "");
}

/// A normalisation table that turns `A` into `the`: a double array with the root at 0.
fn charsmap() -> Vec<u8> {
    let leaf = 1 << 31;
    let mut trie = vec![0u32; 512];
    trie[0] = 256 << 10;
    // The child by `A`: its label, has-leaf, and an offset to the unit with the value.
    let child = 256 ^ usize::from(b'A');
    trie[child] = u32::from(b'A') | 1 << 8 | 3 << 10;
    trie[child ^ 3] = leaf;
    let mut bytes = (trie.len() as u32 * 4).to_le_bytes().to_vec();
    bytes.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(b"the\0");
    bytes
}

#[test]
fn charsmaps_replace() {
    let tokenizer = unigram(false, false, charsmap());
    assert_eq!(pieces_of(&tokenizer, &encode(&tokenizer, "A dog, A")).concat(), "the dog, the");
    let damaged = |bytes: Vec<u8>| {
        let (pieces, bytes) = (pieces(), bytes);
        let (tokens, types, scores) = scored(&pieces, &[]);
        let kind =
            VocabKind::Unigram { scores, add_space_prefix: false, collapse_spaces: false, charsmap: bytes };
        Tokenizer::new(spec(kind, tokens, types)).unwrap_err()
    };
    for bytes in [vec![1], vec![9, 0, 0, 0, 1], vec![2, 0, 0, 0, 1, 1, 1]] {
        assert!(matches!(damaged(bytes), TokenizerError::BadCharsmap { .. }));
    }
}

#[test]
fn wordpiece() {
    const TOKENS: &[&str] = &[
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u{2581}un",
        "aff",
        "able",
        "\u{2581},",
        "\u{2581}hello",
        "\u{2581}cafe",
        "\u{2581}東",
        "\u{2581}京",
        "\u{2581}'",
        "\u{2581}s",
        "\u{2581}Hello",
    ];
    let check = |lowercase, text: &str, want: &[&str]| {
        let mut types = vec![TokenType::Normal; TOKENS.len()];
        types[..3].fill(TokenType::Control);
        let tokenizer = with_unk(spec(VocabKind::WordPiece { lowercase }, TOKENS.to_vec(), types));
        let got: Vec<String> =
            encode(&tokenizer, text).iter().map(|&id| TOKENS[id as usize].to_owned()).collect();
        assert_eq!(got, want, "{text:?}");
    };
    check(true, "unaffable", &["\u{2581}un", "aff", "able"]);
    check(true, "Hello, CAFÉ", &["\u{2581}hello", "\u{2581},", "\u{2581}cafe"]);
    check(true, "cafe\u{301} he\u{0}l\u{200d}lo", &["\u{2581}cafe", "\u{2581}hello"]);
    check(false, "Hello hello", &["\u{2581}Hello", "\u{2581}hello"]);
    check(true, "東京hello's", &["\u{2581}東", "\u{2581}京", "\u{2581}hello", "\u{2581}'", "\u{2581}s"]);
    check(true, "unzz hello", &["[UNK]", "\u{2581}hello"]);
    check(true, &"un".repeat(60), &["[UNK]"]);
    check(true, " \t\n", &[]);
}

#[test]
fn lengths_must_agree() {
    let kind = VocabKind::Spm { scores: vec![0.0], add_space_prefix: false, strip_after_special: false };
    let error = Tokenizer::new(spec(kind, vec!["a", "b"], Vec::new())).unwrap_err();
    assert_eq!(error, TokenizerError::LengthMismatch { what: "scores", found: 1, expected: 2 });
}
