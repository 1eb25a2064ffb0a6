//! The steady path asks for no memory: running a planned model again does not call the allocator.

use std::alloc::System;
use std::path::Path;

use kinglet_cpu::{CpuBackend, Feed, Session, SessionOptions, Value};
use kinglet_formats::onnx::{NoExternal, proto, read, tensor};
use kinglet_tensor::Bytes;
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
        let (mut session, inputs) = load(&entry.path());
        let feeds: Vec<Feed<'_>> = inputs.iter().map(Feed::Value).collect();
        (0..3).for_each(|_| session.run(&feeds).expect("runs"));
        let steps = session.report().map_or_else(Vec::new, |report| report.steps);
        let kernels: Vec<String> = steps.into_iter().map(|step| step.kernel).collect();
        if kernels.iter().any(|kernel| kernel.contains("(plain)") || kernel == "between programs") {
            continue;
        }
        // The least of several runs: the system's own threads may start and end meanwhile.
        let allocations = |_| {
            let region = Region::new(ALLOCATOR);
            session.run(&feeds).expect("runs again");
            region.change().allocations + region.change().reallocations
        };
        assert_eq!((0..10).map(allocations).min(), Some(0), "{name}: {kernels:?}");
        seen.push(name);
    }
    assert!(seen.len() >= 5, "too few models run by fast kernels alone: {seen:?}");
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
