//! SIMD instruction sets as proof tokens, with one run-time dispatch table.
//!
//! A token ([`Scalar`], `Avx2`, `Avx512`, `Neon`, `NeonDot`, `Wasm128`) can only be had from detection, so holding one
//! proves that its instructions may run. A kernel is written once as a [`Kernel`] over [`Isa`] and entered with
//! [`dispatch`], which calls it inside a `#[target_feature]` function.
//!
//! The contract of a kernel: `run` and everything it calls with vectors is `#[inline(always)]`, and no closure takes or
//! returns vectors. A function that is not inlined falls out of the `#[target_feature]` region, where every operation
//! becomes a call.
//!
//! Deliberately absent: tensors, threads, reading the environment. Choosing a level by name is [`Level::named`].
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod arch;
mod isa;
mod level;
mod math;

#[cfg(target_arch = "aarch64")]
pub use arch::neon::{Neon, NeonDot};
pub use arch::scalar::Scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use arch::wasm128::Wasm128;
#[cfg(target_arch = "x86_64")]
pub use arch::{avx2::Avx2, avx512::Avx512};
pub use isa::{Isa, Kernel, MAX_LANES};
pub use level::{Level, dispatch, dispatch_bf16};
pub use math::{erf, exp, gelu, gelu_each, sigmoid, tanh};

#[cfg(test)]
mod tests;
