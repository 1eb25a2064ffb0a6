//! ONNX and Core ML models: the same numbers from both, labels, text and vectors. What needs real models looks for them
//! below the folder that `KINGLET_MODELS` names, and is skipped without them.

mod real;

use std::path::{Path, PathBuf};

use kinglet::formats::{npy, onnx};
use kinglet::graphs::{Embedder, GraphModel, floats, write_npz};
use kinglet::models::task::cosine;
use kinglet::tensor::{DType, Tensor};
use kinglet::{LoadOptions, Precision};
use real::real;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/data/coreml").join(name)
}

fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor::new(name, DType::F32, shape.to_vec(), bytes.into()).expect("as many values as the shape says")
}

/// Fails when values differ by more than `bound` of the largest.
fn check_near(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= bound * most, "{what}: off by {worst}, the largest value is {most}");
}

#[test]
fn a_network_computes_what_its_weights_say() {
    let mut model = GraphModel::open(&fixture("nn-full.mlmodel"), &LoadOptions::default()).expect("opens");
    let golden = std::fs::read(fixture("golden.bin")).expect("values");
    // The weights of `nn-full`, [16, 32], are the last in the file; the bias is what a zero input leaves.
    let weights: Vec<f32> =
        golden[golden.len() - 4 * 512..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let bias = floats(&model.run(&[tensor("x", &[32], &[0.0; 32])]).expect("runs")[0]).expect("numbers").data;
    let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
    let found = floats(&model.run(&[tensor("x", &[32], &x)]).expect("runs")[0]).expect("numbers").data;
    let row = |o: usize| {
        weights[o * 32..][..32].iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
    };
    let expected: Vec<f32> = (0..16).map(|o| (row(o) + f64::from(bias[o])) as f32).collect();
    check_near("nn-full", &found, &expected, 1e-5);
}

#[test]
fn integers_round_the_products_of_models_of_floats() {
    let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
    let made = |precision| {
        let options = LoadOptions { precision, ..LoadOptions::default() };
        let mut model = GraphModel::open(&fixture("nn-full.mlmodel"), &options).expect("opens");
        floats(&model.run(&[tensor("x", &[32], &x)]).expect("runs")[0]).expect("numbers").data
    };
    let (exact, rounded) = (made(Precision::F32), made(Precision::Int8));
    let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let error = exact.iter().zip(&rounded).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(error > 0.0 && error < 0.02 * largest, "{error} of {largest}");
}

#[test]
fn bf16_is_told_to_be_missing_where_it_is() {
    let options = |isa: &str, precision| {
        let isa = Some(isa.to_owned());
        LoadOptions { isa, precision, ..LoadOptions::default() }.without_bf16()
    };
    assert_eq!(options("scalar", Precision::Bf16), Some("scalar"));
    assert_eq!(options("scalar", Precision::Auto), None);
}

#[test]
fn a_core_ml_package_computes_what_its_onnx_twin_does() {
    let (Some(package), Some(onnx)) = (real("nmp.mlpackage"), real("nmp.onnx")) else { return };
    let options = LoadOptions::default();
    // Noise: the model takes logarithms of powers, which silent frequencies would make a matter of rounding.
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let wave: Vec<f32> = (0..43844).map(|_| noise()).collect();
    let run = |path: &Path| {
        let mut model = GraphModel::open(path, &options).expect("opens");
        let name = model.inputs()[0].name.clone();
        let outputs = model.run(&[tensor(&name, &[1, 43844, 1], &wave)]).expect("runs");
        let mut arrays: Vec<_> = outputs.iter().map(|t| floats(t).expect("numbers")).collect();
        // Contours have 264 bins; notes and onsets 88: the twins list them in different orders.
        arrays.sort_by_key(|array| std::cmp::Reverse(array.shape[2]));
        arrays
    };
    let (core_ml, onnx) = (run(&package), run(&onnx));
    check_near("contours", &core_ml[0].data, &onnx[0].data, 1e-4);
    let direct = check_pair(&core_ml[1].data, &onnx[1].data) && check_pair(&core_ml[2].data, &onnx[2].data);
    let crossed = check_pair(&core_ml[1].data, &onnx[2].data) && check_pair(&core_ml[2].data, &onnx[1].data);
    assert!(direct || crossed, "notes and onsets differ");
}

fn check_pair(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4)
}

#[test]
fn vectors_of_related_sentences_lie_close() {
    let Some(model) = real("all-MiniLM-L6-v2") else { return };
    let mut embedder = Embedder::open(&model, &LoadOptions::default()).expect("opens");
    let mut vector = |text: &str| embedder.embed(text).expect("embeds");
    let (a, b) = (vector("How old are you?"), vector("What is your age?"));
    let far = vector("The spacecraft entered orbit around Mars.");
    assert_eq!(a.len(), 384);
    assert!(cosine(&a, &b) > 0.7, "{}", cosine(&a, &b));
    assert!(cosine(&a, &far).abs() < 0.2, "{}", cosine(&a, &far));
}

#[test]
fn outputs_go_to_a_file_that_numpy_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("y.npz");
    write_npz(&path, &[tensor("a/b", &[2], &[1.0, 2.0]), tensor("", &[1], &[3.0])]).expect("written");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).expect("there")).expect("a ZIP");
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut archive.by_name(name).expect(name), &mut bytes).expect("readable");
        floats(&npy::read("x", &bytes.into()).expect("an array")).expect("numbers").data
    };
    assert_eq!(read("a/b.npy"), [1.0, 2.0]);
    assert_eq!(read("output 1.npy"), [3.0]);
}

/// The example that documents them, as a test.
#[path = "../examples/custom_op.rs"]
#[allow(dead_code, reason = "its `main` is called by its path")]
mod custom_op;

#[test]
fn operators_can_be_registered_from_outside() {
    custom_op::main().expect("the example runs");
}

/// Models with external data `w.data`, reached through links: the hub's cache, and places that nobody vouches for.
#[cfg(unix)]
mod links {
    use std::fs;
    use std::os::unix::fs::symlink;

    use kinglet::Error;
    use kinglet::graphs::GraphFiles;

    use super::*;

    /// `nn-full` with its weights in a file of their own, which it calls `location`: both files.
    fn split(location: &str) -> [Vec<u8>; 2] {
        let graph = GraphFiles::open(&fixture("nn-full.mlmodel")).expect("opens").graph;
        let options =
            onnx::WriteOptions { inline: Some(1000), data_name: location.into(), ..Default::default() };
        let written = onnx::write(&graph, &options).expect("written");
        let mut data = Vec::new();
        written.write_data(&mut data, &mut |_| ()).expect("in memory");
        assert!(data.len() >= 2048, "the weights lie outside");
        [written.model, data]
    }

    /// A folder with `blobs` (a model and its data, named by content), `other` (data alone) and an empty `home/sub`.
    fn store(location: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let [model, data] = split(location);
        for folder in ["blobs", "other", "home/sub"] {
            fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        for (name, bytes) in [("blobs/1", &model), ("blobs/2", &data), ("other/w.data", &data)] {
            fs::write(root.path().join(name), bytes).expect("written");
        }
        root
    }

    fn link(target: &str, root: &Path, name: &str) {
        symlink(target, root.join(name)).expect("linked");
    }

    /// Fails unless the model opens, computes what it did in one file, and says that it was read from both files.
    fn check_followed(root: &Path) {
        let path = root.join("home/m.onnx");
        let files = GraphFiles::open(&path).map_err(|e| e.to_string()).expect("followed");
        assert_eq!(files.sources, [path.clone(), root.join("home/w.data")]);
        let x: Vec<f32> = (0..32).map(|i| i as f32 * 0.1).collect();
        let run = |path: &Path| {
            let mut model = GraphModel::open(path, &LoadOptions::default()).expect("opens");
            floats(&model.run(&[tensor("x", &[32], &x)]).expect("runs")[0]).expect("numbers").data
        };
        check_near("the linked model", &run(&path), &run(&fixture("nn-full.mlmodel")), 1e-6);
    }

    /// Fails unless the model is refused for the link `location`.
    fn check_refused(root: &Path, location: &str) {
        let error = GraphFiles::open(&root.join("home/m.onnx")).err().expect("refused");
        let shown = error.to_string();
        let Error::Onnx { source, .. } = error else { panic!("{shown}") };
        let onnx::OnnxError::External {
            source: onnx::ExternalError::Link { location: found, target }, ..
        } = *source
        else {
            panic!("{shown}")
        };
        assert_eq!(found, location);
        assert!(target.ends_with("other/w.data"), "{target}");
        assert!(shown.contains("is not followed") && shown.contains("put a copy"), "{shown}");
    }

    #[test]
    fn a_linked_model_finds_data_beside_its_own_target() {
        let root = store("w.data");
        link("../blobs/1", root.path(), "home/m.onnx");
        link("../blobs/2", root.path(), "home/w.data");
        check_followed(root.path());
    }

    #[test]
    fn links_within_the_folder_are_followed() {
        let root = store("w.data");
        fs::copy(root.path().join("blobs/1"), root.path().join("home/m.onnx")).expect("copied");
        fs::copy(root.path().join("blobs/2"), root.path().join("home/sub/2")).expect("copied");
        link("sub/2", root.path(), "home/w.data");
        check_followed(root.path());
    }

    #[test]
    fn links_to_elsewhere_are_refused() {
        // A model in the hub's cache.
        let root = store("w.data");
        link("../blobs/1", root.path(), "home/m.onnx");
        link("../other/w.data", root.path(), "home/w.data");
        check_refused(root.path(), "w.data");
        // A model that is no link itself, and two links in a row.
        let root = store("w.data");
        fs::copy(root.path().join("blobs/1"), root.path().join("home/m.onnx")).expect("copied");
        link("w", root.path(), "home/w.data");
        link("../other/w.data", root.path(), "home/w");
        check_refused(root.path(), "w.data");
        // A link in the middle of the way.
        let root = store("away/w.data");
        link("../blobs/1", root.path(), "home/m.onnx");
        link("../other", root.path(), "home/away");
        check_refused(root.path(), "away/w.data");
    }
}
