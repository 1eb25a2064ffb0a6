//! The steady path asks for no memory: running a planned model again does not call the allocator.

use std::alloc::System;
use std::path::Path;

use kinglet_cpu::{Array, CpuBackend, Feed, Session, SessionOptions, Value};
use kinglet_formats::onnx::{NoExternal, proto, read, tensor};
use kinglet_tensor::{Bytes, DType};
use prost::Message;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The golden models that run by fast kernels alone; plain ones compute in vectors of their own.
#[test]
fn running_again_allocates_nothing() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/microsoft");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(data).expect("golden models").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (session, inputs) = load(&entry.path());
        seen.extend(check(&name, session, &inputs).then_some(name));
    }
    assert!(seen.len() >= 5, "too few models run by fast kernels alone: {seen:?}");
}

/// A seeded FastViT; it lies below the folder that `KINGLET_MODELS` names, and is skipped without it.
#[test]
fn running_fastvit_again_allocates_nothing() {
    let file = std::env::var_os("KINGLET_MODELS").map(|folder| Path::new(&folder).join("fastvit_t8.onnx"));
    let Some(bytes) = file.and_then(|file| std::fs::read(file).ok()) else {
        println!("skipped: fastvit_t8.onnx is not in KINGLET_MODELS");
        return;
    };
    let model = read(bytes.into(), &NoExternal).expect("a model");
    let session = Session::new(model.graph, &SessionOptions::new(CpuBackend::new(2))).expect("a session");
    let picture: Vec<f32> = (0..3 * 256 * 256).map(|i| (i % 251) as f32 / 251.0).collect();
    let picture = Array::from_slice(DType::F32, vec![1, 3, 256, 256], &picture).expect("whole");
    assert!(check("FastViT", session, &[picture.into()]), "some of its steps are plain");
}

/// Runs a session again and again; whether it has fast kernels alone, and then allocates nothing.
fn check(name: &str, mut session: Session, inputs: &[Value]) -> bool {
    let feeds: Vec<Feed<'_>> = inputs.iter().map(Feed::Value).collect();
    (0..3).for_each(|_| session.run(&feeds).expect("runs"));
    let steps = session.report().map_or_else(Vec::new, |report| report.steps);
    let kernels: Vec<String> = steps.into_iter().map(|step| step.kernel).collect();
    if kernels.iter().any(|kernel| kernel.contains("(plain)") || kernel == "between programs") {
        return false;
    }
    // The least of several runs: the system's own threads may start and end meanwhile, and so may other tests.
    let allocations = |_| {
        let region = Region::new(ALLOCATOR);
        session.run(&feeds).expect("runs again");
        region.change().allocations + region.change().reallocations
    };
    assert_eq!((0..10).map(allocations).min(), Some(0), "{name}: {kernels:?}");
    true
}

fn load(case: &Path) -> (Session, Vec<Value>) {
    let bytes = |path: &str| Bytes::from(std::fs::read(case.join(path)).expect("a file"));
    let model = read(bytes("model.onnx"), &NoExternal).expect("a model");
    let input = |i: usize| {
        let message =
            proto::Tensor::decode(bytes(&format!("test_data_set_0/input_{i}.pb"))).expect("a tensor");
        Value::Tensor((&tensor(&message, &NoExternal).expect("a tensor")).into())
    };
    let inputs = (0..model.graph.inputs().len()).map(input).collect();
    let session = Session::new(model.graph, &SessionOptions::new(CpuBackend::new(2))).expect("a session");
    (session, inputs)
}
