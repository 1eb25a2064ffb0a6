//! Vision models from checkpoints: `config.json` and weights to a graph, with what pictures and classes it speaks of.
//!
//! A family is one file and a line of `TIMM` or `TRANSFORMERS`. Contract: a key that would change the computation and is not
//! understood, and a tensor that nothing asks for, are errors. Deliberately absent: folding of norms and branches (the passes do it).

mod blocks;
mod config;
mod detr;
mod fastvit;
mod mbconv;
mod net;
mod resnet;
mod vit;

use kinglet_graph::{Graph, Type, ValueId};
use kinglet_tensor::{Metadata, WeightSource};

use self::config::Given;
use self::net::Net;
use crate::ModelError;
use crate::image::Recipe;

/// A vision model as a graph.
pub struct Vision {
    /// Its computation; the input is called `pixel_values`, `[N, channels, height, width]`.
    pub graph: Graph,
    /// Names and types of its outputs.
    pub outputs: Vec<(String, Type)>,
    /// How pictures are prepared for it.
    pub recipe: Recipe,
    /// Names of its classes, in the order of their numbers; none when the configuration has none.
    pub classes: Option<Vec<String>>,
    /// What the configuration calls it.
    pub name: String,
    /// The library whose names its checkpoint uses.
    pub library: &'static str,
}

type Fits = fn(&str) -> bool;
type Build = fn(&mut Net<'_>, &Given<'_>) -> Result<(), ModelError>;

/// Whether timm's model of this name is one of the family, and what builds it.
const TIMM: &[(Fits, Build)] = &[
    (resnet::is_timm, resnet::timm),
    (mbconv::is_timm, mbconv::timm),
    (vit::is_timm, vit::timm),
    (fastvit::is_timm, fastvit::timm),
];

/// `model_type` of transformers' configurations, and what builds such a model.
const TRANSFORMERS: &[(&str, Build)] = &[
    ("vit", vit::transformers),
    ("deit", vit::transformers),
    ("resnet", resnet::transformers),
    ("detr", detr::transformers),
];

/// The families in words, for messages.
pub(crate) const KNOWN: &str = "ResNet, MobileNetV2, MobileNetV3, EfficientNet, ViT, FastViT (timm), ViT, DeiT, ResNet, DETR (transformers)";

/// Whether a `config.json` is a vision model's.
pub fn is_vision(config: &Metadata) -> bool {
    let kind = config.str("model_type");
    config.str("architecture").is_some() || TRANSFORMERS.iter().any(|(known, _)| Some(*known) == kind)
}

/// Builds the model that `config.json` describes; `preprocessor` is `preprocessor_config.json`, where there is one.
pub fn build(
    config: &Metadata,
    preprocessor: Option<&Metadata>,
    source: &dyn WeightSource,
) -> Result<Vision, ModelError> {
    let given = Given::of(config, preprocessor)?;
    let build = if given.timm {
        TIMM.iter().find(|(fits, _)| fits(given.name)).map(|(_, build)| build)
    } else {
        let kind = config.str("model_type");
        TRANSFORMERS.iter().find(|(known, _)| Some(*known) == kind).map(|(_, build)| build)
    };
    let unknown = || ModelError::UnknownArch(crate::config::keys::shorten(given.name));
    let mut net = Net::new(source);
    build.ok_or_else(unknown)?(&mut net, &given)?;
    given.all_understood()?;
    let (graph, outputs) = net.finish()?;
    Ok(Vision {
        graph,
        outputs,
        recipe: given.recipe,
        classes: config::classes(config),
        name: given.name.into(),
        library: if given.timm { "timm" } else { "transformers" },
    })
}

/// The path of a module's part.
fn parts(at: &str, part: &str) -> String {
    format!("{at}.{part}")
}

/// The last product as `logits`; the features themselves, as `features`, of a model without one.
fn classifier(net: &mut Net<'_>, at: &str, features: ValueId) -> Result<(), ModelError> {
    if !net.has_module(at) {
        return net.output("features", features);
    }
    let logits = net.linear(at, features)?;
    net.output("logits", logits)
}
