//! Encoders that search: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL.
//!
//! Each sub-block's best scale (and minimum) is found on its own, and the largest sets the super-block's. Then, in
//! turns: every sub-block takes the stored scale that is really best for it among the neighbours of the rounded one,
//! and the super-block's scales are fitted to the levels chosen, for as long as the error falls. It is weighted
//! towards large values, which carry more of a matrix product.

use super::encode::{each_block, peak};
use super::search::{self, level, nearest_nonlinear};
use super::{f16_to_f32, f32_to_f16};

/// What a format can store.
struct Format {
    /// Least and greatest level of a value.
    level: (f32, f32),
    /// Least and greatest scale of a sub-block, in units of the super-block's.
    scale: (f32, f32),
    /// Greatest minimum of a sub-block, in units of the super-block's; zero where there are none.
    min: f32,
}

/// 256 values as `x = (d * scale) * q - dmin * min`, scale and min by sub-block.
struct Super {
    d: u16,
    dmin: u16,
    scale: [f32; 16],
    min: [f32; 16],
    q: [f32; 256],
    error: f32,
}

impl Super {
    /// The best found for sub-blocks of `N` values.
    fn search<const N: usize>(x: &[f32; 256], format: &Format) -> Self {
        let w = if format.min > 0.0 { linear_weights::<N>(x) } else { square_weights(x) };
        let mut ideal = [(0.0, 0.0); 16];
        for (ideal, (x, w)) in ideal.iter_mut().zip(x.as_chunks::<N>().0.iter().zip(w.as_chunks().0)) {
            *ideal = match format.level {
                (0.0, top) => search::affine(x, w, top),
                (low, high) => (search::symmetric(x, w, low, high), 0.0),
            };
        }
        let end = if format.scale.0 < 0.0 { format.scale.0 } else { format.scale.1 };
        let d = storable(peak(&ideal.map(|i| i.0)) / end);
        let dmin = storable(peak(&ideal.map(|i| i.1)) / format.min.max(1.0));
        let mut best = Self::choose::<N>(x, &w, &ideal, format, (d, dmin));
        for _ in 0..3 {
            let next = Self::choose::<N>(x, &w, &ideal, format, best.refit::<N>(x, &w));
            if next.error >= best.error {
                break;
            }
            best = next;
        }
        best
    }

    /// The best stored scales near the ideal ones, given those of the super-block.
    fn choose<const N: usize>(
        x: &[f32; 256],
        w: &[f32; 256],
        ideal: &[(f32, f32); 16],
        format: &Format,
        (d, dmin): (u16, u16),
    ) -> Self {
        let mut found = Self { d, dmin, scale: [0.0; 16], min: [0.0; 16], q: [0.0; 256], error: 0.0 };
        let (d, dmin) = (f16_to_f32(d), f16_to_f32(dmin));
        let near_min: &[f32] = if format.min > 0.0 { &[-1.0, 0.0, 1.0] } else { &[0.0] };
        for (sub, (x, w)) in x.as_chunks::<N>().0.iter().zip(w.as_chunks::<N>().0).enumerate() {
            let mut least = f32::INFINITY;
            for (near_scale, near_min) in
                [-1.0, 0.0, 1.0].iter().flat_map(|s| near_min.iter().map(move |m| (s, m)))
            {
                let scale = level(ideal[sub].0 / d + near_scale, format.scale.0, format.scale.1);
                let min = level(ideal[sub].1 / dmin + near_min, 0.0, format.min);
                let error = error(x, w, d * scale, dmin * min, format);
                if error < least {
                    least = error;
                    (found.scale[sub], found.min[sub]) = (scale, min);
                }
            }
            let (scale, min) = (d * found.scale[sub], dmin * found.min[sub]);
            let q = x.map(|x| level((x + min) * inverse(scale), format.level.0, format.level.1));
            found.q[sub * N..][..N].copy_from_slice(&q);
            found.error += least;
        }
        found
    }

    /// The super-block's scales that fit the chosen levels best: least squares of `x = d * a - dmin * b`.
    fn refit<const N: usize>(&self, x: &[f32; 256], w: &[f32; 256]) -> (u16, u16) {
        let [mut aa, mut ab, mut bb, mut ax, mut bx] = [0.0f32; 5];
        for i in 0..256 {
            let (a, b) = (self.scale[i / N] * self.q[i], self.min[i / N]);
            aa += w[i] * a * a;
            ab += w[i] * a * b;
            bb += w[i] * b * b;
            ax += w[i] * a * x[i];
            bx += w[i] * b * x[i];
        }
        let determinant = aa * bb - ab * ab;
        let (d, dmin) = if bb == 0.0 {
            (ax / aa, 0.0)
        } else {
            ((ax * bb - bx * ab) / determinant, (ax * ab - bx * aa) / determinant)
        };
        let sound = d.is_finite() && dmin.is_finite() && dmin >= 0.0;
        if sound { (storable(d), storable(dmin)) } else { (self.d, self.dmin) }
    }
}

/// The error of the levels nearest to the values.
#[inline(always)]
fn error<const N: usize>(x: &[f32; N], w: &[f32; N], scale: f32, min: f32, format: &Format) -> f32 {
    let inverse = inverse(scale);
    let [sum] = search::sums(x, w, |x, w| {
        let error = scale * level((x + min) * inverse, format.level.0, format.level.1) - min - x;
        [w * error * error]
    });
    sum
}

/// The half-precision scale nearest to `scale`, but the next larger one where steps are so coarse (below 2^-14) that
/// the nearest would not reach the largest value.
fn storable(scale: f32) -> u16 {
    let nearest = f32_to_f16(scale);
    let short = f16_to_f32(nearest).abs() < scale.abs() * (1.0 - 1.0 / 1024.0);
    nearest + u16::from(short && nearest & 0x7fff < 0x7bff)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// `1 + |x| / rms`, the mean taken over each `N` values.
fn linear_weights<const N: usize>(x: &[f32; 256]) -> [f32; 256] {
    let mut w = [1.0; 256];
    for (w, x) in w.as_chunks_mut::<N>().0.iter_mut().zip(x.as_chunks::<N>().0) {
        let inverse = inverse_rms(x);
        *w = x.map(|x| 1.0 + x.abs() * inverse);
    }
    w
}

/// `(x / rms)²`
fn square_weights<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let inverse = inverse_rms(x);
    x.map(|x| (x * inverse) * (x * inverse))
}

fn inverse_rms(x: &[f32]) -> f32 {
    let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }
}

pub(super) fn q2_k(src: &[f32], out: &mut Vec<u8>) {
    const FORMAT: Format = Format { level: (0.0, 3.0), scale: (0.0, 15.0), min: 15.0 };
    each_block(src, out, |x: &[f32; 256]| {
        let found = Super::search::<16>(x, &FORMAT);
        let mut block = [0; 84];
        for (byte, (scale, min)) in block.iter_mut().zip(found.scale.iter().zip(found.min)) {
            *byte = *scale as u8 | (min as u8) << 4;
        }
        for i in 0..256 {
            block[16 + i / 128 * 32 + i % 32] |= (found.q[i] as u8) << (i % 128 / 32 * 2);
        }
        block[80..82].copy_from_slice(&found.d.to_le_bytes());
        block[82..].copy_from_slice(&found.dmin.to_le_bytes());
        block
    });
}

pub(super) fn q3_k(src: &[f32], out: &mut Vec<u8>) {
    const FORMAT: Format = Format { level: (-4.0, 3.0), scale: (-32.0, 31.0), min: 0.0 };
    each_block(src, out, |x: &[f32; 256]| {
        let found = Super::search::<16>(x, &FORMAT);
        let mut block = [0; 110];
        for i in 0..256 {
            let q = (found.q[i] + 4.0) as u8;
            block[i % 32] |= (q >> 2) << (i / 32);
            block[32 + i / 128 * 32 + i % 32] |= (q & 3) << (i % 128 / 32 * 2);
        }
        for sub in 0..16 {
            let scale = (found.scale[sub] + 32.0) as u8;
            block[96 + sub % 8] |= (scale & 15) << (sub / 8 * 4);
            block[104 + sub % 4] |= (scale >> 4) << (sub / 4 * 2);
        }
        block[108..].copy_from_slice(&found.d.to_le_bytes());
        block
    });
}

pub(super) fn q4_k(src: &[f32], out: &mut Vec<u8>) {
    const FORMAT: Format = Format { level: (0.0, 15.0), scale: (0.0, 63.0), min: 63.0 };
    each_block(src, out, |x: &[f32; 256]| {
        let found = Super::search::<32>(x, &FORMAT);
        let mut block = [0; 144];
        block[..16].copy_from_slice(&pack_scales(&found));
        for i in 0..256 {
            block[16 + i / 64 * 32 + i % 32] |= (found.q[i] as u8) << (i % 64 / 32 * 4);
        }
        block
    });
}

pub(super) fn q5_k(src: &[f32], out: &mut Vec<u8>) {
    const FORMAT: Format = Format { level: (0.0, 31.0), scale: (0.0, 63.0), min: 63.0 };
    each_block(src, out, |x: &[f32; 256]| {
        let found = Super::search::<32>(x, &FORMAT);
        let mut block = [0; 176];
        block[..16].copy_from_slice(&pack_scales(&found));
        for i in 0..256 {
            let q = found.q[i] as u8;
            block[16 + i % 32] |= (q >> 4) << (i / 32);
            block[48 + i / 64 * 32 + i % 32] |= (q & 15) << (i % 64 / 32 * 4);
        }
        block
    });
}

/// `d`, `dmin`, then eight six-bit scales and minima: see `scale_min` of the decoder.
fn pack_scales(found: &Super) -> [u8; 16] {
    let mut header = [0; 16];
    header[..2].copy_from_slice(&found.d.to_le_bytes());
    header[2..4].copy_from_slice(&found.dmin.to_le_bytes());
    for sub in 0..4 {
        let (scale, min) = (found.scale[sub] as u8, found.min[sub] as u8);
        let (scale_late, min_late) = (found.scale[sub + 4] as u8, found.min[sub + 4] as u8);
        header[4 + sub] = scale | (scale_late >> 4) << 6;
        header[8 + sub] = min | (min_late >> 4) << 6;
        header[12 + sub] = scale_late & 15 | min_late << 4;
    }
    header
}

pub(super) fn q6_k(src: &[f32], out: &mut Vec<u8>) {
    const FORMAT: Format = Format { level: (-32.0, 31.0), scale: (-128.0, 127.0), min: 0.0 };
    each_block(src, out, |x: &[f32; 256]| {
        let found = Super::search::<16>(x, &FORMAT);
        let mut block = [0; 210];
        for i in 0..256 {
            let q = (found.q[i] + 32.0) as u8;
            let (half, quarter) = (i / 128, i % 128 / 32);
            block[half * 64 + i % 64] |= (q & 15) << (quarter / 2 * 4);
            block[128 + half * 32 + i % 32] |= (q >> 4) << (quarter * 2);
        }
        for sub in 0..16 {
            block[192 + sub] = found.scale[sub] as i8 as u8;
        }
        block[208..].copy_from_slice(&found.d.to_le_bytes());
        block
    });
}

pub(super) fn iq4_nl(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        let d = storable(search::nonlinear(x, &square_weights(x)));
        let scale = f16_to_f32(d);
        let q = x.map(|x| nearest_nonlinear(x * inverse(scale)));
        let mut block = [0; 18];
        block[..2].copy_from_slice(&d.to_le_bytes());
        for i in 0..16 {
            block[2 + i] = q[i] | q[i + 16] << 4;
        }
        block
    });
}
