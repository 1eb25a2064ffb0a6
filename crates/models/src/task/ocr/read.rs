//! A cut line to characters: what the angle classifier and the recogniser read, and what their outputs say.

use crate::image::{Array, Channels, ImageError, Picture, Resize, Scaling};
use crate::task::TaskError;
use crate::task::error::whole;

/// Rows of a prepared line.
const HEIGHT: u32 = 48;
/// Columns of the angle classifier's input.
const ANGLE_WIDTH: u32 = 192;
/// Fewest columns of the recogniser's input.
const MIN_WIDTH: u32 = 320;
/// What the columns of the recogniser's input are a multiple of.
const STEP: u32 = 32;
/// Most columns of the recogniser's input; longer lines are compressed.
const MAX_WIDTH: u32 = 3200;
/// Least probability at which a line is turned.
const TURNED: f32 = 0.9;
const SCALING: Scaling = Scaling::standard([0.5; 3], [0.5; 3]);

/// Columns that the recogniser needs for a line. Lines of the same width can be read in one batch.
pub fn line_width(line: &Picture) -> u32 {
    proportional(line).div_ceil(STEP).saturating_mul(STEP).clamp(MIN_WIDTH, MAX_WIDTH)
}

/// Columns at the models' height with the proportions kept.
fn proportional(line: &Picture) -> u32 {
    (f64::from(HEIGHT) * f64::from(line.width()) / f64::from(line.height())).ceil().max(1.0) as u32
}

/// The recogniser's input for lines: `[lines, 3, 48, width]`, zero to the right of each line.
pub fn line_batch(lines: &[&Picture], width: u32) -> Result<Array, ImageError> {
    let mut data = Vec::with_capacity(lines.len() * 3 * HEIGHT as usize * width as usize);
    for line in lines {
        append(line, width, &mut data)?;
    }
    Ok(Array { shape: vec![lines.len(), 3, HEIGHT as usize, width as usize], data })
}

/// The angle classifier's input for lines: `[lines, 3, 48, 192]`.
pub fn angle_input(lines: &[&Picture]) -> Result<Array, ImageError> {
    line_batch(lines, ANGLE_WIDTH)
}

/// Whether each line of a `[lines, 2]` output of the angle classifier is upside down.
pub fn is_upside_down(output: &Array) -> Result<Vec<bool>, TaskError> {
    whole("line angles", output)?;
    let [_, 2] = output.shape[..] else {
        let expected = "[lines, 2] probabilities";
        return Err(TaskError::Shape { task: "line angles", expected, found: output.shape.clone() });
    };
    Ok(output.data.chunks_exact(2).map(|p| p[1] > p[0] && p[1] > TURNED).collect())
}

fn append(line: &Picture, width: u32, data: &mut Vec<f32>) -> Result<(), ImageError> {
    let inner = proportional(line).min(width);
    let resized = Resize::OpenCvBilinear.apply(line, inner, HEIGHT)?;
    let mut planes = Vec::new();
    crate::image::append_planes(&resized, Channels::Bgr, SCALING, &mut planes);
    for row in planes.chunks_exact(inner as usize) {
        data.extend_from_slice(row);
        data.resize(data.len() + (width - inner) as usize, 0.0);
    }
    Ok(())
}

/// The characters that a recogniser's classes stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    characters: Vec<String>,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its characters.
    pub text: String,
    /// Mean probability of the characters; 0 without any.
    pub score: f32,
}

impl Dictionary {
    /// One character a line, as in the metadata `character` of a recogniser or in a file beside it. Class 0 is "no
    /// character"; a blank comes after the last.
    pub fn parse(lines: &str) -> Self {
        let characters = lines.strip_suffix('\n').unwrap_or(lines).split('\n');
        let mut characters: Vec<String> =
            characters.map(|line| line.trim_end_matches('\r').to_owned()).collect();
        characters.push(" ".into());
        Self { characters }
    }

    /// What each line of a `[lines, steps, classes]` output says: the best class of each step, repetitions joined, "no
    /// character" left out.
    pub fn read(&self, output: &Array) -> Result<Vec<Reading>, TaskError> {
        whole("text recognition", output)?;
        let [_, steps, classes] = output.shape[..] else {
            let expected = "[lines, steps, classes] probabilities";
            return Err(TaskError::Shape { task: "text recognition", expected, found: output.shape.clone() });
        };
        if classes != self.characters.len() + 1 {
            return Err(TaskError::Dictionary { dictionary: self.characters.len(), classes });
        }
        if steps == 0 {
            return Ok(vec![Reading { text: String::new(), score: 0.0 }; output.shape[0]]);
        }
        Ok(output.data.chunks_exact(steps * classes).map(|line| self.line(line, classes)).collect())
    }

    fn line(&self, steps: &[f32], classes: usize) -> Reading {
        let (mut text, mut sum, mut count, mut last) = (String::new(), 0.0, 0u32, 0);
        for step in steps.chunks_exact(classes) {
            let better = |best: (usize, f32), (i, p): (usize, &f32)| if *p > best.1 { (i, *p) } else { best };
            let (class, probability) = step.iter().enumerate().fold((0, f32::NEG_INFINITY), better);
            if class != 0 && class != last {
                text.push_str(&self.characters[class - 1]);
                (sum, count) = (sum + probability, count + 1);
            }
            last = class;
        }
        Reading { text, score: sum / count.max(1) as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_join_unless_something_is_between() {
        let dictionary = Dictionary::parse("a\nb\r\n");
        let check = |classes: &[usize], expected: &str| {
            let mut data = vec![0.0; classes.len() * 4];
            classes.iter().enumerate().for_each(|(step, class)| data[step * 4 + class] = 0.5);
            let output = Array { shape: vec![1, classes.len(), 4], data };
            let found = dictionary.read(&output).expect("steps of classes");
            assert_eq!(found[0].text, expected, "{classes:?}");
            assert_eq!(found[0].score, if expected.is_empty() { 0.0 } else { 0.5 });
        };
        check(&[1, 1, 0, 1, 2, 2, 3], "aab ");
        check(&[0, 0], "");
        check(&[], "");
        let five = Array { shape: vec![1, 1, 5], data: vec![0.0; 5] };
        assert_eq!(dictionary.read(&five), Err(TaskError::Dictionary { dictionary: 3, classes: 5 }));
    }

    #[test]
    fn lines_are_padded_to_the_right() {
        let line = Picture::filled(48, 24, [255, 127, 0]);
        assert_eq!(line_width(&line), 320);
        assert_eq!(line_width(&Picture::filled(481, 48, [0; 3])), 512);
        assert_eq!(line_width(&Picture::filled(40_000, 2, [0; 3])), MAX_WIDTH);
        let batch = line_batch(&[&line], 100).expect("sizes");
        assert_eq!(batch.shape, [1, 3, 48, 100]);
        assert_eq!([batch.data[0], batch.data[95], batch.data[96]], [-1.0, -1.0, 0.0]);
    }
}
