//! Hostile ONNX files and Core ML packages.

use std::fs;
use std::path::{Path, PathBuf};

use kinglet_formats::onnx::proto::{Entry, Function, Graph, Model, Node, OperatorSet, Tensor, ValueInfo};
use prost::Message;

use crate::{Fate::Unreadable, check};

/// Operator, inputs, outputs; the domain before a dot. Nodes are called after their place.
type Spelled<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

fn nodes(list: &[Spelled<'_>]) -> Vec<Node> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let node = |(place, (op, input, output)): (usize, &Spelled<'_>)| {
        let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
        Node {
            input: texts(input),
            output: texts(output),
            name: format!("n{place}"),
            op_type: op.into(),
            domain: domain.into(),
            ..Node::default()
        }
    };
    list.iter().enumerate().map(node).collect()
}

/// A graph from `x` to `y`, of any types.
fn model(list: &[Spelled<'_>], initializer: Vec<Tensor>) -> Model {
    let port = |name: &str| vec![ValueInfo { name: name.into(), ..ValueInfo::default() }];
    let version = |domain: &str| OperatorSet { domain: domain.into(), version: 17 };
    let graph =
        Graph { node: nodes(list), initializer, input: port("x"), output: port("y"), ..Graph::default() };
    let opset_import = vec![version(""), version("d")];
    Model { ir_version: 8, opset_import, graph: Some(graph), ..Model::default() }
}

/// A constant `w` of floats whose bytes are these.
fn weight(dims: &[i64], bytes: &'static [u8]) -> Tensor {
    let raw_data = Some(bytes.into());
    Tensor { dims: dims.to_vec(), data_type: 1, name: "w".into(), raw_data, ..Tensor::default() }
}

/// A constant `w` of two floats in another file.
fn elsewhere(entries: &[(&str, &str)]) -> Tensor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
    let external_data = entries.iter().map(entry).collect();
    Tensor {
        dims: vec![2],
        data_type: 1,
        name: "w".into(),
        external_data,
        data_location: 1,
        ..Tensor::default()
    }
}

fn check_model(says: &str, model: &Model) {
    let bytes = model.encode_to_vec();
    check(Unreadable, says, |folder| {
        fs::write(folder.join("w.bin"), [0; 8]).expect("written");
        let path = folder.join("m.onnx");
        fs::write(&path, &bytes).expect("written");
        path
    });
}

#[test]
fn graphs_that_do_not_hang_together_are_named() {
    let check = |says: &str, list: &[Spelled<'_>]| check_model(says, &model(list, Vec::new()));
    check(
        "wait for each other in a circle, `n0`",
        &[("Add", &["x", "b"], &["a"]), ("Relu", &["a"], &["b"]), ("Relu", &["b"], &["y"])],
    );
    check("node `n0` reads `nothing`, which nothing makes", &[("Add", &["x", "nothing"], &["y"])]);
    check("output `y` is made by no node", &[("Relu", &["x"], &["z"])]);
    check("two values are called `y`", &[("Relu", &["x"], &["y"]), ("Sigmoid", &["x"], &["y"])]);
    check(
        "not supported: Bar (nodes n1), Foo (nodes n0, n2), my.domain.Baz (nodes n3)",
        &[
            ("Foo", &["x"], &["a"]),
            ("Bar", &["a"], &["b"]),
            ("Foo", &["b"], &["c"]),
            ("my.domain.Baz", &["c"], &["y"]),
        ],
    );
}

#[test]
fn impossible_constants_are_named() {
    let check = |says: &str, w: Tensor| check_model(says, &model(&[("Add", &["x", "w"], &["y"])], vec![w]));
    check("constant `w`: the shape [1099511627776, 1099511627776] is impossible", weight(&[1 << 40; 2], b""));
    check("constant `w`: the shape [-3] is impossible", weight(&[-3], b""));
    check("takes 400 bytes, found 16", weight(&[100], &[0; 16]));
    check("element type 99", Tensor { data_type: 99, ..weight(&[2], &[0; 8]) });
    check("`none.bin` is missing", elsewhere(&[("location", "none.bin")]));
    check("points outside the model's folder", elsewhere(&[("location", "../w.bin")]));
    check("points outside the model's folder", elsewhere(&[("location", "/etc/hostname")]));
    check(
        "fewer than the model says",
        elsewhere(&[("location", "w.bin"), ("offset", "18446744073709551615")]),
    );
    check("`offset` is `-1`", elsewhere(&[("location", "w.bin"), ("offset", "-1")]));
    check("takes 8 bytes, found 4", elsewhere(&[("location", "w.bin"), ("length", "4")]));
}

#[test]
fn functions_that_call_each_other_without_end_are_refused() {
    let function = |place: usize, list: &[Spelled<'_>]| Function {
        name: format!("F{place}"),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: nodes(list),
        opset_import: vec![OperatorSet { domain: "d".into(), version: 17 }],
        domain: "d".into(),
        ..Function::default()
    };
    let mut endless = model(&[("d.F0", &["x"], &["y"])], Vec::new());
    endless.functions = vec![function(0, &[("d.F0", &["x"], &["y"])])];
    check_model("more than 32 deep", &endless);
    // Each of thirty calls the next one twice.
    let mut doubling = model(&[("d.F0", &["x"], &["y"])], Vec::new());
    let names: Vec<String> = (0..31).map(|place| format!("d.F{place}")).collect();
    let twice = |place: usize| {
        let next = names[place + 1].as_str();
        function(place, &[(next, &["x"], &["a"]), (next, &["a"], &["y"])])
    };
    doubling.functions = (0..30).map(twice).collect();
    let mut last = function(30, &[("Relu", &["x"], &["y"])]);
    last.opset_import[0].domain = String::new();
    doubling.functions.push(last);
    check_model("more than 1048576 operations", &doubling);
}

/// A package of one product, changed.
fn check_package(says: &str, change: impl Fn(&Path)) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/data/coreml");
    check(Unreadable, says, |folder| {
        let path = folder.join("m.mlpackage");
        let inner = path.join("Data/com.apple.CoreML");
        fs::create_dir_all(inner.join("weights")).expect("made");
        let manifest = r#"{"fileFormatVersion": "1.0.0", "rootModelIdentifier": "A",
            "itemInfoEntries": {"A": {"path": "com.apple.CoreML/model.mlmodel"}}}"#;
        fs::write(path.join("Manifest.json"), manifest).expect("written");
        fs::copy(data.join("lut8.mlmodel"), inner.join("model.mlmodel")).expect("copied");
        fs::copy(data.join("lut8.bin"), inner.join("weights/weight.bin")).expect("copied");
        change(&path);
        path
    });
}

const BLOB: &str = "Data/com.apple.CoreML/weights/weight.bin";

#[test]
fn damaged_packages_are_named() {
    let write = |name: &'static str, text: &'static str| {
        move |path: &Path| fs::write(path.join(name), text).expect("written")
    };
    check_package("Manifest.json: EOF", write("Manifest.json", "{"));
    let outside = r#"{"rootModelIdentifier": "A", "itemInfoEntries": {"A": {"path": "../../x.mlmodel"}}}"#;
    check_package("points outside the package", write("Manifest.json", outside));
    check_package("the weight file `@model_path/weights/weight.bin` is missing", |path| {
        fs::remove_file(path.join(BLOB)).expect("removed");
    });
    check_package("lies outside the 70 bytes of the file", |path| {
        let bytes = fs::read(path.join(BLOB)).expect("read");
        fs::write(path.join(BLOB), &bytes[..70]).expect("written");
    });
    check_package("model is not well-formed", |path| {
        let model = path.join("Data/com.apple.CoreML/model.mlmodel");
        let bytes = fs::read(&model).expect("read");
        fs::write(&model, &bytes[..bytes.len() / 2]).expect("written");
    });
}

#[cfg(unix)]
#[test]
fn links_out_of_a_package_are_not_followed() {
    use std::os::unix::fs::symlink;

    /// Puts a file of the package beside it, and a link in its place.
    fn linked(path: &Path, name: &str) {
        let outside: PathBuf = path.with_file_name("outside");
        fs::rename(path.join(name), &outside).expect("moved");
        symlink(&outside, path.join(name)).expect("linked");
    }
    check_package("outside the package, and is not followed", |path| linked(path, BLOB));
    check_package("outside the package, and is not followed", |path| {
        linked(path, "Data/com.apple.CoreML/weights");
    });
    check_package("outside the package, and is not followed", |path| {
        linked(path, "Data/com.apple.CoreML/model.mlmodel");
    });
}

#[cfg(unix)]
#[test]
fn pipes_are_no_models() {
    let pipe = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("it starts");
        assert!(made.success(), "no pipe");
    };
    check(Unreadable, "it is no file", |folder| {
        pipe(&folder.join("m.onnx"));
        folder.join("m.onnx")
    });
    let bytes =
        model(&[("Add", &["x", "w"], &["y"])], vec![elsewhere(&[("location", "pipe")])]).encode_to_vec();
    check(Unreadable, "it is no file", |folder| {
        pipe(&folder.join("pipe"));
        let path = folder.join("m.onnx");
        fs::write(&path, &bytes).expect("written");
        path
    });
}
