//! Products against their definition, and what is refused.

use std::sync::Arc;

use super::*;
use crate::Team;
use crate::arena::{Rows, Span};
use crate::nd::testing::{Case, random, rounded};

fn check(rows: usize, k: usize, n: usize, order: Order, residual: bool) {
    let (x, w, bias) = (random(1, rows * k), random(2, k * n), random(3, n));
    let extra = residual.then(|| random(4, rows * n));
    let expected = |x: &[f32], w: &[f32]| -> Vec<f64> {
        let weight = |i: usize, j: usize| if order == Order::Inputs { w[i * n + j] } else { w[j * k + i] };
        let value = |at: usize| {
            let (row, j) = (at / n, at % n);
            let dot: f64 = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(weight(i, j))).sum();
            (dot + f64::from(bias[j]) + extra.as_ref().map_or(0.0, |e| f64::from(e[at]))).max(0.0)
        };
        (0..rows * n).map(value).collect()
    };
    let (exact, from_bf16) = (expected(&x, &w), expected(&rounded(&x), &rounded(&w)));
    for (level, bf16) in Level::available().into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let packed = Gemm::new(level, (k, n), order, Some(&bias), Act::RELU).expect("packs");
        let packed = if bf16 { packed.in_bf16() } else { packed };
        packed.weights.fill(packed.packing().pack(&w));
        let packed = Arc::new(packed);
        let mut case = Case::new(level);
        let x = case.matrix(k, &x);
        let residual = extra.as_ref().map(|extra| case.matrix(n, extra));
        let out = case.span(rows, n);
        let (expected, bound) = (if bf16 { &from_bf16 } else { &exact }, 2e-7 * (k as f64 + 4.0));
        case.check_matrix(|| gemm(packed.clone(), x, residual, out).expect("binds"), out, expected, bound);
    }
}

#[test]
fn products_follow_the_definition() {
    for (rows, k, n) in [
        (1, 1, 1),
        (1, 40, 100),
        (3, 17, 33),
        (8, 64, 48),
        (9, 100, 31),
        (40, 600, 70),
        (130, 33, 64),
        (700, 300, 40),
    ] {
        check(rows, k, n, Order::Inputs, false);
        check(rows, k, n, Order::Outputs, true);
    }
}

/// Several products of one input give what each gives alone, whichever of their outputs is looked at.
#[test]
fn products_share_an_input() {
    let k = 70;
    for rows in [1, 3, 40, 3000] {
        let x = random(1, rows * k);
        for (level, bf16) in Level::available().into_iter().flat_map(|level| [(level, false), (level, true)])
        {
            let make = |(seed, n): (u64, usize)| {
                let packed = Gemm::new(level, (k, n), Order::Inputs, None, Act::NONE).expect("packs");
                let packed = if bf16 { packed.in_bf16() } else { packed };
                packed.weights.fill(packed.packing().pack(&random(seed, k * n)));
                Arc::new(packed)
            };
            let all = [(2, 100), (3, 7), (4, 40)].map(make);
            let mut case = Case::new(level);
            let x = case.matrix(k, &x);
            let outs = all.each_ref().map(|gemm| case.span(rows, gemm.n));
            let alone = outs.map(|out| case.span(rows, out.cols));
            for i in 0..all.len() {
                let product = |j: usize| GemmProduct { gemm: all[j].clone(), residual: None, out: outs[j] };
                let together = || gemms(x, (0..all.len()).map(product).collect()).expect("binds");
                let one = || gemm(all[i].clone(), x, None, alone[i]).expect("binds");
                for team in [Team::new(1), Team::new(3)] {
                    let run = |step, out| case.run(step, out, &team);
                    assert_eq!(run(together(), outs[i]), run(one(), alone[i]), "{level} {rows} rows, {i}");
                }
            }
        }
    }
}

#[test]
fn shapes_must_agree() {
    let make = |k, n, bias: usize| {
        Gemm::new(Level::SCALAR, (k, n), Order::Inputs, Some(&vec![0.0; bias]), Act::NONE)
    };
    assert!(make(2, 3, 2).is_err() && make(0, 3, 3).is_err());
    let packed = Arc::new(make(2, 3, 3).expect("a product"));
    assert!(packed.packing().pack(&[0.0; 5]).is_err() && packed.packing().pack(&[0.0; 6]).is_ok());
    let span = |at, rows, cols| Span::f32(at, Rows::Fixed(rows), cols);
    assert!(gemm(packed.clone(), span(0, 2, 4), None, span(64, 2, 6)).is_ok());
    assert!(gemm(packed.clone(), span(0, 2, 3), None, span(64, 2, 3)).is_err());
    assert!(gemm(packed.clone(), span(0, 2, 2), None, span(64, 1, 3)).is_err());
    let product = |gemm: &Arc<Gemm>, out| GemmProduct { gemm: gemm.clone(), residual: None, out };
    let other = Arc::new(make(2, 3, 3).expect("a product").in_bf16());
    let two = vec![product(&packed, span(64, 2, 3)), product(&other, span(128, 2, 3))];
    assert!(gemms(span(0, 2, 2), two).is_err() && gemms(span(0, 2, 2), vec![]).is_err());
    assert!(gemm(packed, span(0, 2, 2), Some(span(128, 2, 2)), span(64, 2, 3)).is_err());
}
