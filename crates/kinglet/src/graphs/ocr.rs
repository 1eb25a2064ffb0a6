//! Reading text in pictures with a detector, a line classifier and a recogniser (the PP-OCR family).

use std::path::{Path, PathBuf};

use kinglet_formats::Limits;
use kinglet_models::image::{Array, Hints, Picture, recipe_for, rotate_half};
use kinglet_models::task::TaskError;
use kinglet_models::task::ocr::{
    Dictionary, FindOptions, Line, angle_input, cut, find_text, is_upside_down, line_batch, line_width,
    reading_order,
};
use kinglet_tensor::Tensor;

use super::model::{GraphModel, floats};
use crate::files::read_text;
use crate::{Error, LoadOptions};

/// Least mean probability of a line's characters.
const LEAST: f32 = 0.5;

/// Three models that read text together; without a classifier, lines are taken to be upright.
pub struct Reader {
    detector: GraphModel,
    classifier: Option<GraphModel>,
    recogniser: GraphModel,
    dictionary: Dictionary,
}

impl Reader {
    /// Whether a folder holds a detector and a recogniser.
    pub fn is_one(folder: &Path) -> bool {
        let files = files(folder);
        part(&files, "det").is_some() && part(&files, "rec").is_some()
    }

    /// Opens the models of a folder: `…det….onnx`, `…rec….onnx` and, when there is one, `…cls….onnx`.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, Error> {
        Self::of(&files(folder), options)
    }

    /// Opens such models by the names they have, wherever they lie.
    pub fn of(files: &[(String, PathBuf)], options: &LoadOptions) -> Result<Self, Error> {
        let open = |what: &str| part(files, what).map(|path| GraphModel::open(path, options)).transpose();
        let folder = files.first().and_then(|(_, path)| path.parent()).unwrap_or(Path::new(""));
        let missing = |name: &str| Error::MissingFile { folder: folder.to_owned(), name: name.into() };
        let recogniser = open("rec")?.ok_or_else(|| missing("a recogniser (…rec….onnx)"))?;
        let dictionary = match recogniser.metadata("character") {
            Some(lines) => Dictionary::parse(lines),
            None => {
                let path = text_file(files).ok_or_else(|| missing("the dictionary (…dict….txt)"))?;
                Dictionary::parse(&read_text(path, Limits::default().max_string)?)
            }
        };
        let detector = open("det")?.ok_or_else(|| missing("a detector (…det….onnx)"))?;
        Ok(Self { detector, classifier: open("cls")?, recogniser, dictionary })
    }

    /// The rows of text in a picture, from the top, each from the left.
    pub fn read(&mut self, picture: &Picture) -> Result<Vec<Vec<Line>>, Error> {
        let recipe = recipe_for(&Hints { name: "ppocr", ..Hints::default() });
        let prepared = recipe.prepare(picture).map_err(TaskError::from)?;
        let map = run(&mut self.detector, &prepared.array)?;
        let found = find_text(&map, &prepared.view, &FindOptions::default())?;
        let mut cuts: Vec<_> = found.iter().map(|(quad, _)| (*quad, cut(picture, quad))).collect();
        // Lines of one width share a plan.
        cuts.sort_by_key(|(_, line)| line_width(line));
        let mut lines = Vec::new();
        for (quad, line) in cuts {
            let line = self.upright(line)?;
            let width = line_width(&line);
            let batch = line_batch(&[&line], width).map_err(TaskError::from)?;
            let output = run(&mut self.recogniser, &batch)?;
            for reading in self.dictionary.read(&output)? {
                if reading.score >= LEAST {
                    lines.push(Line { quad, text: reading.text, score: reading.score });
                }
            }
        }
        Ok(reading_order(lines))
    }

    fn upright(&mut self, line: Picture) -> Result<Picture, Error> {
        let Some(classifier) = &mut self.classifier else { return Ok(line) };
        let input = angle_input(&[&line]).map_err(TaskError::from)?;
        let turned = is_upside_down(&run(classifier, &input)?)?;
        Ok(if turned.first() == Some(&true) { rotate_half(&line) } else { line })
    }
}

/// The first output for one input.
fn run(model: &mut GraphModel, array: &Array) -> Result<Array, Error> {
    let feed: Tensor = model.inputs().first().ok_or(Error::NoPicture)?.tensor(array)?;
    let outputs = model.run(&[feed])?;
    outputs.first().and_then(floats).ok_or(Error::NoPicture)
}

/// Name and path of each file of a folder, by name.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = |entry: std::fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    let mut files: Vec<_> = entries.map(named).collect();
    files.sort();
    files
}

/// The first ONNX file whose name has the word `what`.
fn part<'a>(files: &'a [(String, PathBuf)], what: &str) -> Option<&'a PathBuf> {
    let named = |(name, _): &&(String, PathBuf)| {
        let name = name.to_lowercase();
        name.ends_with(".onnx") && name.split(['_', '-', '.']).any(|word| word == what)
    };
    files.iter().find(named).map(|(_, path)| path)
}

fn text_file(files: &[(String, PathBuf)]) -> Option<&PathBuf> {
    let dictionary = |(name, _): &&(String, PathBuf)| {
        let name = name.to_lowercase();
        name.ends_with(".txt") && (name.contains("dict") || name.contains("keys"))
    };
    files.iter().find(dictionary).map(|(_, path)| path)
}
