//! Pictures: decoding within limits, and preparing what was decoded.

use kinglet_models::image::{Hints, ImageLimits, decode, recipe_for};

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let limits = ImageLimits { max_pixels: 1 << 18, max_bytes: 64 << 20 };
    let Ok(picture) = decode(bytes, &limits) else { return };
    let hints = Hints { name: "fastestdet", height: Some(32), width: Some(48), channels: Some(3) };
    let prepared = recipe_for(&hints).prepare(&picture).expect("a decoded picture can be resized");
    assert_eq!(prepared.array.data.len(), 3 * 32 * 48);
}
