//! Tokenizers through their public face, over tiny vocabularies made on the spot.

mod bpe;
mod detokenize;
mod hostile;
mod json;
mod kinds;
mod special;
mod tiny;
