//! Inputs and outputs of a model as its users see them, and words about it.

use std::collections::BTreeMap;

use super::proto;

/// Inputs, outputs, states and words about a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// What each run brings.
    pub inputs: Vec<Feature>,
    /// What each run leaves.
    pub outputs: Vec<Feature>,
    /// What stays from run to run.
    pub states: Vec<Feature>,
    /// The output that holds the most probable class.
    pub predicted: Option<String>,
    /// The output that holds the probability of each class.
    pub probabilities: Option<String>,
    /// Names of the classes.
    pub classes: Option<Classes>,
    /// What it is for.
    pub summary: String,
    /// Who made it.
    pub author: String,
    /// Under which licence.
    pub license: String,
    /// Anything else its makers noted.
    pub notes: BTreeMap<String, String>,
}

/// One input, output or state.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub summary: String,
    /// Its type.
    pub kind: FeatureKind,
    /// Whether a run may leave it out.
    pub optional: bool,
}

/// The type of a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureKind {
    /// A picture; sizes of zero are open.
    Image {
        /// Columns.
        width: u64,
        /// Rows.
        height: u64,
        /// Channels.
        colour: Colour,
    },
    /// Numbers in a shape.
    Array {
        /// Sizes, outermost first; empty when the file does not say.
        shape: Vec<Size>,
        /// Element type by its Core ML name.
        dtype: &'static str,
    },
    /// A whole number.
    Int64,
    /// A number.
    Double,
    /// A text.
    Text,
    /// A number for each class.
    Dictionary,
    /// Anything else.
    Other,
}

/// Channels of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// One.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// A size of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Always this.
    Fixed(u64),
    /// This unless the caller wants another, within the bounds (none: without an upper bound).
    Range {
        /// What is usual.
        usual: u64,
        /// The least.
        low: u64,
        /// The most.
        high: Option<u64>,
    },
}

/// Names of classes, in the order of the probabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The names.
    pub names: Vec<String>,
    /// The layer output that holds the probabilities, when the file says.
    pub layer: Option<String>,
}

impl Interface {
    /// The interface of the function `chosen`, else of the default one.
    pub(super) fn of(description: &proto::Description, chosen: Option<&str>) -> Self {
        let named = |name: &str| description.functions.iter().find(|f| f.name == name);
        let usual = || named(&description.default_function).or(description.functions.first());
        let function = match chosen {
            Some(name) => named(name),
            None => usual().filter(|_| description.inputs.is_empty()),
        };
        let metadata = description.metadata.clone().unwrap_or_default();
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let features = |own: &[proto::Feature], of: fn(&proto::FunctionDescription) -> &[proto::Feature]| {
            function.map_or(own, of).iter().map(Feature::of).collect()
        };
        Self {
            inputs: features(&description.inputs, |f| &f.inputs),
            outputs: features(&description.outputs, |f| &f.outputs),
            states: features(&description.states, |f| &f.states),
            predicted: named(function.map_or(&description.predicted, |f| &f.predicted)),
            probabilities: named(function.map_or(&description.probabilities, |f| &f.probabilities)),
            classes: None,
            summary: metadata.summary,
            author: metadata.author,
            license: metadata.license,
            notes: metadata.user,
        }
    }
}

impl Feature {
    fn of(feature: &proto::Feature) -> Self {
        let ty = feature.ty.clone().unwrap_or_default();
        let kind = match ty.kind {
            Some(proto::FeatureKind::Image(image)) => FeatureKind::Image {
                width: image.width.max(0) as u64,
                height: image.height.max(0) as u64,
                colour: match image.colour {
                    10 | 40 => Colour::Grey,
                    30 => Colour::Bgr,
                    _ => Colour::Rgb,
                },
            },
            Some(proto::FeatureKind::Array(array)) => FeatureKind::array(&array),
            Some(proto::FeatureKind::State(state)) => FeatureKind::array(&state.array.unwrap_or_default()),
            Some(proto::FeatureKind::Int64(_)) => FeatureKind::Int64,
            Some(proto::FeatureKind::Double(_)) => FeatureKind::Double,
            Some(proto::FeatureKind::Text(_)) => FeatureKind::Text,
            Some(proto::FeatureKind::Dictionary(_)) => FeatureKind::Dictionary,
            Some(proto::FeatureKind::Sequence(_)) | None => FeatureKind::Other,
        };
        let (name, summary) = (feature.name.clone(), feature.summary.clone());
        Self { name, summary, kind, optional: ty.optional }
    }
}

impl FeatureKind {
    fn array(array: &proto::ArrayType) -> Self {
        let usual = |axis: usize| array.shape.get(axis).map_or(0, |n| (*n).max(0) as u64);
        let choices = |axis: usize| {
            let shapes = array.enumerated.iter().flat_map(|shapes| &shapes.shapes);
            shapes.filter_map(move |shape| shape.shape.get(axis)).map(|n| (*n).max(0) as u64)
        };
        let size = |axis: usize| {
            let given = array.range.as_ref().and_then(|r| r.ranges.get(axis));
            let (low, high) = match given {
                Some(range) => (range.low, u64::try_from(range.high).ok()),
                None => (
                    choices(axis).min().unwrap_or(usual(axis)),
                    Some(choices(axis).max().unwrap_or(usual(axis))),
                ),
            };
            let fixed = high == Some(low);
            if fixed { Size::Fixed(low) } else { Size::Range { usual: usual(axis), low, high } }
        };
        let ranges = array.range.as_ref().map_or(0, |r| r.ranges.len());
        let dtype = match array.dtype {
            65568 => "Float32",
            65600 => "Double",
            65552 => "Float16",
            131_104 => "Int32",
            131_080 => "Int8",
            _ => "unknown",
        };
        Self::Array { shape: (0..array.shape.len().max(ranges)).map(size).collect(), dtype }
    }
}

impl Classes {
    pub(super) fn of(network: &proto::Network) -> Option<Self> {
        let texts = network.text_labels.as_ref().map(|labels| labels.values.clone());
        let numbers = network.int_labels.as_ref();
        let names = texts.or_else(|| numbers.map(|n| n.values.iter().map(i64::to_string).collect()))?;
        let layer = Some(network.probabilities_layer.clone()).filter(|name| !name.is_empty());
        Some(Self { names, layer })
    }
}
