//! Memory of runs: buffers come from the plan and the pool, and large outputs lie in files that other processes map. Real
//! models lie below the folder that `KINGLET_MODELS` names, and are skipped without them.

mod real;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kinglet::graph::ops::{Fun, Identity, Loop, NonZero, Reshape, Unary, int_tensor};
use kinglet::graph::{Dim, GraphBuilder, TensorType};
use kinglet::graphs::{BufferStats, GraphBench, GraphFiles, GraphModel, OutputFile, OutputFolder};
use kinglet::tensor::{DType, Tensor, map_file};
use kinglet::{Buffers, LoadOptions};
use real::real;

/// `y = relu(x)` and the places where `y` is not zero, for vectors of any length.
fn model(large_outputs: Option<usize>) -> GraphModel {
    let mut graph = GraphBuilder::new();
    let n = graph.dim("n", 1 << 30);
    let x = graph.input("x", TensorType { dtype: DType::F32, shape: vec![n] }).expect("new");
    let y = graph.node("y", Unary(Fun::Relu), &[x]).expect("typed");
    let places = graph.node("places", NonZero, &[y]).expect("typed");
    graph.output(y);
    graph.output(places);
    let buffers = Buffers { large_outputs, ..Buffers::default() };
    opened(graph, buffers)
}

fn opened(graph: GraphBuilder, buffers: Buffers) -> GraphModel {
    let files = GraphFiles {
        path: PathBuf::new(),
        graph: graph.finish(),
        format: String::new(),
        metadata: Default::default(),
        interface: None,
        recipe: None,
        classes: None,
        states: 0,
        notes: Vec::new(),
        outputs: Vec::new(),
        sources: Vec::new(),
    };
    GraphModel::new(files, &LoadOptions { buffers, ..LoadOptions::default() }).expect("a model")
}

fn ramp(length: usize) -> Tensor {
    let bytes: Vec<u8> = (0..length).flat_map(|i| (i as f32 - 1.0).to_le_bytes()).collect();
    Tensor::new("x", DType::F32, vec![length], bytes.into()).expect("sizes agree")
}

fn thrifty(what: &str, stats: &BufferStats) {
    let pool = &stats.pool;
    assert!(
        pool.requests() >= stats.runs && stats.planned > 0,
        "{what}: the pool or the plan is not used: {stats:?}"
    );
    assert!(pool.hit_ratio() > 0.85 && stats.avoided() > 0.9, "{what}: {stats:?}");
    assert!(pool.bytes_saved > 0 && pool.peak > 0 && pool.fragmentation() <= 0.2, "{what}: {stats:?}");
    assert!(pool.idle <= Buffers::default().pool.idle_bytes, "{what}: {stats:?}");
}

#[test]
fn warm_runs_take_their_buffers_from_plan_and_pool() {
    let mut model = model(None);
    let lengths = [1000, 900, 1000, 40];
    let mut run = |length: usize| {
        let outputs = model.run(&[ramp(length)]).expect("runs");
        assert_eq!((outputs[0].shape(), outputs[1].shape()), (&[length][..], &[1, length - 2][..]));
        model.session().buffers()
    };
    let warm = lengths.map(&mut run)[3];
    let all = lengths.map(&mut run)[3];
    thrifty("a small graph", &all.since(&warm));
    assert_eq!(all.since(&warm).runs, 4);
}

/// A loop that never ends and gathers a row each round.
fn endless() -> GraphBuilder {
    let of = |dtype, shape: &[usize]| TensorType::fixed(dtype, shape);
    let mut body = GraphBuilder::new();
    body.input("round", of(DType::I64, &[])).expect("new");
    let go = body.input("go", of(DType::Bool, &[])).expect("new");
    let x = body.input("x", of(DType::F32, &[1000])).expect("new");
    let again = body.node("again", Identity, &[go]).expect("typed");
    let kept = body.node("kept", Unary(Fun::Relu), &[x]).expect("typed");
    [again, kept].into_iter().for_each(|id| body.output(id));
    let op = Arc::new(Loop { body: Arc::new(body.finish()), carried: 0 });

    let mut graph = GraphBuilder::new();
    let x = graph.input("x", of(DType::F32, &[1000])).expect("new");
    let (rounds, go) = (graph.absent(), graph.absent());
    let made = graph.push(&["endless"], op, &[rounds, go, x], String::new()).expect("typed");
    graph.output(made[0]);
    graph
}

#[test]
fn loops_gather_no_more_than_values_may_have() {
    let buffers = Buffers { max_elements: 100_000, ..Buffers::default() };
    let error = opened(endless(), buffers).run(&[ramp(1000)]).expect_err("it never ends").to_string();
    assert!(error.contains("endless") && error.contains("gathers"), "{error}");
}

#[test]
fn loops_go_on_for_no_more_rounds_than_allowed() {
    let run = |max_rounds: u64| {
        let buffers = Buffers { max_rounds, max_elements: 5_000, ..Buffers::default() };
        opened(endless(), buffers).run(&[ramp(1000)]).expect_err("it never ends").to_string()
    };
    let error = run(3);
    assert!(error.contains("`endless`") && error.contains("after 3 rounds"), "{error}");
    let error = run(6);
    assert!(error.contains("`endless`") && error.contains("gathers"), "{error}");
}

#[test]
fn a_plan_can_be_had_without_a_run() {
    let bench = GraphBench::planned_only(opened(endless(), Buffers::default()), &[]).expect("a plan");
    let steps = bench.report().steps;
    assert!(steps.iter().any(|step| step.name == "endless"), "{steps:?}");
}

#[test]
fn open_sizes_are_what_the_model_runs_with() {
    let fits = |width: i64| {
        let mut graph = GraphBuilder::new();
        let n = graph.dim("n", 1 << 30);
        let x =
            graph.input("x", TensorType { dtype: DType::F32, shape: vec![Dim::Fixed(1), n] }).expect("new");
        let rows = graph.weight_as("rows", int_tensor(vec![2], &[-1, width]).expect("two")).expect("new");
        let y = graph.node("y", Reshape { allow_zero: false }, &[x, rows]).expect("typed");
        graph.output(y);
        let shape = |bench: GraphBench| bench.feeds()[0].shape().to_vec();
        GraphBench::new(opened(graph, Buffers::default()), &[], 1).map(shape)
    };
    assert_eq!(fits(1).expect("any size"), [1, 64]);
    assert_eq!(fits(32).expect("a size of several rows"), [1, 64]);
    assert_eq!(fits(40).expect("a size of several rows"), [1, 320]);
    let error = fits(7).expect_err("no size is a multiple").to_string();
    assert!(error.contains('y'), "{error}");
}

#[test]
fn fastvit_takes_its_buffers_from_plan_and_pool() {
    let Some(path) = real("fastvit_t8.onnx") else { return };
    let model = GraphModel::open(&path, &LoadOptions::default()).expect("opens");
    let mut bench = GraphBench::new(model, &[], 1).expect("a plan");
    let (_, stats) = bench.profile(20).expect("runs");
    thrifty("FastViT", &stats);
    assert_eq!((stats.pool.misses, stats.arenas), (0, 0), "{stats:?}");
}

#[test]
fn only_large_outputs_lie_in_files() {
    let mut model = model(Some(4000));
    let [small, large] = [999, 1000].map(|length| model.run(&[ramp(length)]).expect("runs"));
    assert!(OutputFile::of(&small[0]).is_none());
    let file = OutputFile::of(&large[0]).expect("4,000 bytes are large");
    assert_eq!((file.range().offset, file.range().bytes), (0, 4000));
    let again = model.run(&[ramp(2000)]).expect("runs again");
    let floats = kinglet::graphs::floats(&large[0]).expect("floats").data;
    assert!(
        floats.iter().enumerate().all(|(i, x)| *x == (i as f32 - 1.0).max(0.0)),
        "overwritten by the next run"
    );
    assert!(OutputFile::of(&again[0]).is_some() && OutputFile::of(&again[1]).is_some());
}

#[test]
fn files_that_nobody_has_open_are_removed_and_others_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let names = ["kinglet-1-0.output", "kinglet-1-1.output", "kinglet.output", "kinglet-1.txt"];
    let files = names.map(|name| fs::File::create(path(name)).expect("made"));
    files[1].lock().expect("locked");
    let made = OutputFolder::new(folder.path());
    assert_eq!(names.map(|name| path(name).exists()), [false, true, true, true]);
    let file = kinglet::graphs::OutputFiles::create(&made, 10_000).expect("made");
    assert!(file.metadata().expect("open").len() >= 10_000 || cfg!(not(unix)));
    assert!(cfg!(not(unix)) || entries(folder.path()) == 3, "the file has a name");
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("there").count()
}

/// This program once more, for one of the tests below that play a part in another one.
fn child(test: &str, told: &str, folder: &Path) -> Child {
    let program = std::env::current_exe().expect("a program");
    Command::new(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("KINGLET_TOLD", told)
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

#[cfg(target_os = "linux")]
#[test]
fn another_process_maps_an_output() {
    let mut model = model(Some(4000));
    let outputs = model.run(&[ramp(50_000)]).expect("runs");
    let path = OutputFile::of(&outputs[0]).expect("a file").path();
    let folder = tempfile::tempdir().expect("a folder");
    let mapped = child("maps", &path.to_string_lossy(), folder.path()).wait().expect("ends");
    assert!(mapped.success());
    drop(outputs);
    assert!(!path.exists(), "the file outlives its output");
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_process_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut held = child("holds", "", folder.path());
    let lines = BufReader::new(held.stdout.take().expect("piped")).lines();
    let told = lines.map_while(Result::ok).find_map(|line| line.split("file: ").nth(1).map(PathBuf::from));
    let path = told.expect("the child tells the file");
    let bytes = map_file(&fs::File::open(&path).expect("open while it is held")).expect("mapped");
    assert_eq!(bytes.len(), 200_000);
    held.kill().and_then(|()| held.wait()).expect("killed");
    assert!(!path.exists());
    assert_eq!(entries(folder.path()), 0, "left behind in {}", folder.path().display());
    assert_eq!(bytes[8..12], 1f32.to_le_bytes(), "what was mapped here stays");
}

#[test]
#[ignore = "plays the other process"]
fn maps() {
    let path = std::env::var("KINGLET_TOLD").expect("a path");
    let bytes = map_file(&fs::File::open(path).expect("open")).expect("mapped");
    let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    assert_eq!(bytes.len(), 200_000);
    assert!(floats.enumerate().all(|(i, x)| x == (i as f32 - 1.0).max(0.0)));
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "plays the other process, and waits to be killed"]
fn holds() {
    let outputs = model(Some(4000)).run(&[ramp(50_000)]).expect("runs");
    println!("file: {}", OutputFile::of(&outputs[0]).expect("a file").path().display());
    loop {
        std::thread::park();
    }
}
