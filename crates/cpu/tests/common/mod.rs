//! Small graphs through the fast kernels, fused and not, against the plain kernels, which compute in f64.
#![allow(dead_code, reason = "each test file uses some of it")]

use kinglet_cpu::{CpuBackend, Feed, Session, SessionOptions, TensorView};
use kinglet_graph::ops::{Conv, Pads, Window};
use kinglet_graph::{Graph, GraphBuilder, Op, TensorType, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};

/// A graph under construction.
pub(crate) struct Net {
    pub(crate) builder: GraphBuilder,
    pub(crate) count: usize,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self { builder: GraphBuilder::new(), count: 0 }
    }

    pub(crate) fn input(&mut self, shape: &[usize]) -> ValueId {
        self.count += 1;
        let name = format!("in{}", self.count);
        self.builder.input(&name, TensorType::fixed(DType::F32, shape)).expect("new")
    }

    pub(crate) fn weight(&mut self, shape: &[usize], scale: f32) -> ValueId {
        self.count += 1;
        let values = random(self.count as u64, shape.iter().product());
        let bytes: Vec<u8> = values.iter().flat_map(|x| (x * scale).to_le_bytes()).collect();
        let name = format!("w{}", self.count);
        let tensor = Tensor::new(name, DType::F32, shape.to_vec(), Bytes::from(bytes)).expect("whole");
        self.builder.weight(tensor).expect("new")
    }

    pub(crate) fn constant(&mut self, x: f32) -> ValueId {
        self.count += 1;
        let bytes = Bytes::copy_from_slice(&x.to_le_bytes());
        let tensor = Tensor::new(format!("c{}", self.count), DType::F32, vec![], bytes).expect("whole");
        self.builder.weight(tensor).expect("new")
    }

    pub(crate) fn node(&mut self, op: impl Op, inputs: &[ValueId]) -> ValueId {
        self.count += 1;
        self.builder.node(&format!("n{}", self.count), op, inputs).expect("typed")
    }

    /// A convolution with a bias.
    pub(crate) fn conv(&mut self, x: ValueId, [ins, outs, kernel, stride, groups]: [usize; 5]) -> ValueId {
        let w = self.weight(&[outs, ins / groups, kernel, kernel], 0.3);
        let b = self.weight(&[outs], 1.0);
        let pad = (kernel / 2) as i64;
        let window = Window { strides: vec![stride; 2], dilations: vec![], pads: Pads::Given(vec![pad; 4]) };
        self.node(Conv { window, groups }, &[x, w, b])
    }

    pub(crate) fn finish(mut self, outputs: &[ValueId]) -> Graph {
        outputs.iter().for_each(|v| self.builder.output(*v));
        self.builder.finish()
    }
}

pub(crate) fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// What an input is fed: truth values where it takes them, floats between -1 and 1 elsewhere.
fn feed(graph: &Graph, id: ValueId) -> (DType, Vec<usize>, Vec<u8>) {
    let ty = graph.tensor_type(id).expect("a tensor");
    let shape = ty.dims().expect("fixed");
    let values = random(99 + id.index() as u64, shape.iter().product());
    let data = match ty.dtype {
        DType::Bool => values.iter().map(|x| u8::from(*x > -0.5)).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    (ty.dtype, shape, data)
}

/// Runs a graph; returns its outputs and the labels of its steps.
pub(crate) fn run(graph: &Graph, fuse: bool, interpret: bool) -> (Vec<Vec<f32>>, Vec<String>) {
    let options = SessionOptions { fuse, interpret, ..SessionOptions::new(CpuBackend::new(2)) };
    let mut session = Session::new(graph.clone(), &options).expect("a session");
    let feeds: Vec<(DType, Vec<usize>, Vec<u8>)> = graph.inputs().iter().map(|id| feed(graph, *id)).collect();
    let views: Vec<Feed<'_>> = feeds
        .iter()
        .map(|(dtype, shape, data)| Feed::Tensor(TensorView { dtype: *dtype, shape, data }))
        .collect();
    session.run(&views).expect("runs");
    session.run(&views).expect("runs again");
    let output = |i| match session.output(i).expect("an output") {
        Feed::Tensor(view) => {
            view.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        Feed::Value(value) => {
            let array = value.tensor().expect("a tensor");
            array.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
    };
    let outputs = (0..session.outputs()).map(output).collect();
    let steps = session.report().map_or_else(Vec::new, |r| r.steps.into_iter().map(|s| s.kernel).collect());
    (outputs, steps)
}

/// Fused and unfused give what the plain kernels give; fused runs these steps.
pub(crate) fn check(graph: &Graph, steps: &[&str]) {
    let (expected, _) = run(graph, false, true);
    for fuse in [false, true] {
        let (found, labels) = run(graph, fuse, false);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len());
            let top = expected.iter().fold(1.0f32, |top, x| top.max(x.abs()));
            for (i, (f, e)) in found.iter().zip(expected).enumerate() {
                assert!((f - e).abs() <= 1e-5 * top, "fuse {fuse}: {i} is {f}, not {e}; {labels:?}");
            }
        }
        if fuse {
            assert_eq!(labels, steps);
        }
    }
}
