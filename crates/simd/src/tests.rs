//! Every operation of every instruction set here, against the scalar one; functions against f64.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{Isa, Kernel, Level, dispatch, erf, exp, gelu, sigmoid, tanh};

/// Lanes of the widest instruction set: inputs are a multiple of every width.
const WIDE: usize = 16;

type Outputs = BTreeMap<&'static str, Vec<u32>>;

/// Runs every lane-wise operation over sixteen lanes of input.
struct AllOps<'a> {
    a: &'a [f32; WIDE],
    b: &'a [f32; WIDE],
    i: &'a [i32; WIDE],
    j: &'a [i32; WIDE],
}

impl Kernel for AllOps<'_> {
    type Out = Outputs;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Outputs {
        let mut out = Outputs::new();
        for at in (0..WIDE).step_by(I::LANES) {
            self.floats(isa, at, &mut out);
            self.integers(isa, at, &mut out);
            self.memory(isa, at, &mut out);
        }
        out
    }
}

macro_rules! record {
    ($isa:ident, $out:ident, $($name:ident($($arg:expr),*)),* $(,)?) => {$(
        push($isa, $out, stringify!($name), $isa.$name($($arg),*));
    )*};
}

#[inline(always)]
fn push<I: Isa>(isa: I, out: &mut Outputs, name: &'static str, value: I::F32) {
    let mut lanes = [0.0f32; WIDE];
    isa.store(value, &mut lanes);
    out.entry(name).or_default().extend(lanes[..I::LANES].iter().map(|x| x.to_bits()));
}

#[inline(always)]
fn push_i32<I: Isa>(isa: I, out: &mut Outputs, name: &'static str, value: I::I32) {
    let mut lanes = [0i32; WIDE];
    // SAFETY: sixteen lanes are enough for every instruction set.
    unsafe { isa.store_i32_ptr(value, lanes.as_mut_ptr()) };
    out.entry(name).or_default().extend(lanes[..I::LANES].iter().map(|&x| x as u32));
}

impl AllOps<'_> {
    #[inline(always)]
    fn floats<I: Isa>(&self, isa: I, at: usize, out: &mut Outputs) {
        let (a, b) = (isa.load(&self.a[at..]), isa.load(&self.b[at..]));
        let small = isa.min(isa.max(a, isa.splat(-1e9)), isa.splat(1e9));
        record!(isa, out, add(a, b), sub(a, b), mul(a, b), div(a, b), min(a, b), max(a, b), neg(a), abs(a));
        record!(isa, out, sqrt(isa.abs(a)), splat(self.a[0]), zero(), float_of_bits(isa.bits_of(a)));
        push(isa, out, "lt", isa.select(isa.lt(a, b), a, b));
        push(isa, out, "le", isa.select(isa.le(a, b), a, b));
        push(isa, out, "eq", isa.select(isa.eq(a, a), a, b));
        push_i32(isa, out, "to_i32", isa.to_i32(small));
    }

    #[inline(always)]
    fn integers<I: Isa>(&self, isa: I, at: usize, out: &mut Outputs) {
        // SAFETY: `at` leaves a whole vector in both inputs.
        let (i, j) =
            unsafe { (isa.load_i32_ptr(self.i[at..].as_ptr()), isa.load_i32_ptr(self.j[at..].as_ptr())) };
        push(isa, out, "to_f32", isa.to_f32(i));
        push_i32(isa, out, "splat_i32", isa.splat_i32(self.i[0]));
        push_i32(isa, out, "add_i32", isa.add_i32(i, j));
        push_i32(isa, out, "sub_i32", isa.sub_i32(i, j));
        push_i32(isa, out, "mul_i32", isa.mul_i32(i, j));
        push_i32(isa, out, "and_i32", isa.and_i32(i, j));
        push_i32(isa, out, "or_i32", isa.or_i32(i, j));
        push_i32(isa, out, "shl_i32", isa.shl_i32(i, 7));
        push_i32(isa, out, "shr_i32", isa.shr_i32(i, 7));
        push_i32(isa, out, "sar_i32", isa.sar_i32(i, 7));
        push_i32(isa, out, "min_i32", isa.min_i32(i, j));
        push_i32(isa, out, "max_i32", isa.max_i32(i, j));
        self.bytes(isa, isa.bytes_of(i), isa.bytes_of(j), out);
    }

    #[inline(always)]
    fn bytes<I: Isa>(&self, isa: I, i: I::Bytes, j: I::Bytes, out: &mut Outputs) {
        let nibble = isa.and_bytes(i, isa.splat_bytes(15));
        let table = [-128, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 127];
        push_i32(isa, out, "and_bytes", isa.lanes_of(isa.and_bytes(i, j)));
        push_i32(isa, out, "or_bytes", isa.lanes_of(isa.or_bytes(i, j)));
        push_i32(isa, out, "add_bytes", isa.lanes_of(isa.add_bytes(i, j)));
        push_i32(isa, out, "shr_bytes", isa.lanes_of(isa.shr_bytes(i, 3)));
        push_i32(isa, out, "lookup16", isa.lanes_of(isa.lookup16(&table, nibble)));
    }

    #[inline(always)]
    fn memory<I: Isa>(&self, isa: I, at: usize, out: &mut Outputs) {
        let halves: [u16; WIDE] = std::array::from_fn(|k| finite_half(self.i[k] as u16));
        let bytes = self.i.map(|x| x as u8);
        let (mut u16s, mut i8s) = ([0u16; WIDE], [0i8; WIDE]);
        let x = isa.load(&self.a[at..]);
        push(isa, out, "load_f16", isa.load_f16(&halves[at..]));
        push(isa, out, "load_bf16", isa.load_bf16(&halves[at..]));
        push(isa, out, "load_part", isa.load_part(&self.a[at..][..I::LANES - 1]));
        // SAFETY: `at` leaves a whole vector in every buffer.
        unsafe {
            push_i32(isa, out, "load_u8", isa.load_u8_ptr(bytes[at..].as_ptr()));
            push_i32(isa, out, "load_i8", isa.load_i8_ptr(bytes[at..].as_ptr().cast()));
            push_i32(isa, out, "load_u16", isa.load_u16_ptr(halves[at..].as_ptr()));
            let i = isa.load_i32_ptr(self.i[at..].as_ptr());
            isa.store_i8_ptr(i, i8s.as_mut_ptr());
            isa.store_u16_ptr(i, u16s.as_mut_ptr());
            push_i32(isa, out, "broadcast4", isa.lanes_of(isa.broadcast4_ptr(bytes.as_ptr().cast())));
        }
        out.entry("store_i8").or_default().extend(i8s[..I::LANES].iter().map(|&x| x as u32));
        out.entry("store_u16").or_default().extend(u16s[..I::LANES].iter().map(|&x| u32::from(x)));
        isa.store_f16(x, &mut u16s);
        out.entry("store_f16").or_default().extend(u16s[..I::LANES].iter().map(|&x| u32::from(x)));
        isa.store_bf16(x, &mut u16s);
        out.entry("store_bf16").or_default().extend(u16s[..I::LANES].iter().map(|&x| u32::from(x)));
        let mut part = [7.0; WIDE];
        isa.store_part(x, &mut part[..I::LANES - 1]);
        assert_eq!(part[I::LANES - 1], 7.0, "{}: a partial store wrote too much", I::NAME);
        out.entry("store_part").or_default().extend(part[..I::LANES - 1].iter().map(|x| x.to_bits()));
        out.entry("store_part").or_default().push(0);
    }
}

/// Replaces infinities and NaN, whose payloads instruction sets may quieten differently.
fn finite_half(bits: u16) -> u16 {
    if bits & 0x7c00 == 0x7c00 { bits & !0x4000 } else { bits }
}

/// Partial loads and stores depend on the width by design; everything else must be equal to the bit.
fn compare(level: Level, got: &Outputs, want: &Outputs) {
    for (name, want) in want.iter().filter(|(name, _)| !name.contains("part")) {
        assert_eq!(&got[name], want, "{level}: {name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lanewise_operations_match_scalar(
        a in prop::array::uniform16(prop_oneof![-10f32..10.0, any::<i32>().prop_map(|x| x as f32), -1e-40f32..1e-40]),
        b in prop::array::uniform16(-10f32..10.0),
        i in prop::array::uniform16(any::<i32>()),
        j in prop::array::uniform16(any::<i32>()),
    ) {
        let ops = || AllOps { a: &a, b: &b, i: &i, j: &j };
        let want = dispatch(Level::SCALAR, ops());
        for level in Level::available() {
            compare(level, &dispatch(level, ops()), &want);
        }
    }

    #[test]
    fn dot_products_are_exact(
        w in prop::collection::vec(any::<u8>(), 4 * WIDE),
        a in prop::collection::vec(-127i8..=127, 4 * WIDE),
    ) {
        for level in Level::available() {
            dispatch(level, Dots { w: &w, a: &a });
        }
    }
}

proptest! {
    #[test]
    fn products_of_codes_are_exact(
        a in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(255)], 4 * WIDE),
        w in prop::collection::vec(prop_oneof![any::<i8>(), Just(-128), Just(127)], 4 * WIDE),
    ) {
        for level in Level::available() {
            dispatch(level, CodeDots { a: &a, w: &w });
        }
    }
}

proptest! {
    #[test]
    fn products_of_words_are_exact(
        a in prop::array::uniform16(any::<i32>()),
        w in prop::array::uniform16(any::<i32>()),
    ) {
        // Neither half is -32,768.
        let odd = |x: [i32; WIDE]| x.map(|x| x | 0x0001_0001);
        for level in Level::available() {
            dispatch(level, WordDots { a: &odd(a), w: &odd(w) });
        }
    }
}

struct WordDots<'a> {
    a: &'a [i32; WIDE],
    w: &'a [i32; WIDE],
}

impl Kernel for WordDots<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut sums = [0i32; WIDE];
        // SAFETY: the buffers hold a whole vector of the widest instruction set.
        unsafe {
            let [a, w] = [self.a, self.w].map(|x| isa.load_i32_ptr(x.as_ptr()));
            isa.store_i32_ptr(isa.dot_i16(isa.splat_i32(-5), a, w), sums.as_mut_ptr());
        }
        let halves = |x: i32| [x as i16, (x >> 16) as i16].map(i32::from);
        for ((sum, a), w) in sums[..I::LANES].iter().zip(self.a).zip(self.w) {
            let ([a0, a1], [w0, w1]) = (halves(*a), halves(*w));
            assert_eq!(*sum, a0 * w0 + a1 * w1 - 5, "{} dot_i16", I::NAME);
        }
    }
}

struct CodeDots<'a> {
    a: &'a [u8],
    w: &'a [i8],
}

impl Kernel for CodeDots<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (mut sums, mut bytes, mut four) = ([0i32; WIDE], [0u8; WIDE], [0u8; 4 * WIDE]);
        // SAFETY: the buffers hold a whole vector of the widest instruction set.
        unsafe {
            let a = isa.codes(isa.load_bytes_ptr(self.a.as_ptr()));
            let w = isa.taps(isa.load_bytes_ptr(self.w.as_ptr().cast()));
            let sum = isa.dot_codes(isa.splat_i32(-5), a, w);
            isa.store_i32_ptr(sum, sums.as_mut_ptr());
            isa.store_u8_ptr(sum, bytes.as_mut_ptr());
            let [low, high] = [isa.splat_i32(-70_000), isa.splat_i32(70_000)];
            isa.store_four_u8_ptr([sum, low, isa.splat_i32(7), high], four.as_mut_ptr());
        }
        for lane in 0..I::LANES {
            let product = |k: usize| (i32::from(self.a[k]) - I::CODE_BIAS) * i32::from(self.w[k]);
            let sum = (4 * lane..4 * lane + 4).map(product).sum::<i32>() - 5;
            assert_eq!(sums[lane], sum, "{} dot_codes", I::NAME);
            assert_eq!(i32::from(bytes[lane]), sum.clamp(0, 255), "{} store_u8", I::NAME);
        }
        let expected =
            [&bytes[..I::LANES], &[0; WIDE][..I::LANES], &[7; WIDE][..I::LANES], &[255; WIDE][..I::LANES]];
        assert_eq!(four[..4 * I::LANES], expected.concat(), "{} store_four_u8", I::NAME);
        let table = std::array::from_fn(|i| (i as u8).wrapping_mul(77).wrapping_add(5));
        for count in [0, 1, 3, 16, self.a.len()] {
            let mut translated = self.a[..count].to_vec();
            // SAFETY: so many bytes are there.
            unsafe { isa.translate_ptr(&table, translated.as_mut_ptr(), count) };
            let expected = self.a[..count].iter().map(|a| table[usize::from(*a)]);
            assert!(expected.eq(translated), "{} translate", I::NAME);
        }
        for pitch in [16, 19] {
            let runs: Vec<u8> = (0..4 * pitch as u8).collect();
            let mut quads = [0u8; 4 * WIDE];
            // SAFETY: four runs of at most sixteen bytes are there.
            unsafe { isa.store_bytes_ptr(isa.load_quads_ptr(runs.as_ptr(), pitch), quads.as_mut_ptr()) };
            let expected = (0..4 * I::LANES).map(|i| (i % 4 * pitch + i / 4) as u8);
            assert!(quads.iter().copied().zip(expected).all(|(a, b)| a == b), "{} quads", I::NAME);
        }
    }
}

struct Dots<'a> {
    w: &'a [u8],
    a: &'a [i8],
}

impl Kernel for Dots<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let stored: Vec<u8> = self.w.iter().map(|&w| w.wrapping_add(I::W_BIAS)).collect();
        let low: Vec<u8> = self.w.iter().map(|&w| w & 127).collect();
        let (mut s8, mut u7, mut paired) = ([0i32; WIDE], [0i32; WIDE], [0i32; WIDE]);
        // SAFETY: the buffers hold a whole vector of the widest instruction set.
        unsafe {
            let a = isa.load_bytes_ptr(self.a.as_ptr().cast());
            let acc = isa.splat_i32(-5);
            isa.store_i32_ptr(isa.dot_s8(acc, isa.load_bytes_ptr(stored.as_ptr()), a), s8.as_mut_ptr());
            let w = isa.load_bytes_ptr(low.as_ptr());
            isa.store_i32_ptr(isa.dot_u7(acc, w, a), u7.as_mut_ptr());
            let w = isa.and_bytes(w, isa.splat_bytes(63));
            let pairs = isa.add_pairs(isa.pairs_u7(w, a), isa.pairs_u7(w, a));
            isa.store_i32_ptr(isa.widen_pairs(acc, pairs), paired.as_mut_ptr());
        }
        for lane in 0..I::LANES {
            let sum = |f: &dyn Fn(usize) -> i32| {
                (4 * lane..4 * lane + 4).map(|k| f(k) * i32::from(self.a[k])).sum::<i32>() - 5
            };
            let bias = i32::from(I::W_BIAS);
            assert_eq!(s8[lane], sum(&|k| i32::from(self.w[k] as i8) + bias), "{} dot_s8", I::NAME);
            assert_eq!(u7[lane], sum(&|k| i32::from(low[k])), "{} dot_u7", I::NAME);
            assert_eq!(paired[lane], sum(&|k| 2 * i32::from(low[k] & 63)), "{} pairs", I::NAME);
        }
    }
}

/// A vector function over a slice whose length is a multiple of every width.
struct Map<'a>(&'a [f32], Function);

#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Sigmoid,
    Tanh,
    Erf,
    Gelu,
    Fma,
}

impl Kernel for Map<'_> {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let mut out = vec![0.0; self.0.len()];
        for (x, y) in self.0.chunks_exact(I::LANES).zip(out.chunks_exact_mut(I::LANES)) {
            let x = isa.load(x);
            let value = match self.1 {
                Function::Exp => exp(isa, x),
                Function::Sigmoid => sigmoid(isa, x),
                Function::Tanh => tanh(isa, x),
                Function::Erf => erf(isa, x),
                Function::Gelu => gelu(isa, x),
                Function::Fma => isa.fma(x, x, isa.abs(x)),
            };
            isa.store(value, y);
        }
        out
    }
}

/// Distance from the f64 result in units of the last place of that result as an f32.
fn ulps(got: f32, want: f64) -> f64 {
    let nearest = want as f32;
    if got == nearest {
        return 0.0;
    }
    let ulp = f64::from(nearest) - f64::from(nearest.next_down());
    ((f64::from(got) - want) / ulp).abs()
}

#[test]
fn functions_are_within_their_bounds() {
    let xs: Vec<f32> = (-65_536..65_536).map(|i| i as f32 * (110.0 / 65_536.0)).collect();
    let check = |function: Function, bound: f64, exact: &dyn Fn(f64) -> f64| {
        for level in Level::available() {
            let got = dispatch(level, Map(&xs, function));
            for (&x, &y) in xs.iter().zip(&got) {
                let want = exact(f64::from(x));
                let tiny = want.abs() < f64::from(f32::MIN_POSITIVE) && function_is_sigmoid(function);
                assert!(tiny || ulps(y, want) <= bound, "{level} {function:?}({x}) = {y}, not {want}");
            }
        }
    };
    check(Function::Exp, 2.0, &f64::exp);
    check(Function::Sigmoid, 4.0, &|x| 1.0 / (1.0 + (-x).exp()));
    check(Function::Tanh, 6.0, &f64::tanh);
    check(Function::Fma, 2.0, &|x| x * x + x.abs());
}

fn function_is_sigmoid(function: Function) -> bool {
    matches!(function, Function::Sigmoid)
}

/// The error function by its Taylor series, or as the complement's continued fraction where that converges better.
fn erf_reference(x: f64) -> f64 {
    let a = x.abs();
    if a > 3.0 {
        let fraction = (1..=60).rev().fold(a, |tail, k| a + f64::from(k) / 2.0 / tail);
        return x.signum() * (1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt());
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..80 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn error_functions_are_within_their_bounds() {
    let xs: Vec<f32> = (-65_536..65_536).map(|i| i as f32 * (8.0 / 65_536.0)).collect();
    for level in Level::available() {
        let (erfs, gelus) =
            (dispatch(level, Map(&xs, Function::Erf)), dispatch(level, Map(&xs, Function::Gelu)));
        for ((&x, erf), gelu) in xs.iter().zip(erfs).zip(gelus) {
            let want = erf_reference(f64::from(x));
            assert!(ulps(erf, want) <= 4.0, "{level} erf({x}) = {erf}, not {want}");
            let x = f64::from(x);
            let want = x / 2.0 * (1.0 + erf_reference(x * std::f64::consts::FRAC_1_SQRT_2));
            assert!((f64::from(gelu) - want).abs() <= 4e-7 * x.abs().max(1.0), "{level} gelu({x}) = {gelu}");
        }
        let y =
            dispatch(level, Map(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0].repeat(4), Function::Erf));
        assert!(y[0].is_nan() && y[1] == 1.0 && y[2] == -1.0 && y[3] == 0.0, "{level}: erf {y:?}");
    }
}

#[test]
fn functions_keep_special_values() {
    let xs = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0].repeat(4);
    for level in Level::available() {
        let y = dispatch(level, Map(&xs, Function::Exp));
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == 0.0 && y[3] == 1.0, "{level}: exp {y:?}");
        let y = dispatch(level, Map(&xs, Function::Tanh));
        assert!(y[0].is_nan() && y[1] == 1.0 && y[2] == -1.0 && y[3] == 0.0, "{level}: tanh {y:?}");
    }
}

struct Reduce<'a>(&'a [f32]);

impl Kernel for Reduce<'_> {
    type Out = Vec<(f32, f32, u32)>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Out {
        let vectors = self.0.chunks_exact(I::LANES);
        let reduced = |x: &[f32]| {
            let x = isa.load(x);
            (isa.reduce_sum(x), isa.reduce_max(x), isa.mask_bits(isa.lt(x, isa.zero())))
        };
        vectors.map(reduced).collect()
    }
}

#[test]
fn reductions_cover_every_lane() {
    let xs: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32 - 20.0).collect();
    for level in Level::available() {
        let got = dispatch(level, Reduce(&xs));
        for (chunk, (sum, max, negative)) in xs.chunks_exact(level.lanes()).zip(got) {
            assert_eq!(sum, chunk.iter().sum::<f32>(), "{level}");
            assert_eq!(max, chunk.iter().copied().fold(f32::MIN, f32::max), "{level}");
            let bits = chunk.iter().enumerate().map(|(lane, x)| u32::from(*x < 0.0) << lane).sum::<u32>();
            assert_eq!(negative, bits, "{level}");
        }
    }
}

struct Zip<'a>(&'a [f32], &'a [f32]);

impl Kernel for Zip<'_> {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let mut out = vec![0.0; 2 * I::LANES];
        let (low, high) = isa.zip(isa.load(self.0), isa.load(self.1));
        isa.store(low, &mut out);
        isa.store(high, &mut out[I::LANES..]);
        out
    }
}

#[test]
fn zipped_lanes_take_turns() {
    let (a, b): (Vec<f32>, Vec<f32>) = (0..WIDE).map(|i| (i as f32, 100.0 + i as f32)).unzip();
    for level in Level::available() {
        let want: Vec<f32> = a.iter().zip(&b).flat_map(|(&a, &b)| [a, b]).take(2 * level.lanes()).collect();
        assert_eq!(dispatch(level, Zip(&a, &b)), want, "{level}");
    }
}

struct DotBf16<'a>(&'a [f32], &'a [f32], &'a [f32]);

impl Kernel for DotBf16<'_> {
    type Out = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let pairs = |x: &[f32]| {
            let mut halves = vec![0u16; 2 * I::LANES];
            for (at, x) in x.chunks_exact(I::LANES).take(2).enumerate() {
                isa.store_bf16(isa.load(x), &mut halves[at * I::LANES..]);
            }
            halves.chunks_exact(2).map(|p| i32::from(p[0]) | i32::from(p[1]) << 16).collect::<Vec<_>>()
        };
        let (a, w) = (pairs(self.1), pairs(self.2));
        let mut out = vec![0.0; I::LANES];
        // SAFETY: both hold `LANES` integers.
        let (a, w) = unsafe { (isa.load_i32_ptr(a.as_ptr()), isa.load_i32_ptr(w.as_ptr())) };
        isa.store(isa.dot_bf16(isa.load(self.0), a, w), &mut out);
        out
    }
}

/// Enters a kernel with products of bfloat16.
struct WithBf16<K>(K);

impl<K: Kernel> Kernel for WithBf16<K> {
    type Out = K::Out;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> K::Out {
        isa.dispatch_bf16(self.0)
    }
}

#[test]
fn pairs_of_bf16_are_rounded_and_added_in_order() {
    let values =
        |seed: usize| (0..2 * WIDE).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 7.3 - 6.9).collect();
    let (acc, a, w): (Vec<f32>, Vec<f32>, Vec<f32>) = (values(1), values(2), values(3));
    let round = |x: f32| {
        let bits = x.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    };
    for level in Level::available() {
        let want: Vec<f32> = (0..level.lanes())
            .map(|i| {
                let term = |at: usize| (round(a[at]), round(w[at]));
                let ((a0, w0), (a1, w1)) = (term(2 * i), term(2 * i + 1));
                a0.mul_add(w0, a1.mul_add(w1, acc[i]))
            })
            .collect();
        let close =
            |got: &[f32]| got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 2e-6 * w.abs().max(1.0));
        for got in [dispatch(level, DotBf16(&acc, &a, &w)), dispatch(level, WithBf16(DotBf16(&acc, &a, &w)))]
        {
            assert!(close(&got), "{level}: {got:?}, not {want:?}");
            if level.lanes() >= 8 {
                assert_eq!(got, want, "{level}");
            }
        }
    }
}

struct PairBf16<'a>(&'a [f32], &'a [f32]);

impl Kernel for PairBf16<'_> {
    type Out = Vec<i32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<i32> {
        let mut out = vec![0; I::LANES];
        let pairs = isa.pair_bf16(isa.load(self.0), isa.load(self.1));
        // SAFETY: there is room for `LANES` integers.
        unsafe { isa.store_i32_ptr(pairs, out.as_mut_ptr()) };
        out
    }
}

#[test]
fn lanes_become_pairs_of_bf16() {
    let (low, high): (Vec<f32>, Vec<f32>) =
        (0..WIDE).map(|i| (i as f32 * 1.234_567 - 9.0, 3e30 / (i as f32 + 0.7))).unzip();
    let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
    for level in Level::available() {
        let want: Vec<i32> = low
            .iter()
            .zip(&high)
            .map(|(&l, &h)| (bits(l) | bits(h) << 16) as i32)
            .take(level.lanes())
            .collect();
        assert_eq!(dispatch(level, PairBf16(&low, &high)), want, "{level}");
        assert_eq!(dispatch(level, WithBf16(PairBf16(&low, &high))), want, "{level} with bfloat16");
    }
}

#[test]
fn levels_are_found_by_name() {
    for level in Level::available() {
        assert_eq!(Level::named(level.name()), Some(level));
    }
    assert_eq!(Level::available().last(), Some(&Level::SCALAR));
    assert_eq!(Level::named("no-such-level"), None);
}
