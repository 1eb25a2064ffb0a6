//! Tokenizers of real models against recorded token ids.
//!
//! The vectors are llama.cpp's (`ggml-vocab-*.gguf` with `.inp` and `.out` beside), read from
//! `$KINGLET_MODELS/llama-cpp-vectors`; without that folder the tests say so and pass.

use std::fs;
use std::path::{Path, PathBuf};

use kinglet_formats::{Gguf, Limits};
use kinglet_tensor::Metadata;
use kinglet_text::tokenizer::{EncodeOptions, GgufKeys, Tokenizer, VocabSpec};

/// Vocabularies whose vectors do not pass, with the reason. One that starts to pass fails the test.
const IGNORED: &[(&str, &str)] = &[];

struct Keys(Metadata);

impl GgufKeys for Keys {
    fn str(&self, key: &str) -> Option<&str> {
        self.0.str(key)
    }
    fn uint(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }
    fn bool(&self, key: &str) -> Option<bool> {
        self.0.bool(key)
    }
    fn strs(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.0.strs(key)?.iter().collect())
    }
    fn ints(&self, key: &str) -> Option<Vec<i64>> {
        Some(self.0.i64s(key)?.into_owned())
    }
    fn floats(&self, key: &str) -> Option<Vec<f64>> {
        Some(self.0.f64s(key)?.into_owned())
    }
}

fn models() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("KINGLET_MODELS") else {
        eprintln!("skipped: KINGLET_MODELS is not set");
        return None;
    };
    Some(PathBuf::from(folder))
}

fn load(path: &Path) -> Tokenizer {
    let file = fs::read(path).unwrap();
    let gguf = Gguf::parse(file.into(), &Limits::default()).unwrap();
    let keys = Keys(gguf.metadata().clone());
    Tokenizer::new(VocabSpec::from_gguf(&keys).unwrap()).unwrap()
}

/// The first text whose ids are not the recorded ones.
fn mismatch(vocab: &Path) -> Option<String> {
    let beside = |ext: &str| fs::read_to_string(format!("{}.{ext}", vocab.display())).unwrap();
    let tokenizer = load(vocab);
    let (inputs, outputs) = (beside("inp"), beside("out"));
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    for (text, ids) in inputs.iter().zip(outputs) {
        let want: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let got = tokenizer.encode(text, EncodeOptions::default()).unwrap();
        if got != want {
            return Some(format!("{text:?}\n  got  {got:?}\n  want {want:?}"));
        }
    }
    None
}

#[test]
fn vectors() {
    let Some(models) = models() else { return };
    let folder = models.join("llama-cpp-vectors/vendor/llama.cpp/models");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: no {}", folder.display());
        return;
    };
    let mut failures = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".gguf") || !path.with_file_name(format!("{name}.inp")).exists() {
            continue;
        }
        let ignored = IGNORED.iter().find(|(ignored, _)| *ignored == name);
        match (std::panic::catch_unwind(|| mismatch(&path)), ignored) {
            (Ok(None), None) => eprintln!("{name}: ok"),
            (Ok(None), Some(_)) => failures.push(format!("{name} passes: take it off the list")),
            (_, Some((_, reason))) => eprintln!("{name}: ignored, {reason}"),
            (Ok(Some(case)), None) => failures.push(format!("{name}: {case}")),
            (Err(_), None) => failures.push(format!("{name}: panicked")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
