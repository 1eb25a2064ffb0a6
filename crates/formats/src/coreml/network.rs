//! Neural networks: layers with their parameters by field number.

use kinglet_tensor::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{CoreMlError, Weights, proto};
use crate::error::printable;

/// Most layers of a network.
const MAX_LAYERS: usize = 1 << 18;
/// Networks within layers within networks.
const MAX_DEPTH: usize = 16;

/// A neural network.
#[derive(Clone, Debug)]
pub struct Network {
    /// In running order.
    pub layers: Vec<Layer>,
    /// What is done to picture inputs first.
    pub scalers: Vec<Scaler>,
    /// Whether arrays keep their rank (`EXACT_ARRAY_MAPPING`) instead of becoming `[sequence, batch, C, H, W]`.
    pub exact_arrays: bool,
    /// Whether pictures are `[1, C, H, W]` instead of `[1, 1, C, H, W]`.
    pub exact_images: bool,
}

/// A layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// What it does, by the name of its field in `NeuralNetwork.proto`.
    pub kind: &'static str,
    /// Names of what it reads.
    pub inputs: Vec<String>,
    /// Names of what it makes.
    pub outputs: Vec<String>,
    /// Its parameters.
    pub params: Fields,
    /// Layers of networks inside it: both sides of a branch; the condition and the body of a loop.
    pub bodies: Vec<Vec<Layer>>,
}

/// `value * scale + bias` for each channel of a picture input.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// The input; empty for the only one.
    pub feature: String,
    /// Factor of every channel.
    pub scale: f32,
    /// Bias of red, green and blue, in this order.
    pub bias: [f32; 3],
    /// Bias of a grey picture.
    pub grey: f32,
    /// Subtracted from each place and channel first, when not empty.
    pub mean: Vec<f32>,
}

pub(super) fn read(network: proto::Network) -> Result<Network, CoreMlError> {
    if network.layers.len() > MAX_LAYERS {
        return Err(CoreMlError::value("network", format!("it has more than {MAX_LAYERS} layers")));
    }
    Ok(Network {
        layers: layers(network.layers, 0)?,
        scalers: network.preprocessing.into_iter().map(Scaler::of).collect(),
        exact_arrays: network.array_mapping == 1,
        exact_images: network.image_mapping == 1,
    })
}

/// Reads layers that stand in `depth` others.
fn layers(layers: Vec<Bytes>, depth: usize) -> Result<Vec<Layer>, CoreMlError> {
    if depth > MAX_DEPTH {
        return Err(CoreMlError::Nested(MAX_DEPTH));
    }
    layers.into_iter().enumerate().map(|(at, bytes)| Layer::read(at, bytes, depth)).collect()
}

impl Scaler {
    fn of(given: proto::Preprocessing) -> Self {
        let scaler = given.scaler.unwrap_or(proto::Scaler { scale: 1.0, ..Default::default() });
        Self {
            feature: given.feature,
            scale: scaler.scale,
            bias: [scaler.red, scaler.green, scaler.blue],
            grey: scaler.grey,
            mean: given.mean.map(|mean| mean.values).unwrap_or_default(),
        }
    }
}

impl Layer {
    fn read(at: usize, bytes: Bytes, depth: usize) -> Result<Self, CoreMlError> {
        let fields = Fields::parse(&format!("layer {at}"), bytes)?;
        let name = fields.texts(1).pop().unwrap_or_else(|| format!("layer {at}"));
        let known = LAYERS.iter().find_map(|(tag, kind)| Some((*tag, *kind, fields.find(*tag)?)));
        let Some((_, kind, Field::Bytes(params))) = known else {
            let why = "no known layer is in it; the file is damaged, or needs a newer version of Kinglet";
            return Err(CoreMlError::Layer {
                layer: printable(&name),
                kind: "unknown".into(),
                why: why.into(),
            });
        };
        let params = Fields::parse(&name, params.clone())?;
        let tags: &[u32] = match kind {
            "branch" => &[1, 2],
            "loop" => &[3, 4],
            _ => &[],
        };
        let bodies = tags.iter().map(|tag| body(&name, &params, *tag, depth)).collect::<Result<_, _>>()?;
        Ok(Self { name, kind, inputs: fields.texts(2), outputs: fields.texts(3), params, bodies })
    }

    /// An error about this layer.
    pub fn fails(&self, why: impl Into<String>) -> CoreMlError {
        CoreMlError::Layer { layer: printable(&self.name), kind: self.kind.into(), why: why.into() }
    }

    /// The class of a custom layer.
    pub fn class(&self) -> String {
        self.params.texts(10).pop().unwrap_or_default()
    }

    /// The weights in field `tag`, when there are any.
    pub fn weights(&self, tag: u32) -> Result<Option<Weights>, CoreMlError> {
        self.params.message(tag)?.map(|fields| Weights::of(&self.name, &fields)).transpose()
    }
}

/// The layers of the network in field `tag`; none when it is not there.
fn body(layer: &str, params: &Fields, tag: u32, depth: usize) -> Result<Vec<Layer>, CoreMlError> {
    let Some(bytes) = params.bytes(tag) else { return Ok(Vec::new()) };
    let network = proto::Network::decode(bytes.clone()).map_err(|e| CoreMlError::protobuf(layer, &e))?;
    layers(network.layers, depth + 1)
}

/// A message whose fields are read by number.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(u32, Field)>);

/// One field.
#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Float(f32),
    Double(f64),
    Bytes(Bytes),
}

impl Field {
    fn text(&self) -> Option<String> {
        let Self::Bytes(bytes) = self else { return None };
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl Fields {
    /// Splits a message into its fields; `what` names it in errors.
    pub(super) fn parse(what: &str, bytes: Bytes) -> Result<Self, CoreMlError> {
        let mut rest = &bytes[..];
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let read = field(&bytes, &mut rest).map_err(|e| CoreMlError::protobuf(what, &e))?;
            fields.extend(read);
        }
        Ok(Self(fields))
    }

    fn all(&self, tag: u32) -> impl Iterator<Item = &Field> {
        self.0.iter().filter(move |(number, _)| *number == tag).map(|(_, field)| field)
    }

    /// The last field of this number: protobuf's rule for fields that occur once.
    fn find(&self, tag: u32) -> Option<&Field> {
        self.0.iter().rev().find(|(number, _)| *number == tag).map(|(_, field)| field)
    }

    /// Whether the field is there.
    pub fn has(&self, tag: u32) -> bool {
        self.find(tag).is_some()
    }

    /// Numbers of the fields that are there.
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(tag, _)| *tag)
    }

    /// A whole number; 0 when absent.
    pub fn int(&self, tag: u32) -> i64 {
        if let Some(Field::Number(n)) = self.find(tag) { *n as i64 } else { 0 }
    }

    /// A truth value; false when absent.
    pub fn bool(&self, tag: u32) -> bool {
        self.int(tag) != 0
    }

    /// A number; 0 when absent.
    pub fn float(&self, tag: u32) -> f32 {
        if let Some(Field::Float(x)) = self.find(tag) { *x } else { 0.0 }
    }

    /// A list of whole numbers.
    pub fn ints(&self, tag: u32) -> Vec<i64> {
        let mut list = Vec::new();
        for field in self.all(tag) {
            match field {
                Field::Number(n) => list.push(*n as i64),
                Field::Float(_) | Field::Double(_) => {}
                Field::Bytes(packed) => {
                    let mut rest = &packed[..];
                    while let Ok(n) = decode_varint(&mut rest) {
                        list.push(n as i64);
                    }
                }
            }
        }
        list
    }

    /// A list of numbers.
    pub fn floats(&self, tag: u32) -> Vec<f32> {
        let mut list = Vec::new();
        for field in self.all(tag) {
            match field {
                Field::Number(_) | Field::Double(_) => {}
                Field::Float(x) => list.push(*x),
                Field::Bytes(packed) => {
                    list.extend(packed.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                }
            }
        }
        list
    }

    /// A number of double precision; 0 when absent.
    pub fn double(&self, tag: u32) -> f64 {
        if let Some(Field::Double(x)) = self.find(tag) { *x } else { 0.0 }
    }

    /// A list of numbers of double precision.
    pub fn doubles(&self, tag: u32) -> Vec<f64> {
        let mut list = Vec::new();
        for field in self.all(tag) {
            match field {
                Field::Double(x) => list.push(*x),
                Field::Bytes(packed) => {
                    list.extend(packed.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)));
                }
                Field::Number(_) | Field::Float(_) => {}
            }
        }
        list
    }

    /// A list of texts.
    pub fn texts(&self, tag: u32) -> Vec<String> {
        self.all(tag).filter_map(Field::text).collect()
    }

    /// Raw bytes.
    pub fn bytes(&self, tag: u32) -> Option<&Bytes> {
        if let Some(Field::Bytes(bytes)) = self.find(tag) { Some(bytes) } else { None }
    }

    /// A message.
    pub fn message(&self, tag: u32) -> Result<Option<Self>, CoreMlError> {
        self.bytes(tag).map(|bytes| Self::parse("layer", bytes.clone())).transpose()
    }

    /// A list of messages.
    pub fn messages(&self, tag: u32) -> Result<Vec<Self>, CoreMlError> {
        let one = |field: &Field| match field {
            Field::Bytes(bytes) => Self::parse("layer", bytes.clone()),
            _ => Ok(Self::default()),
        };
        self.all(tag).map(one).collect()
    }
}

/// The field that `rest`, the end of `whole`, begins with; none for types that no layer uses.
fn field(whole: &Bytes, rest: &mut &[u8]) -> Result<Option<(u32, Field)>, prost::DecodeError> {
    let (tag, wire) = decode_key(rest)?;
    let before = *rest;
    let field = match wire {
        WireType::Varint => Field::Number(decode_varint(rest)?),
        WireType::ThirtyTwoBit => {
            skip_field(wire, tag, rest, DecodeContext::default())?;
            Field::Float(f32::from_le_bytes([before[0], before[1], before[2], before[3]]))
        }
        WireType::SixtyFourBit => {
            skip_field(wire, tag, rest, DecodeContext::default())?;
            Field::Double(f64::from_le_bytes(before[..8].try_into().unwrap_or_default()))
        }
        WireType::LengthDelimited => {
            skip_field(wire, tag, rest, DecodeContext::default())?;
            let mut content = before;
            decode_varint(&mut content)?;
            let (end, len) = (whole.len() - rest.len(), content.len() - rest.len());
            Field::Bytes(whole.slice(end - len..end))
        }
        _ => {
            skip_field(wire, tag, rest, DecodeContext::default())?;
            return Ok(None);
        }
    };
    Ok(Some((tag, field)))
}

/// Layer kinds by their field in `NeuralNetworkLayer`.
#[rustfmt::skip]
const LAYERS: [(u32, &str); 158] = [
    (100, "convolution"), (120, "pooling"), (130, "activation"), (140, "innerProduct"), (150, "embedding"),
    (160, "batchnorm"), (165, "mvn"), (170, "l2normalize"), (175, "softmax"), (180, "lrn"), (190, "crop"),
    (200, "padding"), (210, "upsample"), (211, "resizeBilinear"), (212, "cropResize"), (220, "unary"), (230, "add"),
    (231, "multiply"), (240, "average"), (245, "scale"), (250, "bias"), (260, "max"), (261, "min"), (270, "dot"),
    (280, "reduce"), (290, "loadConstant"), (300, "reshape"), (301, "flatten"), (310, "permute"), (320, "concat"),
    (330, "split"), (340, "sequenceRepeat"), (345, "reorganizeData"), (350, "slice"), (400, "simpleRecurrent"),
    (410, "gru"), (420, "uniDirectionalLSTM"), (430, "biDirectionalLSTM"), (500, "custom"), (600, "copy"),
    (605, "branch"), (615, "loop"), (620, "loopBreak"), (625, "loopContinue"), (635, "rangeStatic"),
    (640, "rangeDynamic"), (660, "clip"), (665, "ceil"), (670, "floor"), (680, "sign"), (685, "round"), (700, "exp2"),
    (710, "sin"), (715, "cos"), (720, "tan"), (730, "asin"), (735, "acos"), (740, "atan"), (750, "sinh"),
    (755, "cosh"), (760, "tanh"), (770, "asinh"), (775, "acosh"), (780, "atanh"), (790, "erf"), (795, "gelu"),
    (815, "equal"), (820, "notEqual"), (825, "lessThan"), (827, "lessEqual"), (830, "greaterThan"),
    (832, "greaterEqual"), (840, "logicalOr"), (845, "logicalXor"), (850, "logicalNot"), (855, "logicalAnd"),
    (865, "modBroadcastable"), (870, "minBroadcastable"), (875, "maxBroadcastable"), (880, "addBroadcastable"),
    (885, "powBroadcastable"), (890, "divideBroadcastable"), (895, "floorDivBroadcastable"),
    (900, "multiplyBroadcastable"), (905, "subtractBroadcastable"), (920, "tile"), (925, "stack"), (930, "gather"),
    (935, "scatter"), (940, "gatherND"), (945, "scatterND"), (950, "softmaxND"), (952, "gatherAlongAxis"),
    (954, "scatterAlongAxis"), (960, "reverse"), (965, "reverseSeq"), (975, "splitND"), (980, "concatND"),
    (985, "transpose"), (995, "sliceStatic"), (1000, "sliceDynamic"), (1005, "slidingWindows"), (1015, "topK"),
    (1020, "argMin"), (1025, "argMax"), (1040, "embeddingND"), (1045, "batchedMatmul"), (1065, "getShape"),
    (1070, "loadConstantND"), (1080, "fillLike"), (1085, "fillStatic"), (1090, "fillDynamic"),
    (1100, "broadcastToLike"), (1105, "broadcastToStatic"), (1110, "broadcastToDynamic"), (1120, "squeeze"),
    (1125, "expandDims"), (1130, "flattenTo2D"), (1135, "reshapeLike"), (1140, "reshapeStatic"),
    (1145, "reshapeDynamic"), (1150, "rankPreservingReshape"), (1155, "constantPad"), (1170, "randomNormalLike"),
    (1175, "randomNormalStatic"), (1180, "randomNormalDynamic"), (1190, "randomUniformLike"),
    (1195, "randomUniformStatic"), (1200, "randomUniformDynamic"), (1210, "randomBernoulliLike"),
    (1215, "randomBernoulliStatic"), (1220, "randomBernoulliDynamic"), (1230, "categoricalDistribution"),
    (1250, "reduceL1"), (1255, "reduceL2"), (1260, "reduceMax"), (1265, "reduceMin"), (1270, "reduceSum"),
    (1275, "reduceProd"), (1280, "reduceMean"), (1285, "reduceLogSum"), (1290, "reduceSumSquare"),
    (1295, "reduceLogSumExp"), (1313, "whereNonZero"), (1315, "matrixBandPart"), (1320, "lowerTriangular"),
    (1325, "upperTriangular"), (1330, "whereBroadcastable"), (1350, "layerNormalization"),
    (1400, "NonMaximumSuppression"), (1450, "oneHot"), (1455, "cumSum"), (1460, "clampedReLU"), (1461, "argSort"),
    (1465, "pooling3d"), (1466, "globalPooling3d"), (1470, "sliceBySize"), (1471, "convolution3d"),
];
