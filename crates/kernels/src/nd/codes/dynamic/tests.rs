//! Rounding as numbers come, and products of what it makes, against the definition in f64.

use std::sync::Arc;

use kinglet_simd::Level;

use super::super::tests::{Case, filled};
use super::super::{CodeConv, CodeShape, CodeSpans, Ending, Result8, Scales, code_conv};
use super::*;
use crate::nd::act::Act;
use crate::nd::gemm::Order;
use crate::nd::shape::Window;
use crate::ops::testing::values;

/// Scale and zero of some numbers, and those numbers rounded.
fn rounded(x: &[f32]) -> ([f32; 2], Vec<u8>) {
    let least = x.iter().fold(0.0f32, |a, b| a.min(*b));
    let most = x.iter().fold(0.0f32, |a, b| a.max(*b));
    let scale = if most > least { (most - least) / 255.0 } else { 1.0 };
    let zero = (-least / scale).clamp(0.0, 255.0).round_ties_even();
    let code = |x: &f32| ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8;
    ([scale, zero], x.iter().map(code).collect())
}

/// Seeded numbers, images or rows of other magnitudes; planar for images.
fn numbers(numbers: &Numbers) -> Vec<f32> {
    let count = numbers.images * numbers.channels * numbers.pixels;
    let part = count / if numbers.layout == Layout::Rows { numbers.pixels } else { numbers.images };
    let each = values(5, count);
    each.iter().enumerate().map(|(i, x)| (x + 0.3) * (1.0 + (i / part % 7) as f32)).collect()
}

/// The numbers in groups that have a scale each, by where they belong: image, channel, pixel.
fn group(n: &Numbers, scales: Scales, at: [usize; 3]) -> usize {
    match scales {
        Scales::One => 0,
        Scales::Images => at[0],
        Scales::Pixels => at[0] * n.pixels + at[2],
    }
}

/// Where each number, in its given order, belongs.
fn places(n: Numbers) -> impl Iterator<Item = [usize; 3]> {
    (0..n.images * n.channels * n.pixels).map(move |i| {
        let (image, rest) = (i / (n.channels * n.pixels), i % (n.channels * n.pixels));
        match n.layout {
            Layout::Rows => [image, rest % n.channels, rest / n.channels],
            _ => [image, rest / n.pixels, rest % n.pixels],
        }
    })
}

/// What rounding makes of numbers: pairs, and the codes in their given order.
fn expected(n: Numbers, x: &[f32], scales: Scales) -> (Vec<[f32; 2]>, Vec<u8>) {
    let groups = match scales {
        Scales::One => 1,
        Scales::Images => n.images,
        Scales::Pixels => n.images * n.pixels,
    };
    let (mut pairs, mut codes) = (Vec::new(), vec![0; x.len()]);
    for g in 0..groups {
        let own: Vec<usize> =
            places(n).enumerate().filter(|(_, at)| group(&n, scales, *at) == g).map(|(i, _)| i).collect();
        let (pair, made) = rounded(&own.iter().map(|i| x[*i]).collect::<Vec<_>>());
        pairs.push(pair);
        own.iter().zip(made).for_each(|(i, code)| codes[*i] = code);
    }
    (pairs, codes)
}

/// Numbers in a case, laid as they say; what lies behind the last channel is large.
fn laid(case: &mut Case, n: Numbers, x: &[f32]) -> Span {
    let each = n.elements(n.layout);
    let mut all = vec![1e9f32; n.images * each];
    for ([image, channel, pixel], x) in places(n).zip(x) {
        all[image * each + n.layout.index(n.channels, n.pixels, channel, pixel)] = *x;
    }
    let span = case.input(n.images, bytemuck::cast_slice(&all).to_vec());
    Span::f32(span.offset, span.rows, each)
}

#[test]
fn numbers_become_the_nearest_codes_of_their_range() {
    let all = [
        (Numbers { images: 1, channels: 37, pixels: 5, layout: Layout::Rows }, Scales::Pixels),
        (Numbers { images: 1, channels: 64, pixels: 300, layout: Layout::Rows }, Scales::Pixels),
        (Numbers { images: 1, channels: 37, pixels: 400, layout: Layout::Rows }, Scales::One),
        (Numbers { images: 3, channels: 20, pixels: 500, layout: Layout::Blocked }, Scales::Images),
        (Numbers { images: 2, channels: 16, pixels: 9, layout: Layout::Blocked }, Scales::One),
    ];
    for (n, scales) in all {
        let x = numbers(&n);
        let (pairs, codes) = expected(n, &x, scales);
        let each = n.elements(Layout::Blocked);
        for level in Level::available() {
            let mut case = Case::default();
            let from = laid(&mut case, n, &x);
            let out = case.room(n.images, each);
            let (found, given) = (case.floats(1, range_floats(&n)), case.floats(1, 2 * pairs.len()));
            let steps = || match scales {
                Scales::Pixels => vec![round_rows(n, from, out, given).expect("binds")],
                _ => vec![
                    ranges(n, from, found).expect("binds"),
                    round_by(n, found, scales == Scales::Images, [from, out, given]).expect("binds"),
                ],
            };
            let made: Vec<f32> = case.run_all(level, given, steps);
            let (made, rest) = made.as_chunks::<2>();
            assert!(rest.is_empty() && made == pairs, "{level} {n:?}: {made:?}");
            let made: Vec<u8> = case.run_all(level, out, steps);
            for ([image, channel, pixel], code) in places(n).zip(&codes) {
                let at = image * each + Layout::Blocked.index(n.channels, n.pixels, channel, pixel);
                assert_eq!(made[at], *code, "{level} {n:?} {scales:?}: {image} {channel} {pixel}");
            }
        }
    }
}

#[test]
fn flat_and_broken_numbers_have_a_scale_all_the_same() {
    for (x, pair) in [([0.0; 4], [1.0, 0.0]), ([f32::NAN; 4], [1.0, 0.0]), ([2.0; 4], [2.0 / 255.0, 0.0])] {
        for level in Level::available() {
            let n = Numbers { images: 1, channels: 4, pixels: 1, layout: Layout::Rows };
            let mut case = Case::default();
            let from = laid(&mut case, n, &x);
            let (out, given) = (case.room(1, 16), case.floats(1, 2));
            let made: Vec<f32> =
                case.run_all(level, given, || vec![round_rows(n, from, out, given).expect("binds")]);
            assert_eq!(made, pair, "{level} {x:?}");
        }
    }
}

/// A product of given codes with weights that are rounded or codes already, added to numbers; each output against f64.
fn check(shape: CodeShape, images: usize, scales: Scales, rounds: bool) {
    let [pixels, outputs] =
        [shape.window.input, shape.window.output().expect("fits")].map(|[height, width]| height * width);
    let n = Numbers { images, channels: shape.channels, pixels, layout: Layout::Blocked };
    let (pairs, codes) = expected(n, &numbers(&n), scales);
    let deep = shape.channels / shape.groups * shape.window.kernel[0] * shape.window.kernel[1];
    let w = values(3, shape.outputs * deep);
    let (w, by): (Vec<f32>, Vec<f32>) = if rounds {
        let most = |w: &[f32]| w.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 127.0;
        (w.clone(), w.chunks(deep).map(most).collect())
    } else {
        (w.iter().map(|x| (x * 127.0).round()).collect(), vec![1.0; shape.outputs])
    };
    let code = |i: usize| (w[i] / by[i / deep]).round_ties_even();
    let layout = if scales == Scales::Pixels { Layout::Rows } else { Layout::Blocked };
    let factor: Vec<f32> = (0..shape.outputs).map(|o| 0.5 + (o % 3) as f32).collect();
    let shift: Vec<f32> = (0..shape.outputs).map(|o| o as f32 / 7.0).collect();
    let each = layout.floats(shape.outputs, outputs).expect("small");
    let added = values(9, images * each);
    for level in Level::available() {
        let mut case = Case::default();
        let x = case.image(images, shape.channels, &codes, Layout::Blocked);
        let given = case.input(1, bytemuck::cast_slice(pairs.as_flattened()).to_vec());
        let given = Span::f32(given.offset, given.rows, 2 * pairs.len());
        let residual = case.input(images, bytemuck::cast_slice(&added).to_vec());
        let residual = Some(Span::f32(residual.offset, residual.rows, each));
        let out = case.floats(images, each);
        let result = Result8::Floats(Act::RELU);
        let ending = Ending { factor: factor.clone(), shift: shift.clone(), result };
        let layouts = [Layout::Blocked, layout];
        let conv = CodeConv::new(level, shape, Order::Outputs, layouts, 0, ending).expect("a product");
        let conv = filled(conv.rounded(scales, rounds).expect("floats"), &w);
        let spans = CodeSpans { x, given: Some(given), residual, out };
        let made: Vec<f32> = case.run(level, out, || code_conv(Arc::clone(&conv), spans).expect("binds"));
        let window = shape.window;
        for (image, o, pixel) in (0..images)
            .flat_map(|image| (0..shape.outputs).map(move |o| (image, o)))
            .flat_map(|(image, o)| (0..outputs).map(move |pixel| (image, o, pixel)))
        {
            let [_, width] = window.output().expect("fits");
            let [scale, zero] = pairs[group(&n, scales, [image, 0, pixel])];
            let (mut sum, mut all) = (0.0, 0.0);
            for c in 0..shape.channels / shape.groups {
                let channel = o / (shape.outputs / shape.groups) * (shape.channels / shape.groups) + c;
                for ty in window.taps(0, pixel / width) {
                    for tx in window.taps(1, pixel % width) {
                        let [y, x] =
                            [window.source(0, pixel / width, ty), window.source(1, pixel % width, tx)];
                        let at = (image * shape.channels + channel) * pixels + y * window.input[1] + x;
                        let tap = (o * deep) + (c * window.kernel[0] + ty) * window.kernel[1] + tx;
                        let term = f64::from((f32::from(codes[at]) - zero) * code(tap));
                        (sum, all) = (sum + term, all + term.abs());
                    }
                }
            }
            let unit = f64::from(factor[o]) * f64::from(by[o]) * f64::from(scale);
            let at = image * each + layout.index(shape.outputs, outputs, o, pixel);
            let y = (sum * unit + f64::from(shift[o]) + f64::from(added[at])).max(0.0);
            let what = format!("{level} {shape:?} {scales:?}: {o} {pixel} of {image}");
            assert!(
                (f64::from(made[at]) - y).abs() <= 1e-6 * (all * unit + 10.0),
                "{what}: {} {y}",
                made[at]
            );
        }
    }
}

#[test]
fn products_of_rounded_numbers_follow_the_definition() {
    for rounds in [false, true] {
        for (rows, k, outputs) in [(1, 4, 5), (3, 40, 33), (37, 64, 70)] {
            check(CodeShape::rows(rows, k, outputs), 1, Scales::Pixels, rounds);
            check(CodeShape::rows(rows, k, outputs), 1, Scales::One, rounds);
        }
        let shape = |channels, outputs, groups, window| CodeShape { channels, outputs, groups, window };
        check(shape(20, 40, 1, Window::square([7, 9], 3, 2, 1)), 2, Scales::Images, rounds);
        check(shape(20, 20, 20, Window::square([7, 17], 3, 1, 1)), 2, Scales::Images, rounds);
        check(shape(32, 18, 2, Window::square([5, 5], 1, 1, 0)), 1, Scales::One, rounds);
    }
}

#[test]
fn scales_and_products_must_agree() {
    let make = |result, window| {
        let ending = Ending { factor: vec![1.0; 4], shift: vec![0.0; 4], result };
        let shape = CodeShape { channels: 4, outputs: 4, groups: 1, window };
        CodeConv::new(Level::SCALAR, shape, Order::Outputs, [Layout::Blocked; 2], 0, ending).expect("one")
    };
    let to = super::super::Recode::new(0, 0.0, 1.0);
    let codes = Result8::Codes { to, line: None, join: None, table: None };
    let (flat, wide) = (Window::square([4, 4], 1, 1, 0), Window::square([4, 4], 3, 1, 1));
    assert!(make(codes, flat).rounded(Scales::One, false).is_err());
    assert!(make(Result8::Floats(Act::NONE), wide).rounded(Scales::Pixels, false).is_err());
    let conv = make(Result8::Floats(Act::NONE), flat).rounded(Scales::Pixels, false).expect("floats");
    let conv = Arc::new(conv);
    let x = Span::bytes(0, crate::Rows::Fixed(1), 256);
    let spans = |pairs: usize| CodeSpans {
        x,
        given: (pairs > 0).then(|| Span::f32(4096, crate::Rows::Fixed(1), 2 * pairs)),
        residual: None,
        out: Span::f32(8192, crate::Rows::Fixed(1), 256),
    };
    assert!(code_conv(conv.clone(), spans(16)).is_ok());
    assert!(code_conv(conv.clone(), spans(15)).is_err());
    assert!(code_conv(conv, spans(0)).is_err());
}
