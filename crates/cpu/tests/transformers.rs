//! What transformers are made of, through the fast kernels, fused and not, and decomposed, against the plain kernels.

mod common;

use common::{Net, check, run};
use kinglet_graph::ops::{
    Attend, Binary, Expand, Fun, Fun2, Gather, LayerNorm, MatMul, Reshape, Slice, Softmax, SoftmaxKind,
    Split, Transpose, Unary, int_tensor,
};
use kinglet_graph::passes::decompose;
use kinglet_graph::{Graph, TensorType, ValueId};
use kinglet_tensor::DType;

fn ints(net: &mut Net, values: &[i64]) -> ValueId {
    net.count += 1;
    let name = format!("i{}", net.count);
    net.builder.weight_as(&name, int_tensor(vec![values.len()], values).expect("whole")).expect("new")
}

/// The graph, its decomposition, and the decomposition fused again have the same values, and run these steps when fused.
fn check_all(graph: &Graph, steps: &[&str]) {
    check(graph, steps);
    let plain = decompose(graph).expect("typed");
    assert!(plain.nodes().len() > graph.nodes().len());
    let (expected, _) = run(graph, false, true);
    for fuse in [false, true] {
        let (found, labels) = run(&plain, fuse, false);
        for (f, e) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((f - e).abs() <= 1e-5 * e.abs().max(1.0) || f.is_nan() && e.is_nan(), "{f}, not {e}");
        }
        assert!(labels.iter().all(|label| !label.ends_with("(plain)") || !fuse), "{labels:?}");
    }
}

#[test]
fn attention_in_rows_and_by_heads() {
    let masks: [Option<(DType, &[usize])>; 4] = [
        None,
        Some((DType::F32, &[2, 1, 1, 19])),
        Some((DType::F32, &[33, 19])),
        Some((DType::Bool, &[2, 1, 33, 19])),
    ];
    for (rows, mask) in [true, false].into_iter().flat_map(|rows| masks.map(|mask| (rows, mask))) {
        let label = if mask.is_some() { "attention f32 + mask" } else { "attention f32" };
        let mut net = Net::new();
        let [q, k, v] = [[33, 16], [19, 16], [19, 8]]
            .map(|[s, d]| net.input(&if rows { vec![2, s, 3 * d] } else { vec![2, 3, s, d] }));
        let mut inputs = vec![q, k, v];
        if let Some((dtype, shape)) = mask {
            inputs.push(net.builder.input("mask", TensorType::fixed(dtype, shape)).expect("new"));
        }
        let (scale, heads) = (Some(0.25), 3);
        let op = Attend { heads, kv_heads: heads, scale, blank: true, ..Attend::default() };
        let out = net.node(op, &inputs);
        check_all(&net.finish(&[out]), &[label]);
    }
}

#[test]
fn packed_attention_reads_its_operands_in_place() {
    let mut net = Net::new();
    let x = net.input(&[2, 21, 3 * 4 * 8]);
    let shape = ints(&mut net, &[2, 21, 3, 4, 8]);
    let packed = net.node(Reshape { allow_zero: false }, &[x, shape]);
    let turned = net.node(Transpose { perm: vec![2, 0, 3, 1, 4] }, &[packed]);
    let zero = ints(&mut net, &[0]);
    let names = ["q", "k", "v"];
    let op = std::sync::Arc::new(Split { axis: 0, parts: 3 });
    let parts = net.builder.push(&names, op, &[turned], String::new()).expect("typed");
    let [q, k, v] = [0, 1, 2].map(|i| net.node(kinglet_graph::ops::Squeeze, &[parts[i], zero]));
    let k = net.node(Transpose { perm: vec![0, 1, 3, 2] }, &[k]);
    let scores = net.node(MatMul, &[q, k]);
    let weights = net.node(Softmax { kind: SoftmaxKind::Soft, axis: 3, flat: false }, &[scores]);
    let sums = net.node(MatMul, &[weights, v]);
    let turned = net.node(Transpose { perm: vec![0, 2, 1, 3] }, &[sums]);
    let shape = ints(&mut net, &[2, 21, 32]);
    let out = net.node(Reshape { allow_zero: false }, &[turned, shape]);
    check(&net.finish(&[out]), &["attention f32"]);
}

#[test]
fn functions_and_norms() {
    for (tanh, label) in [(false, "gelu"), (true, "gelu_tanh")] {
        let mut net = Net::new();
        let x = net.input(&[5, 37]);
        let out = net.node(Unary(Fun::Gelu { tanh }), &[x]);
        check_all(&net.finish(&[out]), &[label]);
    }
    let mut net = Net::new();
    let x = net.input(&[2, 5, 37]);
    let (scale, bias) = (net.weight(&[37], 1.0), net.weight(&[37], 1.0));
    let out = net.node(LayerNorm { axis: -1, eps: 1e-5, centre: true }, &[x, scale, bias]);
    check_all(&net.finish(&[out]), &["layer_norm"]);
}

#[test]
fn products_of_values() {
    let shapes: [[&[usize]; 2]; 6] = [
        [&[2, 3, 9, 17], &[2, 3, 17, 40]],
        [&[2, 1, 9, 17], &[3, 17, 40]],
        [&[2, 3, 9, 17], &[17, 5]],
        [&[17], &[4, 17, 6]],
        [&[4, 9, 17], &[17]],
        [&[17], &[17]],
    ];
    for [a, b] in shapes {
        let mut net = Net::new();
        let (a, b) = (net.input(a), net.input(b));
        let out = net.node(MatMul, &[a, b]);
        check(&net.finish(&[out]), &["matmul f32"]);
    }
    let mut net = Net::new();
    let (a, b) = (net.weight(&[3, 9, 17], 1.0), net.input(&[3, 17, 4]));
    let out = net.node(MatMul, &[a, b]);
    check(&net.finish(&[out]), &["matmul f32"]);
}

#[test]
fn parts_are_read_in_place_or_copied() {
    let mut net = Net::new();
    let x = net.input(&[4, 6, 10]);
    let [starts, ends, axes, steps] =
        [&[1, -1], &[3, 100], &[0, 2], &[1, 1]].map(|values: &[i64; 2]| ints(&mut net, values));
    let slice = net.node(Slice, &[x, starts, ends, axes, steps]);
    let shape = ints(&mut net, &[2, 6, 7]);
    let wide = net.node(Expand, &[slice, shape]);
    let index = net.builder.weight_as("index", int_tensor(vec![], &[-2]).expect("one")).expect("new");
    let row = net.node(Gather { axis: 1 }, &[wide, index]);
    let out = net.node(Unary(Fun::Neg), &[row]);
    check(&net.finish(&[row, out]), &["copy 2 axes", "neg"]);
    let mut net = Net::new();
    let x = net.input(&[3, 10]);
    let sizes = ints(&mut net, &[2, 8]);
    let op = std::sync::Arc::new(Split { axis: 1, parts: 2 });
    let parts = net.builder.push(&["a", "b"], op, &[x, sizes], String::new()).expect("typed");
    let square = net.node(Binary(Fun2::Mul), &[parts[1], parts[1]]);
    check(&net.finish(&[parts[0], square]), &["copy 2 axes", "mul", "copy 2 axes"]);
}

#[test]
fn products_that_repeat_keys_for_batches_are_no_attention() {
    let mut net = Net::new();
    let q = net.input(&[2, 3, 9, 16]);
    let [k, v] = [(); 2].map(|()| net.input(&[1, 3, 7, 16]));
    let turned = net.node(Transpose { perm: vec![0, 1, 3, 2] }, &[k]);
    let (product, scale) = (net.node(MatMul, &[q, turned]), net.constant(0.25));
    let scores = net.node(Binary(Fun2::Mul), &[product, scale]);
    let soft = Softmax { kind: SoftmaxKind::Soft, axis: -1, flat: false };
    let weights = net.node(soft, &[scores]);
    let out = net.node(MatMul, &[weights, v]);
    let graph = net.finish(&[out]);
    let (expected, _) = run(&graph, false, true);
    let (found, labels) = run(&graph, true, false);
    assert!(labels.iter().all(|label| !label.starts_with("attention")), "{labels:?}");
    assert_eq!(found[0].len(), expected[0].len());
    for (f, e) in found[0].iter().zip(&expected[0]) {
        assert!((f - e).abs() <= 1e-5, "{f}, not {e}");
    }
}
