//! Convolutions against a direct sum in f64.

use std::sync::Arc;

use kinglet_simd::Level;

use super::*;
use crate::Span;
use crate::nd::act::Act;
use crate::nd::testing::{Case, HALF_ERROR, Map, random, rounded};

/// `[images][outputs][pixels]`, in f64.
fn reference(shape: &ConvShape, x: &[f32], weights: &[f32], bias: &[f32], images: usize) -> Vec<f64> {
    let window = &shape.window;
    let ([height, width], [oh, ow]) = (window.input, window.output().expect("fits"));
    let (ins, outs) = (shape.channels / shape.groups, shape.outputs / shape.groups);
    let mut result = Vec::new();
    for (image, output, at) in
        (0..images).flat_map(|i| (0..shape.outputs).flat_map(move |o| (0..oh * ow).map(move |at| (i, o, at))))
    {
        let mut sum = f64::from(bias[output]);
        for channel in 0..ins {
            let full = image * shape.channels + output / outs * ins + channel;
            for ky in window.taps(0, at / ow) {
                for kx in window.taps(1, at % ow) {
                    let y = window.source(0, at / ow, ky);
                    let x_at = window.source(1, at % ow, kx);
                    let tap = (output * ins + channel) * window.kernel[0] + ky;
                    let w = weights[tap * window.kernel[1] + kx];
                    sum += f64::from(x[full * height * width + y * width + x_at]) * f64::from(w);
                }
            }
        }
        result.push(sum);
    }
    result
}

fn activate(act: Act, x: f64) -> f64 {
    match act {
        Act::Clip { lo, hi } => x.max(f64::from(lo)).min(f64::from(hi)),
        Act::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Act::Silu => x / (1.0 + (-x).exp()),
        other => unreachable!("no reference for {other:?}"),
    }
}

fn check(shape: ConvShape, input: Layout, images: usize, with_residual: bool) {
    let window = shape.window;
    let ([h, w], [oh, ow]) = (window.input, window.output().expect("fits"));
    let ins = shape.channels / shape.groups;
    let taps = window.kernel[0] * window.kernel[1];
    let weights = random(1, shape.outputs * ins * taps);
    let bias = random(2, shape.outputs);
    let x = random(3, images * shape.channels * h * w);
    let residual = random(4, images * shape.outputs * oh * ow);
    let expected = |x: &[f32], weights: &[f32], residual: &[f32]| -> Vec<f64> {
        let sums = reference(&shape, x, weights, &bias, images).into_iter().zip(residual);
        let added = sums.map(|(sum, r)| sum + if with_residual { f64::from(*r) } else { 0.0 });
        added.map(|sum| activate(shape.act, sum)).collect()
    };
    // In floats; multiplied in bfloat16; the same with what is read or made in it.
    let (low_x, low_weights, low) = (rounded(&x), rounded(&weights), rounded(&residual));
    let exact = expected(&x, &weights, &residual);
    let from_bf16 = expected(&low_x, &low_weights, &residual);
    let made_bf16 = expected(&x, &weights, &low);
    let read_bf16 = expected(&low_x, &weights, &low);
    let all_bf16 = expected(&low_x, &low_weights, &low);
    let map = |channels, pixels, layout| Map { images, channels, pixels, layout };
    for (level, bf16) in Level::available().into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let made = || Conv::new(level, shape, Some(&bias), input, None).expect("a convolution");
        let made = || if bf16 { made().in_bf16() } else { made() };
        let run = |lies: [Layout; 2], expected: &[f64]| {
            let packed = made().between(lies[0], lies[1]).expect("such images").filled(&weights);
            let packed = Arc::new(packed.expect("packs"));
            let mut case = Case::new(level);
            let x = case.input(map(shape.channels, h * w, lies[0]), &x);
            let out_map = map(shape.outputs, oh * ow, lies[1]);
            let r = with_residual.then(|| case.input(out_map, &residual));
            let out = case.output(out_map);
            let times = if packed.winograd.is_some() { 4.0 } else { 1.0 };
            let rounding = if lies[1] == Layout::Halves { HALF_ERROR } else { 0.0 };
            let bound = times * 2e-7 * ((ins * taps) as f64 + 8.0) + rounding;
            case.check(|| conv(packed.clone(), x, r, out).expect("binds"), out, out_map, expected, bound);
        };
        let low = made().is_bf16();
        run([input, Layout::Blocked], if low { &from_bf16 } else { &exact });
        run([input, Layout::Halves], if low { &all_bf16 } else { &made_bf16 });
        if made().takes_halves() {
            run([Layout::Halves; 2], if low { &all_bf16 } else { &read_bf16 });
        }
    }
}

fn shape(channels: usize, outputs: usize, groups: usize, window: Window, act: Act) -> ConvShape {
    ConvShape { channels, outputs, groups, window, act }
}

#[test]
fn convolutions_follow_the_definition() {
    let square = Window::square;
    for (channels, outputs, window) in [
        (3, 20, square([9, 11], 3, 2, 1)),
        (16, 48, square([7, 7], 3, 1, 1)),
        (24, 40, square([6, 5], 1, 1, 0)),
        (40, 33, square([8, 9], 1, 2, 0)),
        (17, 16, square([17, 30], 3, 1, 1)),
        (5, 7, square([12, 12], 7, 2, 3)),
        (32, 64, square([4, 40], 5, 3, 2)),
        (8, 8, Window { dilation: [2, 3], ..square([11, 13], 3, 1, 2) }),
        (8, 8, Window { after: [2, 0], ..square([5, 4], 2, 1, 0) }),
        (19, 16, square([4, 5], 2, 3, 5)),
    ] {
        for input in [Layout::Planar, Layout::Blocked] {
            check(shape(channels, outputs, 1, window, Act::NONE), input, 1, false);
            check(shape(channels, outputs, 1, window, Act::RELU), input, 2, true);
        }
    }
}

#[test]
fn long_sums_and_late_activations() {
    check(shape(320, 64, 1, Window::square([5, 6], 3, 1, 1), Act::HardSwish), Layout::Blocked, 1, true);
    check(shape(1000, 40, 1, Window::square([2, 3], 1, 1, 0), Act::Silu), Layout::Blocked, 1, false);
    check(shape(130, 64, 1, Window::square([6, 6], 3, 2, 1), Act::RELU6), Layout::Planar, 1, false);
}

#[test]
fn groups_are_apart() {
    for (channels, outputs, groups) in [(32, 64, 2), (12, 12, 3), (64, 64, 16), (20, 40, 20), (96, 48, 4)] {
        for input in [Layout::Planar, Layout::Blocked] {
            check(
                shape(channels, outputs, groups, Window::square([6, 7], 3, 1, 1), Act::NONE),
                input,
                1,
                false,
            );
        }
    }
}

#[test]
fn channels_alone() {
    for (channels, each) in [(48, 1), (40, 2), (20, 1), (8, 2), (9, 3)] {
        for window in [Window::square([9, 21], 3, 1, 1), Window::square([12, 9], 7, 2, 3)] {
            let shape = shape(channels, channels * each, channels, window, Act::RELU);
            check(shape, Layout::Blocked, 2, true);
            check(shape, Layout::Planar, 1, false);
        }
    }
}

#[test]
fn strips_of_channels_alone() {
    for (taps, stride, pad) in [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (7, 1, 3), (7, 2, 3), (5, 1, 0)] {
        for size in [[7, 7], [9, 31], [40, 18], [64, 64], [8, 100]] {
            let window = Window::square(size, taps, stride, pad);
            check(shape(20, 20, 20, window, Act::RELU6), Layout::Blocked, 1, true);
            check(shape(16, 16, 16, window, Act::HardSwish), Layout::Blocked, 2, false);
        }
    }
    let uneven = Window { before: [4, 0], after: [0, 6], ..Window::square([10, 12], 5, 1, 0) };
    check(shape(33, 33, 33, uneven, Act::NONE), Layout::Blocked, 1, false);
}

#[test]
fn winograd_follows_the_definition() {
    let square = Window::square;
    let uneven = Window { before: [0, 2], after: [2, 0], ..square([26, 24], 3, 1, 0) };
    for (channels, outputs, window, images) in [
        (16, 24, square([25, 27], 3, 1, 1), 2),
        (32, 40, square([25, 27], 3, 1, 1), 2),
        (48, 48, square([24, 24], 3, 1, 1), 1),
        (70, 33, uneven, 1),
        (256, 32, square([24, 24], 3, 1, 1), 1),
        (256, 136, square([14, 14], 3, 1, 1), 1),
    ] {
        for act in [Act::RELU, Act::HardSwish] {
            let shape = shape(channels, outputs, 1, window, act);
            let output = window.output().expect("fits");
            assert!(Winograd::suits(&shape, Layout::Blocked, output), "{shape:?}");
            check(shape, Layout::Blocked, images, act == Act::RELU);
        }
    }
}

#[test]
fn scattered_outputs_leave_the_other_pixels_alone() {
    let scatter = Scatter { size: [9, 12], stride: [2, 3], at: [1, 2] };
    for (channels, taps, pad) in [(16, 1, 0), (5, 3, 1)] {
        let shape = shape(channels, 40, 1, Window::square([4, 4], taps, 1, pad), Act::RELU);
        let weights = random(1, 40 * channels * taps * taps);
        let (bias, x) = (random(2, 40), random(3, channels * 16));
        let sums = reference(&shape, &x, &weights, &bias, 1);
        let before = random(4, 40 * 9 * 12);
        let mut expected: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
        for (at, sum) in sums.iter().enumerate() {
            let (plane, y, x) = (at / 16, at / 4 % 4, at % 4);
            expected[plane * 108 + (2 * y + 1) * 12 + 3 * x + 2] = sum.max(0.0);
        }
        for level in Level::available() {
            let bias = Some(&bias[..]);
            let pack = |to| Conv::new(level, shape, bias, Layout::Blocked, Some(to))?.filled(&weights);
            let packed = Arc::new(pack(scatter).expect("packs"));
            assert!(pack(Scatter { size: [7, 12], ..scatter }).is_err());
            let mut case = Case::new(level);
            let map = |channels, pixels| Map { images: 1, channels, pixels, layout: Layout::Blocked };
            let x = case.input(map(channels, 16), &x);
            let out = case.input(map(40, 108), &before);
            let step = || conv(packed.clone(), x, None, out).expect("binds");
            case.check(step, out, map(40, 108), &expected, 2e-7 * ((channels * taps * taps) as f64 + 8.0));
        }
    }
}

#[test]
fn what_is_no_convolution_is_refused() {
    let good = shape(4, 8, 1, Window::square([5, 5], 3, 1, 1), Act::NONE);
    let pack = |shape: ConvShape, weights: usize, bias: usize| {
        Conv::new(Level::SCALAR, shape, Some(&vec![0.0; bias]), Layout::Blocked, None)?
            .filled(&vec![0.0; weights])
    };
    assert!(pack(good, 288, 8).is_ok());
    for (shape, weights, bias) in [
        (good, 287, 8),
        (good, 288, 7),
        (ConvShape { groups: 0, ..good }, 288, 8),
        (ConvShape { groups: 3, ..good }, 288, 8),
        (ConvShape { window: Window::square([1, 1], 5, 1, 0), ..good }, 800, 8),
    ] {
        assert!(pack(shape, weights, bias).is_err(), "{shape:?}");
    }
    let packed = Arc::new(pack(good, 288, 8).expect("packs"));
    let span = |at, rows, cols| Span::f32(at, crate::Rows::Fixed(rows), cols);
    assert!(conv(packed.clone(), span(0, 1, 400), None, span(4096, 1, 400)).is_ok());
    assert!(conv(packed.clone(), span(0, 1, 100), None, span(4096, 1, 400)).is_err());
    assert!(conv(packed.clone(), span(0, 2, 400), None, span(4096, 1, 400)).is_err());
    assert!(conv(packed, span(0, 1, 400), Some(span(8192, 1, 399)), span(4096, 1, 400)).is_err());
}
