//! An operator that Kinglet does not know, registered from outside: `cargo run -p kinglet --example custom_op`.
//!
//! The model has one node, `com.example.Triple`, which multiplies by its attribute `factor` (3 unless given).
#![forbid(unsafe_code)]

use std::sync::Arc;

use kinglet::LoadOptions;
use kinglet::formats::onnx::proto::{
    Attribute, Graph, Model, Node, OperatorSet, TensorType, Type, TypeValue, ValueInfo,
};
use kinglet::formats::onnx::{CustomOps, prost::Message};
use kinglet::graph::ops::CustomOp;
use kinglet::graph::{Args, Type as ValueType};
use kinglet::graphs::{GraphFiles, GraphModel};
use kinglet::tensor::{DType, Tensor};

/// `y = factor * x` in f32.
#[derive(Debug)]
struct Times {
    factor: f32,
}

impl CustomOp for Times {
    fn name(&self) -> &'static str {
        "Times"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<ValueType>, String> {
        let [x] = args.tensors::<1>()?;
        if x.dtype != DType::F32 {
            Err(format!("takes F32, got {}", x.dtype))
        } else {
            Ok(vec![x.clone().into()])
        }
    }

    fn compute(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, String> {
        let [Some(x)] = inputs else { return Err("takes one input".into()) };
        let times = |b: &[u8; 4]| (f32::from_le_bytes(*b) * self.factor).to_le_bytes();
        let bytes: Vec<u8> = x.data().as_chunks().0.iter().flat_map(times).collect();
        Tensor::new("", DType::F32, x.shape().to_vec(), bytes.into())
            .map(|y| vec![y])
            .map_err(|e| e.to_string())
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("kinglet-custom-op-{}.onnx", std::process::id()));
    std::fs::write(&path, model())?;
    let ops = CustomOps::new().with("com.example", "Triple", |node| {
        Ok(Arc::new(Times { factor: node.float("factor").unwrap_or(3.0) }))
    });
    let files = GraphFiles::open_with(&path, &ops);
    std::fs::remove_file(&path)?;
    let mut model = GraphModel::new(files?, &LoadOptions::default())?;
    let x = [1.0f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let y = model.run(&[Tensor::new("x", DType::F32, vec![3], x.into())?])?;
    let y = kinglet::graphs::floats(&y[0]).ok_or("no numbers")?;
    println!("{:?}", y.data);
    assert_eq!(y.data, [6.0, 12.0, 18.0]);
    Ok(())
}

/// `y = Triple(Triple(x))`, the second with a factor of 2, as an ONNX file.
fn model() -> Vec<u8> {
    let node = |from: &str, to: &str, attribute: Vec<Attribute>| Node {
        input: vec![from.into()],
        output: vec![to.into()],
        op_type: "Triple".into(),
        domain: "com.example".into(),
        attribute,
        ..Node::default()
    };
    let factor = Attribute { name: "factor".into(), f: Some(2.0), ..Attribute::default() };
    let float = Type { value: Some(TypeValue::Tensor(TensorType { elem_type: 1, shape: None })) };
    let graph = Graph {
        node: vec![node("x", "middle", vec![]), node("middle", "y", vec![factor])],
        input: vec![ValueInfo { name: "x".into(), r#type: Some(float) }],
        output: vec![ValueInfo { name: "y".into(), r#type: None }],
        ..Graph::default()
    };
    let set = |domain: &str, version| OperatorSet { domain: domain.into(), version };
    let model = Model {
        ir_version: 10,
        opset_import: vec![set("", 21), set("com.example", 1)],
        graph: Some(graph),
        ..Model::default()
    };
    model.encode_to_vec()
}
