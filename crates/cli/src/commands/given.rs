//! Files and streams that users give, read up to a bound: a device or a pipe may have no end.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kinglet::Size;
use kinglet::models::image::{ImageLimits, Picture, decode};

use crate::ui::brief;

/// Bytes of a text, at most.
const MOST: u64 = 1 << 30;

/// The content of a file of text.
pub(crate) fn text(path: &Path) -> Result<Vec<u8>> {
    Ok(kinglet::read_file(path, MOST)?)
}

/// All that comes through a stream of text.
pub(crate) fn stream(from: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        bail!("more than {} come", Size(MOST));
    }
    Ok(bytes)
}

/// A picture, decoded.
pub(crate) fn picture(name: &str) -> Result<Picture> {
    let limits = ImageLimits::default();
    // No picture of as many pixels is longer when it is not compressed.
    let bytes = kinglet::read_file(Path::new(name), 8 * limits.max_pixels)?;
    decode(&bytes, &limits).with_context(|| brief(name, 200))
}
