//! Replays the inputs that the fuzzer found worth keeping; see `fuzz/README.md`.
#![allow(unreachable_pub, reason = "the modules are those of the fuzz crate")]

#[path = "../../../fuzz/src/chat_template.rs"]
mod chat_template;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../../fuzz/src/tokenizer.rs"]
mod tokenizer;
#[path = "../../../fuzz/src/vocabulary.rs"]
mod vocabulary;

use replay::replay;

#[test]
fn chat_template_corpus() {
    replay("chat_template", chat_template::run);
}

#[test]
fn tokenizer_corpus() {
    replay("tokenizer", tokenizer::run);
}

#[test]
fn vocabulary_corpus() {
    replay("vocabulary", vocabulary::run);
}
