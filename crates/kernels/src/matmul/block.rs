//! The inner loop: `MR` rows of activations times `NT` tiles of weights.
//!
//! Per group and pair of (row, tile) it forms an exact integer dot product and adds
//! `(dot * weight_scale) * activation_scale` and, where there are minima, `min * (activation_scale * sum)` to an f32
//! accumulator, group after group. The order is the same whatever `MR`, `NT`, the stream (packed or panel) and the
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
                if S::Scales::PARTS == 1 {
                    part::<I, S, MR, NT, 0, STEPS>(isa, headers, codes, g, x, group, acc);
                } else {
                    part::<I, S, MR, NT, 0, { STEPS / 2 }>(isa, headers, codes, g, x, group, acc);
                    part::<I, S, MR, NT, { STEPS / 2 }, STEPS>(isa, headers, codes, g, x, group, acc);
                }
                for codes in &mut codes {
                    *codes = codes.add(I::LANES * S::Codes::BYTES);
                }
            }
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

/// Steps `FROM..TO` of a group, which share one scale.
///
/// # Safety
/// As for [`accumulate`]; `codes` are those of the group, `g` its place in the chunk, `group` in `x`.
#[inline(always)]
unsafe fn part<I: Isa, S: Stream, const MR: usize, const NT: usize, const FROM: usize, const TO: usize>(
    isa: I,
    headers: [*const u8; NT],
    codes: [*const u8; NT],
    g: usize,
    x: Rows,
    group: usize,
    acc: &mut Acc<I, MR, NT>,
) {
    let (parts, part) = (S::Scales::PARTS, FROM / (STEPS / 2));
    let mut dots = [[isa.splat_i32(0); NT]; MR];
    if let Some(shift) = S::ZERO.shift(I::W_BIAS) {
        for r in 0..MR {
            // SAFETY: the row and the group exist.
            let negated = isa.splat_i32(unsafe { x.negated(r, group, parts, part) });
            dots[r] = [isa.shl_i32(negated, shift); NT];
        }
    }
    for step in FROM..TO {
        let mut w = [isa.splat_bytes(0); NT];
        for t in 0..NT {
            // SAFETY: the group's codes are there.
            w[t] = unsafe { S::Codes::step(isa, codes[t], step) };
        }
        for r in 0..MR {
            // SAFETY: the row and the group exist; a group has four columns for each step.
            let a = unsafe { isa.broadcast4_ptr(x.codes(r, group).add(4 * step)) };
            for t in 0..NT {
                dots[r][t] = match S::Codes::SIGNED {
                    true => isa.dot_s8(dots[r][t], w[t], a),
                    false => isa.dot_u7(dots[r][t], w[t], a),
                };
            }
        }
    }
    for t in 0..NT {
        // SAFETY: the header has the group.
        let (scale, min) = unsafe { S::Scales::at(isa, headers[t], g, part) };
        for r in 0..MR {
            // SAFETY: the row and the group exist.
            let (a_scale, a_sum) = unsafe { (x.scale(r, group), x.sum(r, group)) };
            let scaled = isa.mul(isa.to_f32(dots[r][t]), scale);
            acc[r][t] = isa.fma(scaled, isa.splat(a_scale), acc[r][t]);
            if S::Scales::MIN {
                acc[r][t] = isa.fma(min, isa.splat(a_sum), acc[r][t]);
            }
        }
    }
}
