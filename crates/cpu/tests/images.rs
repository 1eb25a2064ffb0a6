//! Small image graphs through the fast kernels, fused and not, against the plain kernels, which compute in f64.

mod common;

use common::{Net, check};
use kinglet_graph::ops::{
    Aspect, BatchNorm, Binary, Clip, Concat, Conv, ConvTranspose, Coordinates, Flatten, Fun, Fun2, Gemm,
    LayerNorm, MatMul, NearestRule, Pads, Pool, PoolKind, Reduce, ReduceKind, Resize, ResizeMode, Softmax,
    SoftmaxKind, Transpose, Unary, Window,
};
use kinglet_tensor::{Bytes, DType, Tensor};

#[test]
fn residual_block() {
    let mut net = Net::new();
    let x = net.input(&[2, 3, 20, 18]);
    let stem = net.conv(x, [3, 24, 3, 2, 1]);
    let relu = net.node(Unary(Fun::Relu), &[stem]);
    let first = net.conv(relu, [24, 40, 1, 1, 1]);
    let (zero, six) = (net.constant(0.0), net.constant(6.0));
    let clipped = net.node(Clip, &[first, zero, six]);
    let lanes = net.conv(clipped, [40, 40, 3, 1, 40]);
    let parts = [0; 4].map(|_| net.weight(&[40], 1.0));
    let square = net.node(Binary(Fun2::Mul), &[parts[3], parts[3]]);
    let norm = BatchNorm { eps: 0.1, momentum: 0.9, training: false };
    let normed = net.node(norm, &[lanes, parts[0], parts[1], parts[2], square]);
    let swish = net.node(Unary(Fun::HardSwish), &[normed]);
    let last = net.conv(swish, [40, 24, 1, 1, 1]);
    let layer_scale = net.weight(&[24, 1, 1], 1.0);
    let scaled = net.node(Binary(Fun2::Mul), &[last, layer_scale]);
    let sum = net.node(Binary(Fun2::Add), &[scaled, relu]);
    check(
        &net.finish(&[sum]),
        &[
            "conv 3x3 relu",
            "conv 1x1 clip",
            "conv 3x3 grouped hard_swish",
            "conv 1x1 + residual",
            "relayout blocked to planar",
        ],
    );
}

#[test]
fn signals_are_images_of_one_row() {
    let mut net = Net::new();
    let x = net.input(&[2, 3, 50]);
    let (w, b) = (net.weight(&[24, 3, 5], 0.3), net.weight(&[24], 1.0));
    let window = Window { strides: vec![2], dilations: vec![2], pads: Pads::Given(vec![3, 1]) };
    let stem = net.node(Conv { window, groups: 1 }, &[x, w, b]);
    let factors = net.weight(&[24, 1], 1.0);
    let scaled = net.node(Binary(Fun2::Mul), &[stem, factors]);
    let relu = net.node(Unary(Fun::Relu), &[scaled]);
    let kind = PoolKind::Max { column_major: false };
    let window = Window { strides: vec![2], dilations: vec![], pads: Pads::Given(vec![0, 0]) };
    let pooled = net.node(Pool { kind, kernel: vec![2], window, ceil: true }, &[relu]);
    let kind = PoolKind::Average { count_pad: false };
    let mean = net.node(Pool { kind, kernel: vec![], window: Window::default(), ceil: false }, &[pooled]);
    let product = net.node(Binary(Fun2::Mul), &[mean, pooled]);
    let joined = net.node(Concat { axis: -2 }, &[product, pooled]);
    let first = net.node(Concat { axis: -3 }, &[joined, joined]);
    check(
        &net.finish(&[first]),
        &[
            "conv 1x5 relu",
            "pool max 1x2",
            "pool mean 1x12",
            "mul",
            "concat 2 images",
            "relayout blocked to planar",
            "Concat axis -3 (plain)",
        ],
    );
}

#[test]
fn squeeze_and_excite() {
    let mut net = Net::new();
    let x = net.input(&[1, 20, 9, 7]);
    let wide = net.conv(x, [20, 40, 5, 1, 20]);
    let kind = PoolKind::Average { count_pad: false };
    let pool = Pool { kind, kernel: vec![], window: Window::default(), ceil: false };
    let mean = net.node(pool, &[wide]);
    let narrow = net.conv(mean, [40, 8, 1, 1, 1]);
    let relu = net.node(Unary(Fun::Relu), &[narrow]);
    let back = net.conv(relu, [8, 40, 1, 1, 1]);
    let gate = net.node(Unary(Fun::Sigmoid), &[back]);
    let product = net.node(Binary(Fun2::Mul), &[gate, wide]);
    let kind = PoolKind::Max { column_major: false };
    let window = Window { strides: vec![2; 2], dilations: vec![], pads: Pads::Given(vec![1; 4]) };
    let pooled = net.node(Pool { kind, kernel: vec![3; 2], window, ceil: true }, &[product]);
    let axes = Tensor::new(
        "axes",
        DType::I64,
        vec![2],
        Bytes::from([2i64.to_le_bytes(), 3i64.to_le_bytes()].concat()),
    );
    let axes = net.builder.weight(axes.expect("whole")).expect("new");
    let reduce = Reduce { kind: ReduceKind::Mean, keep_dims: true, keep_all: false };
    let reduced = net.node(reduce, &[pooled, axes]);
    let flat = net.node(Flatten { axis: 1 }, &[reduced]);
    let (w, c) = (net.weight(&[10, 40], 0.2), net.weight(&[10], 1.0));
    let head = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let logits = net.node(head, &[flat, w, c]);
    let shares = net.node(Softmax { kind: SoftmaxKind::Soft, axis: -1, flat: false }, &[logits]);
    check(
        &net.finish(&[shares, gate]),
        &[
            "relayout planar to blocked",
            "conv 5x5 grouped",
            "pool mean 1x63",
            "conv 1x1 relu",
            "conv 1x1 sigmoid",
            "mul",
            "pool max 3x3",
            "pool mean 1x20",
            "relayout blocked to planar",
            "gemm f32",
            "softmax",
            "relayout blocked to planar",
        ],
    );
}

#[test]
fn token_block() {
    let mut net = Net::new();
    let x = net.input(&[2, 9, 32]);
    let (scale, bias) = (net.weight(&[32], 1.0), net.weight(&[32], 1.0));
    let normed = net.node(LayerNorm { axis: -1, eps: 1e-5, centre: true }, &[x, scale, bias]);
    let (w, b) = (net.weight(&[32, 48], 0.3), net.weight(&[48], 1.0));
    let product = net.node(MatMul, &[normed, w]);
    let sum = net.node(Binary(Fun2::Add), &[b, product]);
    let root = net.constant(std::f32::consts::SQRT_2);
    let scaled = net.node(Binary(Fun2::Div), &[sum, root]);
    let erf = net.node(Unary(Fun::Erf), &[scaled]);
    let one = net.constant(1.0);
    let gate = net.node(Binary(Fun2::Add), &[erf, one]);
    let gated = net.node(Binary(Fun2::Mul), &[sum, gate]);
    let half = net.constant(0.5);
    let gelu = net.node(Binary(Fun2::Mul), &[gated, half]);
    let w = net.weight(&[48, 32], 0.3);
    let back = net.node(MatMul, &[gelu, w]);
    let residual = net.node(Binary(Fun2::Add), &[x, back]);
    let turned = net.node(Transpose { perm: vec![0, 2, 1] }, &[residual]);
    check(&net.finish(&[turned]), &["layer_norm", "gemm f32 gelu", "gemm f32 + residual", "copy 3 axes"]);
}

#[test]
fn joined_enlarged_and_transposed_images() {
    let mut net = Net::new();
    let x = net.input(&[2, 16, 6, 5]);
    let left = net.conv(x, [16, 24, 3, 1, 1]);
    let right = net.conv(x, [16, 20, 1, 1, 1]);
    let joined = net.node(Concat { axis: 1 }, &[left, right]);
    let scales = Tensor::new(
        "scales",
        DType::F32,
        vec![4],
        Bytes::from([1.0f32, 1.0, 2.0, 3.0].map(f32::to_le_bytes).concat()),
    );
    let scales = net.builder.weight(scales.expect("whole")).expect("new");
    let resize = Resize {
        mode: ResizeMode::Nearest(NearestRule::Floor),
        coordinates: Coordinates::Asymmetric,
        axes: vec![],
        aspect: Aspect::Stretch,
        exclude_outside: false,
        outside: 0.0,
        antialias: false,
    };
    let none = net.builder.absent();
    let large = net.node(resize, &[joined, none, scales]);
    let transposed = |net: &mut Net, x, [ins, outs, kernel, stride, pad]: [usize; 5]| {
        let (w, b) = (net.weight(&[ins, outs, kernel, kernel], 0.3), net.weight(&[outs], 1.0));
        let pads = Pads::Given(vec![pad as i64; 4]);
        let window = Window { strides: vec![stride; 2], dilations: vec![], pads };
        let op = ConvTranspose { window, groups: 1, output_padding: vec![], output_shape: vec![] };
        net.node(op, &[x, w, b])
    };
    let overlapping = transposed(&mut net, large, [44, 12, 4, 2, 1]);
    let relu = net.node(Unary(Fun::Relu), &[overlapping]);
    let other = transposed(&mut net, large, [44, 12, 2, 2, 0]);
    let sum = net.node(Binary(Fun2::Add), &[other, relu]);
    let few = transposed(&mut net, sum, [12, 2, 3, 3, 0]);
    let gate = net.node(Unary(Fun::Sigmoid), &[few]);
    let phases = |label: &'static str| [label; 4];
    let steps = [
        &["relayout planar to blocked", "conv 3x3", "conv 1x1", "concat 2 images", "enlarge 2x3"][..],
        &phases("conv 2x2 relu"),
        &phases("conv 1x1 + residual"),
        &["conv 1x1 sigmoid", "unfold 3x3"],
    ];
    check(&net.finish(&[gate]), &steps.concat());
}

#[test]
fn light_convolutions_are_computed_together() {
    let mut net = Net::new();
    let x = net.input(&[1, 3, 96, 80]);
    let stem = net.conv(x, [3, 24, 3, 2, 1]);
    let (zero, six) = (net.constant(0.0), net.constant(6.0));
    let narrow = net.node(Clip, &[stem, zero, six]);
    let wide = net.conv(narrow, [24, 96, 1, 1, 1]);
    let clipped = net.node(Clip, &[wide, zero, six]);
    let lanes = net.conv(clipped, [96, 96, 3, 1, 96]);
    let swish = net.node(Unary(Fun::HardSwish), &[lanes]);
    let back = net.conv(swish, [96, 24, 1, 1, 1]);
    let sum = net.node(Binary(Fun2::Add), &[back, narrow]);
    // The other side of the sum is made before the last convolution's turn: that waits, and adds.
    let wide = net.conv(sum, [24, 64, 1, 1, 1]);
    let short = net.conv(sum, [24, 64, 3, 2, 1]);
    let lanes = net.conv(wide, [64, 64, 5, 2, 64]);
    let both = net.node(Binary(Fun2::Add), &[lanes, short]);
    // The other side is made after that: no use in waiting.
    let wide = net.conv(sum, [24, 64, 1, 1, 1]);
    let lanes = net.conv(wide, [64, 64, 3, 2, 64]);
    let short = net.conv(sum, [24, 64, 3, 2, 1]);
    let late = net.node(Binary(Fun2::Add), &[lanes, short]);
    let all = net.node(Binary(Fun2::Mul), &[both, late]);
    check(
        &net.finish(&[all]),
        &[
            "conv 3x3 clip",
            "conv 1x1 clip, conv 3x3 grouped hard_swish, conv 1x1 + residual",
            "conv 1x1",
            "conv 3x3",
            "conv 5x5 grouped + residual",
            "conv 1x1, conv 3x3 grouped",
            "conv 3x3 + residual",
            "mul",
            "relayout blocked to planar",
        ],
    );
}
