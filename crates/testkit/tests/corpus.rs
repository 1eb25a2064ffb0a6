//! Replays the inputs that the fuzzer found worth keeping; see `fuzz/README.md`.
#![allow(unreachable_pub, reason = "the modules are those of the fuzz crate")]

#[path = "../../../fuzz/src/decoder.rs"]
mod decoder;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;

#[test]
fn decoder_corpus() {
    replay::replay("decoder", decoder::run);
}
