//! The inner loop: `MR` rows of activations times `NT` tiles of weights.
//!
//! Per group and pair of (row, tile) it forms an exact integer dot product (two where the group has two scales) and adds
//! `sum(dot * weight_scale) * activation_scale` and, where there are minima, `min * (activation_scale * sum)` to an f32
//! accumulator, group after group; behind the groups of a chunk come the fine parts of those that have one. The order is the same whatever `MR`, `NT`, the stream (packed or panel) and the
//! cut into column ranges are, so that a row's result does not depend on what else is multiplied beside it.
#![allow(clippy::needless_range_loop, reason = "register blocks are indexed alike")]

use kinglet_simd::Isa;

use super::quantize::Rows;
use super::stream::{CHUNK, Codes, STEPS, Scales, Stream, chunk_of};

/// Accumulators of a block, `[rows][tiles]`.
pub(super) type Acc<I, const MR: usize, const NT: usize> = [[<I as Isa>::F32; NT]; MR];

/// Bytes that the next columns of each tile are asked for ahead of their use when weights come from memory. Far enough
/// for the time that memory takes, near enough to stay in the first-level cache.
const AHEAD: usize = 3072;

/// Adds `groups` groups of columns to the accumulators.
///
/// # Safety
/// `tiles` point to tiles of `groups` groups of stream `S`; `x` has `MR` rows and these groups.
#[inline(always)]
pub(super) unsafe fn accumulate<I: Isa, S: Stream, const MR: usize, const NT: usize>(
    isa: I,
    tiles: [*const u8; NT],
    groups: usize,
    x: Rows,
    acc: &mut Acc<I, MR, NT>,
) {
    for chunk in 0..groups.div_ceil(CHUNK) {
        let (mut headers, mut codes, mut count) = (tiles, tiles, 0);
        for t in 0..NT {
            // SAFETY: the caller vouches for the tiles; the chunk is one of theirs.
            (headers[t], codes[t], count) = unsafe { chunk_of::<S>(I::LANES, tiles[t], groups, chunk) };
        }
        for g in 0..count {
            let group = chunk * CHUNK + g;
            if S::FROM_MEMORY {
                prefetch::<I, S, NT>(isa, tiles, group);
            }
            // SAFETY: group `g` is in the chunk, and `x` has it.
            unsafe {
                add_group::<I, S, MR, NT>(isa, headers, codes, g, x, group, acc);
                for codes in &mut codes {
                    *codes = codes.add(I::LANES * S::Codes::BYTES);
                }
            }
        }
        let first = codes.map(|codes| codes.wrapping_sub(count * I::LANES * S::Codes::BYTES));
        for r in 0..MR {
            let mut row = [acc[r]];
            // SAFETY: the chunk is one of the tiles', and `x` has it.
            unsafe { add_fine::<I, S, NT>(isa, headers, first, x, (r, chunk), &mut row) };
            acc[r] = row[0];
        }
    }
}

/// Adds the fine parts of one row in one chunk: `at` are the row and the chunk.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
unsafe fn add_fine<I: Isa, S: Stream, const NT: usize>(
    isa: I,
    headers: [*const u8; NT],
    codes: [*const u8; NT],
    x: Rows,
    (row, chunk): (usize, usize),
    acc: &mut Acc<I, 1, NT>,
) {
    // SAFETY: by the caller's promise; a group that has a fine part is one of the chunk's.
    unsafe {
        let mut groups = x.fine_groups(row, chunk);
        while groups != 0 {
            let g = groups.trailing_zeros() as usize;
            let codes = codes.map(|codes| codes.wrapping_add(g * I::LANES * S::Codes::BYTES));
            add_group::<I, S, 1, NT>(isa, headers, codes, g, x.fine(row), chunk * CHUNK + g, acc);
            groups &= groups - 1;
        }
    }
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

/// Adds one group: `codes` are its own, `g` its place in the chunk, `group` in `x`.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
unsafe fn add_group<I: Isa, S: Stream, const MR: usize, const NT: usize>(
    isa: I,
    headers: [*const u8; NT],
    codes: [*const u8; NT],
    g: usize,
    x: Rows,
    group: usize,
    acc: &mut Acc<I, MR, NT>,
) {
    const HALF: usize = STEPS / 2;
    let mut scaled: Acc<I, MR, NT> = [[isa.zero(); NT]; MR];
    // SAFETY: by the caller's promise.
    unsafe {
        if S::Scales::PARTS == 1 {
            let whole = dots::<I, S, MR, NT, 0, STEPS>(isa, codes, x, group);
            scale::<I, S, MR, NT>(isa, headers, g, 0, whole, &mut scaled);
        } else {
            let half = dots::<I, S, MR, NT, 0, HALF>(isa, codes, x, group);
            scale::<I, S, MR, NT>(isa, headers, g, 0, half, &mut scaled);
            let half = dots::<I, S, MR, NT, HALF, STEPS>(isa, codes, x, group);
            scale::<I, S, MR, NT>(isa, headers, g, 1, half, &mut scaled);
        }
    }
    for r in 0..MR {
        // SAFETY: the row and the group exist.
        let (a_scale, a_sum) = unsafe { (x.scale(r, group), x.sum(r, group)) };
        for t in 0..NT {
            acc[r][t] = isa.fma(scaled[r][t], isa.splat(a_scale), acc[r][t]);
            if S::Scales::MIN {
                // SAFETY: the header has the group.
                let (_, min) = unsafe { S::Scales::at(isa, headers[t], g, 0) };
                acc[r][t] = isa.fma(min, isa.splat(a_sum), acc[r][t]);
            }
        }
    }
}

/// Adds the dot products of part `part` of a group, times the weights' scales.
///
/// # Safety
/// The headers have group `g`.
#[inline(always)]
unsafe fn scale<I: Isa, S: Stream, const MR: usize, const NT: usize>(
    isa: I,
    headers: [*const u8; NT],
    g: usize,
    part: usize,
    dots: [[I::I32; NT]; MR],
    scaled: &mut Acc<I, MR, NT>,
) {
    for t in 0..NT {
        // SAFETY: by the caller's promise.
        let (scale, _) = unsafe { S::Scales::at(isa, headers[t], g, part) };
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
    x: Rows,
    group: usize,
) -> [[I::I32; NT]; MR] {
    let mut dots = [[isa.splat_i32(0); NT]; MR];
    if let Some(shift) = S::ZERO.shift(I::W_BIAS) {
        for r in 0..MR {
            // SAFETY: the row and the group exist.
            let negated = unsafe { x.negated(r, group, S::Scales::PARTS, FROM / (STEPS / 2)) };
            dots[r] = [isa.shl_i32(isa.splat_i32(negated), shift); NT];
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
                a[n] = unsafe { isa.broadcast4_ptr(x.codes(r, group).add(4 * (step + n))) };
            }
            for t in 0..NT {
                dots[r][t] = dot::<I, S, NT>(isa, dots[r][t], &w, &a, t);
            }
        }
    }
    dots
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
        (false, _) => isa.dot_u7(acc, w[0][t], a[0]),
        (true, _) => isa.dot_s8(acc, w[0][t], a[0]),
    }
}
