//! `kinglet convert` and `kinglet optimize` as a user meets them.

use std::path::{Path, PathBuf};
use std::process::Command;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/data/coreml/nn-full.mlmodel")
}

/// Runs it in a folder; hands back exit status, standard output and standard error.
fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    let output =
        command.current_dir(folder).env("KINGLET_HOME", folder).args(args).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn models_go_from_format_to_format_and_are_not_replaced_unasked() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, model) = (folder.path(), fixture().display().to_string());
    let (status, out, error) = run(root, &["convert", &model, "m.onnx"]);
    assert!(status == 0 && out.starts_with("ONNX, opset 21, "), "{out} {error}");
    let before = std::fs::read(root.join("m.onnx")).expect("written");

    let (status, out, error) = run(root, &["convert", &model, "m.onnx"]);
    assert_eq!(
        (status, out.as_str(), error.as_str()),
        (1, "", "error: m.onnx exists\nhint: --force replaces it\n")
    );
    let (status, ..) = run(root, &["convert", "m.onnx", "m.onnx", "--force", "--opset", "18"]);
    assert_eq!(status, 0);
    assert_ne!(std::fs::read(root.join("m.onnx")).expect("written"), before);

    let (status, out, _) = run(root, &["--json", "convert", "m.onnx", "m.mlpackage"]);
    let told = json(&out);
    assert_eq!((status, &told["format"]), (0, &"Core ML, specification 7".into()));
    assert_eq!(told["files"].as_array().map(Vec::len), Some(3));
    let (status, out, error) = run(root, &["convert", "m.mlpackage", "again.onnx", "--split"]);
    assert!(status == 0 && out.contains("again.onnx.data: "), "{out} {error}");
    let (status, out, _) = run(root, &["show", "again.onnx", "--json"]);
    assert_eq!((status, json(&out)["inputs"][0]["name"].clone()), (0, "x".into()));
    let left: Vec<_> = std::fs::read_dir(root).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, model) = (folder.path(), fixture().display().to_string());
    for (args, message) in [
        (["convert", &model, "m.gguf"], "nothing is written in a format of this name"),
        (["convert", "m.gguf", "m.onnx"], "is no model of operations"),
        (["convert", &model, "missing/m.onnx"], "No such file"),
    ] {
        let (status, out, error) = run(root, &args);
        assert!(status == 1 && out.is_empty() && error.contains(message), "{args:?}: {error}");
    }
    let (status, _, error) = run(root, &["convert", &model, "m.onnx", "--dim", "batch=2"]);
    assert!(status == 1 && error.contains("`dim` is batch"), "{error}");
    let (status, _, error) = run(root, &["convert", &model, "m.onnx", "--constant", "x=1"]);
    assert!(status == 1 && error.contains("`constant` is x, expected none"), "{error}");
    assert_eq!(run(root, &["convert", &model, "m.onnx", "--opset", "99"]).0, 2);
    assert_eq!(std::fs::read_dir(root).expect("a folder").count(), 0);
}

#[test]
fn optimising_reports_what_it_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, model) = (folder.path(), fixture().display().to_string());
    let args = ["--json", "optimize", &model, "-o", "fast.onnx", "--runs", "1", "--threads", "1"];
    let (status, out, error) = run(root, &args);
    assert_eq!(status, 0, "{error}");
    let report = json(&out);
    assert!(report["done"].is_array() && report["left"].is_array());
    assert_eq!(report["gain"]["runs"], 1);
    let off = report["gain"]["differences"][0]["relative"].as_f64().expect("a difference");
    assert!(off <= 1e-5, "{off}");

    let args = ["optimize", &model, "-o", "fast.onnx", "--force", "--runs", "0", "--report", "report.json"];
    let (status, out, error) = run(root, &args);
    assert!(status == 0 && out.contains("operations: "), "{out} {error}");
    let saved = std::fs::read_to_string(root.join("report.json")).expect("written");
    assert!(json(&saved)["gain"].is_null());
}
