//! Every format on every instruction set here, against f64 arithmetic on the file's own weights.

use kinglet_simd::Level;
use kinglet_tensor::quant::dequantize;
use kinglet_tensor::{Bytes, DType};

use super::*;

/// A small reproducible generator (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Between -1 and 1, now and then much larger, as activations are.
    fn activation(&mut self) -> f32 {
        let x = (self.next() % 20_001) as f32 / 10_000.0 - 1.0;
        if self.next().is_multiple_of(50) { x * 30.0 } else { x }
    }

    fn activations(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.activation()).collect()
    }

    /// Random blocks, except that 16-bit scales at `halves` are moderate and an exponent byte stays near one.
    fn weights(&mut self, dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..dtype.bytes_for(rows * cols).unwrap()).map(|_| self.next() as u8).collect();
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            for &at in halves(dtype) {
                block[at + 1] = block[at + 1] & 0x83 | 0x24;
            }
            match dtype {
                DType::MXFP4 => block[0] = 118 + block[0] % 8,
                DType::F32 => block[3] = block[3] & 0x80 | 0x3d,
                DType::BF16 => block[1] = block[1] & 0x80 | 0x3d,
                DType::NVFP4 => block[..4].iter_mut().for_each(|scale| *scale &= 0x3f),
                _ => {}
            }
        }
        bytes
    }
}

/// Where a block of the type has half floats.
fn halves(dtype: DType) -> &'static [usize] {
    use DType::*;
    match dtype {
        F16 | Q4_0 | Q5_0 | Q8_0 | IQ4_NL | IQ4_XS | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ1_S
        | Q1_0 => &[0],
        Q4_1 | Q5_1 | Q8_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
        TQ1_0 => &[52],
        TQ2_0 => &[64],
        _ => &[],
    }
}

const PACKABLE: [DType; 11] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::IQ4_XS,
    DType::MXFP4,
];

/// A matrix, activations and what comes of them.
struct Case {
    dtype: DType,
    rows: usize,
    cols: usize,
    m: usize,
    bytes: Vec<u8>,
    weights: Vec<f32>,
    x: Vec<f32>,
}

impl Case {
    fn new(dtype: DType, rows: usize, cols: usize, m: usize) -> Self {
        let mut random = Random(0x9e37_79b9 + (rows * 31 + cols * 7 + m) as u64);
        let bytes = random.weights(dtype, rows, cols);
        let mut weights = vec![0.0; rows * cols];
        dequantize(dtype, &bytes, &mut weights).unwrap();
        Self { dtype, rows, cols, m, bytes, weights, x: random.activations(m * cols) }
    }

    fn label(&self, level: Level) -> String {
        format!("{level} {} {}x{} m={}", self.dtype, self.rows, self.cols, self.m)
    }

    fn pack(&self, level: Level) -> PackedMatrix {
        PackedMatrix::pack(level, self.dtype, self.rows, self.cols, &self.bytes).unwrap()
    }

    fn quantize(&self, level: Level) -> Vec<u8> {
        let mut bytes = vec![0; self.m * quant_row_bytes(self.cols)];
        quantize_rows(level, &self.x, self.cols, &mut bytes);
        bytes
    }

    /// Output `n` in f64 for activations `x(column)`, and the sum of magnitudes that rounding is measured by: the
    /// largest weight of each group stands for codes and minima that cancel.
    fn exact(&self, n: usize, x: impl Fn(usize) -> f64) -> (f64, f64) {
        let weights = &self.weights[n * self.cols..(n + 1) * self.cols];
        let value = weights.iter().enumerate().map(|(k, &w)| f64::from(w) * x(k)).sum();
        let group = |g: usize| {
            let span = g * 32..((g + 1) * 32).min(self.cols);
            let w = weights[span.clone()].iter().fold(0.0f64, |max, &w| max.max(f64::from(w).abs()));
            w * span.map(|k| x(k).abs()).sum::<f64>()
        };
        (value, (0..self.cols.div_ceil(32)).map(group).sum())
    }
}

/// The product, made in parts of so many rows and tiles.
fn run_q8(
    w: &PackedMatrix,
    x: QuantRows<'_>,
    bias: Option<&[f32]>,
    (rows, tiles): (usize, usize),
) -> Vec<f32> {
    let stride = w.plan().rows();
    let mut y = vec![f32::NAN; x.rows() * stride];
    let out = Output::new(&mut y, stride);
    for tile in (0..w.plan().tiles()).step_by(tiles) {
        for row in (0..x.rows()).step_by(rows) {
            let tiles = tile..w.plan().tiles().min(tile.saturating_add(tiles));
            let part = Part { rows: row..x.rows().min(row.saturating_add(rows)), tiles };
            // SAFETY: one thread, one call at a time.
            unsafe { matmul_q8(w, part, x, bias, out) };
        }
    }
    y
}

#[track_caller]
fn check_q8(level: Level, case: &Case) {
    let label = case.label(level);
    let (w, bytes) = (case.pack(level), case.quantize(level));
    let x = QuantRows::new(&bytes, case.m, case.cols);
    let bias: Vec<f32> = (0..case.rows).map(|n| n as f32 * 0.01).collect();
    let y = run_q8(&w, x, Some(&bias), (usize::MAX, usize::MAX));
    let groups = case.cols as f64 / 32.0;
    for (row, n) in (0..case.m).flat_map(|row| (0..case.rows).map(move |n| (row, n))) {
        let (want, magnitude) = case.exact(n, |k| x.value(row, k));
        let bound = (groups + 4.0) * 2f64.powi(-23) * (3.0 * magnitude + f64::from(bias[n]));
        let (got, want) = (f64::from(y[row * case.rows + n]), want + f64::from(bias[n]));
        assert!((got - want).abs() <= bound, "{label} [{row}, {n}]: {got}, not {want} within {bound}");
    }
    assert_eq!(y, run_q8(&w, x, Some(&bias), (5, 3)), "{label}: in parts");
    let alone = QuantRows::new(&bytes[..quant_row_bytes(case.cols)], 1, case.cols);
    assert_eq!(y[..case.rows], run_q8(&w, alone, Some(&bias), (1, 1)), "{label}: the first row alone");
}

#[test]
fn packed_products_are_exact_but_for_rounding() {
    for level in Level::available() {
        for dtype in PACKABLE {
            let block = dtype.block_len();
            for (rows, blocks, m) in [(1, 1, 1), (16, 3, 2), (37, 2, 3), (50, 9, 4), (33, 1, 7), (19, 4, 13)]
            {
                check_q8(level, &Case::new(dtype, rows, blocks * block, m));
            }
            // More columns than a panel holds, more rows than a block.
            check_q8(level, &Case::new(dtype, 21, 1024, 40));
        }
        // More rows than are taken at a time.
        check_q8(level, &Case::new(DType::Q4_1, 35, 96, 300));
    }
}

#[test]
fn packed_rows_decode_to_the_bit() {
    for level in Level::available() {
        for dtype in PACKABLE {
            let case = Case::new(dtype, 35, 3 * 256, 1);
            let w = case.pack(level);
            let mut row = vec![0.0; case.cols];
            for n in 0..case.rows {
                w.decode_row(n, &mut row);
                let want = &case.weights[n * case.cols..][..case.cols];
                let same = row.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} row {n}", case.label(level));
            }
        }
    }
}

#[test]
fn packed_copies_are_no_larger_than_files() {
    for dtype in PACKABLE {
        let plan = PackPlan::new(Level::detect(), dtype, 64, 1024).unwrap();
        let file = dtype.bytes_for(64 * 1024).unwrap();
        assert!(plan.bytes() * 100 <= file * 103, "{dtype}: {} of {file}", plan.bytes());
    }
}

#[track_caller]
fn check_f32(level: Level, case: &Case) {
    let label = case.label(level);
    let w = Matrix::new(case.dtype, case.rows, case.cols, Bytes::from(case.bytes.clone())).unwrap();
    let run = |x: &[f32], cut: usize| {
        let mut y = vec![f32::NAN; x.len() / case.cols * case.rows];
        for start in (0..case.rows).step_by(cut) {
            let out = Output::new(&mut y, case.rows);
            // SAFETY: one thread, one call at a time.
            unsafe { matmul_f32(level, &w, start..(start + cut).min(case.rows), x, None, out) }.unwrap();
        }
        y
    };
    let y = run(&case.x, usize::MAX);
    let bound = (case.cols as f64 / level.lanes() as f64 + 5.0) * 2f64.powi(-23);
    for (row, n) in (0..case.m).flat_map(|row| (0..case.rows).map(move |n| (row, n))) {
        let (want, magnitude) = case.exact(n, |k| f64::from(case.x[row * case.cols + k]));
        let got = f64::from(y[row * case.rows + n]);
        assert!((got - want).abs() <= bound * magnitude, "{label} [{row}, {n}]: {got}, not {want}");
    }
    assert_eq!(y, run(&case.x, 3), "{label}: rows in threes");
    assert_eq!(y[..case.rows], run(&case.x[..case.cols], 5), "{label}: the first row alone");
}

#[test]
fn float_products_take_every_type() {
    use DType::*;
    let others = [
        F32, F16, BF16, Q8_1, Q2_K, Q3_K, IQ1_S, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, TQ1_0, TQ2_0, Q1_0,
        NVFP4,
    ];
    for level in Level::available() {
        for dtype in PACKABLE.into_iter().chain(others) {
            for (rows, m) in [(5, 1), (8, 2), (7, 3), (9, 9)] {
                check_f32(level, &Case::new(dtype, rows, 256, m));
            }
        }
        for cols in [1, 7, 17, 45] {
            for dtype in [F32, F16, BF16] {
                check_f32(level, &Case::new(dtype, 6, cols, 5));
            }
        }
    }
}

/// Checks codes, scales and sums of rows of 96 columns; returns how many values are wide.
#[track_caller]
fn check_quantized(level: Level, x: &[f32]) -> usize {
    let mut bytes = vec![0xaa; x.len() / 96 * quant_row_bytes(96)];
    quantize_rows(level, x, 96, &mut bytes);
    let rows = QuantRows::new(&bytes, x.len() / 96, 96);
    let mut wide = 0;
    for (row, group) in (0..rows.rows()).flat_map(|row| (0..3).map(move |group| (row, group))) {
        let values = &x[row * 96..][..96];
        let rms = (values.iter().map(|x| x * x).sum::<f32>() / 96.0).sqrt();
        let (_, scale) = rows.code(row, group * 32);
        let magnitudes = || values[group * 32..][..32].iter().map(|x| x.abs());
        let usual = magnitudes().filter(|&x| x < 5.0 * rms).fold(0.0, f32::max);
        let expected = usual.max(magnitudes().fold(0.0, f32::max) / 127.0) / 127.0;
        assert!((scale - expected).abs() <= 1e-6 * expected, "{level}: scale {scale}, not {expected}");
        let (mut sums, mut whole) = ([0; 2], 0);
        for k in 0..32 {
            let (col, x) = (group * 32 + k, values[group * 32 + k]);
            let (code, upper) = (i32::from(rows.code(row, col).0), i32::from(rows.upper(row, col)));
            let error = (f64::from(x) - rows.value(row, col)).abs();
            assert!(error <= f64::from(scale) * 0.501, "{level}: {x} is off by {error}, steps are {scale}");
            assert!(code.abs() <= 127, "{level}: codes are symmetric");
            assert!(upper == 0 || x.abs() > 127.4 * scale, "{level}: {x} needs no upper code");
            sums[k / 16] += code;
            whole += code + 128 * upper;
            wide += usize::from(upper != 0);
        }
        let word = |n: usize| {
            let at = row * quant_row_bytes(96) + group * 48 + 32 + 4 * n;
            i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        };
        assert_eq!(f32::from_bits(word(1) as u32), scale * whole as f32, "{level}");
        assert_eq!([word(2), word(3)], [-sums[0] - sums[1], -sums[0]], "{level}");
    }
    wide
}

#[test]
fn activations_keep_their_scale_and_sums() {
    for level in Level::available() {
        let found = check_quantized(level, &Random(7).activations(40 * 96));
        assert!((1..120).contains(&found), "{level}: {found} values are wide");
    }
}

#[test]
fn odd_activations_stay_visible() {
    let check = |x: f32, expect: fn(f32) -> bool| {
        for level in Level::available() {
            let mut values = [0.0; 64];
            values[40] = x;
            let mut bytes = vec![0; quant_row_bytes(64)];
            quantize_rows(level, &values, 64, &mut bytes);
            let (_, scale) = QuantRows::new(&bytes, 1, 64).code(0, 40);
            assert!(expect(scale), "{level}: {x} has scale {scale}");
        }
    };
    check(0.0, |scale| scale == 0.0);
    check(1e-44, |scale| scale == 0.0);
    check(f32::MAX, |scale| scale.is_finite() && scale > 1e36);
    check(f32::NAN, f32::is_nan);
    check(f32::INFINITY, f32::is_nan);
}

#[test]
fn impossible_matrices_are_errors() {
    let level = Level::SCALAR;
    let plan = |dtype, rows, cols| PackPlan::new(level, dtype, rows, cols).map(|plan| plan.bytes());
    assert_eq!(plan(DType::F32, 4, 32), Err(MatmulError::NotPackable { dtype: DType::F32 }));
    for (rows, cols) in [(0, 32), (4, 0), (4, 33), (usize::MAX, 32), (4, usize::MAX / 32 * 32)] {
        let dtype = DType::Q4_0;
        assert_eq!(plan(dtype, rows, cols), Err(MatmulError::Shape { dtype, rows, cols }));
    }
    let short = PackedMatrix::pack(level, DType::Q8_0, 2, 32, &[0; 67]).unwrap_err();
    assert_eq!(short.to_string(), "a 2 x 32 matrix of Q8_0 takes 68 bytes, found 67");
    let integers = Matrix::new(DType::I32, 2, 32, Bytes::new()).unwrap_err();
    assert_eq!(integers, MatmulError::NotNumbers { dtype: DType::I32 });
}
