//! ML Programs that coremltools made: of PyTorch modules against what PyTorch computed, states and control flow among them, and
//! of operations and of layers of networks against NumPy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinglet::LoadOptions;
use kinglet::formats::onnx::CustomOps;
use kinglet::formats::{Limits, Safetensors};
use kinglet::graph::ops::CustomOp;
use kinglet::graph::{Args, Type};
use kinglet::graphs::{GraphFiles, GraphModel, Label, floats};
use kinglet::tensor::{DType, Tensor, WeightSource};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/coreml")
}

/// Runs a program on the inputs of each of its runs in turn; `bound` is on differences, as a share of the largest value.
fn check(name: &str, runs: usize, bound: f32) {
    let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).expect("committed");
    let reference = Safetensors::parse(bytes.into(), &Limits::default()).expect("sound");
    let options = LoadOptions { threads: Some(2), ..LoadOptions::default() };
    let package = folder().join(format!("{name}.mlpackage"));
    let path = if package.is_dir() { package } else { package.with_extension("mlmodel") };
    let mut model = GraphModel::open(&path, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    for run in 0..runs {
        let told = |port: &str| reference.tensor(&format!("{run}.{port}")).expect("committed");
        let feeds: Vec<Tensor> =
            model.inputs().iter().map(|port| port.fitted(&told(&port.name)).expect("fits")).collect();
        let made = model.run(&feeds).unwrap_or_else(|e| panic!("{name}: {e}"));
        let names: Vec<String> = model.outputs().iter().map(|port| port.name.clone()).collect();
        assert_eq!(made.len(), names.len(), "{name}");
        for (made, output) in made.iter().zip(names) {
            let (found, wanted) = (floats(made).expect("numbers"), floats(&told(&output)).expect("numbers"));
            assert_eq!(found.shape, wanted.shape, "{name}, {output}, run {run}");
            let most = wanted.data.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
            let far = found.data.iter().zip(&wanted.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= bound * most, "{name}, {output}, run {run}: {far} of {most}");
        }
    }
}

#[test]
fn operations_compute_what_pytorch_does() {
    for name in [
        "assign",
        "attention",
        "einsum",
        "grid",
        "gru",
        "lstm",
        "lstm-both-ways",
        "nonzero",
        "one-hot",
        "order",
        "resize",
        "rnn",
        "scatter",
        "unshuffle",
    ] {
        check(name, 1, 1e-5);
    }
}

/// Outputs from the definitions of the operations, see `tools/golden/coreml_programs.py`.
#[test]
fn operations_without_a_module_compute_what_their_definitions_say() {
    for name in [
        "affine",
        "boxes",
        "boxes-columns",
        "draws",
        "elements",
        "lists",
        "norms",
        "regions",
        "regions-flat",
        "resampling",
        "sizes",
    ] {
        check(name, 1, 2e-5);
    }
}

/// Outputs from the definitions of the layers, see `tools/golden/coreml_layers.py`.
#[test]
fn layers_of_networks_compute_what_their_definitions_say() {
    for name in ["flow", "numbers", "picking", "pictures", "recurrence", "shapes", "volumes"] {
        check(&format!("layers-{name}"), 1, 2e-5);
    }
}

/// `slope * x + shift`, the class of the custom layer of `layers-custom`.
#[derive(Debug)]
struct Affine {
    slope: f32,
}

impl CustomOp for Affine {
    fn name(&self) -> &'static str {
        "Affine"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, _] = args.tensors::<2>()?;
        Ok(vec![x.clone().into()])
    }

    fn compute(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, String> {
        let [Some(x), Some(shift)] = inputs else { return Err("takes two inputs".into()) };
        let (x, shift) = (floats(x).ok_or("no numbers")?, floats(shift).ok_or("no numbers")?);
        let y = x.data.iter().zip(&shift.data).map(|(x, shift)| self.slope * x + shift);
        let bytes: Vec<u8> = y.flat_map(f32::to_le_bytes).collect();
        let y = Tensor::new("", kinglet::tensor::DType::F32, x.shape, bytes.into());
        y.map(|y| vec![y]).map_err(|e| e.to_string())
    }
}

#[test]
fn a_custom_layer_is_what_is_registered_for_its_class() {
    let path = folder().join("layers-custom.mlmodel");
    let error = GraphFiles::open(&path).err().expect("nothing is registered").to_string();
    assert!(error.contains("class `Affine`") && error.contains("(affine)"), "{error}");
    let ops = CustomOps::new().with(CustomOps::CORE_ML, "Affine", |node| {
        let slope = node.float("slope").ok_or("`slope` is missing")?;
        Ok(Arc::new(Affine { slope }))
    });
    let files = GraphFiles::open_with(&path, &ops).expect("registered");
    let mut model = GraphModel::new(files, &LoadOptions::default()).expect("loads");
    let x: Vec<u8> = [1.0f32, -2.0, 3.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let x = Tensor::new("x", kinglet::tensor::DType::F32, vec![3], x.into()).expect("three numbers");
    let made = model.run(&[x]).expect("runs");
    assert_eq!(floats(&made[0]).expect("numbers").data, [3.5, -5.0, 11.0]);
}

/// Outputs from the definitions of the models, see `tools/golden/coreml_pipelines.py`.
#[test]
fn pipelines_run_as_one_model() {
    for name in ["classes", "detector", "linear", "trees"] {
        check(&format!("pipeline-{name}"), 1, 1e-5);
    }
}

#[test]
fn a_function_of_a_package_can_be_chosen() {
    check("functions", 1, 1e-5);
    let path = folder().join("functions.mlpackage");
    let run = |function: Option<&str>| {
        let options = LoadOptions { function: function.map(str::to_owned), ..LoadOptions::default() };
        let mut model = GraphModel::open(&path, &options)?;
        let made = model.run(&[ones(&[2, 3])])?;
        Ok::<_, kinglet::Error>(floats(&made[0]).expect("numbers").data)
    };
    let (usual, plain) = (run(None).expect("runs"), run(Some("plain")).expect("runs"));
    assert!(usual.iter().zip(&plain).all(|(a, b)| (a - 2.0 * b).abs() < 1e-5), "{usual:?} {plain:?}");
    let error = run(Some("third")).expect_err("there are two").to_string();
    assert!(error.contains("no function `third`") && error.contains("plain, twice"), "{error}");
}

#[test]
fn loops_and_branches_run_as_the_data_says() {
    check("while", 1, 1e-5);
    check("either", 2, 1e-5);
}

/// PyTorch computes these in half precision, Kinglet in f32.
#[test]
fn states_go_on_from_run_to_run() {
    check("average", 3, 2e-3);
    check("cache", 1, 2e-3);
}

#[test]
fn states_can_be_set_back() {
    let path = folder().join("average.mlpackage");
    let mut model = GraphModel::open(&path, &LoadOptions::default()).expect("opens");
    let feed = model.inputs()[0].fitted(&ones(&[3, 4])).expect("fits");
    let run = |model: &mut GraphModel| {
        let made = model.run(std::slice::from_ref(&feed)).expect("runs");
        floats(&made[0]).expect("numbers").data[0]
    };
    assert_eq!([run(&mut model), run(&mut model)], [2.0, 3.0]);
    model.reset();
    assert_eq!(run(&mut model), 2.0);
}

fn ones(shape: &[usize]) -> Tensor {
    let data: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(|_| 1f32.to_le_bytes()).collect();
    Tensor::new("ones", kinglet::tensor::DType::F32, shape.to_vec(), data.into()).expect("sizes agree")
}

/// Checks what a classifier says to these inputs; probabilities are within 1e-6.
fn check_verdict(file: &str, inputs: &[&[f32]], label: &Label, shares: &[(&str, f64)]) {
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let mut model = GraphModel::open(&folder().join(file), &options).expect(file);
    let ports = model.inputs().to_vec();
    let feed = |(port, values): (&kinglet::graphs::Port, &&[f32])| {
        let shape = port.shape.iter().map(|n| n.expect("known")).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new(&port.name, DType::F32, shape, bytes.into()).expect("sizes agree")
    };
    let feeds: Vec<Tensor> = ports.iter().zip(inputs).map(feed).collect();
    let outputs = model.run(&feeds).expect(file);
    let verdict = model.verdict(&outputs).expect("a classifier");
    assert_eq!(&verdict.label, label, "{file}");
    assert_eq!(verdict.probabilities.len(), shares.len(), "{file}");
    for ((name, found), (class, wanted)) in verdict.probabilities.iter().zip(shares) {
        assert!(
            name == class && (f64::from(*found) - wanted).abs() <= 1e-6,
            "{file}: {name} {found}, {class} {wanted}"
        );
    }
}

/// Models of `tools/golden/coreml_classes.py`.
#[test]
fn classifiers_tell_their_class_and_all_probabilities() {
    let scores = [1.0f64, 0.5, 4.0].map(f64::exp);
    let share = |i: usize| scores[i] / scores.iter().sum::<f64>();
    let x: &[f32] = &[1.0, 0.0, 4.0, 9.0];
    let numbers = [("10", share(0)), ("20", share(1)), ("30", share(2))];
    check_verdict("classes-numbers.mlpackage", &[x], &Label::Number(30), &numbers);
    let names = [("ant", share(0)), ("bee", share(1)), ("cat", share(2))];
    check_verdict("classes-names.mlmodel", &[x], &Label::Text("cat".into()), &names);
    let (no, yes) = (Label::Text("no".into()), Label::Text("yes".into()));
    check_verdict("classes-trees.mlmodel", &[&[0.5], &[7.0]], &no, &[("no", 0.75), ("yes", 0.25)]);
    check_verdict("classes-trees.mlmodel", &[&[0.6], &[7.0]], &yes, &[("no", 0.25), ("yes", 0.75)]);
    let positive = 1.0 / (1.0 + (-1.5f64).exp());
    let both = [("neg", 1.0 - positive), ("pos", positive)];
    check_verdict("classes-linear.mlmodel", &[&[1.0], &[1.0]], &Label::Text("pos".into()), &both);
}
