//! `NonMaxSuppression`: of boxes that cover each other, the one that scores highest.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Dim, TensorType, Type};

/// Inputs: boxes `[N, B, 4]`, scores `[N, classes, B]`, and optionally the most boxes of a class (none are chosen without
/// it), the largest overlap that is left alone, the score that must be exceeded. Output: `[chosen, 3]` of I64: image,
/// class and box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonMaxSuppression {
    /// Boxes are centre x, centre y, width and height, not two corners (y, x, y, x).
    pub centres: bool,
}

impl Op for NonMaxSuppression {
    fn name(&self) -> &'static str {
        "NonMaxSuppression"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (boxes, scores) = (args.tensor(0)?, args.tensor(1)?);
        if boxes.rank() != 3 || scores.rank() != 3 || boxes.shape[2].fixed().is_some_and(|n| n != 4) {
            return Err(format!("takes [N, B, 4] and [N, classes, B], got {boxes:?} and {scores:?}"));
        }
        Ok(vec![TensorType { dtype: DType::I64, shape: vec![Dim::Unknown, Dim::Fixed(3)] }.into()])
    }
}

/// Of boxes that cover each other, the one whose best class scores highest; one choice for all classes.
///
/// Inputs: boxes `[N, B, 4]` as centre x, centre y, width and height, scores `[N, B, classes]`. Output: `[N, most]` of I64: the
/// boxes that are kept, best first, and -1 behind them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestBoxes {
    /// Most boxes of an image.
    pub most: usize,
    /// The largest overlap that is left alone.
    pub overlap: f32,
    /// The least score.
    pub threshold: f32,
    /// Boxes only give way to boxes of the same best class.
    pub by_class: bool,
    /// Where no box reaches the threshold, the best one is kept all the same.
    pub at_least_one: bool,
}

impl Op for BestBoxes {
    fn name(&self) -> &'static str {
        "BestBoxes"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [boxes, scores] = args.tensors::<2>()?;
        let four = |n: usize| n == 4;
        if boxes.rank() != 3 || scores.rank() != 3 || !boxes.shape[2].fixed().is_none_or(four) {
            return Err(format!("takes [N, B, 4] and [N, B, classes], got {boxes:?} and {scores:?}"));
        }
        let shape = vec![boxes.shape[0], Dim::Fixed(self.most)];
        Ok(vec![TensorType { dtype: DType::I64, shape }.into()])
    }
}
