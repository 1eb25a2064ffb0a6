//! GGUF files made by the Python package read as its own reader reads them, and are written byte for byte the same.

use crate::common::{data, describe};
use kinglet_formats::gguf::{Kind, ValueType, Writer, shard_names};
use kinglet_formats::{Gguf, Limits};
use kinglet_tensor::{MemoryWeights, MetaValue, Metadata, Tensor, TensorError, WeightSource};
use serde_json::{Value, json};

fn parse(name: &str) -> Gguf {
    Gguf::parse(data(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn to_json(value: &MetaValue) -> Value {
    match value {
        MetaValue::U64(n) => json!(n),
        MetaValue::I64(n) => json!(n),
        MetaValue::F64(x) => json!(x),
        MetaValue::Bool(b) => json!(b),
        MetaValue::Str(text) => json!(text),
        list => list.items().into_iter().flatten().map(|item| to_json(&item)).collect(),
    }
}

fn written(writer: &Writer, source: &dyn WeightSource) -> Vec<u8> {
    let mut out = Vec::new();
    let len = writer.write(&mut out, source).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(len, out.len() as u64);
    out
}

#[test]
fn reads_what_the_python_reader_reads() {
    let golden: Value = serde_json::from_slice(&data("expected.json")).expect("golden JSON");
    for (name, want) in golden.as_object().expect("an object") {
        let gguf = parse(name);
        for (key, want) in want["metadata"].as_object().expect("keys") {
            let found = gguf.metadata().get(key).map(to_json);
            assert_eq!(found.as_ref(), Some(want), "{name}: {key}");
        }
        let tensors: Vec<Value> = gguf
            .tensors()
            .iter()
            .map(|tensor| {
                let mut row = describe(tensor);
                row.as_array_mut().expect("a row").insert(0, tensor.name().into());
                row
            })
            .collect();
        assert_eq!(Value::from(tensors), want["tensors"], "{name}");
    }
}

#[test]
fn nested_lists_are_kept() {
    let gguf = parse("all.gguf");
    let want = vec![MetaValue::I64s(vec![1, 2]), MetaValue::I64s(vec![3])];
    assert_eq!(gguf.metadata().items("test.nested"), Some(want));
    assert!(gguf.kinds().contains(&("test.u8".into(), Kind::One(ValueType::U8))));
}

#[test]
fn a_file_read_and_written_is_the_same_file() {
    let gguf = parse("all.gguf");
    let mut writer = Writer::like(&gguf).expect("what was read can be written");
    for tensor in gguf.tensors() {
        writer.declare(tensor.into());
    }
    assert!(written(&writer, &gguf) == data("all.gguf"));
}

#[test]
fn plain_values_are_stored_as_readers_expect() {
    let mut writer = Writer::new();
    let mut check = |key: &str, value: MetaValue, kind: Kind| {
        writer.set(key, &value).expect("storable");
        let gguf = Gguf::parse(written(&writer, &MemoryWeights::default()).into(), &Limits::default())
            .expect("valid");
        assert_eq!(gguf.metadata().get(key), Some(&value));
        assert_eq!(gguf.kinds().last(), Some(&(key.to_owned(), kind)));
    };
    check("count", MetaValue::U64(30), Kind::One(ValueType::U32));
    check("wide", MetaValue::U64(1 << 40), Kind::One(ValueType::U64));
    check("signed", MetaValue::I64(-1), Kind::One(ValueType::I32));
    check("eps", MetaValue::F64(0.5), Kind::One(ValueType::F32));
    check("list", MetaValue::I64s(vec![1 << 40]), Kind::List(ValueType::I64));
    check("none", MetaValue::Strs(Default::default()), Kind::List(ValueType::Str));
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let check = |kind, value: MetaValue, message: &str| {
        let error = Writer::new().set_as("key", kind, &value).expect_err("refused");
        assert_eq!(error.to_string(), message);
    };
    let cannot =
        |kind| format!("metadata key `key`: this value as {kind} cannot be stored; choose another type");
    check(Kind::One(ValueType::U8), MetaValue::U64(256), &cannot("U8"));
    check(Kind::One(ValueType::Str), MetaValue::Bool(true), &cannot("Str"));
    check(Kind::List(ValueType::I8), MetaValue::I64s(vec![1, -129]), &cannot("a list of I8"));
    assert!(Writer::new().set("key", &MetaValue::Null).is_err());
    assert!(Writer::new().set("general.alignment", &MetaValue::U64(48)).is_err());
}

#[test]
fn a_source_must_give_what_was_declared() {
    let tensor =
        |shape: Vec<usize>, bytes| Tensor::new("x", kinglet_tensor::DType::U8, shape, vec![0; bytes].into());
    let tensor: Result<Tensor, TensorError> = tensor(vec![4], 4);
    let tensor = tensor.expect("a tensor");
    let check = |spec: kinglet_formats::TensorSpec, source: MemoryWeights, message: &str| {
        let mut writer = Writer::new();
        let result = writer.declare(spec).write(&mut Vec::new(), &source);
        assert_eq!(result.expect_err("refused").to_string(), message);
    };
    let source = MemoryWeights::from_iter([tensor.clone()]);
    check((&tensor).into(), source.clone(), "tensor `x`: U8 in GGUF cannot be stored; choose another type");
    let spec = kinglet_formats::TensorSpec { dtype: kinglet_tensor::DType::I8, ..(&tensor).into() };
    let message = "tensor `x`: I8[4] was declared, the source gave U8[4]; declare what the source gives";
    check(spec.clone(), source, message);
    check(spec, MemoryWeights::default(), "tensor `x` is missing");
}

fn shards() -> Vec<Gguf> {
    shard_names("split-00001-of-00003.gguf").expect("a split name").iter().map(|name| parse(name)).collect()
}

#[test]
fn split_files_join_in_any_order() {
    let [first, second, third] = <[Gguf; 3]>::try_from(shards()).expect("three files");
    let names: Vec<_> = [&first, &second, &third].iter().flat_map(|shard| shard.names()).collect();
    let whole = Gguf::join(vec![third, first, second]).expect("complete");
    assert_eq!(whole.names(), names);
    assert_eq!(whole.metadata().str("general.architecture"), Some("test"));
    assert!(whole.contains("dims.4") && whole.tensor("t.F32").is_ok());
    let single = Gguf::join(vec![parse("all.gguf")]).expect("one file");
    assert_eq!(single.tensors().len(), 37);
}

#[test]
fn incomplete_or_foreign_splits_are_refused() {
    let check = |pick: &[usize], message: &str| {
        let all = shards();
        let error = Gguf::join(pick.iter().map(|&at| all[at].clone()).collect()).expect_err("refused");
        assert_eq!(error.to_string(), message);
    };
    let missing = |n| {
        format!("model: file {n} of 3 is missing (`…-0000{n}-of-00003.gguf`); download it to the same folder")
    };
    check(&[1, 2], &missing(1));
    check(&[2, 0], &missing(2));
    check(&[0, 1], &missing(3));
    let twice = "file 2 of the split model: it does not belong to the other files: its split.no is that of another file; \
                 download all files of the model again";
    check(&[0, 1, 1, 2], twice);
    let error = Gguf::join(vec![shards().remove(0), parse("all.gguf")]).expect_err("refused");
    assert!(error.to_string().contains("its split.count is 0, that of others is 3"), "{error}");
}

#[test]
fn shard_names_are_all_named() {
    let check = |name: &str, want: Option<Vec<&str>>| {
        assert_eq!(
            shard_names(name),
            want.map(|names| names.into_iter().map(String::from).collect()),
            "{name}"
        );
    };
    check("m-q4-00002-of-00002.gguf", Some(vec!["m-q4-00001-of-00002.gguf", "m-q4-00002-of-00002.gguf"]));
    check("m-00003-of-00002.gguf", None);
    check("m-00000-of-00002.gguf", None);
    check("m-1-of-2.gguf", None);
    check("m.gguf", None);
}

#[test]
fn metadata_is_plain_data() {
    let metadata: Metadata = [("a", MetaValue::Bool(true))].into_iter().collect();
    assert_eq!(metadata.bool("a"), Some(true));
}
