//! Branches, loops, recurrent layers and codes survive in every format.

use std::sync::Arc;

use kinglet::graph::ops::*;
use kinglet::graph::{Binding, Graph, GraphBuilder, TensorType, ValueId, specialise_bodies};
use kinglet::tensor::{DType, Tensor};
use kinglet_cpu::{CpuBackend, Fold, SessionOptions};

use crate::check;
use crate::made::Made;

fn scalar(dtype: DType) -> TensorType {
    TensorType { dtype, shape: Vec::new() }
}

/// `x` through one function.
fn branch(fun: Fun) -> Arc<Graph> {
    let mut b = GraphBuilder::new();
    let x = b.input("x", TensorType::fixed(DType::F32, &[2, 3])).expect("new");
    let y = b.node("y", Unary(fun), &[x]).expect("typed");
    b.output(y);
    Arc::new(b.finish())
}

#[test]
fn branches_survive() {
    for bound in [-9.0, 9.0] {
        check(&format!("If, {bound}"), |m| {
            let (x, bound) = (m.input(&[2, 3]), m.floats(&[], &[bound]));
            let axes = m.ints(&[0, 1]);
            let sum = m.op(Reduce { kind: ReduceKind::Sum, keep_dims: false, keep_all: false }, &[x, axes]);
            let larger = m.op(Binary(Fun2::Greater), &[sum, bound]);
            m.op(If { then: branch(Fun::Relu), otherwise: branch(Fun::Tanh) }, &[larger, x, x])
        });
    }
}

/// Adds `x` to what is carried, while the sum of it is below 4; each round leaves the square of what it carries.
fn round() -> Arc<Graph> {
    let mut b = GraphBuilder::new();
    let of = |shape: &[usize]| TensorType::fixed(DType::F32, shape);
    b.input("round", scalar(DType::I64)).expect("new");
    b.input("go", scalar(DType::Bool)).expect("new");
    let (held, x) = (b.input("held", of(&[3])).expect("new"), b.input("x", of(&[3])).expect("new"));
    let next = b.node("next", Binary(Fun2::Add), &[held, x]).expect("typed");
    let square = b.node("square", Binary(Fun2::Mul), &[next, next]).expect("typed");
    let axis = b.weight_as("axis", int_tensor(vec![1], &[0]).expect("small")).expect("new");
    let sum = Reduce { kind: ReduceKind::Sum, keep_dims: false, keep_all: false };
    let sum = b.node("sum", sum, &[square, axis]).expect("typed");
    let most = Tensor::new("most", DType::F32, vec![], 4f32.to_le_bytes().to_vec().into()).expect("one");
    let most = b.weight(most).expect("new");
    let go = b.node("again", Binary(Fun2::Less), &[sum, most]).expect("typed");
    [go, next, square].into_iter().for_each(|id| b.output(id));
    Arc::new(b.finish())
}

#[test]
fn loops_survive() {
    for output in 0..2 {
        check(&format!("Loop, output {output}"), |m| {
            let (x, most) = (m.input(&[3]), m.ints(&[7]));
            let shape = m.ints(&[]);
            let most = m.op(Reshape { allow_zero: false }, &[most, shape]);
            let go = m.b.absent();
            let names = [m.name(), m.name()];
            let names = [names[0].as_str(), names[1].as_str()];
            let op = Arc::new(Loop { body: round(), carried: 1 });
            let made = m.b.push(&names, op, &[most, go, x, x], String::new()).expect("typed");
            m.op(Identity, &[made[output]])
        });
    }
}

/// Adds slices of `x` to what is carried; each round leaves the sum, and its product with the slice of `y`.
fn sums() -> Arc<Graph> {
    let mut b = GraphBuilder::new();
    let of = |shape: &[usize]| TensorType::fixed(DType::F32, shape);
    let held = b.input("held", of(&[3])).expect("new");
    let (x, y) = (b.input("x", of(&[3])).expect("new"), b.input("y", of(&[3])).expect("new"));
    let factor = b.input("factor", of(&[3])).expect("new");
    let next = b.node("next", Binary(Fun2::Add), &[held, x]).expect("typed");
    let product = b.node("product", Binary(Fun2::Mul), &[next, y]).expect("typed");
    let scaled = b.node("scaled", Binary(Fun2::Mul), &[product, factor]).expect("typed");
    [next, next, scaled].into_iter().for_each(|id| b.output(id));
    Arc::new(b.finish())
}

#[test]
fn scans_survive() {
    for (inputs, outputs) in [
        ([(0, false), (1, false)], [(0, false), (0, false)]),
        ([(0, true), (-1, false)], [(0, true), (1, false)]),
        ([(0, false), (1, true)], [(-1, true), (0, true)]),
    ] {
        for output in 0..3 {
            let mut m = Made::new();
            let (held, x, y) = (m.input(&[3]), m.input(&[4, 3]), m.input(&[3, 4]));
            let factor = m.input(&[3]);
            let names = [m.name(), m.name(), m.name()];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let op = Scan { body: sums(), carried: 1, inputs: inputs.to_vec(), outputs: outputs.to_vec() };
            let made = m.b.push(&names, Arc::new(op), &[held, x, y, factor], String::new()).expect("typed");
            let graph = m.finish(&[made[output]]);
            let what = format!("{inputs:?} {outputs:?} {output}");
            let spelled = kinglet::graph::passes::spell_scans(&graph).expect("typed");
            let feeds = crate::made::feeds(&graph);
            let [found, expected] = [&spelled, &graph].map(|g| crate::made::run(g, &feeds, false));
            crate::made::check_near(&what, &found, &expected, 1e-7);
            let own: Vec<Binding> =
                spelled.inputs().iter().map(|id| Binding::Input(spelled.value(*id).ty.clone())).collect();
            let fold = Fold::new(&SessionOptions::new(CpuBackend::new(1)));
            let bound = specialise_bodies(&spelled, &own, &fold).expect("typed");
            crate::through_core_ml(&what, &bound);
        }
    }
}

/// A layer of five positions, two batches, three inputs and four hidden elements; output 0 or 1.
fn recurrent(cell: Cell, backwards: &[bool], clip: Option<f32>, states: bool, output: usize) {
    check(&format!("{cell:?} {backwards:?} {clip:?} {states} {output}"), |m| {
        let (d, rows) = (backwards.len(), cell.gates() * 4);
        let x = m.input(&[5, 2, 3]);
        let mut inputs = vec![x, m.weight(&[d, rows, 3]), m.weight(&[d, rows, 4]), m.weight(&[d, 2 * rows])];
        if states {
            inputs.extend([m.b.absent(), m.weight(&[d, 2, 4])]);
        }
        let functions = [Fun::Sigmoid, Fun::Tanh, Fun::Tanh][3 - cell.functions().max(2)..].to_vec();
        let functions = functions[functions.len() - cell.functions()..].repeat(d);
        let op = Recurrent { cell, backwards: backwards.to_vec(), functions, clip, batch_first: false };
        let names = [m.name(), m.name(), m.name()];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let made = m.b.push(&names, Arc::new(op), &inputs, String::new()).expect("typed");
        m.op(Identity, &[made[output]])
    });
}

#[test]
fn recurrent_layers_survive() {
    let cells = [
        Cell::Plain,
        Cell::Gru { reset_after: true },
        Cell::Gru { reset_after: false },
        Cell::Lstm { coupled: false },
        Cell::Lstm { coupled: true },
    ];
    for cell in cells {
        for output in 0..2 {
            recurrent(cell, &[false], None, false, output);
            recurrent(cell, &[true], Some(0.3), true, output);
            recurrent(cell, &[false, true], None, true, output);
        }
    }
}

fn codes(m: &mut Made, shape: &[usize], values: Vec<u8>) -> ValueId {
    let name = m.name();
    m.b.weight_as(&name, Tensor::new("", DType::U8, shape.to_vec(), values.into()).expect("sizes"))
        .expect("new")
}

/// Constant codes with a scale for each row, and activations that are rounded to codes.
#[test]
fn codes_survive() {
    check("codes", |m| {
        let x = m.input(&[2, 4]);
        let (scale, zero) = (m.floats(&[], &[0.02]), codes(m, &[], vec![120]));
        let to = Quantize { axis: 0, block: 0, to: DType::U8, saturate: true };
        let from = Dequantize { axis: 0, block: 0, to: None };
        let rounded = m.op(to, &[x, scale, zero]);
        let x = m.op(from, &[rounded, scale, zero]);
        let weights = codes(m, &[3, 4], (0..12).map(|n| n * 21).collect());
        let (scales, zeros) = (m.floats(&[3], &[0.1, 0.2, 0.3]), codes(m, &[3], vec![100, 128, 7]));
        let w = m.op(from, &[weights, scales, zeros]);
        m.op(Linear { biased: vec![false] }, &[x, w])
    });
}
