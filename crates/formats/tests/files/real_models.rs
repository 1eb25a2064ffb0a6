//! Reads every model file below the folder that `KINGLET_MODELS` names; skipped when it names none.

use std::path::{Path, PathBuf};

use kinglet_formats::{Gguf, Limits};
use kinglet_tensor::WeightSource;

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
    let Some(folder) = std::env::var_os("KINGLET_MODELS") else {
        println!("skipped: KINGLET_MODELS is not set");
        return;
    };
    let mut found = Vec::new();
    files(Path::new(&folder), ".gguf", &mut found);
    for path in found {
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
