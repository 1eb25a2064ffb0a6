//! What happens to a sum before it is stored: activations that every product and elementwise step can end with.
//!
//! [`Act::Clip`] covers no activation, ReLU and ReLU6, and costs two instructions; the others are a pass over values
//! that have just been stored. Error bounds are those of `kinglet_simd`'s functions, named beside each.

use kinglet_simd::{Isa, Kernel, exp, gelu, gelu_each, sigmoid, tanh};

/// An activation function of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// `min(max(x, lo), hi)`; exact, NaN stays NaN.
    Clip {
        /// Least result.
        lo: f32,
        /// Greatest result.
        hi: f32,
    },
    /// `x < 0 ? slope * x : x`.
    Leaky(f32),
    /// `x < 0 ? alpha * (e^x - 1) : x`; absolute error below `4e-7 * alpha`.
    Elu(f32),
    /// `1 / (1 + e^-x)` within 4 ULP.
    Sigmoid,
    /// Hyperbolic tangent within 6 ULP.
    Tanh,
    /// `x * sigmoid(x)` within 5 ULP.
    Silu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`; absolute error below `4e-7 * max(1, |x|)`.
    Gelu,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`; absolute error below `6e-7 * max(1, |x|)`.
    GeluTanh,
    /// `max(0, min(1, alpha * x + beta))`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// `x * max(0, min(1, x / 6 + 1 / 2))`.
    HardSwish,
}

impl Act {
    /// The value as it is.
    pub const NONE: Self = Self::Clip { lo: f32::NEG_INFINITY, hi: f32::INFINITY };
    /// `max(x, 0)`.
    pub const RELU: Self = Self::Clip { lo: 0.0, hi: f32::INFINITY };
    /// `min(max(x, 0), 6)`.
    pub const RELU6: Self = Self::Clip { lo: 0.0, hi: 6.0 };

    /// Bounds that are applied in registers, and whether a pass over the stored values must follow.
    pub(super) fn split(self) -> (f32, f32, bool) {
        match self {
            Self::Clip { lo, hi } => (lo, hi, false),
            _ => (f32::NEG_INFINITY, f32::INFINITY, true),
        }
    }

    /// The function's name, for labels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NONE => "",
            Self::RELU => "relu",
            Self::Clip { .. } => "clip",
            Self::Leaky(_) => "leaky_relu",
            Self::Elu(_) => "elu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::HardSigmoid { .. } => "hard_sigmoid",
            Self::HardSwish => "hard_swish",
        }
    }
}

/// Vectors in memory: `rows` runs of `count <= LANES * vectors` values, `pitch` apart.
#[derive(Clone, Copy)]
pub(super) struct Runs {
    pub(super) at: *mut f32,
    pub(super) rows: usize,
    pub(super) pitch: usize,
    pub(super) count: usize,
}

/// Applies an activation in place.
pub(super) struct Apply {
    pub(super) act: Act,
    pub(super) runs: Runs,
}

impl Apply {
    /// # Safety
    /// The runs are valid for reading and writing, and nothing else uses them meanwhile.
    #[inline(always)]
    pub(super) unsafe fn new(act: Act, runs: Runs) -> Self {
        Self { act, runs }
    }
}

impl Kernel for Apply {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let runs = self.runs;
        match self.act {
            Act::Clip { lo, hi } => each(isa, runs, Clip { lo, hi }),
            Act::Leaky(slope) => each(isa, runs, Leaky(slope)),
            Act::Elu(alpha) => each(isa, runs, Elu(alpha)),
            Act::Sigmoid => each(isa, runs, Sigmoid),
            Act::Tanh => each(isa, runs, Tanh),
            Act::Silu => each(isa, runs, Silu),
            Act::Gelu => each(isa, runs, Gelu),
            Act::GeluTanh => each(isa, runs, GeluTanh),
            Act::HardSigmoid { alpha, beta } => each(isa, runs, HardSigmoid { alpha, beta }),
            Act::HardSwish => each(isa, runs, HardSwish),
        }
    }
}

#[inline(always)]
fn each<I: Isa>(isa: I, runs: Runs, f: impl Map) {
    let whole = runs.count / I::LANES;
    // Along the rows or across them, whichever is longer.
    let (rows, columns) = ((runs.rows, runs.pitch), (whole, I::LANES));
    let (outer, inner) = if whole >= runs.rows { (rows, columns) } else { (columns, rows) };
    for i in 0..outer.0 {
        // SAFETY: `Apply::new` was promised the runs.
        unsafe { line(isa, runs.at.add(i * outer.1), inner.0, inner.1, f) };
    }
    let rest = runs.count % I::LANES;
    for row in (0..runs.rows).filter(|_| rest > 0) {
        // SAFETY: as above.
        unsafe {
            let at = runs.at.add(row * runs.pitch + whole * I::LANES);
            isa.store_part_ptr(f.apply(isa, isa.load_part_ptr(at, rest)), at, rest);
        }
    }
}

/// `count` vectors, `step` apart.
///
/// # Safety
/// They are valid for reading and writing.
#[inline(always)]
unsafe fn line<I: Isa>(isa: I, at: *mut f32, count: usize, step: usize, f: impl Map) {
    let mut i = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        while i + 4 <= count {
            some::<I, 4>(isa, at.add(i * step), step, f);
            i += 4;
        }
        if i + 2 <= count {
            some::<I, 2>(isa, at.add(i * step), step, f);
            i += 2;
        }
        if i < count {
            some::<I, 1>(isa, at.add(i * step), step, f);
        }
    }
}

/// # Safety
/// As for [`line`].
#[inline(always)]
unsafe fn some<I: Isa, const N: usize>(isa: I, at: *mut f32, step: usize, f: impl Map) {
    let mut x = [isa.zero(); N];
    for (i, x) in x.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        *x = unsafe { isa.load_ptr(at.add(i * step)) };
    }
    for (i, y) in f.each::<I, N>(isa, x).into_iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { isa.store_ptr(y, at.add(i * step)) };
    }
}

/// A function on each lane. Implementations are `#[inline(always)]`.
trait Map: Copy {
    fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::F32;

    /// Of several vectors.
    #[inline(always)]
    fn each<I: Isa, const N: usize>(self, isa: I, mut x: [I::F32; N]) -> [I::F32; N] {
        for x in &mut x {
            *x = self.apply(isa, *x);
        }
        x
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Map for Gelu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        gelu(isa, x)
    }

    #[inline(always)]
    fn each<I: Isa, const N: usize>(self, isa: I, x: [I::F32; N]) -> [I::F32; N] {
        gelu_each(isa, x)
    }
}

/// Defines activations: `Name { fields } (self, isa, x) = expression;`.
macro_rules! maps {
    ($($(#[$doc:meta])* $def:item [$name:ident] ($me:ident, $isa:ident, $x:ident) = $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        $def

        impl Map for $name {
            #[inline(always)]
            fn apply<I: Isa>(self, $isa: I, $x: I::F32) -> I::F32 {
                let $me = self;
                let _ = $me;
                $body
            }
        }
    )*};
}

maps! {
    struct Clip { lo: f32, hi: f32 } [Clip] (f, isa, x) = clip(isa, x, f.lo, f.hi);
    struct Leaky(f32); [Leaky] (f, isa, x) = {
        isa.select(isa.lt(x, isa.zero()), isa.mul(x, isa.splat(f.0)), x)
    };
    struct Elu(f32); [Elu] (f, isa, x) = {
        let below = isa.mul(isa.splat(f.0), isa.sub(exp(isa, isa.min(isa.zero(), x)), isa.splat(1.0)));
        isa.select(isa.lt(x, isa.zero()), below, x)
    };
    struct Sigmoid; [Sigmoid] (f, isa, x) = sigmoid(isa, x);
    struct Tanh; [Tanh] (f, isa, x) = tanh(isa, x);
    struct Silu; [Silu] (f, isa, x) = isa.mul(x, sigmoid(isa, x));
    struct GeluTanh; [GeluTanh] (f, isa, x) = {
        let cubic = isa.fma(isa.mul(x, x), isa.splat(0.044_715 * 2.0 * SQRT_2_PI), isa.splat(2.0 * SQRT_2_PI));
        isa.mul(x, sigmoid(isa, isa.mul(x, cubic)))
    };
    struct HardSigmoid { alpha: f32, beta: f32 } [HardSigmoid] (f, isa, x) = {
        clip(isa, isa.fma(x, isa.splat(f.alpha), isa.splat(f.beta)), 0.0, 1.0)
    };
    struct HardSwish; [HardSwish] (f, isa, x) = {
        isa.mul(x, clip(isa, isa.fma(x, isa.splat(1.0 / 6.0), isa.splat(0.5)), 0.0, 1.0))
    };
}

/// `sqrt(2 / pi)`.
const SQRT_2_PI: f32 = 0.797_884_6;

/// `min(max(x, lo), hi)`; NaN stays NaN.
#[inline(always)]
pub(super) fn clip<I: Isa>(isa: I, x: I::F32, lo: f32, hi: f32) -> I::F32 {
    isa.min(isa.splat(hi), isa.max(isa.splat(lo), x))
}
