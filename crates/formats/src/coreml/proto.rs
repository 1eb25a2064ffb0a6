//! The messages of the Core ML format that Kinglet reads and writes: model, interface, ML Program.
//!
//! Field numbers are those of `Model.proto`, `FeatureTypes.proto` and `MIL.proto`. Bytes are shared with the file. A message
//! that would only be passed on is kept as bytes. Absent fields are skipped when read.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use prost::{Message, Oneof};

/// A model file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int32, tag = "1")]
    pub(super) version: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) description: Option<Description>,
    #[prost(oneof = "Kind", tags = "200, 201, 202, 303, 403, 500, 502")]
    pub(super) kind: Option<Kind>,
}

/// What a model is made of.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "200")]
    PipelineClassifier(Wrapped),
    #[prost(message, tag = "201")]
    PipelineRegressor(Wrapped),
    #[prost(message, tag = "202")]
    Pipeline(Pipeline),
    #[prost(message, tag = "303")]
    Regressor(Network),
    #[prost(message, tag = "403")]
    Classifier(Network),
    #[prost(message, tag = "500")]
    Network(Network),
    #[prost(message, tag = "502")]
    Program(Program),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Wrapped {
    #[prost(message, optional, tag = "1")]
    pub(super) pipeline: Option<Pipeline>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pipeline {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) models: Vec<Bytes>,
    #[prost(string, repeated, tag = "2")]
    pub(super) names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Description {
    #[prost(message, optional, tag = "100")]
    pub(super) metadata: Option<Metadata>,
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<Feature>,
    #[prost(message, repeated, tag = "10")]
    pub(super) outputs: Vec<Feature>,
    #[prost(message, repeated, tag = "13")]
    pub(super) states: Vec<Feature>,
    #[prost(string, tag = "11")]
    pub(super) predicted: String,
    #[prost(string, tag = "12")]
    pub(super) probabilities: String,
    #[prost(message, repeated, tag = "20")]
    pub(super) functions: Vec<FunctionDescription>,
    #[prost(string, tag = "21")]
    pub(super) default_function: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FunctionDescription {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) inputs: Vec<Feature>,
    #[prost(message, repeated, tag = "3")]
    pub(super) outputs: Vec<Feature>,
    #[prost(message, repeated, tag = "6")]
    pub(super) states: Vec<Feature>,
    #[prost(string, tag = "4")]
    pub(super) predicted: String,
    #[prost(string, tag = "5")]
    pub(super) probabilities: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "1")]
    pub(super) summary: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, tag = "3")]
    pub(super) author: String,
    #[prost(string, tag = "4")]
    pub(super) license: String,
    #[prost(btree_map = "string, string", tag = "100")]
    pub(super) user: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Feature {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) summary: String,
    #[prost(message, optional, tag = "3")]
    pub(super) ty: Option<FeatureType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FeatureType {
    #[prost(oneof = "FeatureKind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub(super) kind: Option<FeatureKind>,
    #[prost(bool, tag = "1000")]
    pub(super) optional: bool,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum FeatureKind {
    #[prost(message, tag = "1")]
    Int64(Empty),
    #[prost(message, tag = "2")]
    Double(Empty),
    #[prost(message, tag = "3")]
    Text(Empty),
    #[prost(message, tag = "4")]
    Image(ImageType),
    #[prost(message, tag = "5")]
    Array(ArrayType),
    #[prost(message, tag = "6")]
    Dictionary(DictionaryFeature),
    #[prost(message, tag = "7")]
    Sequence(Empty),
    #[prost(message, tag = "8")]
    State(StateFeature),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Empty {}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ImageType {
    #[prost(int64, tag = "1")]
    pub(super) width: i64,
    #[prost(int64, tag = "2")]
    pub(super) height: i64,
    #[prost(int32, tag = "3")]
    pub(super) colour: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ArrayType {
    #[prost(int64, repeated, tag = "1")]
    pub(super) shape: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) dtype: i32,
    #[prost(message, optional, tag = "21")]
    pub(super) enumerated: Option<Shapes>,
    #[prost(message, optional, tag = "31")]
    pub(super) range: Option<Ranges>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shapes {
    #[prost(message, repeated, tag = "1")]
    pub(super) shapes: Vec<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(int64, repeated, tag = "1")]
    pub(super) shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ranges {
    #[prost(message, repeated, tag = "1")]
    pub(super) ranges: Vec<Range>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Range {
    #[prost(uint64, tag = "1")]
    pub(super) low: u64,
    #[prost(int64, tag = "2")]
    pub(super) high: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DictionaryFeature {
    #[prost(message, optional, tag = "1")]
    pub(super) int64: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StateFeature {
    #[prost(message, optional, tag = "1")]
    pub(super) array: Option<ArrayType>,
}

/// A neural network; its layers stay bytes until `network.rs` reads them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Network {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) layers: Vec<Bytes>,
    #[prost(message, repeated, tag = "2")]
    pub(super) preprocessing: Vec<Preprocessing>,
    #[prost(int32, tag = "5")]
    pub(super) array_mapping: i32,
    #[prost(int32, tag = "6")]
    pub(super) image_mapping: i32,
    #[prost(message, optional, tag = "100")]
    pub(super) text_labels: Option<Texts>,
    #[prost(message, optional, tag = "101")]
    pub(super) int_labels: Option<LongInts>,
    #[prost(string, tag = "200")]
    pub(super) probabilities_layer: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Preprocessing {
    #[prost(string, tag = "1")]
    pub(super) feature: String,
    #[prost(message, optional, tag = "10")]
    pub(super) scaler: Option<Scaler>,
    #[prost(message, optional, tag = "11")]
    pub(super) mean: Option<Floats>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Scaler {
    #[prost(float, tag = "10")]
    pub(super) scale: f32,
    #[prost(float, tag = "20")]
    pub(super) blue: f32,
    #[prost(float, tag = "21")]
    pub(super) green: f32,
    #[prost(float, tag = "22")]
    pub(super) red: f32,
    #[prost(float, tag = "30")]
    pub(super) grey: f32,
}

/// An ML Program.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Program {
    #[prost(int64, tag = "1")]
    pub(super) version: i64,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) functions: BTreeMap<String, Function>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Function {
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<NamedType>,
    #[prost(string, tag = "2")]
    pub(super) opset: String,
    #[prost(btree_map = "string, message", tag = "3")]
    pub(super) blocks: BTreeMap<String, Block>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Block {
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<NamedType>,
    #[prost(string, repeated, tag = "2")]
    pub(super) outputs: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) operations: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) inputs: BTreeMap<String, Argument>,
    #[prost(message, repeated, tag = "3")]
    pub(super) outputs: Vec<NamedType>,
    #[prost(message, repeated, tag = "4")]
    pub(super) blocks: Vec<Block>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) attributes: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Argument {
    #[prost(message, repeated, tag = "1")]
    pub(super) bindings: Vec<Binding>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Binding {
    #[prost(oneof = "Bound", tags = "1, 2")]
    pub(super) bound: Option<Bound>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Bound {
    #[prost(string, tag = "1")]
    Name(String),
    #[prost(message, tag = "2")]
    Value(Value),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedType {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) ty: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueType {
    #[prost(oneof = "TypeKind", tags = "1, 2, 3, 4, 5")]
    pub(super) kind: Option<TypeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum TypeKind {
    #[prost(message, tag = "1")]
    Tensor(TensorType),
    #[prost(message, boxed, tag = "2")]
    List(Box<ListType>),
    #[prost(message, tag = "3")]
    Tuple(Empty),
    #[prost(message, tag = "4")]
    Dictionary(Empty),
    #[prost(message, boxed, tag = "5")]
    State(Box<StateType>),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) dtype: i32,
    #[prost(int64, tag = "2")]
    pub(super) rank: i64,
    #[prost(message, repeated, tag = "3")]
    pub(super) dimensions: Vec<Dimension>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(message, optional, tag = "1")]
    pub(super) constant: Option<Constant>,
    #[prost(message, optional, tag = "2")]
    pub(super) unknown: Option<Unknown>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Unknown {
    #[prost(bool, tag = "1")]
    pub(super) variadic: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Constant {
    #[prost(uint64, tag = "1")]
    pub(super) size: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListType {
    #[prost(message, optional, boxed, tag = "1")]
    pub(super) item: Option<Box<ValueType>>,
    #[prost(message, optional, tag = "2")]
    pub(super) length: Option<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StateType {
    #[prost(message, optional, boxed, tag = "1")]
    pub(super) wrapped: Option<Box<ValueType>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(message, optional, tag = "2")]
    pub(super) ty: Option<ValueType>,
    #[prost(message, optional, tag = "3")]
    pub(super) immediate: Option<Immediate>,
    #[prost(message, optional, tag = "5")]
    pub(super) blob: Option<BlobValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Immediate {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorValue>,
    #[prost(message, optional, tag = "2")]
    pub(super) tuple: Option<Values>,
    #[prost(message, optional, tag = "3")]
    pub(super) list: Option<Values>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Values {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobValue {
    #[prost(string, tag = "1")]
    pub(super) file: String,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorValue {
    #[prost(oneof = "Elements", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) elements: Option<Elements>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Elements {
    #[prost(message, tag = "1")]
    Floats(Floats),
    #[prost(message, tag = "2")]
    Ints(Ints),
    #[prost(message, tag = "3")]
    Bools(Bools),
    #[prost(message, tag = "4")]
    Texts(Texts),
    #[prost(message, tag = "5")]
    LongInts(LongInts),
    #[prost(message, tag = "6")]
    Doubles(Doubles),
    #[prost(message, tag = "7")]
    Bytes(RawBytes),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Floats {
    #[prost(float, repeated, tag = "1")]
    pub(super) values: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Doubles {
    #[prost(double, repeated, tag = "1")]
    pub(super) values: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ints {
    #[prost(int32, repeated, tag = "1")]
    pub(super) values: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LongInts {
    #[prost(int64, repeated, tag = "1")]
    pub(super) values: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bools {
    #[prost(bool, repeated, tag = "1")]
    pub(super) values: Vec<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RawBytes {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) values: Bytes,
}
