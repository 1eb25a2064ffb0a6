//! Safetensors files made by the Python package read as they were made, and are written byte for byte the same.

use std::collections::BTreeMap;

use crate::common::{data, describe};
use bytes::Bytes;
use kinglet_formats::safetensors::{self, Index};
use kinglet_formats::{Limits, Safetensors, TensorSpec};
use kinglet_tensor::WeightSource;
use serde_json::Value;

const SHARDS: [&str; 2] = ["sharded-00001-of-00002.safetensors", "sharded-00002-of-00002.safetensors"];

fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_slice(&data("expected-safetensors.json")).expect("golden JSON");
    all[name].clone()
}

fn described(file: &Safetensors) -> Value {
    file.tensors().iter().map(|tensor| (tensor.name().to_owned(), describe(tensor))).collect()
}

fn index() -> Index {
    Index::parse(&data("sharded.safetensors.index.json"), &Limits::default()).expect("valid")
}

fn files(names: &[&str]) -> BTreeMap<String, Bytes> {
    names.iter().map(|&name| (name.to_owned(), data(name))).collect()
}

#[test]
fn reads_what_python_wrote() {
    let file = Safetensors::parse(data("all.safetensors"), &Limits::default()).expect("valid");
    assert_eq!(described(&file), golden("all"));
    assert_eq!(file.metadata().get("format").map(String::as_str), Some("pt"));
    assert!(file.contains("a.scalar") && file.tensor("nothing").is_err());
    assert_eq!(file.tensor("an.empty").map(|tensor| tensor.elements()), Ok(0));
}

#[test]
fn a_file_read_and_written_is_the_same_file() {
    let file = Safetensors::parse(data("all.safetensors"), &Limits::default()).expect("valid");
    let mut specs: Vec<TensorSpec> = file.tensors().iter().map(TensorSpec::from).collect();
    specs.reverse();
    let mut out = Vec::new();
    let len = safetensors::write(&mut out, file.metadata(), specs, &file).expect("storable");
    assert_eq!(len, out.len() as u64);
    assert!(out == data("all.safetensors"), "{}", String::from_utf8_lossy(&out[..1200]));
}

#[test]
fn sharded_sets_join() {
    let index = index();
    assert_eq!(index.files().collect::<Vec<_>>(), SHARDS);
    let set = Safetensors::join(&index, &files(&SHARDS), &Limits::default()).expect("complete");
    assert_eq!(described(&set), golden("sharded"));
}

#[test]
fn a_missing_shard_is_named() {
    let check = |files: BTreeMap<String, Bytes>, message: &str| {
        let error = Safetensors::join(&index(), &files, &Limits::default()).expect_err("refused");
        assert_eq!(error.to_string(), message);
    };
    check(
        files(&SHARDS[..1]),
        "file `sharded-00002-of-00002.safetensors`: the file is missing, the model's index names it; download it to \
         the same folder",
    );
    let swapped = BTreeMap::from([(SHARDS[0].into(), data(SHARDS[1])), (SHARDS[1].into(), data(SHARDS[0]))]);
    check(
        swapped,
        "file `sharded-00001-of-00002.safetensors`: tensor `layer.0.a` should be in it by the model's index; download \
         the file again",
    );
    let cut = BTreeMap::from([
        (SHARDS[0].into(), data(SHARDS[0]).slice(..200)),
        (SHARDS[1].into(), data(SHARDS[1])),
    ]);
    check(
        cut,
        "file `sharded-00001-of-00002.safetensors`: tensor `layer.0.b`: needs bytes 192..208, the file has 200: it is \
         truncated or damaged; download it again",
    );
}
