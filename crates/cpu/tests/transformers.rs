//! What transformers are made of, through the fast kernels, fused and not, and decomposed, against the plain kernels.

mod common;

use common::{Net, check, run};
use kinglet_cpu::{CpuBackend, Feed, Session, SessionOptions, TensorView};
use kinglet_graph::ops::{
    Attend, Binary, Blank, Expand, Fun, Fun2, Gather, LayerNorm, MatMul, Reshape, Slice, Softmax,
    SoftmaxKind, Split, Transpose, Unary, int_tensor,
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
        let op = Attend { heads, kv_heads: heads, scale, blank: Blank::Hidden, ..Attend::default() };
        let out = net.node(op, &inputs);
        check_all(&net.finish(&[out]), &[label]);
    }
}

/// What attention gives for three queries: an ordinary one, one of NaN, and one that sees nothing.
fn three_rows(graph: &Graph, fuse: bool, interpret: bool) -> Vec<f32> {
    let options = SessionOptions { fuse, interpret, ..SessionOptions::new(CpuBackend::new(1)) };
    let mut session = Session::new(graph.clone(), &options).expect("a session");
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let q = [[0.5; 4], [f32::NAN; 4], [0.25; 4]].concat();
    let (k, v) = (common::random(1, 36), common::random(2, 36));
    let truths: Vec<u8> = (0..27).map(|i| u8::from(i < 18)).collect();
    let summands: Vec<f32> = truths.iter().map(|m| if *m != 0 { 0.0 } else { f32::NEG_INFINITY }).collect();
    let feeds: Vec<Vec<u8>> = graph
        .inputs()
        .iter()
        .zip([bytes(&q), bytes(&k), bytes(&v), truths])
        .map(|(id, data)| match graph.tensor_type(*id).expect("a tensor").dims().expect("fixed")[..] {
            [1, 1, 3, 9] if graph.tensor_type(*id).expect("a tensor").dtype == DType::F32 => bytes(&summands),
            _ => data,
        })
        .collect();
    let types = graph.inputs().iter().map(|id| graph.tensor_type(*id).expect("a tensor"));
    let shapes: Vec<(DType, Vec<usize>)> = types.map(|ty| (ty.dtype, ty.dims().expect("fixed"))).collect();
    let views: Vec<Feed<'_>> = shapes
        .iter()
        .zip(&feeds)
        .map(|((dtype, shape), data)| Feed::Tensor(TensorView { dtype: *dtype, shape, data }))
        .collect();
    session.run(&views).expect("runs");
    let Feed::Tensor(view) = session.output(0).expect("an output") else {
        let value = session.output_value(0).expect("an output");
        return value.tensor().expect("a tensor").to_f32().expect("floats");
    };
    view.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn queries_of_nan_make_nan_and_those_that_see_nothing_what_is_asked() {
    let blanks =
        [(Blank::Never, [true, true]), (Blank::Hidden, [true, false]), (Blank::Always, [false, false])];
    for (dtype, (blank, nan)) in [DType::Bool, DType::F32].into_iter().flat_map(|d| blanks.map(|b| (d, b))) {
        let mut net = Net::new();
        let mut inputs = [3, 9, 9].map(|s| net.input(&[1, 1, s, 4])).to_vec();
        inputs.push(net.builder.input("mask", TensorType::fixed(dtype, &[1, 1, 3, 9])).expect("new"));
        let op = Attend { heads: 1, kv_heads: 1, blank, ..Attend::default() };
        let out = net.node(op, &inputs);
        let graph = net.finish(&[out]);
        let parts = decompose(&graph).expect("typed");
        for (graph, fuse, interpret) in [
            (&graph, false, true),
            (&graph, false, false),
            (&graph, true, false),
            (&parts, false, true),
            (&parts, false, false),
            (&parts, true, false),
        ] {
            let y = three_rows(graph, fuse, interpret);
            let rows: Vec<&[f32]> = y.chunks_exact(4).collect();
            let how = format!("{dtype} {blank:?} fuse {fuse} interpret {interpret}: {y:?}");
            assert!(rows[0].iter().all(|x| x.is_finite() && *x != 0.0), "{how}");
            for (row, nan) in rows[1..].iter().zip(nan) {
                assert!(row.iter().all(|x| if nan { x.is_nan() } else { *x == 0.0 }), "{how}");
            }
        }
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
