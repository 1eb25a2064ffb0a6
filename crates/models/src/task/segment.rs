//! Segmentation: a class for each pixel.

use super::TaskError;
use super::error::whole;
use crate::image::{Array, Canvas, PALETTE, View};

/// Most classes that a mask may distinguish.
const MAX_CLASSES: usize = 65_536;

/// A class for each pixel of the prepared picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row-major.
    pub classes: Vec<u16>, // [height, width]
}

/// The class of each pixel: the best of `[1, classes, height, width]` scores, or the `[1, height, width]` (or
/// `[height, width]`) class numbers that the model gives itself.
pub fn segment(output: &Array) -> Result<Mask, TaskError> {
    whole("segmentation", output)?;
    let wrong = || TaskError::Shape {
        task: "segmentation",
        expected: "[1, classes, height, width] scores or [height, width] classes",
        found: output.shape.clone(),
    };
    match output.shape[..] {
        [1, 1, height, width] | [1, height, width] | [height, width] if height * width > 0 => {
            let number = |x: &f32| x.clamp(0.0, f32::from(u16::MAX)) as u16;
            Ok(Mask { width, height, classes: output.data.iter().map(number).collect() })
        }
        [1, classes, height, width] if height * width > 0 && (2..=MAX_CLASSES).contains(&classes) => {
            Ok(Mask { width, height, classes: best(&output.data, height * width) })
        }
        _ => Err(wrong()),
    }
}

/// The plane with the greatest value at each place; the first of equals.
fn best(scores: &[f32], pixels: usize) -> Vec<u16> {
    let mut most = scores[..pixels].to_vec();
    let mut classes = vec![0u16; pixels];
    for (class, plane) in scores.chunks_exact(pixels).enumerate().skip(1) {
        for ((score, most), chosen) in plane.iter().zip(&mut most).zip(&mut classes) {
            if *score > *most {
                (*most, *chosen) = (*score, class as u16);
            }
        }
    }
    classes
}

impl Mask {
    /// Classes that occur, with their share of the pixels, the largest first.
    pub fn shares(&self) -> Vec<(usize, f32)> {
        let mut counts = vec![0usize; MAX_CLASSES];
        self.classes.iter().for_each(|class| counts[usize::from(*class)] += 1);
        let total = self.classes.len().max(1) as f32;
        let seen = counts.into_iter().enumerate().filter(|(_, n)| *n > 0);
        let mut shares: Vec<_> = seen.map(|(class, n)| (class, n as f32 / total)).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        shares
    }

    /// The class at a pixel of the source picture that was prepared with `view`.
    pub fn at(&self, view: &View, x: u32, y: u32) -> u16 {
        let place = |at: u32, axis: usize, count: usize| {
            let prepared = (at as f32 + 0.5) / view.scale[axis] + view.offset[axis];
            let cell = prepared / view.size[axis].max(1) as f32 * count as f32;
            (cell.max(0.0) as usize).min(count - 1)
        };
        self.classes[place(y, 1, self.height) * self.width + place(x, 0, self.width)]
    }

    /// Tints the source picture by class; class 0, the background, stays as it is.
    pub fn draw(&self, canvas: &mut Canvas, view: &View) {
        for (class, _) in self.shares().into_iter().filter(|(class, _)| *class > 0) {
            let inside = |x, y| usize::from(self.at(view, x, y)) == class;
            canvas.tint(inside, PALETTE[class % PALETTE.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_plane_wins() {
        let scores = Array { shape: vec![1, 3, 1, 2], data: vec![0.5, 0.1, 0.2, 0.9, 0.4, f32::NAN] };
        let mask = segment(&scores).expect("planes");
        assert_eq!(mask.classes, [0, 1]);
        assert_eq!(mask.shares(), [(0, 0.5), (1, 0.5)]);
        let view = View { source: [4, 2], size: [2, 1], offset: [0.0; 2], scale: [2.0; 2] };
        assert_eq!([0, 1, 2, 3].map(|x| mask.at(&view, x, 1)), [0, 0, 1, 1]);
    }

    #[test]
    fn class_numbers_are_taken_as_they_are() {
        let check = |shape: &[usize], expected: Option<[u16; 4]>| {
            let data = vec![0.0, 15.0, -3.0, 1e9];
            let mask = segment(&Array { shape: shape.to_vec(), data }).ok();
            assert_eq!(mask.map(|m| m.classes), expected.map(Vec::from), "{shape:?}");
        };
        check(&[2, 2], Some([0, 15, 0, u16::MAX]));
        check(&[1, 2, 2], Some([0, 15, 0, u16::MAX]));
        check(&[4], None);
        check(&[4, 0], None);
        check(&[2, 2, 1, 1], None);
    }
}
