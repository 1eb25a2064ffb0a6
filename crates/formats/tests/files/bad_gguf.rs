//! Broken and hostile GGUF files: each is refused with a message that says where, what and what to do.

use crate::common::data;
use kinglet_formats::{Gguf, Limits};

/// A GGUF file spelled out field by field, so that each can be wrong.
#[derive(Clone, Default)]
struct Raw {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    counts: Option<(u64, u64)>,
    data: usize,
}

fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A key, a type number, and the value's bytes.
fn entry(key: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

/// The bytes of a list: element type, count, elements.
fn list(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// A tensor record; dimensions innermost first, as the file has them.
fn tensor(name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let count = (dims.len() as u32).to_le_bytes();
    [&text(name), &count[..], &dims_bytes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

impl Raw {
    fn entry(entry: Vec<u8>) -> Self {
        Self { entries: vec![entry], ..Self::default() }
    }

    fn tensors(tensors: &[Vec<u8>], data: usize) -> Self {
        Self { tensors: tensors.to_vec(), data, ..Self::default() }
    }

    fn counts(tensors: u64, entries: u64) -> Self {
        Self { counts: Some((tensors, entries)), ..Self::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = self.counts.unwrap_or((self.tensors.len() as u64, self.entries.len() as u64));
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend(counts.0.to_le_bytes());
        out.extend(counts.1.to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }
}

fn refusal(bytes: impl Into<bytes::Bytes>, limits: &Limits) -> String {
    Gguf::parse(bytes.into(), limits).map(|_| ()).expect_err("must be refused").to_string()
}

fn check(raw: &Raw, message: &str) {
    assert_eq!(refusal(raw.bytes(), &Limits::default()), message);
}

#[test]
fn other_files_are_recognised() {
    let check = |bytes: &'static [u8], what: &str| {
        assert_eq!(refusal(bytes, &Limits::default()), format!("file: not a GGUF file: it is {what}"));
    };
    check(b"", "empty; download it again");
    check(&[0; 64], "zeros, an unfinished download; download it again");
    check(b"PK\x03\x04zip", "a ZIP archive (a PyTorch checkpoint?); convert it to safetensors or GGUF first");
    check(b"<!doctype html>", "a web page, most likely an error or login page; download the file itself");
    check(b"\x02\0\0\0\0\0\0\0{}", "a safetensors file; open it as safetensors, with its config.json");
    check(b"version https://git-lfs", "a git-lfs pointer; run `git lfs pull` to get the file itself");
    check(b"tjgg\x03\0\0\0", "a GGML model from before GGUF; download a GGUF version of the model");
    check(b"GGU", "of an unknown kind; check that it is the right file and that its download finished");
}

#[test]
fn versions_and_byte_order() {
    let check = |head: &[u8], message: &str| {
        assert_eq!(refusal([head, &[0; 16]].concat(), &Limits::default()), message);
    };
    check(
        b"GGUF\x01\0\0\0",
        "header (byte 8): GGUF version 1 cannot be read (2 and 3 can); download or convert a current version of the \
         model",
    );
    check(
        b"GGUF\x04\0\0\0",
        "header (byte 8): GGUF version 4 cannot be read (2 and 3 can); the file is damaged, or needs a newer version \
         of Kinglet",
    );
    let big_endian = "header (byte 8): the file is big-endian; download the little-endian version, or convert it with \
                      gguf-convert-endian";
    check(b"GGUF\0\0\0\x03", big_endian);
    assert_eq!(refusal(data("big-endian.gguf"), &Limits::default()), big_endian);
}

#[test]
fn every_truncation_is_refused() {
    let file = data("all.gguf");
    let last = file.len() - 64;
    for len in (0..4200).chain((4200..last).step_by(61)) {
        let message = refusal(file.slice(..len), &Limits::default());
        let known = ["truncated", "not a GGUF file"];
        assert!(known.iter().any(|words| message.contains(words)), "{len}: {message}");
    }
}

#[test]
fn counts_and_lengths_are_not_believed() {
    let huge = u64::MAX;
    check(
        &Raw::counts(0, huge),
        "header (byte 24): 18446744073709551615 metadata entries exceed the limit of 65536; the file is damaged, or \
         raise `Limits::max_entries` if it is trusted",
    );
    check(
        &Raw::counts(huge, 0),
        "header (byte 24): 18446744073709551615 tensors exceed the limit of 262144; the file is damaged, or raise \
         `Limits::max_tensors` if it is trusted",
    );
    check(
        &Raw::counts(2, 0),
        "header (byte 24): needs bytes 24..72, the file has 32: it is truncated or damaged; download it again",
    );
    check(
        &Raw::entry(entry("k", 8, &huge.to_le_bytes())),
        "metadata key `k` (byte 45): 18446744073709551615 bytes of text exceed the limit of 67108864; the file is \
         damaged, or raise `Limits::max_string` if it is trusted",
    );
    check(
        &Raw::entry(entry("k", 8, &1000_u64.to_le_bytes())),
        "metadata key `k` (byte 45): needs bytes 45..1045, the file has 64: it is truncated or damaged; download it \
         again",
    );
    check(
        &Raw::entry([huge.to_le_bytes(); 2].concat()),
        "metadata entry 0 (byte 32): 18446744073709551615 bytes of name exceed the limit of 65535; the file is \
         damaged, or raise `Limits::max_name` if it is trusted",
    );
    check(
        &Raw::entry(entry("k", 9, &list(4, 1 << 24, &[]))),
        "metadata key `k` (byte 49): needs bytes 49..67108913, the file has 64: it is truncated or damaged; download \
         it again",
    );
    check(
        &Raw::tensors(&[[&text("t")[..], &u32::MAX.to_le_bytes(), &[0; 24]].concat()], 0),
        "tensor `t` (byte 37): 4294967295 dimensions exceed the limit of 8; the file is damaged, or raise \
         `Limits::max_dims` if it is trusted",
    );
}

#[test]
fn metadata_values_are_checked() {
    check(
        &Raw::entry(entry("k", 13, &[])),
        "metadata key `k` (byte 37): value type 13 does not exist in GGUF 3; the file is damaged, or needs a newer \
         version of Kinglet",
    );
    check(
        &Raw::entry(entry("k", 9, &list(99, 0, &[]))),
        "metadata key `k` (byte 41): value type 99 does not exist in GGUF 3; the file is damaged, or needs a newer \
         version of Kinglet",
    );
    check(
        &Raw::entry(entry("k", 7, &[2])),
        "metadata key `k` (byte 38): 2 is not a truth value (0 or 1); the file is damaged, download it again",
    );
    let not_utf8 = "the text is not valid UTF-8; the file is damaged, download or convert it again";
    check(&Raw::entry(entry(b"\xff", 7, &[1])), &format!("metadata entry 0 (byte 32): {not_utf8}"));
    check(&Raw::entry(entry("k", 8, &text(b"a\xc3"))), &format!("metadata key `k` (byte 45): {not_utf8}"));
    check(
        &Raw { entries: vec![entry("k", 7, &[1]), entry("k", 7, &[1])], ..Raw::default() },
        "metadata key `k` (byte 38): it occurs twice; the file is damaged, convert it again",
    );
    let long = "x\n".repeat(300);
    let message = refusal(Raw::entry(entry(&long, 13, &[])).bytes(), &Limits::default());
    assert!(message.starts_with(&format!("metadata key `{}…` (byte", "x\\n".repeat(50))), "{message}");
}

#[test]
fn nested_lists_end_somewhere() {
    let nested = |depth| (0..depth).fold(list(4, 0, &[]), |inner, _| list(9, 1, &inner));
    let parse =
        |depth| Gguf::parse(Raw::entry(entry("k", 9, &nested(depth))).bytes().into(), &Limits::default());
    assert!(parse(31).is_ok());
    let message = parse(10_000).map(|_| ()).expect_err("must be refused").to_string();
    let want = "metadata key `k` (byte 421): 33 lists within lists exceed the limit of 32; the file is damaged, or \
                raise `Limits::max_depth` if it is trusted";
    assert_eq!(message, want);
}

#[test]
fn alignments_are_powers_of_two() {
    let check = |kind, value: &[u8], found: &str| {
        let message =
            "metadata key `general.alignment`: alignment must be a power of two up to 2 MiB, and not ";
        let rest = "; the file is damaged, download it again";
        let raw = Raw::entry(entry("general.alignment", kind, value));
        assert_eq!(refusal(raw.bytes(), &Limits::default()), format!("{message}{found}{rest}"));
    };
    check(4, &33_u32.to_le_bytes(), "33");
    check(4, &0_u32.to_le_bytes(), "0");
    check(10, &(1_u64 << 63).to_le_bytes(), "9223372036854775808");
    check(5, &(-32_i32).to_le_bytes(), "negative");
    check(8, &text("32"), "text");
}

#[test]
fn tensor_records_are_checked() {
    let damaged = "the file is damaged, convert it again";
    check(
        &Raw::tensors(&[tensor("t", &[32], 99, 0)], 64),
        "tensor `t` (byte 49): tensor type 99 cannot be read; the file is damaged, or needs a newer version of Kinglet",
    );
    check(
        &Raw::tensors(&[tensor("t", &[32], 31, 0)], 64),
        "tensor `t` (byte 49): tensor type 31 cannot be read; it is a repacked 4-bit layout that was withdrawn: get \
         the Q4_0 or IQ4_NL file of the model",
    );
    check(
        &Raw::tensors(&[tensor("t", &[33], 2, 0)], 64),
        &format!(
            "tensor `t` (byte 24): the shape [33] is impossible for Q4_0: its innermost dimension does not fill whole \
             blocks; {damaged}"
        ),
    );
    check(
        &Raw::tensors(&[tensor("t", &[1 << 40, 1 << 40], 0, 0)], 64),
        &format!(
            "tensor `t` (byte 24): the shape [1099511627776, 1099511627776] is impossible for F32: its size \
             overflows; {damaged}"
        ),
    );
    check(
        &Raw::tensors(&[tensor("t", &[4, 0], 0, 0)], 64),
        &format!("tensor `t` (byte 24): its shape [0, 4] has a dimension of zero; {damaged}"),
    );
    check(
        &Raw::tensors(&[tensor("t", &[4], 0, 0), tensor("t", &[4], 0, 32)], 64),
        &format!("tensor `t` (byte 57): it occurs twice; {damaged}"),
    );
    check(
        &Raw::tensors(&[tensor(b"\xfe", &[4], 0, 0)], 64),
        "tensor record 0 (byte 32): the text is not valid UTF-8; the file is damaged, download or convert it again",
    );
}

#[test]
fn tensor_data_is_inside_aligned_and_apart() {
    check(
        &Raw::tensors(&[tensor("t", &[64], 0, 0)], 64),
        "tensor `t` (byte 24): needs bytes 64..320, the file has 128: it is truncated or damaged; download it again",
    );
    check(
        &Raw::tensors(&[tensor("t", &[4], 0, u64::MAX - 31)], 64),
        "tensor `t` (byte 24): needs bytes 18446744073709551615..18446744073709551615, the file has 128: it is \
         truncated or damaged; download it again",
    );
    check(
        &Raw::tensors(&[tensor("t", &[4], 0, 16)], 64),
        "tensor `t` (byte 24): its data offset 16 is not a multiple of the alignment 32; convert the file again",
    );
    check(
        &Raw::tensors(&[tensor("b", &[4], 0, 32), tensor("a", &[12], 0, 0)], 64),
        "tensor `b` (byte 24): its data overlaps that of tensor `a`; the file is damaged, download it again",
    );
}

#[test]
fn limits_can_be_set() {
    let check = |limits: Limits, what: &str| {
        let message = refusal(data("all.gguf"), &limits);
        assert!(message.contains(what), "{message}");
    };
    check(Limits { max_tensors: 3, ..Limits::default() }, "37 tensors exceed the limit of 3");
    check(Limits { max_entries: 3, ..Limits::default() }, "metadata entries exceed the limit of 3");
    check(Limits { max_string: 3, ..Limits::default() }, "bytes of text exceed the limit of 3");
    check(Limits { max_name: 3, ..Limits::default() }, "bytes of name exceed the limit of 3");
    check(Limits { max_array: 1, ..Limits::default() }, "list elements exceed the limit of 1");
    check(Limits { max_depth: 1, ..Limits::default() }, "2 lists within lists exceed the limit of 1");
    check(Limits { max_dims: 1, ..Limits::default() }, "dimensions exceed the limit of 1");
}
