//! Passes keep values, do what they say, and explain what they left.

use std::collections::HashMap;

use kinglet::graph::ops::*;
use kinglet::graph::passes::{Log, improve};
use kinglet::graph::{Binding, Graph, Type, ValueId};
use kinglet_cpu::{CpuBackend, Fold, SessionOptions};

use crate::made::{Made, check_near, feeds, run};

fn fold() -> Fold {
    Fold::new(&SessionOptions::new(CpuBackend::new(1)))
}

/// All passes, with what they did and the values after them.
fn improved(graph: &Graph) -> (Graph, HashMap<&'static str, usize>) {
    let bindings: Vec<Binding> =
        graph.inputs().iter().map(|id| Binding::Input(graph.value(*id).ty.clone())).collect();
    let mut log = Log::default();
    let better = improve(graph, &bindings, &fold(), &mut log).expect("passes");
    let mut counts = HashMap::new();
    log.done.iter().for_each(|entry| *counts.entry(entry.pass).or_default() += 1);
    (better, counts)
}

fn check_improved(
    what: &str,
    expected: &[(&str, usize)],
    nodes: usize,
    build: impl Fn(&mut Made) -> Vec<ValueId>,
) {
    let mut made = Made::new();
    let outputs = build(&mut made);
    let graph = made.finish(&outputs);
    let (better, counts) = improved(&graph);
    assert_eq!(counts, expected.iter().copied().collect(), "{what}");
    assert_eq!(better.nodes().len(), nodes, "{what}");
    let feeds = feeds(&graph);
    check_near(what, &run(&better, &feeds, true), &run(&graph, &feeds, false), 1e-5);
}

#[test]
fn channels_go_into_weights() {
    let norm = BatchNorm { eps: 1e-3, momentum: 0.9, training: false };
    let plain = |groups| Conv { window: Window::default(), groups };
    check_improved("conv, norm, factor, summand", &[("affine", 4)], 1, |m| {
        let (x, w, b) = (m.input(&[2, 4, 5, 5]), m.weight(&[6, 2, 3, 3]), m.weight(&[6]));
        let y = m.op(plain(2), &[x, w, b]);
        let parts = [y, m.weight(&[6]), m.weight(&[6]), m.weight(&[6]), m.positive(&[6])];
        let y = m.op(norm, &parts);
        let (c, two) = (m.positive(&[6, 1, 1]), m.floats(&[], &[2.0]));
        let y = m.op(Binary(Fun2::Div), &[y, c]);
        let y = m.op(Binary(Fun2::Sub), &[two, y]);
        let c = m.weight(&[1, 6, 1, 1]);
        vec![m.op(Binary(Fun2::Add), &[c, y])]
    });
    check_improved("transposed, in groups", &[("affine", 1)], 1, |m| {
        let (x, w) = (m.input(&[1, 4, 3, 3]), m.weight(&[4, 3, 2, 2]));
        let window = Window::default();
        let op = ConvTranspose { window, groups: 2, output_padding: vec![], output_shape: vec![] };
        let y = m.op(op, &[x, w]);
        let parts = [y, m.weight(&[6]), m.weight(&[6]), m.weight(&[6]), m.positive(&[6])];
        vec![m.op(norm, &parts)]
    });
    for trans_b in [true, false] {
        check_improved("product", &[("affine", 2)], 1, |m| {
            let x = m.input(&[2, 3]);
            let w = if trans_b { m.weight(&[4, 3]) } else { m.weight(&[3, 4]) };
            let y = m.op(Gemm { alpha: 1.0, beta: 0.5, trans_a: false, trans_b }, &[x, w]);
            let (a, b) = (m.weight(&[4]), m.weight(&[1, 4]));
            let y = m.op(Binary(Fun2::Mul), &[y, a]);
            vec![m.op(Binary(Fun2::Add), &[y, b])]
        });
    }
    check_improved("what others read stays", &[], 2, |m| {
        let (x, w, c) = (m.input(&[1, 2, 4, 4]), m.weight(&[3, 2, 1, 1]), m.weight(&[3, 1, 1]));
        let y = m.op(plain(1), &[x, w]);
        let z = m.op(Binary(Fun2::Mul), &[y, c]);
        vec![y, z]
    });
    check_improved("what is not by channel stays", &[], 2, |m| {
        let (x, w, c) = (m.input(&[1, 2, 4, 3]), m.weight(&[3, 2, 1, 1]), m.weight(&[3]));
        let y = m.op(plain(1), &[x, w]);
        vec![m.op(Binary(Fun2::Mul), &[y, c])]
    });
}

#[test]
fn clean_ups_keep_values() {
    check_improved("neutral and inverse", &[("simplify", 4)], 1, |m| {
        let (x, one, zero) = (m.input(&[2, 3]), m.floats(&[1], &[1.0]), m.floats(&[], &[0.0]));
        let y = m.op(Binary(Fun2::Mul), &[one, x]);
        let y = m.op(Binary(Fun2::Sub), &[y, zero]);
        let y = m.op(Unary(Fun::Neg), &[y]);
        let y = m.op(Unary(Fun::Neg), &[y]);
        let y = m.op(Unary(Fun::Relu), &[y]);
        vec![m.op(Unary(Fun::Relu), &[y])]
    });
    check_improved("a factor that adds dimensions stays", &[], 1, |m| {
        let (x, one) = (m.input(&[3]), m.floats(&[1, 1], &[1.0]));
        vec![m.op(Binary(Fun2::Mul), &[x, one])]
    });
    check_improved("powers", &[("simplify", 2)], 2, |m| {
        let (x, two, half) = (m.input(&[3]), m.floats(&[], &[2.0]), m.floats(&[], &[0.5]));
        let y = m.op(Binary(Fun2::Pow), &[x, two]);
        vec![m.op(Binary(Fun2::Pow), &[y, half])]
    });
    check_improved("bounds", &[("simplify", 1)], 1, |m| {
        let (x, low, high) = (m.input(&[9]), m.floats(&[], &[-0.2]), m.floats(&[], &[0.3]));
        let y = m.op(Binary(Fun2::Max), &[x, low]);
        vec![m.op(Binary(Fun2::Min), &[high, y])]
    });
    check_improved("moves", &[("simplify", 3)], 3, |m| {
        let (x, shape, flat) = (m.input(&[2, 3, 4]), m.ints(&[4, 6]), m.ints(&[-1]));
        let y = m.op(Transpose { perm: vec![1, 0, 2] }, &[x]);
        let y = m.op(Transpose { perm: vec![2, 1, 0] }, &[y]);
        let y = m.op(Reshape { allow_zero: false }, &[y, shape]);
        let y = m.op(Reshape { allow_zero: false }, &[y, flat]);
        let z = m.op(Concat { axis: 0 }, &[y, y]);
        vec![m.op(Concat { axis: -1 }, &[y, z])]
    });
    check_improved("padding", &[("simplify", 1)], 1, |m| {
        let (x, pads, w) =
            (m.input(&[1, 2, 4, 4]), m.ints(&[0, 0, 1, 0, 0, 0, 2, 1]), m.weight(&[3, 2, 2, 2]));
        let y = m.op(Pad { mode: PadMode::Constant }, &[x, pads]);
        let window = Window { pads: Pads::Given(vec![0, 1, 0, 1]), ..Window::default() };
        vec![m.op(Conv { window, groups: 1 }, &[y, w])]
    });
    check_improved("repetition and constants", &[("share", 1), ("fold", 1)], 2, |m| {
        let (x, a, b) = (m.input(&[3]), m.weight(&[3]), m.weight(&[3]));
        let sum = m.op(Binary(Fun2::Add), &[a, b]);
        let (y, z) = (m.op(Binary(Fun2::Mul), &[x, sum]), m.op(Binary(Fun2::Mul), &[x, sum]));
        vec![m.op(Binary(Fun2::Div), &[y, z])]
    });
}

#[test]
fn what_is_left_is_explained() {
    let mut m = Made::new();
    let x = m.input(&[1, 2, 3, 3]);
    let parts = [x, m.weight(&[2]), m.weight(&[2]), m.weight(&[2]), m.positive(&[2])];
    let y = m.op(BatchNorm { eps: 1e-3, momentum: 0.9, training: false }, &parts);
    let graph = m.finish(&[y]);
    let mut log = Log::default();
    let ty: Type = graph.value(graph.inputs()[0]).ty.clone();
    improve(&graph, &[Binding::Input(ty)], &fold(), &mut log).expect("passes");
    let told: Vec<(&str, &str)> = log.left.iter().map(|e| (e.node.as_str(), e.text.as_str())).collect();
    assert_eq!(told, [("v6", "no node makes what it reads")]);
}
