//! The inner loop: `MR` rows of activations times `NT` tiles of weights.
//!
//! Per group and pair of (row, tile) it forms an exact integer dot product (two where the group has two scales) and adds
//! `sum(dot * weight_scale) * activation_scale` and, where there are minima, `min * (activation_scale * sum)` to an f32
//! accumulator, group after group; behind the groups of a panel come the upper codes of wide values, in their order. That is the same whatever `MR`, `NT` and the stream (packed or panel) are, so that a row's result does not
//! depend on what else is multiplied beside it.
#![allow(clippy::needless_range_loop, reason = "register blocks are indexed alike")]

use std::marker::PhantomData;
use std::ops::Range;

use kinglet_simd::Isa;

use super::rows::{GroupAt, Rows};
use super::stream::{CHUNK, Codes, STEPS, Scales, Stream, Zero, chunk_of};
use super::wide::Wide;

/// Accumulators of a block, `[rows][tiles]`.
pub(super) type Acc<I, const MR: usize, const NT: usize> = [[<I as Isa>::F32; NT]; MR];

/// Bytes that the next columns of each tile are asked for ahead of their use when weights come from memory. Far enough
/// for the time that memory takes, near enough to stay in the first-level cache.
const AHEAD: usize = 3072;

/// Tiles of which stream `S` has `groups` groups each.
pub(super) struct Tiles<S, const NT: usize> {
    first: [*const u8; NT],
    groups: usize,
    stream: PhantomData<S>,
}

impl<S, const NT: usize> Clone for Tiles<S, NT> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, const NT: usize> Copy for Tiles<S, NT> {}

impl<S: Stream, const NT: usize> Tiles<S, NT> {
    /// # Safety
    /// Each pointer is to a tile of `groups` groups of `S`.
    pub(super) unsafe fn new(first: [*const u8; NT], groups: usize) -> Self {
        Self { first, groups, stream: PhantomData }
    }

    /// Where group `group`, which exists, lies in each tile.
    #[inline(always)]
    pub(super) fn group<I: Isa>(self, group: usize) -> Group<NT> {
        let place = group % CHUNK;
        // SAFETY: by the promise of `new`; the group's chunk exists.
        let (header, codes, _) =
            unsafe { chunk_of::<S>(I::LANES, self.first[0], self.groups, group / CHUNK) };
        let codes = codes.wrapping_add(place * I::LANES * S::Codes::BYTES);
        let mut found = Group { headers: self.first, codes: self.first, place };
        for t in 0..NT {
            // All tiles are alike.
            let from_first = self.first[t].addr().wrapping_sub(self.first[0].addr());
            found.headers[t] = header.wrapping_add(from_first);
            found.codes[t] = codes.wrapping_add(from_first);
        }
        found
    }
}

/// One group of some tiles.
#[derive(Clone, Copy)]
pub(super) struct Group<const NT: usize> {
    /// The headers of its chunk.
    headers: [*const u8; NT],
    codes: [*const u8; NT],
    /// Which of its chunk it is.
    place: usize,
}

/// Adds the groups `range` of columns to the accumulators of `MR` rows that follow one another.
///
/// # Safety
/// The tiles have the groups; `x` has `MR` rows with them.
#[inline(always)]
pub(super) unsafe fn accumulate<I: Isa, S: Stream, const MR: usize, const NT: usize>(
    isa: I,
    tiles: Tiles<S, NT>,
    range: Range<usize>,
    x: Rows,
    acc: &mut Acc<I, MR, NT>,
) {
    let mut rows = [x.part(0, range.start); MR];
    for r in 0..MR {
        rows[r] = x.part(r, range.start);
    }
    for start in range.clone().step_by(CHUNK) {
        let mut at = tiles.group::<I>(start);
        for group in start..range.end.min(start + CHUNK) {
            if S::FROM_MEMORY {
                prefetch::<I, S, NT>(isa, tiles.first, group);
            }
            // SAFETY: tiles and rows have the group.
            unsafe { add_group::<I, S, MR, NT>(isa, at, rows, acc) };
            for row in &mut rows {
                *row = row.next();
            }
            at.place += 1;
            for codes in &mut at.codes {
                *codes = codes.wrapping_add(I::LANES * S::Codes::BYTES);
            }
        }
    }
}

/// Adds the wide values of one row in the groups `range`, a panel's at most, the first of which starts a chunk.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
pub(super) unsafe fn accumulate_wide<I: Isa, S: Stream, const NT: usize>(
    isa: I,
    tiles: Tiles<S, NT>,
    range: Range<usize>,
    x: Rows,
    acc: &mut Acc<I, 1, NT>,
) {
    let zero = isa.splat_bytes(S::ZERO.value(I::W_BIAS) as u8);
    // SAFETY: the row and the tiles have the groups, and so are places with wide values in them.
    unsafe {
        for (group, step) in x.wide_places(0, range) {
            let none = isa.splat_i32(0);
            let codes = isa.broadcast4_ptr(x.upper(0, group, step));
            let taken = if S::ZERO == Zero::None { none } else { dot_step::<I, S>(isa, none, zero, codes) };
            let upper =
                Upper { codes, taken: isa.sub_i32(none, taken), scale: isa.splat(x.upper_scale(0, group)) };
            add_upper(isa, tiles, (group, step), upper, acc);
        }
    }
}

/// What the upper codes of one step are multiplied as.
struct Upper<I: Isa> {
    codes: I::Bytes,
    /// What the weights' zero point adds to the dot products, negated.
    taken: I::I32,
    scale: I::F32,
}

/// Adds the upper codes of one step of a row.
///
/// # Safety
/// The tiles have its group.
#[inline(always)]
pub(super) unsafe fn add_wide<I: Isa, S: Stream, const NT: usize>(
    isa: I,
    tiles: Tiles<S, NT>,
    wide: &Wide,
    acc: &mut Acc<I, 1, NT>,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let codes = isa.broadcast4_ptr(wide.upper.as_ptr());
        let upper = Upper { codes, taken: isa.splat_i32(wide.taken), scale: isa.splat(wide.scale) };
        add_upper(isa, tiles, (wide.group(), wide.step()), upper, acc);
    }
}

/// Adds the upper codes of one step of a group of a row.
///
/// # Safety
/// The tiles have the group.
#[inline(always)]
unsafe fn add_upper<I: Isa, S: Stream, const NT: usize>(
    isa: I,
    tiles: Tiles<S, NT>,
    (group, step): (usize, usize),
    upper: Upper<I>,
    acc: &mut Acc<I, 1, NT>,
) {
    let at = tiles.group::<I>(group);
    for t in 0..NT {
        // SAFETY: by the caller's promise.
        let (codes, weight) = unsafe {
            let part = step * S::Scales::PARTS / STEPS;
            (S::Codes::step(isa, at.codes[t], step), S::Scales::at(isa, at.headers[t], at.place, part).0)
        };
        let dot = isa.to_f32(dot_step::<I, S>(isa, upper.taken, codes, upper.codes));
        acc[0][t] = isa.fma(isa.mul(dot, weight), upper.scale, acc[0][t]);
    }
}

/// Adds the dot products of one step.
#[inline(always)]
fn dot_step<I: Isa, S: Stream>(isa: I, acc: I::I32, w: I::Bytes, a: I::Bytes) -> I::I32 {
    if S::Codes::SIGNED { isa.dot_s8(acc, w, a) } else { isa.dot_u7(acc, w, a) }
}

/// Asks for a group's share of what lies [`AHEAD`]: in the same tile, or in the one behind it.
#[inline(always)]
pub(super) fn prefetch<I: Isa, S: Stream, const NT: usize>(isa: I, tiles: [*const u8; NT], group: usize) {
    let bytes = S::bytes(I::LANES, CHUNK) / CHUNK;
    for tile in tiles {
        for line in (0..bytes).step_by(64) {
            isa.prefetch(tile.wrapping_add(group * bytes + line + AHEAD));
        }
    }
}

/// Adds a group of some rows.
///
/// # Safety
/// `at` is that group of the tiles, `rows` are its parts in the rows.
#[inline(always)]
pub(super) unsafe fn add_group<I: Isa, S: Stream, const MR: usize, const NT: usize>(
    isa: I,
    at: Group<NT>,
    rows: [GroupAt; MR],
    acc: &mut Acc<I, MR, NT>,
) {
    const HALF: usize = STEPS / 2;
    let mut scaled: Acc<I, MR, NT> = [[isa.zero(); NT]; MR];
    // SAFETY: by the caller's promise.
    unsafe {
        if S::Scales::PARTS == 1 {
            let whole = dots::<I, S, MR, NT, 0, STEPS>(isa, at.codes, rows);
            scale::<I, S, MR, NT>(isa, at, 0, whole, &mut scaled);
        } else {
            let half = dots::<I, S, MR, NT, 0, HALF>(isa, at.codes, rows);
            scale::<I, S, MR, NT>(isa, at, 0, half, &mut scaled);
            let half = dots::<I, S, MR, NT, HALF, STEPS>(isa, at.codes, rows);
            scale::<I, S, MR, NT>(isa, at, 1, half, &mut scaled);
        }
    }
    for r in 0..MR {
        // SAFETY: the row and the group exist.
        let (a_scale, a_sum) = unsafe { (rows[r].scale(), rows[r].sum()) };
        for t in 0..NT {
            acc[r][t] = isa.fma(scaled[r][t], isa.splat(a_scale), acc[r][t]);
            if S::Scales::MIN {
                // SAFETY: the header has the group.
                let (_, min) = unsafe { S::Scales::at(isa, at.headers[t], at.place, 0) };
                acc[r][t] = isa.fma(min, isa.splat(a_sum), acc[r][t]);
            }
        }
    }
}

/// Adds the dot products of part `part` of a group, times the weights' scales.
///
/// # Safety
/// As for [`add_group`].
#[inline(always)]
unsafe fn scale<I: Isa, S: Stream, const MR: usize, const NT: usize>(
    isa: I,
    at: Group<NT>,
    part: usize,
    dots: [[I::I32; NT]; MR],
    scaled: &mut Acc<I, MR, NT>,
) {
    for t in 0..NT {
        // SAFETY: by the caller's promise.
        let (scale, _) = unsafe { S::Scales::at(isa, at.headers[t], at.place, part) };
        for r in 0..MR {
            let dot = isa.to_f32(dots[r][t]);
            scaled[r][t] = if part == 0 { isa.mul(dot, scale) } else { isa.fma(dot, scale, scaled[r][t]) };
        }
    }
}

/// The integer dot products of steps `FROM..TO` of a group, zero points taken off.
///
/// # Safety
/// As for [`add_group`].
#[inline(always)]
unsafe fn dots<I: Isa, S: Stream, const MR: usize, const NT: usize, const FROM: usize, const TO: usize>(
    isa: I,
    codes: [*const u8; NT],
    rows: [GroupAt; MR],
) -> [[I::I32; NT]; MR] {
    let mut dots = [[isa.splat_i32(0); NT]; MR];
    if let Some(shift) = S::ZERO.shift(I::W_BIAS) {
        for r in 0..MR {
            // SAFETY: the row and the group exist.
            let negated = unsafe { negated_sum::<I, FROM, TO>(isa, rows[r]) };
            dots[r] = [isa.shl_i32(negated, shift); NT];
        }
    }
    let run = if I::PAIRS { S::Codes::RUN } else { 1 };
    for step in (FROM..TO).step_by(run) {
        let mut w = [[isa.splat_bytes(0); NT]; MAX_RUN];
        for n in 0..run {
            for t in 0..NT {
                // SAFETY: the group's codes are there.
                w[n][t] = unsafe { S::Codes::step(isa, codes[t], step + n) };
            }
        }
        for r in 0..MR {
            let mut a = [isa.splat_bytes(0); MAX_RUN];
            for n in 0..run {
                // SAFETY: the row and the group exist; a group has four columns for each step.
                a[n] = unsafe { isa.broadcast4_ptr(rows[r].codes().add(4 * (step + n))) };
            }
            for t in 0..NT {
                dots[r][t] = dot::<I, S, NT>(isa, dots[r][t], &w, &a, t);
            }
        }
    }
    dots
}

/// The negated sum of the codes of steps `FROM..TO`: all of them, or one half.
///
/// # Safety
/// The part's group exists.
#[inline(always)]
unsafe fn negated_sum<I: Isa, const FROM: usize, const TO: usize>(isa: I, part: GroupAt) -> I::I32 {
    // SAFETY: by the caller's promise.
    unsafe {
        match (FROM, TO) {
            (0, STEPS) => isa.splat_i32(part.negated()),
            (0, _) => isa.splat_i32(part.negated_half()),
            _ => isa.sub_i32(isa.splat_i32(part.negated()), isa.splat_i32(part.negated_half())),
        }
    }
}

/// Steps at most whose products are summed before they are widened.
const MAX_RUN: usize = 4;

/// Adds one run of steps of tile `t`.
#[inline(always)]
fn dot<I: Isa, S: Stream, const NT: usize>(
    isa: I,
    acc: I::I32,
    w: &[[I::Bytes; NT]; MAX_RUN],
    a: &[I::Bytes; MAX_RUN],
    t: usize,
) -> I::I32 {
    match (S::Codes::SIGNED, S::Codes::RUN) {
        (false, 2..) if I::PAIRS => {
            let mut pairs = isa.pairs_u7(w[0][t], a[0]);
            for n in 1..S::Codes::RUN {
                pairs = isa.add_pairs(pairs, isa.pairs_u7(w[n][t], a[n]));
            }
            isa.widen_pairs(acc, pairs)
        }
        _ => dot_step::<I, S>(isa, acc, w[0][t], a[0]),
    }
}
