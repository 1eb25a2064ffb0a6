//! Why a picture cannot be read or prepared.

/// Why a picture cannot be read or prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum ImageError {
    #[error(
        "not an image that can be read: it is {found}; PNG, JPEG, WebP, GIF and BMP are taken, so convert it to one of them"
    )]
    NotAnImage { found: &'static str },
    #[error(
        "the image has {width} x {height} pixels, more than the limit of {limit}; scale it down, or raise `ImageLimits::max_pixels` if it is trusted"
    )]
    TooLarge { width: u32, height: u32, limit: u64 },
    #[error("the {format} image has no pixels: {width} x {height}")]
    NoPixels { format: &'static str, width: u32, height: u32 },
    #[error("the {format} image is damaged or of a kind that cannot be read: {why}")]
    Damaged { format: &'static str, why: String },
    #[error("decoding the {format} image takes more memory than `ImageLimits::max_bytes` ({limit}) allows")]
    Memory { format: &'static str, limit: u64 },
    #[error("an image cannot be resized to {width} x {height} pixels: each side takes 1 to {limit}")]
    Target { width: u32, height: u32, limit: u32 },
    #[error("an image of {width} x {height} pixels cannot be resized: {why}")]
    Resize { width: u32, height: u32, why: String },
    #[error("the image cannot be encoded: {0}")]
    Encode(String),
}
