//! Real models through files: converted, opened again, and the same outputs. Without `KINGLET_MODELS` they are skipped.

#[path = "../real/mod.rs"]
mod real;

use std::path::{Path, PathBuf};

use kinglet::LoadOptions;
use kinglet::graphs::{ConvertOptions, GraphFiles, GraphModel, Optimised};
use kinglet::tensor::{DType, Tensor};
use real::real;

/// The outputs on seeded floats, or on ones for integers, in the model's own types.
fn run(path: &Path, shape: &[usize]) -> Vec<Tensor> {
    let mut model = GraphModel::open(path, &LoadOptions::default()).expect("opens");
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let count = shape.iter().product::<usize>();
    let feed = |dtype: Option<DType>| match dtype {
        Some(DType::I64) => (DType::I64, 1i64.to_le_bytes().repeat(count)),
        Some(DType::I32) => (DType::I32, 1i32.to_le_bytes().repeat(count)),
        _ => (DType::F32, (0..count).flat_map(|_| noise().to_le_bytes()).collect()),
    };
    let types: Vec<_> = model.inputs().iter().map(|port| port.dtype).collect();
    let made: Vec<_> = types.into_iter().map(feed).collect();
    let tensor = |(dtype, bytes): (DType, Vec<u8>)| Tensor::new("", dtype, shape.to_vec(), bytes.into());
    let feeds: Vec<Tensor> = made.into_iter().map(|pair| tensor(pair).expect("sizes agree")).collect();
    model.run(&feeds).expect("runs")
}

fn check(model: &str, shape: &[usize], dims: &[(&str, usize)], ends: &[&str]) {
    let Some(path) = real(model) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let files = GraphFiles::open(&path).expect("opens");
    let expected = run(&path, shape);
    for end in ends {
        let out = folder.path().join(format!("m.{end}"));
        let dims = dims.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let options = ConvertOptions { dims, ..ConvertOptions::default() };
        files.convert(&out, &options, &mut |_, _| {}).expect("written");
        let found = run(&out, shape);
        assert_eq!(found.len(), expected.len(), "{model} {end}");
        for (a, b) in found.iter().zip(&expected) {
            assert_eq!((a.shape(), a.data() == b.data()), (b.shape(), true), "{model} {end}: {}", b.name());
        }
    }
}

#[test]
fn models_of_sound_are_the_same_in_every_format() {
    check("nmp.onnx", &[1, 43844, 1], &[], &["onnx", "mlpackage"]);
    check("nmp.mlpackage", &[1, 43844, 1], &[], &["onnx", "mlpackage"]);
}

#[test]
fn models_of_open_sizes_are_the_same_in_every_format() {
    check("PP-OCRv6_det_small.onnx", &[1, 3, 64, 96], &[], &["onnx", "mlpackage"]);
    check("PP-OCRv6_rec_small.onnx", &[1, 3, 48, 160], &[], &["onnx", "mlpackage"]);
}

#[test]
fn a_model_of_sentences_is_the_same_in_every_format() {
    let dims = [("batch_size", 1), ("sequence_length", 16)];
    check("all-MiniLM-L6-v2/onnx/model.onnx", &[1, 16], &[], &["onnx"]);
    check("all-MiniLM-L6-v2/onnx/model.onnx", &[1, 16], &dims, &["onnx", "mlpackage"]);
}

/// Every graph model below a folder but those of test suites and those without their weights.
fn graph_models(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let ends =
        |path: &Path, list: &[&str]| list.iter().any(|end| path.extension().is_some_and(|e| e == *end));
    let of = |path: PathBuf| match path.is_dir() {
        true if ends(&path, &["mlpackage"]) => vec![path],
        true if path.ends_with("onnx-tests") => Vec::new(),
        true => graph_models(&path),
        false if path.to_string_lossy().ends_with(".skeleton.onnx") => Vec::new(),
        false if ends(&path, &["onnx", "mlmodel"]) => vec![path],
        false => Vec::new(),
    };
    entries.flat_map(of).collect()
}

#[test]
fn fusing_keeps_the_outputs_of_every_model() {
    let Some(folder) = std::env::var_os("KINGLET_MODELS") else { return };
    for path in graph_models(Path::new(&folder)) {
        let Ok(files) = GraphFiles::open(&path) else {
            println!("skipped: {} does not open", path.display());
            continue;
        };
        // Where codes are rounded, a last bit moves a whole step.
        if files.graph.nodes().iter().any(|node| node.op.name().contains("Quantize")) {
            continue;
        }
        let optimised = Optimised::new(files, &[]).expect("optimised");
        let gain = optimised.gain(&LoadOptions::default(), 1, &mut |_| {}).expect("runs");
        for found in &gain.differences {
            assert!(found.relative <= 1e-5, "{}: {found:?} with {:?}", path.display(), gain.inputs);
        }
    }
}
