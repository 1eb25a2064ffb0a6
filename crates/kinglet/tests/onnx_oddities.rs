//! ONNX models of legal but unusual content against what ONNX Runtime made of them: see `tools/golden/onnx_oddities.py`.

use std::path::Path;

use kinglet::LoadOptions;
use kinglet::formats::{Limits, Safetensors};
use kinglet::graphs::{GraphModel, floats};
use kinglet::tensor::{Tensor, WeightSource};

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/onnx");
    let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).expect("committed");
    let reference = Safetensors::parse(bytes.into(), &Limits::default()).expect("sound");
    for fuse in [false, true] {
        let options = LoadOptions { fuse, threads: Some(1), ..LoadOptions::default() };
        let path = folder.join(format!("{name}.onnx"));
        let mut model = GraphModel::open(&path, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let told = |port: &str| reference.tensor(port).expect("committed");
        let feeds: Vec<Tensor> = model.inputs().iter().map(|port| told(&port.name)).collect();
        let made = model.run(&feeds).unwrap_or_else(|e| panic!("{name}: {e}"));
        for made in &made {
            let (found, wanted) =
                (floats(made).expect("numbers"), floats(&told(made.name())).expect("numbers"));
            assert_eq!(found.shape, wanted.shape, "{name}, {}", made.name());
            let near =
                found.data.iter().zip(&wanted.data).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
            assert!(near, "{name}, {}: {:?} instead of {:?}", made.name(), found.data, wanted.data);
        }
    }
}

#[test]
fn unusual_models_compute_what_onnx_runtime_does() {
    for name in [
        "batched-scan",
        "codes-of-4-bits",
        "function-outputs",
        "hidden-names",
        "outer-names",
        "sparse-constant",
    ] {
        check(name);
    }
}
