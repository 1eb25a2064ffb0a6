//! Which instruction sets this machine has, and how a kernel gets into one.

use crate::arch::scalar::Scalar;
use crate::isa::{Isa, Kernel};

#[cfg(target_arch = "aarch64")]
use crate::arch::neon::{Neon, NeonDot};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::arch::wasm128::Wasm128;
#[cfg(target_arch = "x86_64")]
use crate::arch::{avx2::Avx2, avx512::Avx512};

/// Defines the tokens of one architecture, best first.
macro_rules! tokens {
    ($($token:ident),*) => {
        #[derive(Clone, Copy, Debug)]
        enum Token {
            $($token($token)),*
        }

        impl Token {
            fn detected() -> impl Iterator<Item = Token> {
                [$($token::detect().map(Token::$token)),*].into_iter().flatten()
            }

            const fn name(self) -> &'static str {
                match self {
                    $(Token::$token(_) => <$token as Isa>::NAME),*
                }
            }

            const fn lanes(self) -> usize {
                match self {
                    $(Token::$token(_) => <$token as Isa>::LANES),*
                }
            }

            const fn w_bias(self) -> u8 {
                match self {
                    $(Token::$token(_) => <$token as Isa>::W_BIAS),*
                }
            }

            fn has_bf16(self) -> bool {
                match self {
                    $(Token::$token(isa) => isa.has_bf16()),*
                }
            }

            #[inline]
            fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
                match self {
                    $(Token::$token(isa) => isa.dispatch(kernel)),*
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tokens!(Avx512, Avx2, Scalar);
#[cfg(target_arch = "aarch64")]
tokens!(NeonDot, Neon, Scalar);
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
tokens!(Wasm128, Scalar);
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
tokens!(Scalar);

/// An instruction set that this machine has; a value of this type is the proof.
#[derive(Clone, Copy, Debug)]
pub struct Level(Token);

impl Level {
    /// The plain-Rust level, which every machine has.
    pub const SCALAR: Self = Self(Token::Scalar(Scalar));

    /// The best one.
    pub fn detect() -> Self {
        Self::available().into_iter().next().unwrap_or(Self::SCALAR)
    }

    /// All of them, best first; the last is [`Level::SCALAR`].
    pub fn available() -> Vec<Self> {
        Token::detected().map(Self).collect()
    }

    /// The one with this name, if this machine has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|level| level.name() == name)
    }

    /// The name users select it by: `avx512`, `avx2`, `neon-dot`, `neon`, `wasm128`, `scalar`.
    pub const fn name(self) -> &'static str {
        self.0.name()
    }

    /// Number of 32-bit lanes.
    pub const fn lanes(self) -> usize {
        self.0.lanes()
    }

    /// Whether this machine multiplies pairs of bfloat16 in one instruction: [`Isa::has_bf16`].
    pub fn has_bf16(self) -> bool {
        self.0.has_bf16()
    }

    /// What signed 8-bit weights have added: [`Isa::W_BIAS`].
    pub const fn w_bias(self) -> u8 {
        self.0.w_bias()
    }
}

impl PartialEq for Level {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Level {}

impl std::hash::Hash for Level {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs `kernel` with the instructions of `level`.
#[inline]
pub fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Out {
    level.0.dispatch(kernel)
}

/// Runs `kernel` with the instructions of `level`, those for bfloat16 among them where this machine has them.
#[inline]
pub fn dispatch_bf16<K: Kernel>(level: Level, kernel: K) -> K::Out {
    dispatch(level, InBf16(kernel))
}

/// Enters the instructions for bfloat16.
struct InBf16<K>(K);

impl<K: Kernel> Kernel for InBf16<K> {
    type Out = K::Out;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> K::Out {
        isa.dispatch_bf16(self.0)
    }
}
