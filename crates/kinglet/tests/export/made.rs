//! Graphs in the making, and what they compute.

use kinglet::graph::ops::int_tensor;
use kinglet::graph::{Graph, GraphBuilder, Op, TensorType, ValueId};
use kinglet::tensor::{Bytes, DType, Tensor};
use kinglet_cpu::{CpuBackend, Feed, Session, SessionOptions, TensorView, Value};

/// A graph in the making, with seeded constants.
pub(crate) struct Made {
    pub(crate) b: GraphBuilder,
    count: usize,
    state: u64,
}

impl Made {
    /// An empty graph.
    pub(crate) fn new() -> Self {
        Self { b: GraphBuilder::new(), count: 0, state: 7 }
    }

    /// A number between -1 and 1.
    pub(crate) fn random(&mut self) -> f32 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn name(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }

    /// An input of f32.
    pub(crate) fn input(&mut self, shape: &[usize]) -> ValueId {
        let name = self.name();
        self.b.input(&name, TensorType::fixed(DType::F32, shape)).expect("a new name")
    }

    /// A constant of f32.
    pub(crate) fn floats(&mut self, shape: &[usize], values: &[f32]) -> ValueId {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let name = self.name();
        let tensor = Tensor::new(name, DType::F32, shape.to_vec(), bytes.into()).expect("sizes agree");
        self.b.weight(tensor).expect("a new name")
    }

    /// A constant of random numbers.
    pub(crate) fn weight(&mut self, shape: &[usize]) -> ValueId {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.random()).collect();
        self.floats(shape, &values)
    }

    /// A constant of random positive numbers.
    pub(crate) fn positive(&mut self, shape: &[usize]) -> ValueId {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.random().abs() + 0.5).collect();
        self.floats(shape, &values)
    }

    /// A constant of integers.
    pub(crate) fn ints(&mut self, values: &[i64]) -> ValueId {
        let tensor = int_tensor(vec![values.len()], values).expect("small");
        let name = self.name();
        self.b.weight_as(&name, tensor).expect("a new name")
    }

    /// A node with one output.
    pub(crate) fn op(&mut self, op: impl Op, inputs: &[ValueId]) -> ValueId {
        let name = self.name();
        self.b.node(&name, op, inputs).expect("types agree")
    }

    /// The graph with these outputs.
    pub(crate) fn finish(mut self, outputs: &[ValueId]) -> Graph {
        outputs.iter().for_each(|id| self.b.output(*id));
        self.b.finish()
    }
}

/// Seeded values for the inputs of a graph.
pub(crate) fn feeds(graph: &Graph) -> Vec<Tensor> {
    let mut made = Made::new();
    let feed = |id: &ValueId| {
        let dims = graph.tensor_type(*id).and_then(TensorType::dims).expect("fixed");
        let bytes: Vec<u8> =
            (0..dims.iter().product::<usize>()).flat_map(|_| made.random().to_le_bytes()).collect();
        Tensor::new("", DType::F32, dims, bytes.into()).expect("sizes agree")
    };
    graph.inputs().iter().map(feed).collect()
}

/// The outputs of a graph: shapes and numbers.
pub(crate) fn run(graph: &Graph, feeds: &[Tensor], fuse: bool) -> Vec<(Vec<usize>, Vec<f32>)> {
    let options = SessionOptions { fuse, ..SessionOptions::new(CpuBackend::new(1)) };
    let mut session = Session::new(graph.clone(), &options).expect("a session");
    let views: Vec<Feed<'_>> = feeds
        .iter()
        .map(|t| Feed::Tensor(TensorView { dtype: t.dtype(), shape: t.shape(), data: t.data() }))
        .collect();
    session.run(&views).expect("runs");
    let output = |i| {
        let Value::Tensor(array) = session.output_value(i).expect("an output") else { panic!("no tensor") };
        let data = Bytes::copy_from_slice(array.bytes());
        let tensor = Tensor::new("", array.dtype(), array.shape().to_vec(), data).expect("sizes agree");
        let floats = kinglet::graphs::floats(&tensor).expect("numbers");
        (floats.shape, floats.data)
    };
    (0..session.outputs()).map(output).collect()
}

/// Fails when values differ by more than `bound` of the largest.
pub(crate) fn check_near(
    what: &str,
    found: &[(Vec<usize>, Vec<f32>)],
    expected: &[(Vec<usize>, Vec<f32>)],
    bound: f32,
) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((shape, a), (wanted, b)) in found.iter().zip(expected) {
        assert_eq!(shape, wanted, "{what}");
        let most = b.iter().fold(1e-6f32, |most, x| if x.is_finite() { most.max(x.abs()) } else { most });
        for (x, y) in a.iter().zip(b) {
            let same = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= bound * most;
            assert!(same, "{what}: {x} instead of {y}");
        }
    }
}
