//! What models do to a picture: tell its class, find objects, mark its parts, or something else.

use kinglet_cpu::Value;
use kinglet_formats::coreml::{Colour, FeatureKind};
use kinglet_models::image::{
    Array, Canvas, Channels, Hints, PALETTE, Picture, Recipe, Scaling, View, recipe_for,
};
use kinglet_models::task::{
    Detection, DetectionHead, DetectionOptions, Mask, Ranked, TaskError, detect, labels, segment, top,
};
use kinglet_tensor::{DType, Tensor};

use super::model::{GraphModel, floats};
use crate::Error;

/// What a model's outputs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One class for the picture.
    Classify,
    /// Boxes with classes.
    Detect,
    /// A class for each pixel.
    Segment,
    /// Anything else.
    Other,
}

/// What a model says about a picture. Labels stand beside what they name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The most probable classes, best first.
    Classes(Vec<(Ranked, String)>),
    /// Objects, best first.
    Objects(Vec<(Detection, String)>),
    /// A class for each pixel, and the name of each class that occurs.
    Parts(Mask, View, Vec<(usize, String)>),
    /// The outputs as they are.
    Tensors(Vec<Tensor>),
    /// The same by name, when some of them are no tensors of numbers.
    Values(Vec<(String, Value)>),
}

impl Task {
    /// What outputs of these shapes for a picture prepared with `view` are for.
    pub fn of(outputs: &[Array], view: &View) -> Self {
        if DetectionHead::of(outputs, view).is_some() {
            return Self::Detect;
        }
        let [output] = outputs else { return Self::Other };
        let wide = |sides: [usize; 2]| sides.iter().all(|side| *side > 1);
        match output.shape[..] {
            [1, classes, h, w] if classes > 1 && wide([h, w]) => Self::Segment,
            [1, 1, h, w] | [1, h, w] | [h, w] if wide([h, w]) && near(view, [w, h]) => Self::Segment,
            _ if output.shape.iter().filter(|n| **n > 1).count() == 1 => Self::Classify,
            _ => Self::Other,
        }
    }
}

/// Whether a map has the proportions of the prepared picture.
fn near(view: &View, [width, height]: [usize; 2]) -> bool {
    width as u64 * u64::from(view.size[1]) == height as u64 * u64::from(view.size[0])
}

/// A model's picture input.
struct Eye {
    input: usize,
    recipe: Recipe,
    /// Whether channels are the last dimension.
    last: bool,
}

impl GraphModel {
    /// Whether it has one input, and that is a picture.
    pub fn sees(&self) -> bool {
        self.eye().is_ok()
    }

    /// The outputs for a picture, and where its pixels went.
    pub(super) fn see(&mut self, picture: &Picture) -> Result<(Vec<Tensor>, View), Error> {
        let (values, view) = self.see_values(picture)?;
        Ok((self.tensors(values)?, view))
    }

    /// The same, with outputs of any kind.
    fn see_values(&mut self, picture: &Picture) -> Result<(Vec<Value>, View), Error> {
        let eye = self.eye()?;
        let prepared = eye.recipe.prepare(picture).map_err(TaskError::from)?;
        let array = if eye.last { channels_last(&prepared.array) } else { prepared.array };
        let feed = self.inputs()[eye.input].tensor(&array)?;
        Ok((self.run_values(&[feed])?, prepared.view))
    }

    /// The outputs for one tensor for each input.
    pub fn answer(&mut self, feeds: &[Tensor]) -> Result<Answer, Error> {
        let values = self.run_values(feeds)?;
        self.plain(values)
    }

    /// The outputs as they are: tensors when all of them are tensors of numbers.
    fn plain(&self, values: Vec<Value>) -> Result<Answer, Error> {
        let numbers = |value: &Value| value.tensor().is_some_and(|array| array.dtype() != DType::Str);
        if values.iter().all(numbers) {
            return Ok(Answer::Tensors(self.tensors(values)?));
        }
        let names = self.outputs().iter().map(|port| port.name.clone());
        Ok(Answer::Values(names.zip(values).collect()))
    }

    /// What the model says about a picture: as many classes as `count`, or what `options` call found.
    pub fn look(
        &mut self,
        picture: &Picture,
        count: usize,
        options: &DetectionOptions,
    ) -> Result<Answer, Error> {
        let (values, view) = self.see_values(picture)?;
        let outputs = match self.plain(values)? {
            Answer::Tensors(outputs) => outputs,
            other => return Ok(other),
        };
        let arrays: Vec<Array> = outputs.iter().filter_map(floats).collect();
        Ok(match Task::of(&arrays, &view) {
            _ if arrays.len() != outputs.len() => Answer::Tensors(outputs),
            Task::Classify => {
                let classes = arrays[0].data.len();
                let ranked = top(&arrays[0], count)?;
                Answer::Classes(ranked.into_iter().map(|r| (r, self.label(r.class, classes))).collect())
            }
            Task::Detect => {
                let classes = DetectionHead::of(&arrays, &view).map_or(0, |head| head.class_count(&arrays));
                let found = detect(&arrays, &view, options)?;
                Answer::Objects(found.into_iter().map(|d| (d, self.label(d.class, classes))).collect())
            }
            Task::Segment => {
                let mask = segment(&arrays[0])?;
                let classes = match arrays[0].shape[..] {
                    [1, classes, _, _] if classes > 1 => classes,
                    _ => 21,
                };
                let shares = mask.shares();
                let names = shares.iter().map(|(class, _)| (*class, self.label(*class, classes))).collect();
                Answer::Parts(mask, view, names)
            }
            Task::Other => Answer::Tensors(outputs),
        })
    }

    /// The name of a class: the file's own, or that of a well-known data set with so many.
    fn label(&self, class: usize, classes: usize) -> String {
        let own = self.files.classes.as_ref().and_then(|own| own.get(class));
        own.cloned().unwrap_or_else(|| labels::name(class, classes))
    }

    fn eye(&self) -> Result<Eye, Error> {
        let [input] = self.inputs() else { return Err(Error::NoPicture) };
        let (channels, height, width, last) = match input.shape[..] {
            [_, h, w, Some(c @ (1 | 3))] if !matches!(input.shape[1], Some(1 | 3)) => (Some(c), h, w, true),
            [_, c @ (None | Some(1 | 3)), h, w] => (c, h, w, false),
            _ => return Err(Error::NoPicture),
        };
        let name = self.files.path.file_name().unwrap_or_default().to_string_lossy();
        let usual = || recipe_for(&Hints { name: &name, channels, height, width });
        let mut recipe = self.files.recipe.unwrap_or_else(usual);
        let features = self.files.interface.iter().flat_map(|interface| &interface.inputs);
        if let Some(FeatureKind::Image { colour, .. }) = features.map(|f| &f.kind).next() {
            recipe.scaling = Scaling::linear(1.0, [0.0; 3]);
            recipe.channels = match colour {
                Colour::Grey => Channels::Grey,
                Colour::Rgb => Channels::Rgb,
                Colour::Bgr => Channels::Bgr,
            };
        }
        Ok(Eye { input: 0, recipe, last })
    }
}

/// `[1, C, H, W]` as `[1, H, W, C]`.
fn channels_last(array: &Array) -> Array {
    let [n, c, h, w] = array.shape[..] else { return array.clone() };
    let pixels = h * w;
    let data = (0..pixels).flat_map(|i| (0..c).map(move |channel| array.data[channel * pixels + i]));
    Array { shape: vec![n, h, w, c], data: data.collect() }
}

impl Answer {
    /// The picture with what was found drawn into it; none for answers that have no place in it.
    pub fn draw(&self, picture: &Picture) -> Option<Picture> {
        let mut canvas = Canvas::new(picture);
        match self {
            Self::Objects(objects) => {
                for (object, label) in objects.iter().rev() {
                    let colour = PALETTE[object.class % PALETTE.len()];
                    canvas.frame(object.corners, colour);
                    let [left, top, ..] = object.corners;
                    canvas.label(left, top, &format!("{label} {:.0} %", object.score * 100.0), colour);
                }
            }
            Self::Parts(mask, view, names) => {
                mask.draw(&mut canvas, view);
                for (i, (class, name)) in names.iter().filter(|(class, _)| *class > 0).enumerate() {
                    let row = (i + 1) as f32 * 24.0 * picture.width() as f32 / 400.0;
                    canvas.label(0.0, row, name, PALETTE[class % PALETTE.len()]);
                }
            }
            Self::Classes(_) | Self::Tensors(_) | Self::Values(_) => return None,
        }
        Some(canvas.finish())
    }
}
