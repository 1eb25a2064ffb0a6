//! Broken and hostile safetensors and JSON files: each is refused with a message that says where, what and what to do.

use crate::common::data;
use kinglet_formats::safetensors::Index;
use kinglet_formats::{Limits, Safetensors, hf};
use kinglet_tensor::{MetaValue, Metadata};

const DAMAGED: &str = "the file is damaged, download it again";

/// A file with this header and as many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

fn refusal(bytes: impl Into<bytes::Bytes>) -> String {
    Safetensors::parse(bytes.into(), &Limits::default()).map(|_| ()).expect_err("must be refused").to_string()
}

#[test]
fn safetensors_headers_are_checked() {
    let check = |bytes: Vec<u8>, message: &str| assert_eq!(refusal(bytes), message);
    check(b"GGUF\x03\0\0\0".to_vec(), "file: not a safetensors file: it is a GGUF file; open it as GGUF");
    check(vec![], "file: not a safetensors file: it is empty; download it again");
    check(
        vec![9, 0, 0],
        "header (byte 0): needs bytes 0..8, the file has 3: it is truncated or damaged; download it again",
    );
    check(
        u64::MAX.to_le_bytes().to_vec(),
        "header (byte 8): 18446744073709551615 bytes of header exceed the limit of 100000000; the file is damaged, or \
         raise `Limits::max_header` if it is trusted",
    );
    check(
        [&99_u64.to_le_bytes()[..], b"{}"].concat(),
        "header (byte 8): needs bytes 8..107, the file has 10: it is truncated or damaged; download it again",
    );
    check(
        file("{\"a\":", 0),
        &format!("header (byte 8): invalid JSON: EOF while parsing a value at line 1 column 5; {DAMAGED}"),
    );
    check(
        file("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4),
        &format!(
            "header (byte 8): invalid JSON: invalid value: integer `-1`, expected u64 at line 1 column 31; {DAMAGED}"
        ),
    );
    check(
        file("{\"__metadata__\":{},\"__metadata__\":{}}", 0),
        &format!(
            "header (byte 8): invalid JSON: key `__metadata__` occurs twice at line 1 column 33; {DAMAGED}"
        ),
    );
    check(
        file("{}", 3),
        &format!("file (byte 10): 3 bytes behind the last tensor belong to none; {DAMAGED}"),
    );
}

#[test]
fn safetensors_tensors_are_checked() {
    let tensor = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let check = |tensors: &[String], message: &str| {
        assert_eq!(refusal(file(&format!("{{{}}}", tensors.join(",")), 8)), message);
    };
    check(
        &[tensor("t", "F8_E4M3", "[4]", 0, 4)],
        "tensor `t`: type F8_E4M3 cannot be read; get the model in F16, BF16 or F32",
    );
    check(
        &[tensor("t", "F32", "[3]", 0, 8)],
        "tensor `t`: F32[3] takes 12 bytes, its offsets span 8; the file is damaged, convert it again",
    );
    check(
        &[tensor("t", "F32", "[4294967296,4294967296,4]", 0, 8)],
        "tensor `t`: the shape [4294967296, 4294967296, 4] is impossible for F32: its size overflows; the file is \
         damaged, convert it again",
    );
    check(
        &[tensor("t", "F32", "[4]", 0, 16)],
        "tensor `t`: needs bytes 63..79, the file has 71: it is truncated or damaged; download it again",
    );
    check(
        &[tensor("a", "F32", "[1]", 0, 4), tensor("b", "F32", "[2]", 0, 8)],
        "tensor `b`: its data overlaps that of tensor `a`; the file is damaged, download it again",
    );
    let gap = |from, to, expected| {
        format!(
            "tensor `t`: its data offsets {from}..{to} do not start at {expected}, where the tensor before ends; \
             convert it again"
        )
    };
    check(&[tensor("t", "F32", "[1]", 4, 8)], &gap(4, 8, 0));
    check(
        &[tensor("t", "F32", "[1]", 0, 4), tensor("t2", "U8", "[1]", 8, 7)],
        &gap(8, 7, 4).replace("`t`", "`t2`"),
    );
    check(
        &[tensor("t", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1)],
        "tensor `t`: 9 dimensions exceed the limit of 8; the file is damaged, or raise `Limits::max_dims` if it is \
         trusted",
    );
}

#[test]
fn every_truncation_of_safetensors_is_refused() {
    let file = data("all.safetensors");
    for len in 0..file.len() {
        let message = refusal(file.slice(..len));
        let known = ["truncated", "not a safetensors file"];
        assert!(known.iter().any(|words| message.contains(words)), "{len}: {message}");
    }
}

#[test]
fn indexes_are_checked() {
    let check = |json: &str, message: &str| {
        let error = Index::parse(json.as_bytes(), &Limits::default()).expect_err("must be refused");
        assert_eq!(error.to_string(), format!("file `model.safetensors.index.json`: {message}"));
    };
    check("{}", &format!("invalid JSON: `weight_map` is missing; {DAMAGED}"));
    check("{\"weight_map\":{\"t\":1}}", &format!("invalid JSON: the file of `t` is not text; {DAMAGED}"));
    let escape = |name: &str| {
        let json = format!("{{\"weight_map\":{{\"t\":\"{name}\"}}}}");
        check(&json, &format!("`{name}` is not a plain file name; do not trust this model"));
    };
    ["../x.safetensors", "/etc/passwd", "C:x", "", "a/b", ".."].into_iter().for_each(escape);
}

#[test]
fn configs_become_metadata() {
    let json = r#"{"n": 3, "neg": -1, "eps": 1e-5, "big": 1000000000000000019884624838656, "ok": true, "no": null,
        "archs": ["LlamaForCausalLM"], "eos": [1, 2], "empty": [], "mixed": [1, "a", [true]], "rope": {"type": "yarn"}}"#;
    let found = hf::parse("config.json", json.as_bytes(), &Limits::default()).expect("valid");
    let mixed = vec![MetaValue::U64(1), MetaValue::Str("a".into()), MetaValue::Bools(vec![true])];
    let rope: Metadata = [("type", MetaValue::Str("yarn".into()))].into_iter().collect();
    let want: Metadata = [
        ("n", MetaValue::U64(3)),
        ("neg", MetaValue::I64(-1)),
        ("eps", MetaValue::F64(1e-5)),
        ("big", MetaValue::F64(1e30)),
        ("ok", MetaValue::Bool(true)),
        ("no", MetaValue::Null),
        ("archs", MetaValue::Strs(["LlamaForCausalLM"].into_iter().collect())),
        ("eos", MetaValue::U64s(vec![1, 2])),
        ("empty", MetaValue::Mixed(vec![])),
        ("mixed", MetaValue::Mixed(mixed)),
        ("rope", MetaValue::Table(rope)),
    ]
    .into_iter()
    .collect();
    assert_eq!(found, want);
}

#[test]
fn configs_are_checked() {
    let check = |json: &str, message: &str| {
        let error =
            hf::parse("config.json", json.as_bytes(), &Limits::default()).expect_err("must be refused");
        assert_eq!(error.to_string(), format!("file `config.json`: {message}"));
    };
    check("", &format!("invalid JSON: EOF while parsing a value at line 1 column 0; {DAMAGED}"));
    check("[]", &format!("invalid JSON: expected an object at the top; {DAMAGED}"));
    check("{} x", &format!("invalid JSON: trailing characters at line 1 column 4; {DAMAGED}"));
    check("{\"a\":1,\"a\":2}", &format!("invalid JSON: key `a` occurs twice at line 1 column 13; {DAMAGED}"));
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    check(
        &deep,
        &format!(
            "invalid JSON: values are nested deeper than `Limits::max_depth` at line 1 column 37; {DAMAGED}"
        ),
    );
    let limits = Limits { max_json: 1, ..Limits::default() };
    let error = hf::parse("config.json", b"{}", &limits).expect_err("must be refused");
    assert!(error.to_string().contains("2 bytes of JSON exceed the limit of 1"), "{error}");
}
