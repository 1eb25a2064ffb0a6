//! What becomes of the integer sums of a product before they are stored.

use std::sync::Arc;

use kinglet_simd::Isa;
use kinglet_tensor::AlignedBuf;

use crate::nd::NdError;
use crate::nd::act::Act;
use crate::nd::layout::BLOCK;

/// `sum * factor + shift`, one of each for every output, and then.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Factors, one an output.
    pub factor: Vec<f32>,
    /// Summands, one an output.
    pub shift: Vec<f32>,
    /// What is stored.
    pub result: Result8,
}

/// What a product stores.
#[derive(Clone, Debug)]
pub enum Result8 {
    /// Floats, after an activation.
    Floats(Act),
    /// Codes: the nearest ones, then joined with others, then translated.
    Codes {
        /// From sums to codes.
        to: Recode,
        /// Codes by a factor and a summand of each output, as codes again.
        line: Option<Line>,
        /// With which codes of another image they are joined.
        join: Option<Join>,
        /// What stands for each code in the end.
        table: Option<Arc<[u8; 256]>>,
    },
}

/// `round(min(max(x, lo), hi)) + zero`, halves to even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recode {
    /// The code of zero, in 0..=255.
    pub zero: i32,
    /// Least value.
    pub lo: f32,
    /// Greatest value.
    pub hi: f32,
}

impl Recode {
    /// To codes whose zero is `zero`, for values in units of their scale that are bounded besides.
    pub fn new(zero: u8, lo: f32, hi: f32) -> Self {
        let zero = i32::from(zero);
        let (least, most) = (-zero as f32, (255 - zero) as f32);
        Self { zero, lo: lo.clamp(least, most), hi: hi.clamp(least, most) }
    }

    /// The nearest codes, less the zero.
    #[inline(always)]
    pub(super) fn round<I: Isa>(&self, isa: I, x: I::F32) -> I::I32 {
        isa.to_i32(isa.min(isa.max(x, isa.splat(self.lo)), isa.splat(self.hi)))
    }

    /// The nearest codes.
    #[inline(always)]
    pub(super) fn code<I: Isa>(&self, isa: I, x: I::F32) -> I::I32 {
        isa.add_i32(self.round(isa, x), isa.splat_i32(self.zero))
    }
}

/// `(code - zero) * factor + shift`, one of each for every output, as a code again: a product's codes times, or plus,
/// constants.
#[derive(Clone, Debug)]
pub struct Line {
    /// Factors of codes less their zero, one an output.
    pub factor: Vec<f32>,
    /// Summands, one an output.
    pub shift: Vec<f32>,
    /// To codes.
    pub to: Recode,
}

/// `(code - zero) * own + other * theirs + shift`, as a code again: a sum of two images of codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Join {
    /// Factor of the product's own codes, less their zero.
    pub own: f32,
    /// Factor of the other image's codes.
    pub theirs: f32,
    /// What is added: the other image's zero, times its factor.
    pub shift: f32,
    /// To codes.
    pub to: Recode,
}

/// An ending whose numbers fill whole panels.
#[derive(Debug)]
pub(super) struct Padded {
    pub(super) factor: AlignedBuf<f32>,
    pub(super) shift: AlignedBuf<f32>,
    /// Factors and summands of the line.
    pub(super) line: Option<[AlignedBuf<f32>; 2]>,
    pub(super) result: Result8,
}

impl Padded {
    pub(super) fn new(ending: Ending, outputs: usize) -> Result<Self, NdError> {
        let line = match &ending.result {
            Result8::Codes { line: Some(line), .. } => Some(line),
            _ => None,
        };
        let lists =
            [Some(&ending.factor), Some(&ending.shift), line.map(|l| &l.factor), line.map(|l| &l.shift)];
        if let Some(list) = lists.into_iter().flatten().find(|list| list.len() != outputs) {
            let reason = format!("{} numbers for {outputs} outputs", list.len());
            return Err(NdError { what: "ending", reason });
        }
        let pad = |list: &[f32]| {
            let mut padded = AlignedBuf::<f32>::try_new(outputs.next_multiple_of(BLOCK) + 2 * BLOCK)?;
            padded[..outputs].copy_from_slice(list);
            Ok::<_, NdError>(padded)
        };
        let line = line.map(|line| Ok::<_, NdError>([pad(&line.factor)?, pad(&line.shift)?])).transpose()?;
        Ok(Self { factor: pad(&ending.factor)?, shift: pad(&ending.shift)?, line, result: ending.result })
    }

    /// Whether codes are stored, not floats.
    pub(super) fn codes(&self) -> bool {
        matches!(self.result, Result8::Codes { .. })
    }

    /// In words, for labels.
    pub(super) fn name(&self) -> String {
        match &self.result {
            Result8::Floats(act) => format!(" to f32 {}", act.name()).trim_end().into(),
            Result8::Codes { line, join, table, .. } => {
                let line = if line.is_some() { " + constants" } else { "" };
                let join = if join.is_some() { " + residual" } else { "" };
                format!("{line}{join}{}", if table.is_some() { " + table" } else { "" })
            }
        }
    }
}
