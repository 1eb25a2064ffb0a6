//! Products of codes against sums of integers and f64, on every instruction set and several teams.

use std::sync::Arc;

use kinglet_simd::Level;

use super::*;
use crate::arena::{ALIGN, Arena, Element, Rows, Span};
use crate::nd::act::Act;
use crate::nd::gemm::Order;
use crate::nd::layout::Layout;
use crate::nd::pool::Pool;
use crate::nd::shape::Window;
use crate::nd::strided::Axes;
use crate::ops::testing::{teams, values};
use crate::step::Step;
use crate::{LENT, Limits, Program, RunArgs};

/// Seeded codes.
fn codes(seed: u64, count: usize) -> Vec<u8> {
    values(seed, count).iter().map(|x| ((x + 1.0) * 127.5) as u8).collect()
}

/// Seeded signed bytes.
fn weights(seed: u64, count: usize) -> Vec<f32> {
    values(seed, count).iter().map(|x| (x * 128.0).round().clamp(-128.0, 127.0)).collect()
}

/// Spans of bytes behind one another, and what is in them.
#[derive(Default)]
pub(super) struct Case {
    size: usize,
    inputs: Vec<(Span, Vec<u8>)>,
}

impl Case {
    pub(super) fn room(&mut self, rows: usize, cols: usize) -> Span {
        let span = Span::bytes(self.size, Rows::Fixed(rows), cols);
        self.size = span.end(&[]).expect("small").next_multiple_of(ALIGN);
        span
    }

    pub(super) fn floats(&mut self, rows: usize, cols: usize) -> Span {
        let span = self.room(rows, 4 * cols);
        Span::f32(span.offset, span.rows, cols)
    }

    pub(super) fn input(&mut self, rows: usize, data: Vec<u8>) -> Span {
        let span = self.room(rows, data.len() / rows);
        self.inputs.push((span, data));
        span
    }

    /// Images given as planar codes, in a layout; what lies between them is 255.
    pub(super) fn image(&mut self, images: usize, channels: usize, planar: &[u8], layout: Layout) -> Span {
        let pixels = planar.len() / images / channels;
        let each = layout.floats(channels, pixels).expect("small");
        let mut laid = vec![255; images * each];
        for (i, &code) in planar.iter().enumerate() {
            let (image, rest) = (i / (channels * pixels), i % (channels * pixels));
            laid[image * each + layout.index(channels, pixels, rest / pixels, rest % pixels)] = code;
        }
        self.input(images, laid)
    }

    /// What a step leaves in `out`, which is the same with every team.
    pub(super) fn run<T: Element + PartialEq>(
        &self,
        level: Level,
        out: Span,
        step: impl Fn() -> Box<dyn Step>,
    ) -> Vec<T> {
        self.run_all(level, out, || vec![step()])
    }

    /// The same for steps one after the other.
    pub(super) fn run_all<T: Element + PartialEq>(
        &self,
        level: Level,
        out: Span,
        steps: impl Fn() -> Vec<Box<dyn Step>>,
    ) -> Vec<T> {
        let mut found: Option<Vec<T>> = None;
        for team in teams() {
            let (dims, workers) = (vec![], team.size());
            let limits = Limits { arena_bytes: self.size, dims, workers, level, kv: None };
            let program = Program::new(steps(), limits).expect("valid program");
            let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
            self.inputs.iter().for_each(|(span, data)| arena.write(span, data).expect("fits"));
            let args = RunArgs {
                dims: &[],
                seqs: &[],
                kv: None,
                cancel: &|| false,
                profiler: None,
                lent: [None; LENT],
            };
            program.run(&mut arena, team, args).expect("runs");
            let made = arena.read::<T>(&out, &[]).expect("fits").to_vec();
            assert!(found.as_ref().is_none_or(|found| *found == made), "{level}: depends on the team");
            found = Some(made);
        }
        found.expect("a team")
    }
}

/// Sums of products over an image, `[output][pixel]`, of codes less their zero.
fn sums(shape: &CodeShape, x: &[u8], w: &[f32], zero: i64) -> Vec<i64> {
    let (window, [height, width]) = (&shape.window, shape.window.output().expect("fits"));
    let ([h, wide], [ky, kx]) = (window.input, window.kernel);
    let (ins, outs) = (shape.channels / shape.groups, shape.outputs / shape.groups);
    let mut all = Vec::new();
    for (o, y, at) in
        (0..shape.outputs).flat_map(|o| (0..height * width).map(move |p| (o, p / width, p % width)))
    {
        let mut sum = 0;
        for (c, ty) in (0..ins).flat_map(|c| window.taps(0, y).map(move |ty| (c, ty))) {
            for tx in window.taps(1, at) {
                let (iy, ix) = (window.source(0, y, ty), window.source(1, at, tx));
                let code = i64::from(x[((o / outs * ins + c) * h + iy) * wide + ix]) - zero;
                sum += code * w[((o * ins + c) * ky + ty) * kx + tx] as i64;
            }
        }
        all.push(sum);
    }
    all
}

/// `(code - zero)` that a number is nearest to, within bounds.
fn nearest(x: f64, to: &Recode) -> f64 {
    x.clamp(to.lo.into(), to.hi.into()).round_ties_even()
}

fn ending(outputs: usize, result: Result8) -> Ending {
    let factor = (0..outputs).map(|o| 1e-3 * (1.0 + (o % 5) as f32)).collect();
    Ending { factor, shift: (0..outputs).map(|o| o as f32 / 7.0 - 3.0).collect(), result }
}

fn spans(x: Span, out: Span) -> CodeSpans {
    CodeSpans { x, given: None, residual: None, out }
}

pub(super) fn filled(conv: CodeConv, w: &[f32]) -> Arc<CodeConv> {
    let packed = crate::nd::Packed::pending(conv.packing().floats());
    packed.fill(conv.packing().pack(w));
    Arc::new(conv.with(packed).expect("as many"))
}

/// A convolution to codes, joined with others and translated, and one to floats.
fn check(shape: CodeShape, images: usize, layouts: [Layout; 2], zero: u8) {
    let [height, width] = shape.window.output().expect("fits");
    let (inputs, outputs) = (shape.window.input[0] * shape.window.input[1], height * width);
    let x = codes(1, images * shape.channels * inputs);
    let other = codes(2, images * shape.outputs * outputs);
    let deep = shape.channels / shape.groups * shape.window.kernel[0] * shape.window.kernel[1];
    let w = weights(3, shape.outputs * deep);
    let every: Vec<i64> =
        x.chunks(shape.channels * inputs).flat_map(|x| sums(&shape, x, &w, zero.into())).collect();
    let to = Recode::new(99, -40.0, 90.0);
    let join = Join { own: 0.5, theirs: 0.75, shift: -0.75 * 9.0, to: Recode::new(3, -300.0, 300.0) };
    let table = Arc::new(std::array::from_fn(|i| 255 - i as u8));
    let line = Line {
        factor: (0..shape.outputs).map(|o| 0.5 + (o % 3) as f32).collect(),
        shift: (0..shape.outputs).map(|o| o as f32 / 5.0 - 2.0).collect(),
        to: Recode::new(128, f32::NEG_INFINITY, f32::INFINITY),
    };
    let codes8 = Result8::Codes { to, line: Some(line.clone()), join: Some(join), table: Some(table) };
    for level in Level::available() {
        let mut case = Case::default();
        let from = case.image(images, shape.channels, &x, layouts[0]);
        let residual = case.image(images, shape.outputs, &other, layouts[1]);
        let each = layouts[1].floats(shape.outputs, outputs).expect("small");
        let (out, floats) = (case.room(images, each), case.floats(images, each));
        let make = |result| {
            let ending = ending(shape.outputs, result);
            filled(CodeConv::new(level, shape, Order::Outputs, layouts, zero, ending).expect("a product"), &w)
        };
        let (to_codes, to_floats) = (make(codes8.clone()), make(Result8::Floats(Act::RELU)));
        let found: Vec<u8> = case.run(level, out, || {
            code_conv(to_codes.clone(), CodeSpans { residual: Some(residual), ..spans(from, out) })
                .expect("binds")
        });
        let numbers: Vec<f32> =
            case.run(level, floats, || code_conv(to_floats.clone(), spans(from, floats)).expect("binds"));
        for (i, &sum) in every.iter().enumerate() {
            let (image, o, pixel) = (i / shape.outputs / outputs, i / outputs % shape.outputs, i % outputs);
            let at = image * each + layouts[1].index(shape.outputs, outputs, o, pixel);
            let ending = ending(shape.outputs, codes8.clone());
            let number = sum as f64 * f64::from(ending.factor[o]) + f64::from(ending.shift[o]);
            let what = format!("{level} {shape:?} {layouts:?}: {o} {pixel} of {image}");
            let error = (f64::from(numbers[at]) - number.max(0.0)).abs();
            assert!(error <= 1e-6 * (sum as f64).abs().max(1.0), "{what}: {} is not {number}", numbers[at]);
            let along = nearest(number, &to) * f64::from(line.factor[o]) + f64::from(line.shift[o]);
            let both = nearest(along, &line.to) * 0.5 + (f64::from(other[i]) - 9.0) * 0.75;
            let code = 255.0 - (nearest(both, &join.to) + 3.0);
            // One code of the first rounding is up to two and a half of the second, and half as much of the third.
            assert!((f64::from(found[at]) - code).abs() <= 2.0, "{what}: {} is not {code}", found[at]);
        }
    }
}

fn square(channels: usize, outputs: usize, groups: usize, window: Window) -> CodeShape {
    CodeShape { channels, outputs, groups, window }
}

#[test]
fn convolutions_follow_the_definition() {
    let blocked = [Layout::Blocked; 2];
    check(square(3, 20, 1, Window::square([9, 11], 3, 2, 1)), 1, blocked, 128);
    check(square(16, 16, 1, Window::square([5, 6], 1, 1, 0)), 2, blocked, 0);
    check(square(40, 70, 1, Window::square([7, 7], 1, 1, 0)), 1, blocked, 255);
    check(square(33, 48, 1, Window::square([16, 15], 3, 1, 1)), 2, blocked, 7);
    check(square(20, 32, 1, Window::square([9, 9], 1, 2, 0)), 1, blocked, 7);
    check(square(18, 80, 2, Window::square([6, 5], 3, 1, 1)), 1, blocked, 100);
    check(square(8, 8, 1, Window { dilation: [2, 3], ..Window::square([9, 9], 3, 1, 2) }), 1, blocked, 1);
    check(
        square(5, 9, 1, Window { before: [0, 2], after: [3, 0], ..Window::square([4, 4], 2, 3, 0) }),
        1,
        blocked,
        77,
    );
}

#[test]
fn channels_with_an_output_of_their_own_follow_the_definition() {
    let blocked = [Layout::Blocked; 2];
    for (kernel, stride, pad) in [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (7, 1, 3), (2, 1, 0)] {
        check(square(20, 20, 20, Window::square([15, 17], kernel, stride, pad)), 1, blocked, 9);
    }
    check(square(48, 48, 48, Window::square([28, 28], 3, 1, 1)), 2, blocked, 200);
    check(square(16, 16, 16, Window { dilation: [1, 2], ..Window::square([9, 19], 3, 1, 2) }), 1, blocked, 3);
    check(square(1, 1, 1, Window::square([9, 9], 3, 1, 1)), 1, blocked, 3);
    check(square(18, 36, 18, Window::square([9, 9], 3, 1, 1)), 1, blocked, 3);
}

#[test]
fn products_of_rows_follow_the_definition() {
    for (rows, k, n) in [(1, 4, 5), (1, 40, 100), (3, 17, 33), (40, 64, 48), (197, 31, 70)] {
        check(CodeShape::rows(rows, k, n), 1, [Layout::Rows; 2], 130);
        check(CodeShape::rows(rows, k, n), 1, [Layout::Rows, Layout::Blocked], 0);
    }
}

#[test]
fn matrices_may_lie_either_way() {
    let (shape, x, w) = (CodeShape::rows(5, 6, 37), codes(1, 30), weights(2, 6 * 37));
    let turned: Vec<f32> = (0..6 * 37).map(|i| w[i % 6 * 37 + i / 6]).collect();
    for level in Level::available() {
        let make = |order, w: &[f32]| {
            let ending = ending(37, Result8::Floats(Act::NONE));
            filled(CodeConv::new(level, shape, order, [Layout::Rows; 2], 9, ending).expect("a product"), w)
        };
        let mut case = Case::default();
        let (from, out) = (case.input(1, x.clone()), case.floats(1, 5 * 37));
        let run = |conv: Arc<CodeConv>| {
            case.run::<f32>(level, out, || code_conv(conv.clone(), spans(from, out)).expect("binds"))
        };
        assert_eq!(run(make(Order::Inputs, &w)), run(make(Order::Outputs, &turned)));
    }
}

#[test]
fn shapes_and_spans_must_agree() {
    let window = Window::square([4, 4], 3, 1, 1);
    let make = |shape, order, layouts, outputs| {
        CodeConv::new(Level::SCALAR, shape, order, layouts, 0, ending(outputs, Result8::Floats(Act::NONE)))
    };
    let (blocked, rows) = ([Layout::Blocked; 2], [Layout::Rows; 2]);
    assert!(make(square(4, 4, 1, window), Order::Outputs, blocked, 4).is_ok());
    assert!(make(square(4, 4, 1, window), Order::Outputs, blocked, 3).is_err());
    assert!(make(square(4, 4, 3, window), Order::Outputs, blocked, 4).is_err());
    assert!(make(square(4, 4, 1, window), Order::Inputs, blocked, 4).is_err());
    assert!(make(square(4, 4, 4, window), Order::Outputs, rows, 4).is_err());
    assert!(make(square(1 << 17, 4, 1, window), Order::Outputs, blocked, 4).is_err());
    let conv = Arc::new(make(square(4, 4, 1, window), Order::Outputs, blocked, 4).expect("a product"));
    let (x, out) = (Span::bytes(0, Rows::Fixed(1), 256), Span::f32(256, Rows::Fixed(1), 256));
    assert!(code_conv(conv.clone(), spans(x, out)).is_ok());
    assert!(code_conv(conv.clone(), CodeSpans { given: Some(x), ..spans(x, out) }).is_err());
    assert!(code_conv(conv.clone(), spans(out, out)).is_err());
    assert!(code_conv(conv, spans(x, x)).is_err());
}

#[test]
fn numbers_become_codes_and_codes_numbers() {
    let x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.25 - 100.0).collect();
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let to = Recode::new(30, f32::NEG_INFINITY, f32::INFINITY);
    for level in Level::available() {
        let mut case = Case::default();
        let (from, out, back) = (case.input(1, bytes.clone()), case.room(1, 1000), case.floats(1, 1000));
        let from = Span::f32(from.offset, from.rows, 1000);
        case.inputs[0].0 = Span::bytes(0, Rows::Fixed(1), 4000);
        let made: Vec<u8> = case.run(level, out, || quantize(from, out, 0.5, to).expect("binds"));
        for (x, code) in x.iter().zip(&made) {
            assert_eq!(f32::from(*code), (x / 0.5).round_ties_even().clamp(-30.0, 225.0) + 30.0, "{x}");
        }
        case.inputs.push((out, made.clone()));
        let numbers: Vec<f32> = case.run(level, back, || dequantize(out, back, 0.5, 30).expect("binds"));
        assert!(numbers.iter().zip(&made).all(|(x, code)| *x == (f32::from(*code) - 30.0) * 0.5));
        let table = Arc::new(std::array::from_fn(|i| (i as u8).wrapping_mul(3)));
        let place = case.room(1, 1000);
        let other: Vec<u8> = case.run(level, place, || translate(out, place, table.clone()).expect("binds"));
        assert!(other.iter().zip(&made).all(|(y, x)| *y == x.wrapping_mul(3)));
    }
}

#[test]
fn pairs_of_codes_are_broadcast() {
    let (a, b, c) = (codes(1, 6 * 50), codes(2, 6), values(3, 50));
    let (sa, sb) = (Scale { scale: 0.5, zero: 100 }, Scale { scale: 0.25, zero: 7 });
    let to = Recode::new(50, f32::NEG_INFINITY, f32::INFINITY);
    let number = |code: u8, s: Scale| (f64::from(code) - f64::from(s.zero)) * f64::from(s.scale);
    for (level, fun) in
        Level::available().into_iter().flat_map(|l| [Fun::Add, Fun::Sub, Fun::Mul, Fun::Div].map(|f| (l, f)))
    {
        let of = |x: f64, y: f64| match fun {
            Fun::Add => x + y,
            Fun::Sub => x - y,
            Fun::Mul => x * y,
            Fun::Div => x / y,
        };
        let mut case = Case::default();
        let (from, other, out) = (case.input(1, a.clone()), case.input(1, b.clone()), case.room(1, 300));
        let sides = [
            (Pairing::Codes(other, sb), Axes::new(&[6, 50], [&[50, 1], &[1, 0]])),
            (Pairing::Values(c.clone().into()), Axes::new(&[6, 50], [&[50, 1], &[0, 1]])),
        ];
        for (n, (side, axes)) in sides.into_iter().enumerate() {
            let step = || {
                let sides = [Pairing::Codes(from, sa), side.clone()];
                pair_codes(fun, &axes, sides, 0.3, to, out).expect("binds")
            };
            let found: Vec<u8> = case.run(level, out, step);
            for (i, found) in found.iter().enumerate() {
                let y = if n == 0 { number(b[i / 50], sb) } else { f64::from(c[i % 50]) };
                let exact = of(number(a[i], sa), y) / f64::from(0.3f32);
                let code = exact.clamp(-50.0, 205.0).round_ties_even() + 50.0;
                assert!((f64::from(*found) - code).abs() <= 1.0, "{level} {fun:?} {i}: {found}, {code}");
            }
        }
    }
}

#[test]
fn pools_of_codes_follow_the_definition() {
    let (channels, window) = (20, Window::square([7, 9], 3, 2, 1));
    let ([h, w], [oh, ow]) = (window.input, window.output().expect("fits"));
    let x = codes(1, 2 * channels * h * w);
    let from = Scale { scale: 0.5, zero: 100 };
    let to = Recode::new(20, f32::NEG_INFINITY, f32::INFINITY);
    for (level, pool) in
        Level::available().into_iter().flat_map(|l| [Pool::Max, Pool::Mean, Pool::PaddedMean].map(|p| (l, p)))
    {
        let mut case = Case::default();
        let image = case.image(2, channels, &x, Layout::Blocked);
        let each = Layout::Blocked.floats(channels, oh * ow).expect("small");
        let out = case.room(2, each);
        let step = || pool_codes(pool, channels, window, from, (0.7, to), [image, out]).expect("binds");
        let found: Vec<u8> = case.run(level, out, step);
        for i in 0..2 * channels * oh * ow {
            let (plane, y, at) = (i / ow / oh, i / ow % oh, i % ow);
            let taps = window.taps(0, y).flat_map(|ky| window.taps(1, at).map(move |kx| (ky, kx)));
            let taps: Vec<f64> = taps
                .map(|(ky, kx)| {
                    x[(plane * h + window.source(0, y, ky)) * w + window.source(1, at, kx)].into()
                })
                .collect();
            let count = if pool == Pool::PaddedMean { 9.0 } else { taps.len() as f64 };
            let sum: f64 = taps.iter().map(|code| (code - 100.0) * 0.5).sum();
            let expected = match pool {
                Pool::Max => taps.iter().copied().fold(0.0, f64::max),
                _ => (sum / count / f64::from(0.7f32)).round_ties_even().clamp(-20.0, 235.0) + 20.0,
            };
            let (image, channel) = (plane / channels, plane % channels);
            let code = found[image * each + Layout::Blocked.index(channels, oh * ow, channel, y * ow + at)];
            assert!((f64::from(code) - expected).abs() <= 1.0, "{level} {pool:?} {i}: {code}, {expected}");
        }
    }
}

#[test]
fn planar_images_become_blocked_codes() {
    let to = Recode::new(30, f32::NEG_INFINITY, f32::INFINITY);
    for (level, channels, pixels) in
        Level::available().into_iter().flat_map(|level| [(level, 1, 5), (level, 3, 2500), (level, 4, 64)])
    {
        let x: Vec<f32> = values(5, 2 * channels * pixels).iter().map(|x| x * 100.0).collect();
        let mut case = Case::default();
        let bytes = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let raw = case.input(2, bytes);
        let from = Span::f32(raw.offset, raw.rows, channels * pixels);
        let each = Layout::Blocked.floats(channels, pixels).expect("small");
        let out = case.room(2, each);
        let step = || quantize_image(channels, pixels, 0.5, to, [from, out]).expect("binds");
        let found: Vec<u8> = case.run(level, out, step);
        for (i, x) in x.iter().enumerate() {
            let (image, channel, pixel) = (i / pixels / channels, i / pixels % channels, i % pixels);
            let code = found[image * each + Layout::Blocked.index(channels, pixels, channel, pixel)];
            let expected = (x / 0.5).round_ties_even().clamp(-30.0, 225.0) + 30.0;
            assert_eq!(f32::from(code), expected, "{level} {channels} {pixels}: {i}");
        }
    }
}
