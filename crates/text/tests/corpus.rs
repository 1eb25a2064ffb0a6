//! Replays the inputs that the fuzzer found worth keeping; see `fuzz/README.md`.
#![allow(unreachable_pub, reason = "the modules are those of the fuzz crate")]

#[path = "../../../fuzz/src/chat_template.rs"]
mod chat_template;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;

#[test]
fn chat_template_corpus() {
    replay::replay("chat_template", chat_template::run);
}
