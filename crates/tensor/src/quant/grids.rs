//! The lattices of the IQ types: an index stands for eight (or four) magnitudes.
//!
//! `grids.bin` holds them as ggml defines them, two or four bits a value, extracted from the `gguf` Python package by
//! `tools/golden/iq_grids.py`. They are expanded at compile time.

static PACKED: [u8; 9216] = *include_bytes!("grids.bin");

const TWO_BIT: [i8; 4] = [8, 25, 43, 0];
const TERNARY: [i8; 4] = [-1, 0, 1, 0];

pub(super) static IQ2_XXS: [[i8; 8]; 256] = expand(0, &TWO_BIT);
pub(super) static IQ2_XS: [[i8; 8]; 512] = expand(512, &TWO_BIT);
pub(super) static IQ2_S: [[i8; 8]; 1024] = expand(1536, &TWO_BIT);
pub(super) static IQ3_XXS: [[i8; 4]; 256] =
    expand(3584, &[4, 12, 20, 28, 36, 44, 52, 62, 0, 0, 0, 0, 0, 0, 0, 0]);
pub(super) static IQ3_S: [[i8; 4]; 512] = expand(4096, &[1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0]);
pub(super) static IQ1: [[i8; 8]; 2048] = expand(5120, &TERNARY);

/// Points of `N` values whose codes start at byte `at`: four codes a byte into a map of 4, two into one of 16.
const fn expand<const N: usize, const POINTS: usize, const M: usize>(
    at: usize,
    map: &[i8; M],
) -> [[i8; N]; POINTS] {
    let bits = M.ilog2() as usize;
    let per_byte = 8 / bits;
    let mut points = [[0; N]; POINTS];
    let mut i = 0;
    while i < N * POINTS {
        let code = PACKED[at + i / per_byte] as usize >> (i % per_byte * bits) & (M - 1);
        points[i / N][i % N] = map[code];
        i += 1;
    }
    points
}

/// `y = (scale * point) * sign`, where bit `i` of `signs` set means minus.
#[inline(always)]
pub(super) fn signed<const N: usize>(point: &[i8; N], scale: f32, signs: u8, y: &mut [f32; N]) {
    for i in 0..N {
        let sign = if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
        y[i] = scale * f32::from(point[i]) * sign;
    }
}

/// Eight signs from seven bits: the number of minuses is even.
#[inline(always)]
pub(super) fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}
