//! A `tokenizer.json`, or a SentencePiece normalisation table, becomes a tokenizer or is refused.

use kinglet_text::tokenizer::{EncodeOptions, SpecialIds, SpecialNames, Tokenizer, VocabKind, VocabSpec};

/// Feeds one input: JSON if it begins with a brace, else a table.
pub fn run(bytes: &[u8]) {
    let tokenizer = match bytes {
        [b'{', ..] => Tokenizer::from_json(bytes, &SpecialNames::default()),
        _ => with_table(bytes),
    };
    let Ok(tokenizer) = tokenizer else { return };
    let options = EncodeOptions { add_special: true, parse_special: true };
    for text in ["", "Hello, World! \u{1f600}\u{301}\n\n 123", "\u{ff21}\u{3000}<s></s>"] {
        if let Ok(ids) = tokenizer.encode(text, options) {
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            assert!(tokenizer.decode(&ids).is_ok());
        }
    }
}

fn with_table(bytes: &[u8]) -> Result<Tokenizer, kinglet_text::tokenizer::TokenizerError> {
    Tokenizer::new(VocabSpec {
        kind: VocabKind::Unigram {
            scores: vec![-1.0; 4],
            add_space_prefix: true,
            collapse_spaces: true,
            charsmap: bytes.to_vec(),
        },
        tokens: vec!["\u{2581}", "Hello", "o", "1"],
        types: Vec::new(),
        special: SpecialIds::default(),
        add_bos: false,
        add_eos: false,
        add_sep: false,
    })
}
