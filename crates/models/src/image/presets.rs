//! How the makers of well-known families prepare pictures, and the choice among them.
//!
//! A family is one line of [`PRESETS`]. A model that names none of them gets what torchvision's classifiers take.

use super::{Channels, Filter, Fit, Recipe, Resize, Scaling};

/// A family's preparation, for any input size.
#[derive(Debug)]
pub struct Preset {
    /// Parts of model names (lower case) that mean this family; the first line of the table that matches counts.
    pub ids: &'static [&'static str],
    /// Side of the input when the model leaves it open.
    pub size: u32,
    /// Framing.
    pub frame: Frame,
    /// Whose kernel.
    pub resize: Resize,
    /// Channels and their order.
    pub channels: Channels,
    /// Their range.
    pub scaling: Scaling,
}

/// Framing of a family, relative to the input size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame {
    /// The middle: this part of the short side is kept.
    Middle(f32),
    /// Everything, stretched.
    Stretch,
    /// Everything, grey around it.
    Letterbox(u8),
    /// Everything in its proportions when the model takes any size (short side, most of the long side), stretched when
    /// it does not.
    Sides(u32, u32),
    /// As [`Fit::Multiples`] when the model takes any size, stretched when it does not.
    Multiples(u32, u32, u32),
}

/// What a model's file says about its picture input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// Name of the model or its file.
    pub name: &'a str,
    /// Channels, when fixed.
    pub channels: Option<usize>,
    /// Rows, when fixed.
    pub height: Option<usize>,
    /// Columns, when fixed.
    pub width: Option<usize>,
}

const IMAGENET: Scaling = Scaling::standard([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const HALF: Scaling = Scaling::standard([0.5; 3], [0.5; 3]);
const UNIT: Scaling = Scaling::linear(1.0 / 255.0, [0.0; 3]);
const RAW: Scaling = Scaling::linear(1.0, [0.0; 3]);
/// Caffe's channel means, in its order.
const CAFFE: Scaling = Scaling::linear(1.0, [-104.0, -117.0, -123.0]);
const LITE: Scaling = Scaling::linear(1.0 / 128.0, [-127.0 / 128.0; 3]);
const CLIP: Scaling =
    Scaling::standard([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);

const BILINEAR: Resize = Resize::Pillow(Filter::Bilinear);
const BICUBIC: Resize = Resize::Pillow(Filter::Bicubic);
const OPENCV: Resize = Resize::OpenCvBilinear;

/// What torchvision's classifiers take.
const TORCHVISION: Preset = preset(&[], 224, Frame::Middle(0.875), BILINEAR, Channels::Rgb, IMAGENET);

/// The families, the more particular names first.
#[rustfmt::skip]
pub const PRESETS: &[Preset] = &[
    preset(&["efficientnet_lite", "efficientnet-lite"], 224, Frame::Middle(0.875), BICUBIC, Channels::Rgb, LITE),
    preset(&["squeezenet"], 227, Frame::Middle(0.875), BILINEAR, Channels::Bgr, CAFFE),
    preset(&["fastestdet"], 352, Frame::Stretch, OPENCV, Channels::Bgr, UNIT),
    preset(&["yolo"], 640, Frame::Letterbox(114), OPENCV, Channels::Rgb, UNIT),
    preset(&["ocr", "pp-ocr", "ppocr"], 736, Frame::Multiples(736, 2000, 32), OPENCV, Channels::Bgr, HALF),
    preset(&["detr"], 800, Frame::Sides(800, 1333), BILINEAR, Channels::Rgb, IMAGENET),
    preset(&["fastvit"], 256, Frame::Middle(0.9), BICUBIC, Channels::Rgb, IMAGENET),
    preset(&["clip"], 224, Frame::Middle(1.0), BICUBIC, Channels::Rgb, CLIP),
    preset(&["vit"], 224, Frame::Middle(0.9), BICUBIC, Channels::Rgb, HALF),
    preset(&["deeplab"], 513, Frame::Stretch, BILINEAR, Channels::Rgb, RAW),
    preset(&["mnist"], 28, Frame::Stretch, BILINEAR, Channels::Grey, UNIT),
    preset(&["mobilenet", "resnet"], 224, Frame::Middle(0.875), BILINEAR, Channels::Rgb, IMAGENET),
];

const fn preset(
    ids: &'static [&'static str],
    size: u32,
    frame: Frame,
    resize: Resize,
    channels: Channels,
    scaling: Scaling,
) -> Preset {
    Preset { ids, size, frame, resize, channels, scaling }
}

impl Preset {
    /// The recipe for an input of this size; none where the model takes any.
    fn recipe(&self, width: Option<u32>, height: Option<u32>) -> Recipe {
        let open = width.is_none() || height.is_none();
        let (width, height) = (width.unwrap_or(self.size), height.unwrap_or(self.size));
        let fit = match self.frame {
            Frame::Middle(part) => {
                Fit::Crop { short: (width.max(height) as f32 / part) as u32, width, height }
            }
            Frame::Letterbox(fill) => Fit::Letterbox { width, height, fill },
            Frame::Sides(short, long) if open => Fit::Sides { short, long },
            Frame::Multiples(short, long, multiple) if open => Fit::Multiples { short, long, multiple },
            Frame::Stretch | Frame::Sides(..) | Frame::Multiples(..) => Fit::Stretch { width, height },
        };
        Recipe { fit, resize: self.resize, channels: self.channels, scaling: self.scaling }
    }
}

/// The recipe of the family that the name says, fitted to the model's input.
pub fn recipe_for(hints: &Hints<'_>) -> Recipe {
    let name = hints.name.to_lowercase();
    let preset = PRESETS.iter().find(|p| p.ids.iter().any(|id| name.contains(id))).unwrap_or(&TORCHVISION);
    let side = |dim: Option<usize>| dim.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let mut recipe = preset.recipe(side(hints.width), side(hints.height));
    match hints.channels {
        Some(1) if recipe.channels != Channels::Grey => {
            (recipe.channels, recipe.scaling) = (Channels::Grey, UNIT);
        }
        Some(3) if recipe.channels == Channels::Grey => recipe.channels = Channels::Rgb,
        _ => {}
    }
    recipe
}
