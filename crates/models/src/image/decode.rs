//! Bytes to pixels: PNG, JPEG, WebP, GIF and BMP, upright and in RGB.
//!
//! The first frame of an animation counts. A file that ends before its picture does is an error, in every format. EXIF orientation is applied. Depths above 8 bits are rounded, CMYK and grey are
//! converted, and what is transparent shows white paper behind it.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{ImageError, Picture};

/// How much an image may ask for before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Pixels of the picture.
    pub max_pixels: u64,
    /// Bytes that decoding may take at any one time.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_pixels: 1 << 27, max_bytes: 2 << 30 }
    }
}

/// The formats that can be read, and their names in messages.
const FORMATS: [(ImageFormat, &str); 5] = [
    (ImageFormat::Png, "PNG"),
    (ImageFormat::Jpeg, "JPEG"),
    (ImageFormat::WebP, "WebP"),
    (ImageFormat::Gif, "GIF"),
    (ImageFormat::Bmp, "BMP"),
];

/// What people give instead of an image, by its first bytes (from the given offset).
const OTHERS: [(usize, &[u8], &str); 11] = [
    (4, b"ftyp", "an HEIC, AVIF or video file"),
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (0, b"II+\0", "a TIFF file"),
    (0, b"MM\0+", "a TIFF file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML document"),
    (0, b"<!", "a web page, most likely an error page"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"version https://git-lfs", "a git-lfs pointer: run `git lfs pull` to get the file itself"),
];

/// Decodes an image that nobody vouches for.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Picture, ImageError> {
    let (format, name) = format_of(bytes)?;
    let fail = |error| wrong(name, limits, error);
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        let why = "the file ends before the picture does; get it again".into();
        return Err(ImageError::Damaged { format: name, why });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(limits.max_bytes);
    reader.limits(bounds);
    let mut decoder = reader.into_decoder().map_err(fail)?;
    check_size(name, decoder.dimensions(), limits)?;
    if decoder.total_bytes() > limits.max_bytes {
        return Err(ImageError::Memory { format: name, limit: limits.max_bytes });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut pixels = DynamicImage::from_decoder(decoder).map_err(fail)?;
    pixels.apply_orientation(orientation);
    let (width, height) = (pixels.width(), pixels.height());
    let rgb = if pixels.color().has_alpha() { on_white(&pixels) } else { pixels.into_rgb8().into_raw() };
    Picture::new(width, height, rgb).ok_or(ImageError::NoPixels { format: name, width, height })
}

/// The picture as a PNG file.
pub fn encode_png(picture: &Picture) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let (rgb, kind) = (picture.rgb(), image::ExtendedColorType::Rgb8);
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, rgb, picture.width(), picture.height(), kind)
        .map_err(|e| ImageError::Encode(e.to_string()))?;
    Ok(bytes)
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageError> {
    let guessed = image::guess_format(bytes).ok();
    if let Some(known) = FORMATS.into_iter().find(|(format, _)| Some(*format) == guessed) {
        return Ok(known);
    }
    let begins = |at: &usize, start: &[u8]| bytes.get(*at..).is_some_and(|rest| rest.starts_with(start));
    let other = OTHERS.iter().find(|(at, start, _)| begins(at, start)).map(|(.., name)| *name);
    let unknown = if bytes.is_empty() { "empty" } else { "of an unknown kind" };
    Err(ImageError::NotAnImage { found: other.unwrap_or(unknown) })
}

/// Whether the marker that ends a JPEG is there, where its segments lead to. Decoders make up the pixels of what is missing.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let mut at = 2;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff)) {
        at += next;
        match bytes.get(at + 1) {
            Some(&END) => return true,
            // A marker begins with any number of these.
            Some(0xff) => at += 1,
            // A byte of the picture, and markers without a segment.
            Some(0 | 1 | 0xd0..=0xd8) => at += 2,
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
            None => return false,
        }
    }
    false
}

fn check_size(
    format: &'static str,
    (width, height): (u32, u32),
    limits: &ImageLimits,
) -> Result<(), ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(ImageError::NoPixels { format, width, height });
    }
    if pixels > limits.max_pixels {
        return Err(ImageError::TooLarge { width, height, limit: limits.max_pixels });
    }
    Ok(())
}

/// The colours over white, `[height, width, 3]`.
fn on_white(pixels: &DynamicImage) -> Vec<u8> {
    let over = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    pixels.to_rgba8().pixels().flat_map(|p| [0, 1, 2].map(|c| over(p.0[c], p.0[3]))).collect()
}

fn wrong(format: &'static str, limits: &ImageLimits, error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::Limits(_) => ImageError::Memory { format, limit: limits.max_bytes },
        other => {
            let why = other.to_string();
            let why: String = why.trim_end().chars().take(200).flat_map(char::escape_debug).collect();
            ImageError::Damaged { format, why }
        }
    }
}
