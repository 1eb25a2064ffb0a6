//! Writing rows of keys and values into pages and reading them back as floats, in each storage type.
//!
//! The layouts are drawn in [`crate::kv`]. Rounding is to nearest even; Q8_0 codes are `round(x * 127 / max|x|)` with the
//! scale kept as a half float. Elements behind the last of a value row are written as zeros.

use kinglet_simd::Isa;
use kinglet_tensor::DType;

use crate::kv::{GROUP, HeadPage, Q8_BLOCK};

/// One head of one layer in a page, and how it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) dtype: DType,
    pub(crate) page_tokens: usize,
    /// Elements of a row.
    pub(crate) dim: usize,
}

impl Rows {
    /// Floats of a decoded value row: padded to whole groups.
    pub(crate) fn padded(&self) -> usize {
        self.dim.next_multiple_of(GROUP)
    }

    /// Stores the key of token `at` of the page.
    ///
    /// # Safety
    /// The page holds keys of this kind; nobody else accesses this token. `x` has `dim` elements.
    #[inline(always)]
    pub(crate) unsafe fn store_key<I: Isa>(&self, isa: I, page: HeadPage, at: usize, x: &[f32]) {
        let (group, lane) = (page.keys.wrapping_add(self.group_bytes() * (at / GROUP)), at % GROUP);
        // SAFETY: token `at` is in the page, and its elements lie `GROUP` apart from `lane` on.
        unsafe {
            match self.dtype {
                DType::F32 => scatter(x, group.cast::<f32>().wrapping_add(lane), |x| x),
                DType::Q8_0 => self.store_q8_key(x, group, lane),
                _ => {
                    let group = group.cast::<u16>().wrapping_add(lane);
                    for (i, x) in x.chunks(I::LANES).enumerate() {
                        let mut halves = [0u16; GROUP];
                        store_half(isa, self.dtype, isa.load_part(x), halves.as_mut_ptr());
                        scatter(&halves[..x.len()], group.wrapping_add(i * I::LANES * GROUP), |x| x);
                    }
                }
            }
        }
    }

    /// Stores the value row of token `at` of the page.
    ///
    /// # Safety
    /// The page holds values of this kind; nobody else accesses this token. `x` has `dim` elements.
    #[inline(always)]
    pub(crate) unsafe fn store_value<I: Isa>(&self, isa: I, page: HeadPage, at: usize, x: &[f32]) {
        let first = at * self.padded();
        // SAFETY: the row of token `at` is in the page and padded to a multiple of every vector length.
        unsafe {
            match self.dtype {
                DType::Q8_0 => self.store_q8_value(x, page.values, at),
                _ => {
                    for (i, x) in x.chunks(I::LANES).enumerate() {
                        let (x, at) = (isa.load_part(x), first + i * I::LANES);
                        match self.dtype {
                            DType::F32 => isa.store_ptr(x, page.values.cast::<f32>().add(at)),
                            _ => store_half(isa, self.dtype, x, page.values.cast::<u16>().add(at)),
                        }
                    }
                }
            }
        }
    }

    /// The keys of a group, as they are stored.
    #[inline(always)]
    pub(crate) fn stored_keys(&self, page: HeadPage, group: usize) -> *const u8 {
        page.keys.wrapping_add(group * self.group_bytes())
    }

    /// The value rows from token `first` on, as they are stored; not for Q8_0, whose scales lie elsewhere.
    #[inline(always)]
    pub(crate) fn stored_values(&self, page: HeadPage, first: usize) -> *const u8 {
        page.values.wrapping_add(first * self.padded() * self.dtype.block_bytes())
    }

    /// The keys of group `group` as floats, `[dim][GROUP]`: where they lie, or decoded into `out`.
    ///
    /// # Safety
    /// The page holds keys of this kind, not written meanwhile; `out` has room for `dim * GROUP` floats.
    #[inline(always)]
    pub(crate) unsafe fn keys<I: Isa>(
        &self,
        isa: I,
        page: HeadPage,
        group: usize,
        out: *mut f32,
    ) -> *const f32 {
        let source = self.stored_keys(page, group);
        let count = self.dim * GROUP;
        // SAFETY: the group is in the page.
        unsafe {
            match self.dtype {
                DType::F32 => return source.cast(),
                DType::Q8_0 => self.load_q8_keys(isa, source, out),
                DType::F16 => decode::<I, F16>(isa, source, count, out),
                _ => decode::<I, Bf16>(isa, source, count, out),
            }
        }
        out
    }

    /// The value rows of tokens `first..first + count`, `[count][padded]`: where they lie, or decoded into `out`.
    ///
    /// # Safety
    /// The page holds values of this kind, not written meanwhile; `out` has room for `count * padded()` floats.
    #[inline(always)]
    pub(crate) unsafe fn values<I: Isa>(
        &self,
        isa: I,
        page: HeadPage,
        first: usize,
        count: usize,
        out: *mut f32,
    ) -> *const f32 {
        let source = self.stored_values(page, first);
        // SAFETY: the tokens are in the page; rows are padded to a multiple of every vector length.
        unsafe {
            match self.dtype {
                DType::F32 => return source.cast::<f32>(),
                DType::Q8_0 => self.load_q8_values(isa, page.values, first, count, out),
                DType::F16 => decode::<I, F16>(isa, source, count * self.padded(), out),
                _ => decode::<I, Bf16>(isa, source, count * self.padded(), out),
            }
        }
        out
    }

    /// The value rows of tokens `first..first + count` as pairs of bfloat16, `[count / 2, rounded up][padded]`, in `room`: two
    /// tokens are the low and the high half of a word, a missing last one is zero.
    ///
    /// # Safety
    /// As for [`values`](Self::values).
    #[inline(always)]
    pub(crate) unsafe fn value_pairs<I: Isa>(
        &self,
        isa: I,
        page: HeadPage,
        first: usize,
        count: usize,
        room: *mut f32,
    ) -> *const i32 {
        let source = self.stored_values(page, first);
        let (shape, out) = ((count, self.padded()), room.cast());
        // SAFETY: the tokens are in the page; rows are padded to a multiple of every vector length.
        unsafe {
            match self.dtype {
                DType::F32 => pairs::<I, F32>(isa, source, shape, out),
                DType::F16 => pairs::<I, F16>(isa, source, shape, out),
                DType::Q8_0 => {
                    self.load_q8_values(isa, page.values, first, count, room);
                    pairs::<I, F32>(isa, room.cast_const().cast(), shape, out);
                }
                _ => pairs::<I, Bf16>(isa, source, shape, out),
            }
        }
        out
    }

    /// Asks for the memory of the keys of a group.
    #[inline(always)]
    pub(crate) fn prefetch_keys<I: Isa>(&self, isa: I, page: HeadPage, group: usize) {
        let start = page.keys.wrapping_add(group * self.group_bytes());
        (0..self.group_bytes()).step_by(64).for_each(|at| isa.prefetch(start.wrapping_add(at)));
    }

    /// Asks for the memory of the values of the group of tokens that starts at `first`.
    #[inline(always)]
    pub(crate) fn prefetch_values<I: Isa>(&self, isa: I, page: HeadPage, first: usize) {
        let row = self.padded() * if self.dtype == DType::Q8_0 { 1 } else { self.dtype.block_bytes() };
        let start = page.values.wrapping_add(first * row);
        (0..GROUP * row).step_by(64).for_each(|at| isa.prefetch(start.wrapping_add(at)));
    }

    /// Bytes of the keys of a group.
    fn group_bytes(&self) -> usize {
        self.dtype.bytes_for(self.dim).unwrap_or(0) * GROUP
    }

    /// # Safety
    /// As for `store_key`; `group` is the start of the token's group.
    #[inline(always)]
    unsafe fn store_q8_key(&self, x: &[f32], group: *mut u8, lane: usize) {
        let scales = group.wrapping_add(self.dim * GROUP).cast::<u16>();
        for (b, block) in x.chunks_exact(Q8_BLOCK).enumerate() {
            let (codes, scale) = quantize(block);
            // SAFETY: four codes a lane and one scale a block, within the group.
            unsafe { scales.add(b * GROUP + lane).write_unaligned(scale) };
            for (i, word) in codes.chunks_exact(4).enumerate() {
                let at = ((b * Q8_BLOCK / 4 + i) * GROUP + lane) * 4;
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(word.as_ptr().cast(), group.add(at), 4) };
            }
        }
    }

    /// # Safety
    /// As for `store_value`; `values` is the start of the page's values.
    #[inline(always)]
    unsafe fn store_q8_value(&self, x: &[f32], values: *mut u8, at: usize) {
        let scales = self.value_scales(values, at);
        for (b, block) in x.chunks_exact(Q8_BLOCK).enumerate() {
            let (codes, scale) = quantize(block);
            let target = values.wrapping_add(at * self.dim + b * Q8_BLOCK);
            // SAFETY: the row and its scales are in the page.
            unsafe {
                std::ptr::copy_nonoverlapping(codes.as_ptr().cast(), target, Q8_BLOCK);
                scales.add(b).write_unaligned(scale);
            }
        }
    }

    /// The scales of token `at`, behind the codes of all tokens.
    #[inline(always)]
    fn value_scales(&self, values: *mut u8, at: usize) -> *mut u16 {
        values.wrapping_add(self.page_tokens * self.dim + at * self.dim / Q8_BLOCK * 2).cast()
    }

    /// # Safety
    /// `source` is a group of keys; `out` has room for `dim * GROUP` floats.
    #[inline(always)]
    unsafe fn load_q8_keys<I: Isa>(&self, isa: I, source: *const u8, out: *mut f32) {
        let scales = source.wrapping_add(self.dim * GROUP).cast::<u16>();
        for lane in (0..GROUP).step_by(I::LANES) {
            for word in 0..self.dim / 4 {
                // SAFETY: within the group.
                unsafe {
                    let scale = isa.load_f16_ptr(scales.add(word * 4 / Q8_BLOCK * GROUP + lane));
                    let codes = isa.load_i32_ptr(source.add((word * GROUP + lane) * 4).cast());
                    for byte in 0..4 {
                        let code = isa.sar_i32(isa.shl_i32(codes, 24 - 8 * byte), 24);
                        let at = (word * 4 + byte as usize) * GROUP + lane;
                        isa.store_ptr(isa.mul(isa.to_f32(code), scale), out.add(at));
                    }
                }
            }
        }
    }

    /// # Safety
    /// The tokens are in the page of which `values` is the start; `out` has room for them.
    #[inline(always)]
    unsafe fn load_q8_values<I: Isa>(
        &self,
        isa: I,
        values: *const u8,
        first: usize,
        count: usize,
        out: *mut f32,
    ) {
        for t in 0..count {
            let scales = self.value_scales(values.cast_mut(), first + t);
            for at in (0..self.dim).step_by(I::LANES) {
                // SAFETY: a row of Q8_0 is a multiple of 32 long.
                unsafe {
                    let scale = [scales.add(at / Q8_BLOCK).read_unaligned(); GROUP];
                    let codes = isa.load_i8_ptr(values.add((first + t) * self.dim + at).cast());
                    let x = isa.mul(isa.to_f32(codes), isa.load_f16_ptr(scale.as_ptr()));
                    isa.store_ptr(x, out.add(t * self.dim + at));
                }
            }
        }
    }
}

/// Codes and scale (half-float bits) of a block.
#[inline(always)]
fn quantize(x: &[f32]) -> ([i8; Q8_BLOCK], u16) {
    let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
    let scale = max / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    (std::array::from_fn(|i| (x[i] * inverse).round_ties_even() as i8), half::f16::from_f32(scale).to_bits())
}

/// Writes elements `GROUP` apart.
///
/// # Safety
/// `out` is valid for writing there.
#[inline(always)]
unsafe fn scatter<T: Copy, U>(x: &[T], out: *mut U, f: impl Fn(T) -> U) {
    for (i, &x) in x.iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { out.add(i * GROUP).write(f(x)) };
    }
}

/// # Safety
/// `out` is valid for writing `LANES` values.
#[inline(always)]
unsafe fn store_half<I: Isa>(isa: I, dtype: DType, x: I::F32, out: *mut u16) {
    // SAFETY: by the caller's promise.
    unsafe { if dtype == DType::F16 { isa.store_f16_ptr(x, out) } else { isa.store_bf16_ptr(x, out) } }
}

/// A floating-point type as it is stored.
pub(crate) trait Stored: Copy {
    /// Its name.
    const DTYPE: DType;

    /// `LANES` values from index `at` on. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32;
}

#[derive(Clone, Copy)]
pub(crate) struct F32;

impl Stored for F32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_ptr(source.cast::<f32>().add(at)) }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct F16;

impl Stored for F16 {
    const DTYPE: DType = DType::F16;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_f16_ptr(source.cast::<u16>().add(at)) }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Bf16;

impl Stored for Bf16 {
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_bf16_ptr(source.cast::<u16>().add(at)) }
    }
}

/// # Safety
/// Both sides hold `count` values, a multiple of `GROUP`.
#[inline(always)]
unsafe fn decode<I: Isa, S: Stored>(isa: I, source: *const u8, count: usize, out: *mut f32) {
    for at in (0..count).step_by(I::LANES) {
        // SAFETY: by the caller's promise; `GROUP` is a multiple of every vector length.
        unsafe { isa.store_ptr(S::load(isa, source, at), out.add(at)) };
    }
}

/// Rows of `width` values two by two, each pair as words of bfloat16, the first row's in the low halves; zeros beside a last
/// row alone.
///
/// # Safety
/// The source holds the rows, `out` has room for the words; `width` is a multiple of `GROUP`. They may start at the same
/// place when the source is of floats.
#[inline(always)]
unsafe fn pairs<I: Isa, S: Stored>(isa: I, source: *const u8, (rows, width): (usize, usize), out: *mut i32) {
    for row in (0..rows).step_by(2) {
        for at in (0..width).step_by(I::LANES) {
            // SAFETY: by the caller's promise. Words are not written before their own and all earlier rows are read.
            unsafe {
                let words = pair::<I, S>(isa, source, (rows, width), row, at);
                isa.store_i32_ptr(words, out.add(row / 2 * width + at));
            }
        }
    }
}

/// Columns `at..at + LANES` of rows `row` and `row + 1` as words of bfloat16, zeros for a row that is not there.
///
/// # Safety
/// The source holds `rows` rows of `width` values, this one and these columns among them.
#[inline(always)]
pub(crate) unsafe fn pair<I: Isa, S: Stored>(
    isa: I,
    source: *const u8,
    (rows, width): (usize, usize),
    row: usize,
    at: usize,
) -> I::I32 {
    // SAFETY: by the caller's promise.
    unsafe {
        let low = S::load(isa, source, row * width + at);
        let high = if row + 1 < rows { S::load(isa, source, (row + 1) * width + at) } else { isa.zero() };
        isa.pair_bf16(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvStore;
    use kinglet_simd::{Kernel, Level, dispatch};
    use kinglet_tensor::{KvLayer, KvSpec};

    /// Stores rows on every level, reads them back, and returns keys and values by token.
    struct RoundTrip<'a> {
        rows: Rows,
        page: HeadPage,
        x: &'a [Vec<f32>],
    }

    impl Kernel for RoundTrip<'_> {
        type Out = (Vec<Vec<f32>>, Vec<Vec<f32>>);

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Out {
            let Self { rows, page, x } = self;
            let (dim, padded) = (rows.dim, rows.padded());
            let mut buffer = vec![f32::NAN; GROUP * padded];
            let (mut keys, mut values) = (vec![], vec![]);
            // SAFETY: the page is owned by the test and holds two groups.
            unsafe {
                for (at, x) in x.iter().enumerate() {
                    rows.store_key(isa, page, at, x);
                    rows.store_value(isa, page, at, x);
                }
                for at in 0..x.len() {
                    let group = rows.keys(isa, page, at / GROUP, buffer.as_mut_ptr());
                    keys.push((0..dim).map(|d| *group.add(d * GROUP + at % GROUP)).collect());
                    let float = |word: i32, half: usize| {
                        f32::from_bits((word as u32) << (16 - 16 * half) & 0xffff_0000)
                    };
                    let pairs = rows.value_pairs(isa, page, at, 1, buffer.as_mut_ptr());
                    assert!((0..padded).all(|d| float(*pairs.add(d), 1) == 0.0), "a missing token");
                    let paired = (0..dim).map(|d| float(*pairs.add(d), 0)).collect();
                    let row = rows.values(isa, page, at, 1, buffer.as_mut_ptr());
                    assert!((dim..padded).all(|d| *row.add(d) == 0.0), "padding");
                    values.push((0..dim).map(|d| *row.add(d)).collect());
                    values.push(paired);
                }
            }
            (keys, values)
        }
    }

    #[test]
    fn rows_come_back_within_the_type_s_precision() {
        let types = [(DType::F32, 0.0), (DType::F16, 0.0005), (DType::BF16, 0.004), (DType::Q8_0, 0.0045)];
        for (dtype, bound) in types {
            for dim in [32usize, 64, 40, 7, 96] {
                if !dim.is_multiple_of(dtype.block_len()) {
                    continue;
                }
                let layer = KvLayer { heads: 2, key_dim: dim, value_dim: dim };
                let x: Vec<Vec<f32>> = (0..32)
                    .map(|t| (0..dim).map(|d| ((t * 37 + d * 11) % 101) as f32 / 50.0 - 1.0).collect())
                    .collect();
                for level in Level::available() {
                    let spec = KvSpec { layers: vec![layer; 2], dtype, page_tokens: 32 };
                    let mut store = KvStore::new(spec).expect("valid");
                    store.reserve(2).expect("memory");
                    let rows = Rows { dtype, page_tokens: 32, dim };
                    let page = store.view().head(1, 1, 1);
                    let (keys, values) = dispatch(level, RoundTrip { rows, page, x: &x });
                    // Values twice: as they were stored, and as pairs of bfloat16.
                    let keys = keys.iter().zip(&x).map(|(found, x)| (found, x, bound));
                    let values = values
                        .chunks(2)
                        .zip(&x)
                        .flat_map(|(found, x)| [(&found[0], x, bound), (&found[1], x, bound + 0.004)]);
                    for (found, x, bound) in keys.chain(values) {
                        let close = found.iter().zip(x).all(|(f, x)| (f - x).abs() <= bound);
                        assert!(close, "{level} {dtype}[{dim}]: {found:?} for {x:?}");
                    }
                }
            }
        }
    }
}
