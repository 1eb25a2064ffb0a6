//! Weights as they lie in the file times f32 activations: exact weights, f32 arithmetic.
//!
//! Each output is a dot product along the columns: `LANES` partial sums, columns in order, then their sum. The order
//! does not depend on how many rows are multiplied at once. Floating-point weights are converted as they are loaded;
//! quantised ones are decoded some rows at a time into scratch memory.
//!
//! Error: `(cols / LANES + 5) * 2^-24 * sum(|x * w|)` at most.
#![allow(clippy::needless_range_loop, reason = "register blocks are indexed alike")]

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, Level, MAX_LANES, dispatch};
use kinglet_tensor::quant::{RowDecoder, row_decoder};
use kinglet_tensor::{AlignedBuf, Bytes, DType};

use super::error::MatmulError;
use super::q8::Output;

/// A weight matrix in its file's format, `[rows, cols]`; usually mapped.
#[derive(Clone, Debug)]
pub struct Matrix {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: Bytes,
    decode: RowDecoder,
}

impl Matrix {
    /// Checks that `data` is a matrix of this type and size.
    pub fn new(dtype: DType, rows: usize, cols: usize, data: Bytes) -> Result<Self, MatmulError> {
        let shape = MatmulError::Shape { dtype, rows, cols };
        let decode = row_decoder(dtype).ok_or(MatmulError::NotNumbers { dtype })?;
        let row_bytes = dtype.bytes_for(cols).filter(|_| cols > 0 && rows > 0).ok_or(shape.clone())?;
        let expected = row_bytes.checked_mul(rows).ok_or(shape)?;
        if data.len() != expected {
            return Err(MatmulError::Length { dtype, rows, cols, expected, found: data.len() });
        }
        Ok(Self { dtype, rows, cols, row_bytes, data, decode })
    }

    /// Type of the weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The file's bytes of a row. Panics when there is no such row.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.row_bytes..][..self.row_bytes]
    }

    /// The file's bytes of some rows. Panics when there are no such rows.
    pub(crate) fn row_bytes(&self, rows: Range<usize>) -> &[u8] {
        &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }

    /// Decodes a row into `out`, `cols` floats: the bits that the format defines. Panics when there is no such row or
    /// `out` has another length.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "columns of a row");
        (self.decode)(self.row(row), out);
    }
}

/// `y[m, n] = sum_k x[m, k] * w[n, k] + bias[n]` for the weight rows `n` in `rows`; `x` is whole rows.
///
/// Fails when there is no memory for decoded rows. Panics when lengths do not fit.
///
/// # Safety
/// While this runs, nothing else reads or writes the output's columns `rows`.
pub unsafe fn matmul_f32(
    level: Level,
    w: &Matrix,
    rows: Range<usize>,
    x: &[f32],
    bias: Option<&[f32]>,
    y: Output<'_>,
) -> Result<(), MatmulError> {
    assert!(rows.end <= w.rows, "rows {rows:?} of {}", w.rows);
    assert!(x.len().is_multiple_of(w.cols), "{} values are not rows of {}", x.len(), w.cols);
    assert!(bias.is_none_or(|bias| bias.len() >= w.rows), "bias of {} rows", w.rows);
    let few = x.len() / w.cols <= FEW_ROWS;
    let panel = if few { BLOCK } else { panel_rows(w.cols) };
    let scratch = match w.dtype {
        DType::F32 => 0,
        DType::F16 | DType::BF16 if few => 0,
        _ => panel * w.cols,
    };
    let scratch = AlignedBuf::try_new(scratch)?;
    dispatch(level, Job { w, rows, x, bias, y, panel, scratch });
    Ok(())
}

/// Most weight rows multiplied at once.
const BLOCK: usize = 4;
/// Rows of activations up to which converting weights as they are loaded beats decoding them first.
const FEW_ROWS: usize = 2;
/// Floats of a panel of weight rows, which stays in the second-level cache while all activations pass over it.
const PANEL: usize = 1 << 16;

struct Job<'a> {
    w: &'a Matrix,
    rows: Range<usize>,
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    y: Output<'a>,
    /// Weight rows that all activations pass over before the next ones.
    panel: usize,
    scratch: AlignedBuf<f32>,
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        match self.w.dtype {
            DType::F32 => self.direct::<I, F32>(isa),
            DType::F16 if self.scratch.is_empty() => self.direct::<I, F16>(isa),
            DType::BF16 if self.scratch.is_empty() => self.direct::<I, Bf16>(isa),
            _ => self.decoded(isa),
        }
    }
}

/// Weight rows of a panel: whole blocks.
fn panel_rows(cols: usize) -> usize {
    (PANEL / cols).next_multiple_of(BLOCK).clamp(BLOCK, 16 * BLOCK)
}

impl Job<'_> {
    /// Rows straight from the file.
    #[inline(always)]
    fn direct<I: Isa, L: Load>(&self, isa: I) {
        for row in self.rows.clone().step_by(self.panel) {
            let rows = row..self.rows.end.min(row + self.panel);
            let start = self.w.data[row * self.w.row_bytes..].as_ptr();
            // SAFETY: these rows follow each other in the file.
            unsafe { self.over_panel::<I, L>(isa, start, self.w.row_bytes, rows) };
        }
    }

    /// Rows decoded to floats first.
    #[inline(always)]
    fn decoded<I: Isa>(&mut self, isa: I) {
        let (w, cols) = (self.w, self.w.cols);
        for row in self.rows.clone().step_by(self.panel) {
            let rows = row..self.rows.end.min(row + self.panel);
            let bytes = &w.data[row * w.row_bytes..][..rows.len() * w.row_bytes];
            convert(isa, w, bytes, &mut self.scratch[..rows.len() * cols]);
            // SAFETY: the scratch memory holds these rows.
            unsafe { self.over_panel::<I, F32>(isa, self.scratch.as_ptr().cast(), 4 * cols, rows) };
        }
    }

    /// All rows of activations over some rows of weights.
    ///
    /// # Safety
    /// `w` points to weight rows `rows`: `cols` values of `L` each, `stride` bytes apart.
    #[inline(always)]
    unsafe fn over_panel<I: Isa, L: Load>(&self, isa: I, w: *const u8, stride: usize, rows: Range<usize>) {
        let count = self.x.len() / self.w.cols;
        let many = if I::REGISTERS >= 16 { count / 6 * 6 } else { 0 };
        let pairs = if I::REGISTERS >= 16 { count / 2 * 2 } else { 0 };
        // SAFETY: by the caller's promise; the rows of `x` that are named are there.
        unsafe {
            for m in (0..many).step_by(6) {
                // As many sums as there are registers for, beside the weights and one vector of activations.
                if I::REGISTERS >= 32 {
                    self.over_rows::<I, L, 6, BLOCK>(isa, w, stride, rows.clone(), m);
                } else {
                    self.over_rows::<I, L, 6, 2>(isa, w, stride, rows.clone(), m);
                }
            }
            for m in (many..pairs).step_by(2) {
                self.over_rows::<I, L, 2, BLOCK>(isa, w, stride, rows.clone(), m);
            }
            for m in pairs..count {
                self.over_rows::<I, L, 1, BLOCK>(isa, w, stride, rows.clone(), m);
            }
        }
    }

    /// `MR` rows of activations from `m` on over some rows of weights, `NR` at a time.
    ///
    /// # Safety
    /// As for [`over_panel`](Self::over_panel), and `x` has the rows.
    #[inline(always)]
    unsafe fn over_rows<I: Isa, L: Load, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        w: *const u8,
        stride: usize,
        rows: Range<usize>,
        m: usize,
    ) {
        let whole = rows.len() / NR * NR;
        // SAFETY: by the caller's promise; `i` and the block behind it are within the rows.
        unsafe {
            for i in (0..whole).step_by(NR) {
                self.dots::<I, L, MR, NR>(isa, w.add(i * stride), stride, rows.start + i, m);
            }
            for i in whole..rows.len() {
                self.dots::<I, L, MR, 1>(isa, w.add(i * stride), stride, rows.start + i, m);
            }
        }
    }

    /// `MR` rows of activations from `m` on times `NR` rows of weights from `row` on.
    ///
    /// # Safety
    /// `w` points to these weight rows, `stride` bytes apart; `x` has the rows.
    #[inline(always)]
    unsafe fn dots<I: Isa, L: Load, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        w: *const u8,
        stride: usize,
        row: usize,
        m: usize,
    ) {
        let cols = self.w.cols;
        let x = self.x[m * cols..(m + MR) * cols].as_ptr();
        let mut acc = [[isa.zero(); NR]; MR];
        let whole = cols / I::LANES * I::LANES;
        // SAFETY: by the caller's promise; all columns are in the rows.
        unsafe {
            for k in (0..whole).step_by(I::LANES) {
                step::<I, L, MR, NR>(isa, w, stride, x, cols, k, I::LANES, &mut acc);
            }
            if whole < cols {
                step::<I, L, MR, NR>(isa, w, stride, x, cols, whole, cols - whole, &mut acc);
            }
        }
        // Through memory, so that the sums above are in registers: what is indexed by a loop that is not unrolled is not.
        let mut sums = [[[0.0; MAX_LANES]; NR]; MR];
        for i in 0..MR {
            for j in 0..NR {
                // SAFETY: a vector has at most `MAX_LANES` floats.
                unsafe { isa.store_ptr(acc[i][j], sums[i][j].as_mut_ptr()) };
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let at = (m + i) * self.y.stride + row;
            // SAFETY: the caller of `matmul_f32` leaves these columns to this call.
            let out = unsafe { self.y.data.part_mut(at..at + NR) };
            for (j, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
                *out = isa.reduce_sum(isa.load(sums)) + self.bias.map_or(0.0, |bias| bias[row + j]);
            }
        }
    }
}

/// Adds `n <= LANES` columns from column `k` on.
///
/// # Safety
/// `w` points to `NR` rows of `L`, `stride` bytes apart, `x` to `MR` rows of `cols` floats, which have these columns.
#[allow(clippy::too_many_arguments, reason = "two blocked operands")]
#[inline(always)]
unsafe fn step<I: Isa, L: Load, const MR: usize, const NR: usize>(
    isa: I,
    w: *const u8,
    stride: usize,
    x: *const f32,
    cols: usize,
    k: usize,
    n: usize,
    acc: &mut [[I::F32; NR]; MR],
) {
    let mut weights = [isa.zero(); NR];
    for j in 0..NR {
        // SAFETY: by the caller's promise.
        weights[j] = unsafe { L::load(isa, w.add(j * stride), k, n) };
        isa.prefetch(w.wrapping_add((NR + j) * stride + k * L::BYTES));
    }
    for i in 0..MR {
        // SAFETY: by the caller's promise.
        let x = unsafe { F32::load(isa, x.add(i * cols).cast(), k, n) };
        for j in 0..NR {
            acc[i][j] = isa.fma(x, weights[j], acc[i][j]);
        }
    }
}

/// Rows of a file to floats; `out` is whole rows.
#[inline(always)]
fn convert<I: Isa>(isa: I, w: &Matrix, bytes: &[u8], out: &mut [f32]) {
    match w.dtype {
        DType::F16 => convert_plain::<I, F16>(isa, bytes, out),
        DType::BF16 => convert_plain::<I, Bf16>(isa, bytes, out),
        _ => (w.decode)(bytes, out),
    }
}

#[inline(always)]
fn convert_plain<I: Isa, L: Load>(isa: I, bytes: &[u8], out: &mut [f32]) {
    for k in (0..out.len()).step_by(I::LANES) {
        let n = I::LANES.min(out.len() - k);
        // SAFETY: `bytes` holds as many values as `out`.
        let values = unsafe { L::load(isa, bytes.as_ptr(), k, n) };
        isa.store_part(values, &mut out[k..]);
    }
}

/// A floating-point type as it lies in memory.
trait Load {
    /// Bytes of a value.
    const BYTES: usize;

    /// `n <= LANES` values from index `at` on, zeros behind them.
    ///
    /// # Safety
    /// `row` is valid for reading `at + n` values; any alignment.
    unsafe fn load<I: Isa>(isa: I, row: *const u8, at: usize, n: usize) -> I::F32;
}

struct F32;

impl Load for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, row: *const u8, at: usize, n: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe {
            let p = row.cast::<f32>().add(at);
            if n == I::LANES { isa.load_ptr(p) } else { isa.load_part_ptr(p, n) }
        }
    }
}

/// The 16-bit values of a vector, zeros behind the `n`-th.
///
/// # Safety
/// `p` is valid for reading `n <= 16` values.
#[inline(always)]
unsafe fn padded(p: *const u16, n: usize) -> [u16; 16] {
    let mut values = [0u16; 16];
    // SAFETY: by the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(p.cast::<u8>(), values.as_mut_ptr().cast(), 2 * n) };
    values
}

struct F16;

impl Load for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, row: *const u8, at: usize, n: usize) -> I::F32 {
        // SAFETY: by the caller's promise; a padded copy is a whole vector.
        unsafe {
            let p = row.cast::<u16>().add(at);
            if n == I::LANES { isa.load_f16_ptr(p) } else { isa.load_f16(&padded(p, n)) }
        }
    }
}

struct Bf16;

impl Load for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, row: *const u8, at: usize, n: usize) -> I::F32 {
        // SAFETY: by the caller's promise; a padded copy is a whole vector.
        unsafe {
            let p = row.cast::<u16>().add(at);
            if n == I::LANES { isa.load_bf16_ptr(p) } else { isa.load_bf16(&padded(p, n)) }
        }
    }
}
