//! `kinglet run` on tensors of NumPy files, as a user meets it: which arrays are taken, and how outputs of any kind are told.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kinglet::graphs::{Arrays, write_npz};
use kinglet::tensor::{DType, Tensor};
use serde_json::{Value, json};

/// A folder with `x.npy` `[2, 3]` of F64, `k.npy` `[1]` of I32 and both in `both.npz`.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    let x: Vec<u8> = [0.5f64, 0.1, 0.2, -1.0, 0.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let x = Tensor::new("x", DType::F64, vec![2, 3], x.into()).expect("fits");
    let k = Tensor::new("k", DType::I32, vec![1], 7i32.to_le_bytes().to_vec().into()).expect("fits");
    for tensor in [&x, &k] {
        save(place.path(), tensor);
    }
    write_npz(&place.path().join("both.npz"), &[x, k]).expect("written");
    place
}

fn save(folder: &Path, tensor: &Tensor) {
    let bytes = kinglet::formats::npy::write(tensor).expect("numbers");
    fs::write(folder.join(format!("{}.npy", tensor.name())), bytes).expect("written");
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/onnx/texts-and-lists.onnx");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    command.env("KINGLET_HOME", folder.join("home")).current_dir(folder).arg("run").arg(model);
    command.args(args).output().expect("it starts")
}

fn told(folder: &Path, args: &[&str]) -> Value {
    let output = run(folder, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn arrays_of_archives_and_of_other_widths_are_taken() {
    let place = place();
    let expected = json!({ "outputs": [
        { "name": "label", "dtype": "string", "shape": [2], "value": ["cat", "bird"] },
        { "name": "rows", "dtype": "list", "value": [[[0.5, 0.1f32, 0.2f32]], [[-1.0, 0.0, 2.0]]] },
        { "name": "count", "dtype": "I64", "shape": [1] },
    ] });
    for args in [
        &["--input", "both.npz"][..],
        &["--input", "x=x.npy", "--input", "k=k.npy"],
        &["--input", "x=both.npz", "--input", "k=both.npz"],
    ] {
        assert_eq!(told(place.path(), args), expected, "{args:?}");
    }
}

#[test]
fn texts_are_shown_and_arrays_of_numbers_written() {
    let place = place();
    let output = run(place.path(), &["--input", "both.npz", "--output", "y.npz"]);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(out.contains("label: cat, bird") && out.contains("rows[1]"), "{out}");
    assert!(err.contains("label, rows not written"), "{err}");
    let mut written = Arrays::open(&place.path().join("y.npz")).expect("arrays");
    assert_eq!(written.names().expect("an archive").collect::<Vec<_>>(), ["count"]);
    assert_eq!(written.read(0, "count", 1).expect("an array").data()[..], 14i64.to_le_bytes());
}

#[test]
fn what_does_not_fit_is_refused() {
    let place = place();
    let folder = place.path();
    let numbers = |name: &str, dtype, bytes: Vec<u8>| {
        let count = bytes.len() / Tensor::bytes_of(dtype, &[1]).expect("plain");
        let tensor = Tensor::new(name, dtype, vec![1, count], bytes.into()).expect("fits");
        save(folder, &tensor);
    };
    numbers("large", DType::F64, [1e300f64, 0.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect());
    numbers("whole", DType::I64, [1i64; 3].iter().flat_map(|x| x.to_le_bytes()).collect());
    let check = |args: &[&str], expected: &str| {
        let output = run(folder, args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && err.contains(expected), "{args:?}: {err}");
    };
    check(&["--input", "x=large.npy", "--input", "k=k.npy"], "the array of F64 cannot be converted");
    check(&["--input", "x=whole.npy", "--input", "k=k.npy"], "the array of I64 cannot be converted");
    check(&["--input", "x.npy"], "does not say which input it is for");
    check(&["--input", "y=both.npz"], "has no array `y`");
    check(&["--input", "both.npz", "--input", "k=k.npy"], "input `k` is given twice");
    check(&["--input", "x=x.npy"], "input `k` (I64[1]) is not given");
    numbers("long", DType::I64, [1i64; 3].iter().flat_map(|x| x.to_le_bytes()).collect());
    check(&["--input", "k=long.npy"], "array `k` of [1, 3] is too large: at most 1 elements are taken");
    check(&["--input", "x=x.npy", "--max-elements", "5"], "`x` of [2, 3] is too large: at most 5 elements");
    #[cfg(unix)]
    for args in [["--input", "x=/dev/zero"], ["--top", "/dev/zero"]] {
        check(&args, "/dev/zero");
    }
    check(&[], "the model takes tensors");
}
