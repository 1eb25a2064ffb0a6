//! Lists and optionals: made, read, changed, cut and joined.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, TensorType, Type};

/// An operation on lists or optionals. Results have the types that only the data decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// A list without elements.
    Empty,
    /// A list of the inputs.
    Construct,
    /// Element `input 1` of a list.
    At,
    /// The list with input 1 inserted before place `input 2`, or at the end.
    Insert,
    /// The list without its element `input 1`, or its last.
    Erase,
    /// The number of elements.
    Length,
    /// The parts of a tensor along an axis: of the sizes in input 1, or of 1, without the axis unless `keep`.
    Split {
        /// Along this axis.
        axis: i64,
        /// Parts of one keep the axis.
        keep: bool,
    },
    /// The elements joined along an axis, or stacked along a new one.
    Concat {
        /// Along this axis.
        axis: i64,
        /// A new axis.
        new: bool,
    },
    /// An optional: the input, or nothing.
    Optional,
    /// Whether there is an element.
    HasElement,
    /// The element.
    GetElement,
}

impl Op for Sequence {
    fn name(&self) -> &'static str {
        "Sequence"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let list = || Type::Sequence(Box::new(Type::Unknown));
        Ok(vec![match self {
            Self::Empty | Self::Construct | Self::Insert | Self::Erase | Self::Split { .. } => list(),
            Self::Length => TensorType::fixed(DType::I64, &[]).into(),
            Self::HasElement => TensorType::fixed(DType::Bool, &[]).into(),
            Self::GetElement if args.optional(0).is_some() => args.ty(0).clone(),
            Self::Optional if !args.has(0) => Type::Optional(Box::new(Type::Unknown)),
            Self::Optional => args.ty(0).clone(),
            Self::At | Self::Concat { .. } | Self::GetElement => Type::Unknown,
        }])
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}
