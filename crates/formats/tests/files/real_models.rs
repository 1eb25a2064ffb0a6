//! Reads every model file below the folder that `KINGLET_MODELS` names; skipped when it names none.

use std::path::{Path, PathBuf};

use kinglet_formats::coreml::{Body, NoBlobs, Package};
use kinglet_formats::{CoreMl, Gguf, Limits};
use kinglet_tensor::WeightSource;

/// Files whose path ends so; none, with a note, without `KINGLET_MODELS`.
fn models(suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    match std::env::var_os("KINGLET_MODELS") {
        Some(folder) => files(Path::new(&folder), suffix, &mut found),
        None => println!("skipped: KINGLET_MODELS is not set"),
    }
    found
}

fn files(folder: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, suffix, found);
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
}

#[test]
fn gguf_files_parse() {
    for path in models(".gguf") {
        let bytes = std::fs::read(&path).expect("readable");
        let start = std::time::Instant::now();
        let gguf = Gguf::parse(bytes.into(), &Limits::default()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let took = start.elapsed();
        let tokens = gguf.metadata().strs("tokenizer.ggml.tokens").map_or(0, |list| list.len());
        println!("{path:?}: {} tensors, {tokens} tokens, {took:.1?}", gguf.tensors().len());
        for tensor in gguf.tensors() {
            assert!(gguf.contains(tensor.name()));
        }
    }
}

#[test]
fn core_ml_models_parse_with_all_their_weights() {
    for path in models(".mlpackage/Manifest.json") {
        let folder = path.parent().expect("a package is a folder");
        let package = Package::parse(&std::fs::read(&path).expect("readable")).expect("a manifest");
        let read = |name: &str| bytes::Bytes::from(std::fs::read(folder.join(name)).expect("readable"));
        let blobs = |name: &str| Ok(read(&package.blob(name)?));
        let model = CoreMl::parse(read(&package.model), &blobs).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let Body::Program(program) = &model.body else { continue };
        let known = program.chosen().expect("a function").block.constants().expect("constants");
        println!("{path:?}: {} constants", known.len());
    }
    for path in models(".mlmodel").into_iter().filter(|path| !path.iter().any(|part| part == "Data")) {
        let bytes = std::fs::read(&path).expect("readable").into();
        let model = CoreMl::parse(bytes, &NoBlobs).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        println!("{path:?}: version {}", model.version);
    }
}
