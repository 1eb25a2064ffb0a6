//! A vocabulary of single bytes, and a fake model that speaks it.

use kinglet_graph::ExecError;
use kinglet_text::tokenizer::{SpecialIds, TokenType, Tokenizer, VocabKind, VocabSpec};

use crate::FakeDecoder;

/// Ends a text or a turn of [`byte_tokenizer`].
pub const END: u32 = 256;
/// Begins a turn of [`byte_tokenizer`].
pub const TURN: u32 = 257;
/// Tokens of [`byte_tokenizer`].
pub const BYTE_VOCAB: usize = 258;

/// A byte-level tokenizer without merges: a byte is its own token; `<|im_end|>` and `<|im_start|>` follow.
pub fn byte_tokenizer() -> Tokenizer {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    tokens.extend(["<|im_end|>".to_owned(), "<|im_start|>".to_owned()]);
    let mut types = vec![TokenType::Normal; 256];
    types.extend([TokenType::Control; 2]);
    let spec = VocabSpec {
        kind: VocabKind::Bpe { pre: "gpt-2", merges: Vec::new() },
        tokens: tokens.iter().map(String::as_str).collect(),
        types,
        special: SpecialIds { eos: Some(END), ..SpecialIds::default() },
        add_bos: false,
        add_eos: false,
        add_sep: false,
    };
    Tokenizer::new(spec).expect("a vocabulary that holds together")
}

/// GPT-2's printable stand-in for a byte.
fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(256 + index).expect("a character of Latin Extended-A")
}

/// A decoder that continues whatever follows the last newline with `answer`, then ends the text. The chosen token has
/// logit 4, its successor 2, all others 0.
pub fn speaking_decoder(answer: &str) -> FakeDecoder {
    let answer = answer.as_bytes().to_vec();
    FakeDecoder::new(BYTE_VOCAB, 16, 64, move |history, logits| {
        say(&answer, history, logits);
        Ok::<(), ExecError>(())
    })
}

/// Fills the logits as [`speaking_decoder`] has them.
pub fn say(answer: &[u8], history: &[u32], logits: &mut [f32]) {
    let line = history.iter().rposition(|&token| token == u32::from(b'\n')).map_or(0, |at| at + 1);
    let token = answer.get(history.len() - line).map_or(END, |&byte| u32::from(byte)) as usize;
    logits.fill(0.0);
    logits[token] = 4.0;
    logits[(token + 1) % BYTE_VOCAB] = 2.0;
}
