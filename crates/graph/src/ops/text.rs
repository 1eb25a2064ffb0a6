//! `TextConstant`: a constant of texts, which have no bytes in a file's sense.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, TensorType, Type};

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
