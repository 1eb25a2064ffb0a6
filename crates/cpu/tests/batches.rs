//! Batches of which workers compute parts side by side: each part is what it is alone, and graphs that mix parts are what
//! they are op by op.

mod common;

use common::{Net, random};
use kinglet_cpu::{CpuBackend, Feed, Precision, Session, SessionOptions, TensorView};
use kinglet_graph::ops::{
    Attend, Binary, Blank, Concat, Dequantize, Flatten, Fun, Fun2, Gemm, LayerNorm, MatMul, Pads, Pool,
    PoolKind, Quantize, Reduce, ReduceKind, Reshape, Softmax, SoftmaxKind, Transpose, Unary, Window,
    int_tensor,
};
use kinglet_graph::{Graph, TensorType, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};

/// An input of so many rows of this shape.
fn batch(net: &mut Net, shape: &[usize]) -> ValueId {
    let n = net.builder.dim("n", 1 << 20);
    let mut ty = TensorType::fixed(DType::F32, &[&[1], shape].concat());
    ty.shape[0] = n;
    net.builder.input("x", ty).expect("new")
}

fn session(graph: &Graph, backend: CpuBackend, interpret: bool) -> Session {
    let options = SessionOptions { interpret, ..SessionOptions::new(backend) };
    Session::new(graph.clone(), &options).expect("a session")
}

/// All outputs for these rows.
fn run(session: &mut Session, shape: &[usize], data: &[f32]) -> Vec<Vec<f32>> {
    let rows = data.len() / shape.iter().product::<usize>();
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = [&[rows], shape].concat();
    let feed = [Feed::Tensor(TensorView { dtype: DType::F32, shape: &shape, data: &bytes })];
    session.run(&feed).expect("runs");
    session.run(&feed).expect("runs again");
    let output = |i| {
        let value = session.output_value(i).expect("an output");
        value.tensor().and_then(|array| array.to_f32()).expect("floats")
    };
    (0..session.outputs()).map(output).collect()
}

/// How many steps of the last plan are run for some parts side by side, and for one part alone.
fn apart(session: &Session) -> [usize; 2] {
    let steps = session.report().expect("a plan").steps;
    ["side by side", "alone"].map(|how| steps.iter().filter(|step| step.note.contains(how)).count())
}

/// Every row of a batch is what it is alone, bit for bit, on any number of threads; some steps run side by side.
fn check_rows(graph: &Graph, shape: &[usize], precision: Precision, sizes: &[usize]) {
    let each: usize = shape.iter().product();
    for threads in [1, 2, 3] {
        let backend = || CpuBackend { precision, ..CpuBackend::new(threads) };
        let mut alone = session(graph, backend(), false);
        for &rows in sizes {
            let data = random(rows as u64, rows * each);
            let mut together = session(graph, backend(), false);
            let found = run(&mut together, shape, &data);
            let [lanes, left] = apart(&together);
            let expected = [threads > 1, rows % threads > 0 || threads == 1];
            assert_eq!([lanes > 1, left > 1], expected, "{rows} rows on {threads} threads");
            for (row, part) in data.chunks(each).enumerate() {
                for (found, expected) in found.iter().zip(run(&mut alone, shape, part)) {
                    let found = &found[row * expected.len()..][..expected.len()];
                    let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "row {row} of {rows} on {threads} threads");
                }
            }
        }
    }
}

/// A convolution with a bias, and ReLU.
fn conv_relu(net: &mut Net, x: ValueId, sizes: [usize; 5]) -> ValueId {
    let conv = net.conv(x, sizes);
    net.node(Unary(Fun::Relu), &[conv])
}

/// Residual blocks, pooling, a gate for each channel, joined and added images, then a head over rows.
fn network() -> Graph {
    let mut net = Net::new();
    let x = batch(&mut net, &[3, 96, 80]);
    let stem = conv_relu(&mut net, x, [3, 32, 3, 2, 1]);
    let wide = conv_relu(&mut net, stem, [32, 64, 1, 1, 1]);
    let lanes = net.conv(wide, [64, 64, 5, 1, 64]);
    let swish = net.node(Unary(Fun::HardSwish), &[lanes]);
    let kind = PoolKind::Average { count_pad: false };
    let mean = Pool { kind, kernel: vec![], window: Window::default(), ceil: false };
    let squeezed = net.node(mean, &[swish]);
    let gate = net.conv(squeezed, [64, 64, 1, 1, 1]);
    let gate = net.node(Unary(Fun::Sigmoid), &[gate]);
    let gated = net.node(Binary(Fun2::Mul), &[swish, gate]);
    let back = net.conv(gated, [64, 32, 1, 1, 1]);
    let sum = net.node(Binary(Fun2::Add), &[back, stem]);
    let full = conv_relu(&mut net, sum, [32, 48, 3, 1, 1]);
    let joined = net.node(Concat { axis: 1 }, &[full, stem]);
    let kind = PoolKind::Max { column_major: false };
    let window = Window { strides: vec![2; 2], dilations: vec![], pads: Pads::Given(vec![1; 4]) };
    let pooled = net.node(Pool { kind, kernel: vec![3; 2], window, ceil: false }, &[joined]);
    let narrow = conv_relu(&mut net, pooled, [80, 40, 3, 1, 1]);
    let kind = PoolKind::Average { count_pad: false };
    let mean = Pool { kind, kernel: vec![], window: Window::default(), ceil: false };
    let mean = net.node(mean, &[narrow]);
    let rows = net.node(Flatten { axis: 1 }, &[mean]);
    let (w, c) = (net.weight(&[10, 40], 0.2), net.weight(&[10], 1.0));
    let head = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let logits = net.node(head, &[rows, w, c]);
    let shares = net.node(Softmax { kind: SoftmaxKind::Soft, axis: -1, flat: false }, &[logits]);
    // An output of its own for what is made side by side.
    net.finish(&[shares, sum])
}

#[test]
fn pictures_are_what_they_are_alone() {
    for precision in [Precision::F32, Precision::Bf16] {
        check_rows(&network(), &[3, 96, 80], precision, &[4, 7]);
    }
}

fn ints(net: &mut Net, values: &[i64]) -> ValueId {
    net.count += 1;
    let name = format!("i{}", net.count);
    net.builder.weight_as(&name, int_tensor(vec![values.len()], values).expect("whole")).expect("new")
}

/// An encoder layer over sequences of 160 tokens of 96 numbers, with packed queries, keys and values.
fn encoder() -> Graph {
    let mut net = Net::new();
    let x = batch(&mut net, &[160, 96]);
    let norm = |net: &mut Net, x| {
        let (scale, bias) = (net.weight(&[96], 1.0), net.weight(&[96], 1.0));
        net.node(LayerNorm { axis: -1, eps: 1e-5, centre: true }, &[x, scale, bias])
    };
    let product = |net: &mut Net, x, sizes: [usize; 2]| {
        let (w, b) = (net.weight(&sizes, 0.2), net.weight(&sizes[1..], 1.0));
        let product = net.node(MatMul, &[x, w]);
        net.node(Binary(Fun2::Add), &[product, b])
    };
    let normed = norm(&mut net, x);
    let [q, k, v] = [0; 3].map(|_| product(&mut net, normed, [96, 96]));
    let op = Attend {
        heads: 4,
        kv_heads: 4,
        scale: None,
        causal: false,
        softcap: 0.0,
        blank: Blank::Hidden,
        scores: 0,
        window: [None; 2],
    };
    let mixed = net.node(op, &[q, k, v]);
    let back = product(&mut net, mixed, [96, 96]);
    let sum = net.node(Binary(Fun2::Add), &[back, x]);
    let normed = norm(&mut net, sum);
    let wide = product(&mut net, normed, [96, 1024]);
    let gelu = net.node(Unary(Fun::Gelu { tanh: false }), &[wide]);
    let narrow = product(&mut net, gelu, [1024, 96]);
    let out = net.node(Binary(Fun2::Add), &[narrow, sum]);
    let turned = net.node(Transpose { perm: vec![0, 2, 1] }, &[out]);
    net.finish(&[turned])
}

#[test]
fn sequences_are_what_they_are_alone() {
    check_rows(&encoder(), &[160, 96], Precision::F32, &[6, 7]);
}

/// Convolutions of codes with a sum and a gate between pairs of conversions.
fn coded() -> Graph {
    let mut net = Net::new();
    let x = batch(&mut net, &[3, 128, 96]);
    let (scale, zero) = (net.constant(0.02), tensor(&mut net, DType::U8, vec![], vec![128]));
    let pair = |net: &mut Net, x| {
        let op = Quantize { axis: 1, block: 0, to: DType::U8, saturate: true };
        let codes = net.node(op, &[x, scale, zero]);
        net.node(Dequantize { axis: 1, block: 0, to: None }, &[codes, scale, zero])
    };
    let conv = |net: &mut Net, x, [ins, outs, kernel, stride, groups]: [usize; 5]| {
        let shape = [outs, ins / groups, kernel, kernel];
        let codes = random(net.count as u64, shape.iter().product());
        let codes = codes.iter().map(|x| (x * 127.0) as i8 as u8).collect();
        let (w, step) = (tensor(net, DType::I8, shape.into(), codes), net.constant(0.003));
        let w = net.node(Dequantize { axis: 0, block: 0, to: None }, &[w, step]);
        let pads = Pads::Given(vec![(kernel / 2) as i64; 4]);
        let window = Window { strides: vec![stride; 2], dilations: vec![], pads };
        let sum = net.node(kinglet_graph::ops::Conv { window, groups }, &[x, w]);
        let relu = net.node(Unary(Fun::Relu), &[sum]);
        pair(net, relu)
    };
    let x = pair(&mut net, x);
    let stem = conv(&mut net, x, [3, 32, 3, 2, 1]);
    let wide = conv(&mut net, stem, [32, 96, 1, 1, 1]);
    let lanes = conv(&mut net, wide, [96, 96, 3, 1, 96]);
    let back = conv(&mut net, lanes, [96, 32, 1, 1, 1]);
    let sum = net.node(Binary(Fun2::Add), &[back, stem]);
    let sum = pair(&mut net, sum);
    let last = conv(&mut net, sum, [32, 64, 3, 2, 1]);
    let kind = PoolKind::Average { count_pad: false };
    let mean = Pool { kind, kernel: vec![], window: Window::default(), ceil: false };
    let mean = net.node(mean, &[last]);
    let mean = pair(&mut net, mean);
    net.finish(&[mean])
}

fn tensor(net: &mut Net, dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> ValueId {
    net.count += 1;
    let tensor = Tensor::new(format!("t{}", net.count), dtype, shape, Bytes::from(bytes)).expect("whole");
    net.builder.weight(tensor).expect("new")
}

#[test]
fn pictures_of_codes_are_what_they_are_alone() {
    check_rows(&coded(), &[3, 128, 96], Precision::Auto, &[8, 9]);
}

/// Makes a value with so many channels of one.
type Mix = dyn Fn(&mut Net, ValueId) -> (ValueId, usize);

/// A batch of four pictures `[4, 32, 64, 64]`, what `mix` makes of it, and a convolution of that.
fn mixing(mix: impl Fn(&mut Net, ValueId) -> (ValueId, usize)) -> Graph {
    let mut net = Net::new();
    let x = net.input(&[4, 3, 64, 64]);
    let stem = conv_relu(&mut net, x, [3, 32, 3, 1, 1]);
    let before = conv_relu(&mut net, stem, [32, 32, 3, 1, 1]);
    let (mixed, channels) = mix(&mut net, before);
    let after = conv_relu(&mut net, mixed, [channels, 32, 3, 1, 1]);
    let last = net.conv(after, [32, 8, 3, 1, 1]);
    net.finish(&[last])
}

#[test]
fn what_mixes_pictures_is_what_it_is_op_by_op() {
    let mean_of_all = |net: &mut Net, x| {
        let axes = ints(net, &[0]);
        let mean = Reduce { kind: ReduceKind::Mean, keep_dims: true, keep_all: false };
        let mean = net.node(mean, &[x, axes]);
        (net.node(Binary(Fun2::Sub), &[x, mean]), 32)
    };
    let channels_first = |net: &mut Net, x| (net.node(Transpose { perm: vec![1, 0, 2, 3] }, &[x]), 4);
    let pairs = |net: &mut Net, x| {
        let shape = ints(net, &[2, 64, 64, 64]);
        (net.node(Reshape { allow_zero: false }, &[x, shape]), 64)
    };
    let halves = |net: &mut Net, x| {
        let shape = ints(net, &[8, 16, 64, 64]);
        (net.node(Reshape { allow_zero: false }, &[x, shape]), 16)
    };
    let shares =
        |net: &mut Net, x| (net.node(Softmax { kind: SoftmaxKind::Soft, axis: 0, flat: false }, &[x]), 32);
    let twice = |net: &mut Net, x| (net.node(Concat { axis: 0 }, &[x, x]), 32);
    let pictures: [(&str, &Mix); 6] = [
        ("mean of all", &mean_of_all),
        ("channels first", &channels_first),
        ("pairs", &pairs),
        ("halves", &halves),
        ("shares", &shares),
        ("twice", &twice),
    ];
    for (name, mix) in pictures {
        let graph = mixing(mix);
        let data = random(3, 4 * 3 * 64 * 64);
        let expected = run(&mut session(&graph, CpuBackend::new(2), true), &[3, 64, 64], &data);
        for threads in [1, 2, 4] {
            let mut session = session(&graph, CpuBackend::new(threads), false);
            let found = run(&mut session, &[3, 64, 64], &data);
            assert!(apart(&session) != [0, 0], "{name}: what comes before is made picture by picture");
            let top = expected[0].iter().fold(1.0f32, |top, x| top.max(x.abs()));
            let far = found[0].iter().zip(&expected[0]).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
            assert!(found[0].len() == expected[0].len() && far <= 1e-4 * top, "{name}: {far} of {top}");
        }
    }
}
