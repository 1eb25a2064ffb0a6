//! Plain Rust on arrays of four lanes: the reference for every other instruction set, and the fallback.

use half::f16;

use super::{forward, forward_ptr};
use crate::{Isa, Kernel};

/// The token of plain Rust, which needs no proof.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

const N: usize = 4;
type F = [f32; N];
type I = [i32; N];
type B = [u8; 4 * N];

#[inline(always)]
fn zip<T: Copy, U: Copy, R>(a: [T; N], b: [U; N], f: impl Fn(T, U) -> R) -> [R; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn zip_bytes(a: B, b: B, f: impl Fn(u8, u8) -> u8) -> B {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Reads `N` values and converts them.
#[inline(always)]
unsafe fn read<T: Copy, R>(p: *const T, f: impl Fn(T) -> R) -> [R; N] {
    // SAFETY: the caller vouches for N values.
    unsafe { p.cast::<[T; N]>().read_unaligned() }.map(f)
}

#[inline(always)]
unsafe fn write<T: Copy, R>(a: [T; N], p: *mut R, f: impl Fn(T) -> R) {
    // SAFETY: the caller vouches for N values.
    unsafe { p.cast::<[R; N]>().write_unaligned(a.map(f)) }
}

#[inline(always)]
fn dot(acc: I, w: B, a: B, weight: impl Fn(u8) -> i32) -> I {
    std::array::from_fn(|i| {
        (4 * i..4 * i + 4).fold(acc[i], |sum, j| sum + weight(w[j]) * i32::from(a[j] as i8))
    })
}

impl Isa for Scalar {
    const NAME: &'static str = "scalar";
    const LANES: usize = N;
    const W_BIAS: u8 = 0;
    const REGISTERS: usize = 8;

    type F32 = F;
    type I32 = I;
    type Mask = [bool; N];
    type Bytes = B;
    type Codes = B;
    type Taps = B;

    fn detect() -> Option<Self> {
        Some(Self)
    }

    #[inline]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }

    forward! {
        splat(x: f32) -> F = [x; N];
        add(a: F, b: F) -> F = zip(a, b, |a, b| a + b);
        sub(a: F, b: F) -> F = zip(a, b, |a, b| a - b);
        mul(a: F, b: F) -> F = zip(a, b, |a, b| a * b);
        div(a: F, b: F) -> F = zip(a, b, |a, b| a / b);
        fma(a: F, b: F, c: F) -> F = zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c);
        min(a: F, b: F) -> F = zip(a, b, |a, b| if a < b { a } else { b });
        max(a: F, b: F) -> F = zip(a, b, |a, b| if a > b { a } else { b });
        neg(a: F) -> F = a.map(|a| -a);
        abs(a: F) -> F = a.map(f32::abs);
        sqrt(a: F) -> F = a.map(f32::sqrt);
        lt(a: F, b: F) -> [bool; N] = zip(a, b, |a, b| a < b);
        le(a: F, b: F) -> [bool; N] = zip(a, b, |a, b| a <= b);
        eq(a: F, b: F) -> [bool; N] = zip(a, b, |a, b| a == b);
        select(m: [bool; N], a: F, b: F) -> F = std::array::from_fn(|i| if m[i] { a[i] } else { b[i] });
        mask_bits(m: [bool; N]) -> u32 = m.into_iter().rev().fold(0, |bits, set| bits << 1 | u32::from(set));
        reduce_sum(a: F) -> f32 = (a[0] + a[2]) + (a[1] + a[3]);
        reduce_max(a: F) -> f32 = a.into_iter().fold(a[0], f32::max);
        to_i32(a: F) -> I = a.map(|a| a.round_ties_even() as i32);
        to_f32(a: I) -> F = a.map(|a| a as f32);
        bits_of(a: F) -> I = a.map(|a| a.to_bits() as i32);
        float_of_bits(a: I) -> F = a.map(|a| f32::from_bits(a as u32));
        splat_i32(x: i32) -> I = [x; N];
        add_i32(a: I, b: I) -> I = zip(a, b, i32::wrapping_add);
        sub_i32(a: I, b: I) -> I = zip(a, b, i32::wrapping_sub);
        mul_i32(a: I, b: I) -> I = zip(a, b, i32::wrapping_mul);
        and_i32(a: I, b: I) -> I = zip(a, b, |a, b| a & b);
        or_i32(a: I, b: I) -> I = zip(a, b, |a, b| a | b);
        shl_i32(a: I, n: u32) -> I = a.map(|a| a << n);
        shr_i32(a: I, n: u32) -> I = a.map(|a| (a as u32 >> n) as i32);
        sar_i32(a: I, n: u32) -> I = a.map(|a| a >> n);
        min_i32(a: I, b: I) -> I = zip(a, b, i32::min);
        max_i32(a: I, b: I) -> I = zip(a, b, i32::max);
        splat_bytes(x: u8) -> B = [x; 4 * N];
        bytes_of(a: I) -> B = std::array::from_fn(|i| a[i / 4].to_le_bytes()[i % 4]);
        lanes_of(a: B) -> I = std::array::from_fn(|i| i32::from_le_bytes(std::array::from_fn(|j| a[4 * i + j])));
        and_bytes(a: B, b: B) -> B = zip_bytes(a, b, |a, b| a & b);
        or_bytes(a: B, b: B) -> B = zip_bytes(a, b, |a, b| a | b);
        add_bytes(a: B, b: B) -> B = zip_bytes(a, b, u8::wrapping_add);
        lookup16(table: &[i8; 16], a: B) -> B = a.map(|i| table[usize::from(i & 15)] as u8);
        dot_u7(acc: I, w: B, a: B) -> I = dot(acc, w, a, i32::from);
        dot_s8(acc: I, w: B, a: B) -> I = dot(acc, w, a, |w| i32::from(w as i8));
        codes(a: B) -> B = a;
        taps(w: B) -> B = w;
        dot_codes(acc: I, a: B, w: B) -> I = dot(acc, a, w, i32::from);
        dot_i16(acc: I, a: I, w: I) -> I = {
            let low = zip(a, w, |a, w| i32::from(a as i16) * i32::from(w as i16));
            let high = zip(a, w, |a, w| (a >> 16) * (w >> 16));
            zip(acc, zip(low, high, i32::wrapping_add), i32::wrapping_add)
        };
    }

    forward_ptr! {
        load_ptr(p: *const f32) -> F = read(p, |x| x);
        store_ptr(a: F, p: *mut f32) = write(a, p, |x| x);
        load_part_ptr(p: *const f32, n: usize) -> F = {
            std::array::from_fn(|i| if i < n { p.add(i).read_unaligned() } else { 0.0 })
        };
        store_part_ptr(a: F, p: *mut f32, n: usize) = {
            a[..n].iter().enumerate().for_each(|(i, &x)| p.add(i).write_unaligned(x))
        };
        load_f16_ptr(p: *const u16) -> F = read(p, |x| f16::from_bits(x).to_f32());
        store_f16_ptr(a: F, p: *mut u16) = write(a, p, |x| f16::from_f32(x).to_bits());
        load_i32_ptr(p: *const i32) -> I = read(p, |x| x);
        store_i32_ptr(a: I, p: *mut i32) = write(a, p, |x| x);
        load_u8_ptr(p: *const u8) -> I = read(p, i32::from);
        load_i8_ptr(p: *const i8) -> I = read(p, i32::from);
        store_i8_ptr(a: I, p: *mut i8) = write(a, p, |x| x as i8);
        load_u16_ptr(p: *const u16) -> I = read(p, i32::from);
        store_u16_ptr(a: I, p: *mut u16) = write(a, p, |x| x as u16);
        load_bytes_ptr(p: *const u8) -> B = p.cast::<B>().read_unaligned();
        store_bytes_ptr(a: B, p: *mut u8) = p.cast::<B>().write_unaligned(a);
    }
}
