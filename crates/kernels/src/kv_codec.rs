//! Writing rows of keys and values into pages and reading them back as floats, in each storage type.
//!
//! The layouts are drawn in [`crate::kv`]. Rounding is to nearest even. Elements behind the last of a value row are written
//! as zeros.

pub(crate) mod q16;
mod q8;

use kinglet_simd::Isa;
use kinglet_tensor::KvType;

use crate::kv::{GROUP, HeadPage};

/// One head of one layer in a page, and how it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) kind: KvType,
    pub(crate) page_tokens: usize,
    /// Elements of a row.
    pub(crate) dim: usize,
}

impl Rows {
    /// Floats of a decoded value row: padded to whole groups.
    pub(crate) fn padded(&self) -> usize {
        self.dim.next_multiple_of(GROUP)
    }

    /// Bytes of a page's keys; none when they overflow.
    pub(crate) fn key_bytes(&self) -> Option<usize> {
        self.kind.row_bytes(self.dim)?.checked_mul(self.page_tokens)
    }

    /// Bytes of a page's values; none when they overflow.
    pub(crate) fn value_bytes(&self) -> Option<usize> {
        self.kind.row_bytes(self.dim.checked_next_multiple_of(GROUP)?)?.checked_mul(self.page_tokens)
    }

    /// Stores the key of token `at` of the page.
    ///
    /// # Safety
    /// The page holds keys of this kind; nobody else accesses this token. `x` has `dim` elements.
    #[inline(always)]
    pub(crate) unsafe fn store_key<I: Isa>(&self, isa: I, page: HeadPage, at: usize, x: &[f32]) {
        let (group, lane) = (self.stored_keys(page, at / GROUP).0.cast_mut(), at % GROUP);
        // SAFETY: token `at` is in the page, and its elements lie `GROUP` apart from `lane` on.
        unsafe {
            match self.kind {
                KvType::F32 => scatter(x, group.cast::<f32>().wrapping_add(lane), |x| x),
                KvType::Q8_0 => self.store_q8_key(x, group, lane),
                KvType::Q16 => self.store_q16_key(isa, x, group, lane),
                KvType::F16 => scatter_halves::<I, F16>(isa, x, group.cast::<u16>().wrapping_add(lane)),
                KvType::Bf16 => scatter_halves::<I, Bf16>(isa, x, group.cast::<u16>().wrapping_add(lane)),
            }
        }
    }

    /// Stores the value row of token `at` of the page.
    ///
    /// # Safety
    /// The page holds values of this kind; nobody else accesses this token. `x` has `dim` elements.
    #[inline(always)]
    pub(crate) unsafe fn store_value<I: Isa>(&self, isa: I, page: HeadPage, at: usize, x: &[f32]) {
        let (first, values) = (at * self.padded(), page.values);
        // SAFETY: the row of token `at` is in the page and padded to a multiple of every vector length.
        unsafe {
            match self.kind {
                KvType::F32 => store::<I, F32>(isa, x, values.cast::<f32>().wrapping_add(first).cast()),
                KvType::F16 => store::<I, F16>(isa, x, values.cast::<u16>().wrapping_add(first).cast()),
                KvType::Bf16 => store::<I, Bf16>(isa, x, values.cast::<u16>().wrapping_add(first).cast()),
                KvType::Q8_0 => self.store_q8_value(x, values, at),
                KvType::Q16 => self.store_q16_value(isa, x, page, at),
            }
        }
    }

    /// Where the keys of a group lie, and how many bytes they are.
    #[inline(always)]
    pub(crate) fn stored_keys(&self, page: HeadPage, group: usize) -> (*const u8, usize) {
        let bytes = self.kind.row_bytes(self.dim).unwrap_or(0) * GROUP;
        (page.keys.wrapping_add(group * bytes), bytes)
    }

    /// The same of the values of the group that starts with token `first`; of Q8_0 the codes alone.
    #[inline(always)]
    pub(crate) fn stored_values(&self, page: HeadPage, first: usize) -> (*const u8, usize) {
        let bytes = match self.kind {
            KvType::F32 => self.padded() * GROUP * size_of::<f32>(),
            KvType::F16 | KvType::Bf16 => self.padded() * GROUP * size_of::<u16>(),
            KvType::Q8_0 => self.padded() * GROUP,
            KvType::Q16 => self.q16_values_bytes(),
        };
        (page.values.wrapping_add(first / GROUP * bytes), bytes)
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
        let (source, _) = self.stored_keys(page, group);
        let count = self.dim * GROUP;
        // SAFETY: the group is in the page.
        unsafe {
            match self.kind {
                KvType::F32 => return source.cast(),
                KvType::Q8_0 => self.load_q8_keys(isa, source, out),
                KvType::Q16 => self.load_q16_keys(isa, source, out),
                KvType::F16 => decode::<I, F16>(isa, source, count, out),
                KvType::Bf16 => decode::<I, Bf16>(isa, source, count, out),
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
        let (at, count) = (first * self.padded(), count * self.padded());
        let [floats, halves] =
            [size_of::<f32>(), size_of::<u16>()].map(|size| page.values.wrapping_add(at * size));
        // SAFETY: the tokens are in the page; rows are padded to a multiple of every vector length.
        unsafe {
            match self.kind {
                KvType::F32 => return floats.cast::<f32>(),
                KvType::Q8_0 => self.load_q8_values(isa, page.values, first, count / self.padded(), out),
                KvType::Q16 => self.load_q16_values(isa, page, first, count / self.padded(), out),
                KvType::F16 => decode::<I, F16>(isa, halves, count, out),
                KvType::Bf16 => decode::<I, Bf16>(isa, halves, count, out),
            }
        }
        out
    }
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

/// Writes elements as 16-bit floats, `GROUP` apart.
///
/// # Safety
/// `out` is valid for writing there.
#[inline(always)]
unsafe fn scatter_halves<I: Isa, S: Stored>(isa: I, x: &[f32], out: *mut u16) {
    for (i, x) in x.chunks(I::LANES).enumerate() {
        let mut halves = [0u16; GROUP];
        // SAFETY: a vector has at most `GROUP` lanes; by the caller's promise.
        unsafe {
            S::store(isa, isa.load_part(x), halves.as_mut_ptr().cast(), 0);
            scatter(&halves[..x.len()], out.wrapping_add(i * I::LANES * GROUP), |x| x);
        }
    }
}

/// Writes a row, zeros behind its last element up to a whole vector.
///
/// # Safety
/// `out` is valid for writing whole vectors.
#[inline(always)]
unsafe fn store<I: Isa, S: Stored>(isa: I, x: &[f32], out: *mut u8) {
    for (i, x) in x.chunks(I::LANES).enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { S::store(isa, isa.load_part(x), out, i * I::LANES) };
    }
}

/// A floating-point type as it is stored. Implementations are `#[inline(always)]`.
trait Stored: Copy {
    /// `LANES` values from index `at` on.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32;

    /// Writes `LANES` values from index `at` on.
    ///
    /// # Safety
    /// They can be written.
    unsafe fn store<I: Isa>(isa: I, x: I::F32, out: *mut u8, at: usize);
}

#[derive(Clone, Copy)]
struct F32;

impl Stored for F32 {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_ptr(source.cast::<f32>().add(at)) }
    }

    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, x: I::F32, out: *mut u8, at: usize) {
        // SAFETY: by the caller's promise.
        unsafe { isa.store_ptr(x, out.cast::<f32>().add(at)) }
    }
}

#[derive(Clone, Copy)]
struct F16;

impl Stored for F16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_f16_ptr(source.cast::<u16>().add(at)) }
    }

    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, x: I::F32, out: *mut u8, at: usize) {
        // SAFETY: by the caller's promise.
        unsafe { isa.store_f16_ptr(x, out.cast::<u16>().add(at)) }
    }
}

#[derive(Clone, Copy)]
struct Bf16;

impl Stored for Bf16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, source: *const u8, at: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { isa.load_bf16_ptr(source.cast::<u16>().add(at)) }
    }

    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, x: I::F32, out: *mut u8, at: usize) {
        // SAFETY: by the caller's promise.
        unsafe { isa.store_bf16_ptr(x, out.cast::<u16>().add(at)) }
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
                    let row = rows.values(isa, page, at, 1, buffer.as_mut_ptr());
                    assert!((dim..padded).all(|d| *row.add(d) == 0.0), "padding");
                    values.push((0..dim).map(|d| *row.add(d)).collect());
                }
            }
            (keys, values)
        }
    }

    #[test]
    fn rows_come_back_within_the_type_s_precision() {
        let bounds = [
            (KvType::F32, 0.0),
            (KvType::F16, 0.0005),
            (KvType::Bf16, 0.004),
            (KvType::Q8_0, 0.0045),
            // Half a step: a norm of at most ten in 32,700 of them.
            (KvType::Q16, 0.00016),
        ];
        for (kind, bound) in bounds {
            for dim in [32usize, 64, 40, 7, 96] {
                if !dim.is_multiple_of(kind.block_len()) {
                    continue;
                }
                let layer = KvLayer { heads: 2, key_dim: dim, value_dim: dim };
                let x: Vec<Vec<f32>> = (0..32)
                    .map(|t| (0..dim).map(|d| ((t * 37 + d * 11) % 101) as f32 / 50.0 - 1.0).collect())
                    .collect();
                for level in Level::available() {
                    let spec = KvSpec { layers: vec![layer; 2], kind, page_tokens: 32 };
                    let mut store = KvStore::new(spec).expect("valid");
                    store.reserve(2).expect("memory");
                    let rows = Rows { kind, page_tokens: 32, dim };
                    let page = store.view().head(1, 1, 1);
                    let (keys, values) = dispatch(level, RoundTrip { rows, page, x: &x });
                    for (found, x) in keys.iter().zip(&x).chain(values.iter().zip(&x)) {
                        let close = found.iter().zip(x).all(|(f, x)| (f - x).abs() <= bound);
                        assert!(close, "{level} {kind}[{dim}]: {found:?} for {x:?}");
                    }
                }
            }
        }
    }
}
