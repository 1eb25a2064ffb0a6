//! JSON configuration files become metadata, or are refused.

use kinglet_formats::{Limits, hf};

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    if let Ok(metadata) = hf::parse("config.json", bytes, &Limits::default()) {
        assert!(
            metadata.0.values().all(|value| value.items().is_none_or(|items| items.len() <= bytes.len()))
        );
    }
}
