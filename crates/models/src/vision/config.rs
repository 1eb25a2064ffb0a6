//! What `config.json` and `preprocessor_config.json` say: name, sizes, switches, preparation of pictures, classes.

use kinglet_graph::ops::Fun;
use kinglet_tensor::{MetaValue, Metadata};

use crate::ModelError;
use crate::config::keys::{Keys, shorten};
use crate::image::{Channels, Filter, Fit, Hints, Recipe, Resize, Scaling, recipe_for};

/// Largest side of a picture that a model may ask for, in pixels.
const MAX_SIDE: usize = 1 << 14;

/// Keys of timm's `model_args` that do not change what a model computes, or that the tensors tell.
const TIMM_INERT: &[&str] = &[
    "attn_drop_rate",
    "avg_down",
    "base_width",
    "cardinality",
    "channels",
    "class_token",
    "cls_ratio",
    "depth",
    "drop_block_rate",
    "drop_path_rate",
    "drop_rate",
    "embed_dim",
    "embed_dims",
    "init_values",
    "layers",
    "mlp_ratio",
    "mlp_ratios",
    "num_classes",
    "patch_drop_rate",
    "patch_size",
    "pos_drop_rate",
    "pretrained",
    "proj_drop_rate",
    "qkv_bias",
    "reg_tokens",
    "se_downsamples",
    "stem_type",
    "stem_width",
    "token_mixers",
    "weight_init",
    "zero_init_last",
];

/// Keys of transformers' configurations that do not change what a model computes, or that the tensors tell.
const TRANSFORMERS_INERT: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attention_probs_dropout_prob",
    "dtype",
    "encoder_stride",
    "finetuning_task",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "label2id",
    "model_type",
    "num_labels",
    "out_features",
    "out_indices",
    "pooler_output_size",
    "problem_type",
    "return_dict",
    "stage_names",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// A model's configuration while it is built.
pub(super) struct Given<'a> {
    /// timm's name of the architecture, or transformers' name of the class.
    pub name: &'a str,
    /// Whether timm made the checkpoint.
    pub timm: bool,
    /// timm's `model_args`, or all of a transformers configuration.
    pub keys: Keys<'a>,
    /// Channels of pictures.
    pub channels: usize,
    /// Rows and columns of pictures.
    pub size: [usize; 2],
    /// How pictures are prepared.
    pub recipe: Recipe,
    pool: Option<&'a str>,
}

impl<'a> Given<'a> {
    /// Reads the configuration of a model.
    pub(super) fn of(config: &'a Metadata, preprocessor: Option<&Metadata>) -> Result<Self, ModelError> {
        static NONE: Metadata = Metadata(std::collections::BTreeMap::new());
        match config.str("architecture") {
            Some(name) => Self::timm(name, config, config.table("model_args").unwrap_or(&NONE)),
            None => Self::transformers(config, preprocessor),
        }
    }

    fn timm(name: &'a str, config: &'a Metadata, args: &'a Metadata) -> Result<Self, ModelError> {
        let keys = Keys::new(args, "");
        let pretrained = config.table("pretrained_cfg").unwrap_or(config);
        let given = pretrained.i64s("input_size").map(|list| list.to_vec()).unwrap_or_default();
        let side = |i: usize, or: usize| given.get(i).and_then(|n| usize::try_from(*n).ok()).unwrap_or(or);
        let channels = keys.opt_usize("in_chans")?.unwrap_or(side(0, 3));
        let own = keys.get("img_size").and_then(pair);
        let size = own.unwrap_or([side(1, 224), side(2, 224)]);
        let pool = keys.opt_str("global_pool")?.or(config.str("global_pool"));
        let recipe = timm_recipe(name, pretrained, size, channels);
        Self { name, timm: true, keys, channels, size, recipe, pool }.checked()
    }

    fn transformers(config: &'a Metadata, preprocessor: Option<&Metadata>) -> Result<Self, ModelError> {
        let name = config.strs("architectures").and_then(|list| list.iter().next());
        let name = name.ok_or(ModelError::NoArch("architectures"))?;
        let keys = Keys::new(config, "");
        let channels = keys.opt_usize("num_channels")?.unwrap_or(3);
        let kind = config.str("model_type").unwrap_or_default();
        let own = keys.get("image_size").and_then(pair);
        let recipe = match preprocessor {
            Some(told) => transformers_recipe(told, own),
            None => usual_recipe(kind, own, channels),
        };
        let size = own.unwrap_or(match recipe.fit {
            Fit::Stretch { width, height }
            | Fit::Crop { width, height, .. }
            | Fit::StretchCrop { width, height, .. } => [height as usize, width as usize],
            _ => [224, 224],
        });
        Self { name, timm: false, keys, channels, size, recipe, pool: None }.checked()
    }

    fn checked(self) -> Result<Self, ModelError> {
        let sound = |n: &usize| (1..=MAX_SIDE).contains(n);
        let bad = |key: &str, found: String, expected: &str| ModelError::BadKey {
            key: key.into(),
            found,
            expected: expected.into(),
        };
        if !self.size.iter().all(sound) {
            return Err(bad("input_size", format!("{:?}", self.size), "sides of 1 to 16384 pixels"));
        }
        if self.channels != 1 && self.channels != 3 {
            return Err(bad("num_channels", self.channels.to_string(), "1 or 3"));
        }
        Ok(self)
    }

    /// How a timm model pools its last features: one of `known`.
    pub(super) fn pooled_by(&self, known: &[&'static str]) -> Result<&'static str, ModelError> {
        let Some(pool) = self.pool else { return Ok(known[0]) };
        let found = known.iter().find(|name| **name == pool).copied();
        found.ok_or_else(|| ModelError::UnsupportedKey { key: "global_pool".into(), value: shorten(pool) })
    }

    /// The function that a key names, or `usual`.
    pub(super) fn activation(&self, key: &str, usual: Fun) -> Result<Fun, ModelError> {
        Ok(match self.keys.opt_str(key)? {
            None => usual,
            Some("relu") => Fun::Relu,
            Some("gelu") => Fun::Gelu { tanh: false },
            Some("gelu_new" | "gelu_pytorch_tanh") => Fun::Gelu { tanh: true },
            Some("quick_gelu") => Fun::Swish(1.702),
            Some("silu" | "swish") => Fun::Swish(1.0),
            Some("tanh") => Fun::Tanh,
            Some(other) => return Err(ModelError::UnsupportedKey { key: key.into(), value: shorten(other) }),
        })
    }

    /// The same model's part that another table of the configuration describes.
    pub(super) fn inner(&self, table: &'a Metadata) -> Self {
        Self { keys: Keys::new(table, ""), ..*self }
    }

    /// An error unless every key was read or is inert.
    pub(super) fn all_understood(&self) -> Result<(), ModelError> {
        self.keys.all_understood(if self.timm { TIMM_INERT } else { TRANSFORMERS_INERT })
    }
}

/// One size for both sides, a list of two, or an object with `height` and `width`.
fn pair(value: &MetaValue) -> Option<[usize; 2]> {
    if let Some(n) = value.as_usize() {
        return Some([n, n]);
    }
    if let MetaValue::Table(table) = value {
        return Some([table.usize("height")?, table.usize("width")?]);
    }
    match value.as_i64s()?[..] {
        [height, width] => Some([usize::try_from(height).ok()?, usize::try_from(width).ok()?]),
        _ => None,
    }
}

/// What the family takes when no file says it.
fn usual_recipe(name: &str, size: Option<[usize; 2]>, channels: usize) -> Recipe {
    let [height, width] = size.map_or([None; 2], |size| size.map(Some));
    recipe_for(&Hints { name, channels: Some(channels), height, width })
}

/// As timm's `pretrained_cfg` says: the middle of the resized picture, all of it, or all of it in a frame.
fn timm_recipe(name: &str, told: &Metadata, [height, width]: [usize; 2], channels: usize) -> Recipe {
    let usual = usual_recipe(name, Some([height, width]), channels);
    let part = told.f64("crop_pct").filter(|part| *part > 0.0 && part.is_finite()).unwrap_or(0.875);
    let enlarged = |side: usize| (side as f64 / part).floor() as u32;
    let (w, h) = (width as u32, height as u32);
    let fit = match told.str("crop_mode") {
        Some("squash") => {
            Fit::StretchCrop { whole: [enlarged(width), enlarged(height)], width: w, height: h }
        }
        Some("border") => Fit::Letterbox { width: w, height: h, fill: 0 },
        _ => Fit::Crop { short: enlarged(width.min(height)), width: w, height: h },
    };
    let resize = match told.str("interpolation") {
        Some("bilinear") => Resize::Pillow(Filter::Bilinear),
        Some("nearest") => Resize::Pillow(Filter::Nearest),
        Some(_) => Resize::Pillow(Filter::Bicubic),
        None => usual.resize,
    };
    let scaling = three(told, "mean").zip(three(told, "std")).filter(|_| channels == 3);
    let scaling = scaling.map_or(usual.scaling, |(mean, deviation)| Scaling::standard(mean, deviation));
    let channels = if channels == 1 { Channels::Grey } else { Channels::Rgb };
    Recipe { fit, resize, channels, scaling }
}

fn three(told: &Metadata, key: &str) -> Option<[f32; 3]> {
    let list = told.f64s(key)?;
    match list[..] {
        [a, b, c] => Some([a, b, c].map(|x| x as f32)),
        _ => None,
    }
}

/// As the image processors of transformers do: scaled to a size, or the short side scaled and the middle cut out.
fn transformers_recipe(told: &Metadata, own: Option<[usize; 2]>) -> Recipe {
    let on = |key: &str| told.bool(key).unwrap_or(true);
    let resize = match told.get("resample").and_then(MetaValue::as_u64) {
        Some(0) => Resize::Pillow(Filter::Nearest),
        Some(3) => Resize::Pillow(Filter::Bicubic),
        _ => Resize::Pillow(Filter::Bilinear),
    };
    let factor = if on("do_rescale") { told.f64("rescale_factor").unwrap_or(1.0 / 255.0) } else { 1.0 };
    let (mean, deviation) = if on("do_normalize") {
        let half = [0.5; 3];
        (three(told, "image_mean").unwrap_or(half), three(told, "image_std").unwrap_or(half))
    } else {
        ([0.0; 3], [1.0; 3])
    };
    let mut scaling = Scaling::linear(1.0, [0.0; 3]);
    for c in 0..3 {
        scaling.scale[c] = (factor / f64::from(deviation[c])) as f32;
        scaling.bias[c] = -mean[c] / deviation[c];
    }
    Recipe { fit: processor_fit(told, own), resize, channels: Channels::Rgb, scaling }
}

fn processor_fit(told: &Metadata, own: Option<[usize; 2]>) -> Fit {
    let size = told.get("size");
    let crop = told.get("crop_size").filter(|_| told.bool("do_center_crop") == Some(true)).and_then(pair);
    let short = size.and_then(|size| match size {
        MetaValue::Table(table) => table.usize("shortest_edge"),
        // Older processors wrote the short side alone where they cut, and where they keep proportions.
        other => other.as_usize().filter(|_| crop.is_some() || told.get("max_size").is_some()),
    });
    let table = if let Some(MetaValue::Table(table)) = size { Some(table) } else { None };
    let long = table.and_then(|table| table.usize("longest_edge")).or(told.usize("max_size"));
    let stretch = |[height, width]: [usize; 2]| Fit::Stretch { width: width as u32, height: height as u32 };
    match (short, long, crop) {
        (Some(short), Some(long), _) => Fit::Sides { short: short as u32, long: long as u32 },
        (Some(short), None, Some([height, width])) => {
            Fit::Crop { short: short as u32, width: width as u32, height: height as u32 }
        }
        // ConvNeXT's processor, which ResNet shares: large pictures are not cut.
        (Some(side), None, None) if side >= 384 => stretch([side, side]),
        (Some(side), None, None) => {
            let part = told.f64("crop_pct").filter(|part| *part > 0.0).unwrap_or(224.0 / 256.0);
            let short = (side as f64 / part) as u32;
            Fit::Crop { short, width: side as u32, height: side as u32 }
        }
        (None, _, Some([height, width])) => {
            let [rows, columns] = size.and_then(pair).unwrap_or([height, width]).map(|side| side as u32);
            Fit::StretchCrop { whole: [columns, rows], width: width as u32, height: height as u32 }
        }
        (None, _, None) => stretch(size.and_then(pair).or(own).unwrap_or([224, 224])),
    }
}

/// Names of classes: `id2label` of transformers, `label_names` with `label_descriptions` of timm. Names that only count
/// (`LABEL_7`) are none.
pub(super) fn classes(config: &Metadata) -> Option<Vec<String>> {
    if let Some(table) = config.table("id2label") {
        let mut names = vec![String::new(); table.0.len()];
        for (id, name) in &table.0 {
            *names.get_mut(id.parse::<usize>().ok()?)? = name.as_str()?.to_owned();
        }
        let counts = names.iter().all(|name| name.starts_with("LABEL_"));
        return (!counts && !names.is_empty()).then_some(names);
    }
    let told =
        config.table("pretrained_cfg").filter(|told| told.get("label_names").is_some()).unwrap_or(config);
    let names = told.strs("label_names")?;
    let described = told.table("label_descriptions");
    let describe = |name: &str| described.and_then(|table| table.str(name)).unwrap_or(name).to_owned();
    Some(names.iter().map(describe).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, MetaValue)]) -> Metadata {
        Metadata(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    fn size(entries: &[(&str, u64)]) -> MetaValue {
        let entries: Vec<_> = entries.iter().map(|(key, n)| (*key, MetaValue::U64(*n))).collect();
        MetaValue::Table(table(&entries))
    }

    #[test]
    fn processors_of_all_ages_frame_pictures_their_way() {
        let check = |told: &[(&str, MetaValue)], expected: Fit| {
            assert_eq!(processor_fit(&table(told), None), expected, "{told:?}");
        };
        let square = |n: u64| size(&[("height", n), ("width", n)]);
        let cuts = ("do_center_crop", MetaValue::Bool(true));
        check(&[("size", square(384))], Fit::Stretch { width: 384, height: 384 });
        check(&[("size", MetaValue::U64(224))], Fit::Stretch { width: 224, height: 224 });
        check(&[], Fit::Stretch { width: 224, height: 224 });
        let edges = size(&[("shortest_edge", 800), ("longest_edge", 1333)]);
        check(&[("size", edges)], Fit::Sides { short: 800, long: 1333 });
        let older = [("size", MetaValue::U64(800)), ("max_size", MetaValue::U64(1333))];
        check(&older, Fit::Sides { short: 800, long: 1333 });
        let short = |n: u64| ("size", size(&[("shortest_edge", n)]));
        check(&[short(224)], Fit::Crop { short: 256, width: 224, height: 224 });
        check(&[short(384)], Fit::Stretch { width: 384, height: 384 });
        let cut = [short(256), cuts.clone(), ("crop_size", square(224))];
        check(&cut, Fit::Crop { short: 256, width: 224, height: 224 });
        let squashed = [("size", square(256)), cuts, ("crop_size", square(224))];
        check(&squashed, Fit::StretchCrop { whole: [256, 256], width: 224, height: 224 });
    }

    #[test]
    fn classes_have_names_where_the_file_gives_them() {
        let named = |names: &[&str]| {
            let ids =
                names.iter().enumerate().map(|(i, name)| (i.to_string(), MetaValue::Str((*name).into())));
            classes(&table(&[("id2label", MetaValue::Table(Metadata(ids.collect())))]))
        };
        assert_eq!(named(&["cat", "dog"]), Some(vec!["cat".to_owned(), "dog".to_owned()]));
        assert_eq!(named(&["LABEL_0", "LABEL_1"]), None);
        let names = MetaValue::list(["n1", "n2"].map(|name| MetaValue::Str(name.into())).to_vec());
        let described = MetaValue::Table(table(&[("n2", MetaValue::Str("hen".into()))]));
        let timm = table(&[("label_names", names), ("label_descriptions", described)]);
        assert_eq!(classes(&timm), Some(vec!["n1".to_owned(), "hen".to_owned()]));
        assert_eq!(classes(&table(&[])), None);
    }
}
