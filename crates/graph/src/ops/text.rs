//! Ops on tensors of texts: `TextConstant`, which has no bytes in a file's sense, `Text` and `TfIdf`.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Dim, TensorType, Type, broadcast};

/// Texts in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextConstant {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// One text an element.
    pub texts: Vec<String>,
}

impl Op for TextConstant {
    fn name(&self) -> &'static str {
        "TextConstant"
    }

    fn infer(&self, _: &Args<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![TensorType::fixed(DType::Str, &self.shape).into()])
    }
}

/// What becomes of the letters of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Case {
    Keep,
    Lower,
    Upper,
}

/// An operation on texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Each text of input 0 followed by that of input 1, with broadcasting.
    Join,
    /// Texts `[C]` or `[1, C]` without those in `stops`; one empty text when none is left.
    Normalise {
        /// Of what is left.
        case: Case,
        /// Whether letters of another case are other letters in `stops`.
        exact: bool,
        /// What is taken out.
        stops: Vec<String>,
    },
    /// The parts of each text `[.., most parts]`, filled with empty texts, and the number of parts of each.
    Split {
        /// Between parts; none: runs of white space.
        delimiter: Option<String>,
        /// Most cuts.
        most: Option<usize>,
    },
}

impl Op for Text {
    fn name(&self) -> &'static str {
        "Text"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        if x.dtype != DType::Str {
            return Err(format!("takes texts, got {}", x.dtype));
        }
        let of = |shape: Vec<Dim>| Type::from(TensorType { dtype: DType::Str, shape });
        Ok(match self {
            Self::Join => vec![of(broadcast(&x.shape, &args.tensor(1)?.shape)?)],
            Self::Normalise { .. } => vec![of(vec![Dim::Unknown; x.rank()])],
            Self::Split { .. } => {
                let parts = x.shape.iter().copied().chain([Dim::Unknown]).collect();
                vec![of(parts), x.with(DType::I64).into()]
            }
        })
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

/// Counts of n-grams in rows of tokens, weighted.
///
/// Input: `[C]` or `[B, C]` of texts or integers. Output: F32 `[columns]` or `[B, columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TfIdf {
    /// The n-grams, each with the column that counts it. Integers are written in decimal.
    pub grams: Vec<(Vec<String>, usize)>,
    /// Number of columns.
    pub columns: usize,
    /// Most tokens that are skipped between two of an n-gram.
    pub skips: usize,
    /// Whether a count is cut to 1.
    pub once: bool,
    /// Factor on each column; none: 1.
    pub weights: Option<Vec<f32>>,
}

impl Op for TfIdf {
    fn name(&self) -> &'static str {
        "TfIdf"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        if x.rank() > 2 {
            return Err(format!("takes rows of tokens, got {x:?}"));
        }
        let mut shape = if x.rank() == 2 { vec![x.shape[0]] } else { Vec::new() };
        shape.push(Dim::Fixed(self.columns));
        Ok(vec![TensorType { dtype: DType::F32, shape }.into()])
    }
}
