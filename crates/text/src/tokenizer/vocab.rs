//! The tokens themselves: what each one spells, its type, and the way back from bytes to id.
//!
//! All pieces lie in one buffer; the table holds ids only and compares with the buffer. A token's bytes are what it
//! stands for in text (` the`), not how the file writes it (`Ġthe`, `▁the`).

use super::error::TokenizerError;
use super::merge::NONE;
use super::spec::TokenType;

/// Appends what a token's text stands for. `false` where the text means nothing in that spelling: then no text becomes
/// the token.
pub(crate) type Spell = fn(&str, &mut Vec<u8>) -> bool;

/// Bytes of every token, types, and the lookup by bytes.
#[derive(Debug)]
pub(crate) struct Vocab {
    bytes: Vec<u8>,
    /// Where token `i` ends in `bytes`; it begins where the one before ends.
    ends: Vec<u32>,
    types: Vec<TokenType>,
    /// Open addressing over a power of two of slots; [`NONE`] is a free one.
    slots: Vec<u32>,
    /// The token for each single byte, as a `<0xNN>` token or as a piece of that one byte.
    byte_ids: [u32; 256],
    longest: usize,
}

impl Vocab {
    /// Takes the tokens in; none can be found before [`index`](Self::index).
    pub(crate) fn new(tokens: &[&str], types: &[TokenType], spell: Spell) -> Result<Self, TokenizerError> {
        let mut types = match types.len() {
            0 => vec![TokenType::Normal; tokens.len()],
            n if n == tokens.len() => types.to_vec(),
            found => {
                return Err(TokenizerError::LengthMismatch {
                    what: "token_type",
                    found,
                    expected: tokens.len(),
                });
            }
        };
        let (bytes, ends) = spell_all(tokens, &mut types, spell)?;
        Ok(Self { bytes, ends, types, slots: vec![NONE], byte_ids: [NONE; 256], longest: 0 })
    }

    /// Makes the tokens that text can become findable. Types do not change afterwards.
    pub(crate) fn index(&mut self) {
        self.slots = vec![NONE; (self.len() * 2).next_power_of_two()];
        for id in 0..self.len() as u32 {
            let piece = self.bytes(id).unwrap_or_default();
            match (self.kind(id), piece) {
                (TokenType::Control | TokenType::Unknown | TokenType::Unused, _) | (_, []) => {}
                (TokenType::Byte, &[byte]) => self.byte_ids[byte as usize] = id,
                _ => self.insert(id),
            }
        }
        for byte in 0..=255u8 {
            if self.byte_ids[byte as usize] == NONE {
                self.byte_ids[byte as usize] = self.find(&[byte]).unwrap_or(NONE);
            }
        }
    }

    /// The number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// What token `id` stands for; `None` beyond the end.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let end = *self.ends.get(id as usize)?;
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start as usize..end as usize])
    }

    /// The type of token `id`; beyond the end nothing is used.
    pub(crate) fn kind(&self, id: u32) -> TokenType {
        self.types.get(id as usize).copied().unwrap_or(TokenType::Unused)
    }

    /// Changes a token's type.
    pub(crate) fn set_kind(&mut self, id: u32, kind: TokenType) {
        if let Some(slot) = self.types.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// The token that text of exactly these bytes becomes; of duplicates the first.
    #[inline]
    pub(crate) fn find(&self, piece: &[u8]) -> Option<u32> {
        if piece.len() > self.longest { None } else { self.find_hashed(piece, hash(piece)) }
    }

    /// The same with the piece's [`hash`] known.
    #[inline]
    pub(crate) fn find_hashed(&self, piece: &[u8], hash: u64) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = slot(hash) & mask;
        loop {
            match self.slots[at] {
                NONE => return None,
                id if self.bytes(id) == Some(piece) => return Some(id),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// The token for one byte, or [`NONE`].
    #[inline]
    pub(crate) fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids[byte as usize]
    }

    /// The longest text token, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    fn insert(&mut self, id: u32) {
        let piece = self.bytes(id).unwrap_or_default();
        let (len, mask) = (piece.len(), self.slots.len() - 1);
        let mut at = slot(hash(piece)) & mask;
        while self.slots[at] != NONE {
            if self.bytes(self.slots[at]) == Some(piece) {
                return;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = id;
        self.longest = self.longest.max(len);
    }
}

fn spell_all(
    tokens: &[&str],
    types: &mut [TokenType],
    spell: Spell,
) -> Result<(Vec<u8>, Vec<u32>), TokenizerError> {
    let size: usize = tokens.iter().map(|text| text.len()).sum();
    if u32::try_from(size).is_err() || tokens.len() >= NONE as usize / 2 {
        return Err(TokenizerError::TooLarge { what: "the vocabulary", size });
    }
    let (mut bytes, mut ends) = (Vec::with_capacity(size), Vec::with_capacity(tokens.len()));
    for (text, kind) in tokens.iter().zip(types) {
        match (*kind, byte_token(text)) {
            (TokenType::Byte, Some(byte)) => bytes.push(byte),
            (TokenType::Normal, _) => {
                if !spell(text, &mut bytes) {
                    *kind = TokenType::Unused;
                }
            }
            _ => bytes.extend_from_slice(text.as_bytes()),
        }
        ends.push(bytes.len() as u32);
    }
    Ok((bytes, ends))
}

/// The byte that `<0xNN>` names.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// A hash that grows with its text: `step(hash(a), b)` is the hash of `a` followed by `b`.
#[inline]
pub(crate) fn hash(piece: &[u8]) -> u64 {
    piece.iter().fold(0, |hash, &byte| step(hash, byte))
}

/// One more byte.
#[inline]
pub(crate) fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ (u64::from(byte) + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// Where a hash's search begins: its well-mixed bits.
#[inline]
pub(crate) fn slot(hash: u64) -> usize {
    (hash ^ hash >> 32) as usize
}
