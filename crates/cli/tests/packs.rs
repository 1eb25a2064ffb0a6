//! Packed weights on disk, as a user meets them: they appear, are used, are replaced when damaged, and can be removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use kinglet::tensor::{DType, MemoryWeights, Tensor, quant};
use kinglet_formats::gguf::Writer;
use kinglet_formats::{Gguf, Limits, TensorSpec};

/// A folder with a small quantised model and a store.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        write_model(&place.model());
        place
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("tiny.gguf")
    }

    fn packs(&self) -> PathBuf {
        self.0.path().join("home").join("packs")
    }

    /// The files of packed weights.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.packs()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// What the command prints; it must succeed.
    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
        command.env("KINGLET_HOME", self.0.path().join("home")).env_remove("KINGLET_PACK_CACHE");
        let output = command.args(args).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Loads the model.
    fn load(&self, more: &[&str]) -> String {
        let model = self.model().display().to_string();
        self.run(&[&["explain", model.as_str(), "--threads", "1"], more].concat())
    }
}

/// The golden Llama in Q8_0.
fn write_model(path: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/tiny/llama/tiny.gguf");
    let golden = Gguf::parse(fs::read(golden).expect("committed").into(), &Limits::default()).expect("sound");
    let weights: MemoryWeights = golden.tensors().iter().map(quantized).collect();
    let mut writer = Writer::like(&golden).expect("metadata");
    for tensor in weights.0.values() {
        let (name, dtype) = (tensor.name().to_owned(), tensor.dtype());
        writer.declare(TensorSpec { name, dtype, shape: tensor.shape().to_vec() });
    }
    writer.write(&mut File::create(path).expect("a file"), &weights).expect("written");
}

fn quantized(tensor: &Tensor) -> Tensor {
    if tensor.shape().len() != 2 || !tensor.shape()[1].is_multiple_of(32) {
        return tensor.clone();
    }
    let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut bytes = Vec::new();
    quant::quantize(DType::Q8_0, &values, &mut bytes).expect("finite");
    Tensor::new(tensor.name(), DType::Q8_0, tensor.shape().to_vec(), bytes.into()).expect("whole blocks")
}

#[test]
fn weights_are_packed_once() {
    let place = Place::new();
    let first = place.load(&[]);
    let [kept] = place.kept().try_into().expect("one file");
    let content = fs::read(&kept).expect("readable");
    assert_eq!(place.load(&[]), first);
    assert_eq!(place.kept(), std::slice::from_ref(&kept));
    assert_eq!(fs::read(&kept).expect("readable"), content);

    // Another instruction set packs otherwise: another file.
    place.load(&["--isa", "scalar"]);
    assert_eq!(place.kept().len(), 2);
}

#[test]
fn weights_of_graphs_are_packed_once() {
    let place = Place::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/data/coreml/nn-full.mlmodel");
    let [model, x] = ["nn.mlmodel", "x.npy"].map(|name| place.0.path().join(name));
    fs::copy(fixture, &model).expect("committed");
    let values: Vec<u8> = (0..32).flat_map(|i| (i as f32 * 0.7).sin().to_le_bytes()).collect();
    let values = Tensor::new("x", DType::F32, vec![32], values.into()).expect("sizes agree");
    fs::write(&x, kinglet::formats::npy::write(&values).expect("floats")).expect("written");
    let (model, x) = (model.display().to_string(), format!("x={}", x.display()));
    let run = |more: &[&str]| place.run(&[&["run", model.as_str(), "--input", x.as_str()], more].concat());
    let first = run(&["--pack-cache", "0"]);
    assert!(place.kept().is_empty());
    assert_eq!(run(&[]), first);
    let [kept] = place.kept().try_into().expect("one file");
    let content = fs::read(&kept).expect("readable");
    assert_eq!(run(&[]), first);
    for damaged in [&content[..content.len() - 1], &content[..10], b""] {
        fs::write(&kept, damaged).expect("written");
        assert_eq!(run(&[]), first);
        assert_eq!(fs::read(&kept).expect("readable"), content, "{} bytes", damaged.len());
    }
    assert!(place.run(&["list"]).contains("packed weights"));
}

#[test]
fn damaged_files_are_replaced() {
    let place = Place::new();
    let first = place.load(&[]);
    let [kept] = place.kept().try_into().expect("one file");
    let content = fs::read(&kept).expect("readable");
    let mut bent = content.clone();
    let last = bent.len() - 1;
    bent[last] ^= 1;
    for damaged in [&bent[..], &content[..content.len() / 2], &content[..10], b"", &[0; 5000]] {
        fs::write(&kept, damaged).expect("written");
        assert_eq!(place.load(&[]), first);
        assert_eq!(fs::read(&kept).expect("readable"), content, "{} bytes", damaged.len());
    }
}

#[test]
fn a_changed_model_is_packed_anew() {
    let place = Place::new();
    place.load(&[]);
    let date = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    File::options().write(true).open(place.model()).and_then(|file| file.set_modified(date)).expect("dated");
    place.load(&[]);
    assert_eq!(place.kept().len(), 2);
}

#[test]
fn nothing_is_kept_where_nothing_may_or_can_be() {
    let place = Place::new();
    let first = place.load(&["--pack-cache", "0"]);
    assert!(place.kept().is_empty());
    assert_eq!(place.load(&["--pack-cache", "1kB"]), first);
    assert!(place.kept().is_empty());
    fs::create_dir_all(place.0.path().join("home")).expect("a folder");
    fs::write(place.packs(), b"a file where the folder should be").expect("written");
    assert_eq!(place.load(&[]), first);
}

#[test]
fn they_are_listed_and_removed() {
    let place = Place::new();
    place.load(&[]);
    assert!(place.run(&["list"]).contains("packed weights"));
    assert!(place.run(&["rm", "--packs", "--dry-run"]).contains("would be removed"));
    assert_eq!(place.kept().len(), 1);
    assert!(place.run(&["rm", "--packs"]).contains("removed"));
    assert!(place.kept().is_empty() && !place.run(&["list"]).contains("packed weights"));
}

#[test]
fn profiles_are_tables_pictures_and_traces() {
    let place = Place::new();
    let model = place.model().display().to_string();
    let [svg, trace] = ["p.svg", "p.json"].map(|name| place.0.path().join(name).display().to_string());
    let args = ["profile", &model, "--pp", "8", "--tg", "4", "--reps", "1", "--threads", "1"];
    let table = place.run(&[&args[..], &["--svg", &svg, "--trace", &trace]].concat());
    assert!(
        table.contains("pp8 at depth 0") && table.contains("tg4") && table.contains("held by"),
        "{table}"
    );
    let picture = fs::read_to_string(svg).expect("written");
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.contains("attention"));
    let trace: serde_json::Value = serde_json::from_slice(&fs::read(trace).expect("written")).expect("JSON");
    let spans = trace["traceEvents"].as_array().expect("a list").iter().filter(|event| event["ph"] == "X");
    let runs = spans.clone().filter(|event| event["cat"] == "run").count();
    assert_eq!(runs, 1 + 4);
    assert!(spans.count() > 5 * runs);

    let json: serde_json::Value =
        serde_json::from_str(&place.run(&[&["--json", "--quiet"], &args[..]].concat())).expect("JSON");
    for result in json["results"].as_array().expect("a list") {
        let figure = |key: &str| result[key].as_f64().expect("a number");
        assert!(figure("steps_ms") <= figure("wall_ms") && figure("least_ms") > 0.0, "{result}");
        let steps = result["steps"].as_array().expect("a list");
        let sum: f64 = steps.iter().filter_map(|step| step["ms"].as_f64()).sum();
        assert!((sum - figure("steps_ms")).abs() < 1e-6 * sum);
    }
}
