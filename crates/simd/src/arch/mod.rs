//! One file per instruction set; each defines its token and implements [`Isa`](crate::Isa) for it.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) mod wasm128;

/// Implements methods that only forward to intrinsics: `name(a: A, b: B) -> R = expression;`.
///
/// The token, an argument of every method, proves that the instructions exist; the macro's caller states this once.
macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            #[allow(unused_unsafe, reason = "some bodies are safe on some targets")]
            // SAFETY: the token proves that the instruction set is there; no memory is touched.
            unsafe { $body }
        }
    )*};
}

/// Implements methods that read or write memory: like `forward!`, for `unsafe fn`.
macro_rules! forward_ptr {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) $(-> $ret)? {
            // SAFETY: the token proves that the instruction set is there; the caller vouches for the pointer.
            unsafe { $body }
        }
    )*};
}

pub(crate) use {forward, forward_ptr};
