//! Replays the inputs that the fuzzer found worth keeping; see `fuzz/README.md`.
#![allow(unreachable_pub, reason = "the modules are those of the fuzz crate")]

#[path = "../../../fuzz/src/image.rs"]
mod image;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;

#[test]
fn image_corpus() {
    replay::replay("image", image::run);
}
