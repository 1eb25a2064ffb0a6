//! Several plans of one session: what they share, and what a run meets.

mod common;

use common::{Net, random};
use kinglet_cpu::{CpuBackend, Feed, Session, SessionOptions, TensorView};
use kinglet_graph::ops::{Flatten, Fun, MatMul, Pool, PoolKind, Transpose, Unary, Window};
use kinglet_graph::{Graph, TensorType};
use kinglet_tensor::DType;

/// Convolutions and a product by a matrix that is folded anew for each plan, over any number of images.
fn network() -> Graph {
    let mut net = Net::new();
    let n = net.builder.dim("n", 1 << 20);
    let mut ty = TensorType::fixed(DType::F32, &[1, 3, 20, 20]);
    ty.shape[0] = n;
    let x = net.builder.input("x", ty).expect("new");
    let stem = net.conv(x, [3, 32, 3, 1, 1]);
    let relu = net.node(Unary(Fun::Relu), &[stem]);
    let wide = net.conv(relu, [32, 48, 3, 1, 1]);
    let kind = PoolKind::Average { count_pad: false };
    let mean = net.node(Pool { kind, kernel: vec![], window: Window::default(), ceil: false }, &[wide]);
    let rows = net.node(Flatten { axis: 1 }, &[mean]);
    let matrix = net.weight(&[10, 48], 1.0);
    let turned = net.node(Transpose { perm: vec![1, 0] }, &[matrix]);
    let out = net.node(MatMul, &[rows, turned]);
    net.finish(&[out])
}

fn session(graph: &Graph, interpret: bool) -> Session {
    let options = SessionOptions { interpret, ..SessionOptions::new(CpuBackend::new(2)) };
    Session::new(graph.clone(), &options).expect("a session")
}

fn run(session: &mut Session, images: usize) -> Vec<f32> {
    let data: Vec<u8> = random(5, images * 1200).iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = [images, 3, 20, 20];
    session.run(&[Feed::Tensor(TensorView { dtype: DType::F32, shape: &shape, data: &data })]).expect("runs");
    let value = session.output_value(0).expect("an output");
    value.tensor().and_then(|array| array.to_f32()).expect("floats")
}

#[test]
fn another_shape_packs_nothing() {
    let graph = network();
    let (mut session, mut plain) = (session(&graph, false), session(&graph, true));
    let mut packed = Vec::new();
    for images in [1, 3, 2, 1] {
        let (found, expected) = (run(&mut session, images), run(&mut plain, images));
        assert_eq!(found.len(), expected.len());
        let far = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4, "{images} images: {far}");
        packed.push(session.report().expect("a plan").packed_bytes);
    }
    session.wait().expect("all is packed");
    // The second convolution's weights are four times as many once transformed.
    let floats = 32 * 48 * 36 + 3 * 9 * 32 + 48 * 10;
    assert!(packed[0] >= 4 * floats && packed.iter().all(|bytes| *bytes == packed[0]), "{packed:?}");
}
