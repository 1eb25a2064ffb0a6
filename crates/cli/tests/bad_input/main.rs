//! Bad input of every kind: each gets an error that names file, field or tensor, and the way out. Nothing panics, hangs
//! or takes memory that the input does not warrant.

mod files;
mod graphs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use files::{Tiny, golden, hugging_face, patched};
use kinglet::tensor::MetaValue;

/// No command may take longer over a bad file.
const LIMIT: Duration = Duration::from_secs(60);
/// Kilobytes of address space that a command gets: enough for tiny models, too little for what a bad header promises.
const SPACE: &str = "4000000";

/// What a command makes of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No command can read it.
    Unreadable,
    /// It can be shown, with what keeps it from running.
    CannotRun,
}
use Fate::{CannotRun, Unreadable};

/// A command that takes a model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Show,
    Run,
}

/// How a command ended.
struct Ended {
    status: Option<i32>,
    out: String,
    error: String,
}

/// Runs the command without anything on standard input.
fn kinglet(home: &Path, args: &[&str]) -> Ended {
    fed(home, args, b"")
}

/// Runs the command in a small address space, with a store of its own and no network.
fn fed(home: &Path, args: &[&str], stdin: &[u8]) -> Ended {
    let program = env!("CARGO_BIN_EXE_kinglet");
    let mut command = Command::new(if cfg!(target_os = "linux") { "sh" } else { program });
    if cfg!(target_os = "linux") {
        command.args(["-c", &format!("ulimit -v {SPACE}; exec \"$0\" \"$@\""), program]);
    }
    command.args(args).env("KINGLET_HOME", home).env("HF_HOME", home).env("HF_HUB_OFFLINE", "1");
    let (input, out, error) = (home.join("in"), home.join("out"), home.join("error"));
    fs::write(&input, stdin).expect("written");
    command.env_remove("HF_HUB_CACHE").stdin(Stdio::from(fs::File::open(input).expect("a file")));
    command.stdout(fs::File::create(&out).expect("a file")).stderr(fs::File::create(&error).expect("a file"));
    let mut child = command.spawn().expect("it starts");
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("it can be waited for") {
            Some(status) => break status.code(),
            None if started.elapsed() > LIMIT => {
                child.kill().expect("it can be stopped");
                panic!("kinglet {args:?} hangs");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = |path| String::from_utf8(fs::read(path).expect("written")).expect("UTF-8");
    Ended { status, out: text(out), error: text(error) }
}

/// Makes a model in a new folder and gives it to every command; `says` is a part of the message.
fn check(fate: Fate, says: &str, make: impl Fn(&Path) -> PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let model = make(folder.path()).display().to_string();
    for verb in [Verb::Show, Verb::Run] {
        check_command(verb, fate, says, &model);
    }
}

fn check_command(verb: Verb, fate: Fate, says: &str, model: &str) {
    let home = tempfile::tempdir().expect("a folder");
    let args: &[&str] = match verb {
        Verb::Show => &["show", model],
        Verb::Run => &["run", model, "abc"],
    };
    let Ended { status, out, error } = kinglet(home.path(), args);
    let shown = format!("{args:?}\n{out}\n{error}");
    assert!(!error.contains("panicked") && !out.contains('\u{1b}') && !error.contains('\u{1b}'), "{shown}");
    assert!(out.len() + error.len() < 10_000, "{} bytes", out.len() + error.len());
    if fate == CannotRun && verb == Verb::Show {
        let line = out.lines().find(|line| line.starts_with("Kinglet cannot run this model: "));
        assert!(status == Some(0) && line.is_some_and(|line| line.contains(says)), "{says:?} not in {shown}");
        return;
    }
    let first = error.lines().next().unwrap_or_default();
    assert!(
        status == Some(1) && first.starts_with("error: ") && first.contains(says),
        "{says:?} not in {shown}"
    );

    let Ended { status, out, error } = kinglet(home.path(), &[&["--json"], args].concat());
    let json: serde_json::Value = serde_json::from_str(&error).expect("one JSON value");
    let message = json["error"]["message"].as_str().expect("a message");
    assert!(status == Some(1) && out.is_empty() && message.contains(says), "{message}");
}

/// As [`check`], of a file with these bytes.
fn check_file(fate: Fate, says: &str, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    check(fate, says, |folder| {
        let path = folder.join("m.gguf");
        fs::write(&path, &bytes).expect("written");
        path
    });
}

fn tiny() -> Vec<u8> {
    Tiny::new().bytes()
}

#[test]
fn a_sound_model_is_shown_as_one_that_runs() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("m.gguf");
    fs::write(&path, tiny()).expect("written");
    let model = path.display().to_string();
    for option in ["--json", "--tensors", "--metadata", "-q"] {
        let Ended { status, out, error } = kinglet(home.path(), &["show", &model, option]);
        assert!(status == Some(0) && error.is_empty() && !out.contains("cannot run"), "{out}{error}");
    }
    let json = kinglet(home.path(), &["show", &model, "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["runs"], &json["architecture"]), (&true.into(), &"llama".into()));
    let Ended { status, error, .. } = kinglet(home.path(), &["show", &model, "--template"]);
    assert!(status == Some(1) && error.contains("has no chat template\nhint: "), "{error}");
}

#[test]
fn what_is_no_model_file_is_named() {
    check_file(Unreadable, "it is empty; download it again", "");
    check_file(Unreadable, "it is a web page", "<!DOCTYPE html><html><body>Sign in</body></html>");
    check_file(Unreadable, "it is a ZIP archive", b"PK\x03\x04\x14\0\0\0".as_slice());
    check_file(Unreadable, "git lfs pull", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    check_file(Unreadable, "it is a JSON document", "{\"error\": \"not found\"}");
    check_file(Unreadable, "unfinished download", vec![0; 100_000]);
    check_file(Unreadable, "of an unknown kind", "hello");
    check_file(
        Unreadable,
        "without their config.json",
        fs::read(golden("llama", "model.safetensors")).expect("committed"),
    );
}

#[test]
fn truncated_and_corrupt_files_are_named() {
    let file = tiny();
    check_file(Unreadable, "it is truncated or damaged; download it again", &file[..file.len() * 6 / 10]);
    for end in [4, 8, 20, 24, 100, 1_000] {
        check_file(Unreadable, "m.gguf: ", &file[..end]);
    }
    let header = |at: usize, value: &[u8]| {
        let mut file = tiny();
        file[at..at + value.len()].copy_from_slice(value);
        file
    };
    check_file(Unreadable, "GGUF version 99 cannot be read", header(4, &99_u32.to_le_bytes()));
    check_file(Unreadable, "the file is big-endian", header(4, &3_u32.to_be_bytes()));
    check_file(Unreadable, "tensors exceed the limit", header(8, &u64::MAX.to_le_bytes()));
    check_file(Unreadable, "header", header(8, &100_000_u64.to_le_bytes()));
    check_file(Unreadable, "metadata entries exceed the limit", header(16, &u64::MAX.to_le_bytes()));
    check_file(Unreadable, "bytes of name exceed", header(24, &u64::MAX.to_le_bytes()));
    let number = |at, value: u64| patched(tiny(), "tokenizer.ggml.tokens", at, &value.to_le_bytes());
    check_file(Unreadable, "metadata key `tokenizer.ggml.tokens`", number(8, u64::MAX));
    check_file(Unreadable, "metadata key `tokenizer.ggml.tokens`", number(8, 1 << 24));
    check_file(
        Unreadable,
        "value type 77 does not exist",
        patched(tiny(), "tokenizer.ggml.tokens", 0, &77_u32.to_le_bytes()),
    );
    let invalid = patched(tiny(), "general.architecture", 12, b"\xff\xfe");
    check_file(Unreadable, "metadata key `general.architecture`", invalid);
}

#[test]
fn impossible_tensors_are_named() {
    // Behind the name: the number of dimensions, two dimensions, the type, the offset.
    let record = |skip, value: &[u8]| patched(tiny(), "blk.0.ffn_up.weight", skip, value);
    let tensor = "tensor `blk.0.ffn_up.weight`";
    check_file(Unreadable, tensor, record(0, &u32::MAX.to_le_bytes()));
    check_file(Unreadable, tensor, record(4, &u64::MAX.to_le_bytes()));
    check_file(Unreadable, tensor, record(4, &0_u64.to_le_bytes()));
    check_file(Unreadable, "tensor type 99 cannot be read", record(20, &99_u32.to_le_bytes()));
    check_file(Unreadable, tensor, record(24, &7_u64.to_le_bytes()));
    check_file(Unreadable, tensor, record(24, &(u64::MAX - 31).to_le_bytes()));
    check_file(Unreadable, "its data overlaps that of tensor", record(24, &0_u64.to_le_bytes()));
}

#[test]
fn models_that_cannot_run_say_why() {
    let keys = |key: &str, value: MetaValue| Tiny::new().set(key, value).bytes();
    check_file(
        CannotRun,
        "architecture `mamba` is not supported",
        keys("general.architecture", MetaValue::Str("mamba".into())),
    );
    check_file(
        CannotRun,
        "…` is not supported",
        keys("general.architecture", MetaValue::Str("x".repeat(1 << 20))),
    );
    check_file(
        CannotRun,
        "architecture `a\\u{1b}[2Jb` is",
        keys("general.architecture", MetaValue::Str("a\u{1b}[2Jb".into())),
    );
    check_file(
        CannotRun,
        "`general.architecture` is missing",
        Tiny::new().without("general.architecture").bytes(),
    );
    check_file(CannotRun, "`llama.attention.magic` = 3", keys("llama.attention.magic", MetaValue::U64(3)));
    check_file(CannotRun, "`llama.block_count` is missing", Tiny::new().without("llama.block_count").bytes());
    check_file(
        CannotRun,
        "`llama.block_count` is \"two\"",
        keys("llama.block_count", MetaValue::Str("two".into())),
    );
    for (key, value) in [
        ("block_count", 0),
        ("block_count", 1_000_000_000),
        ("embedding_length", u32::MAX),
        ("attention.head_count", 0),
        ("attention.head_count", 3),
        ("attention.head_count_kv", 0),
        ("attention.key_length", u32::MAX),
        ("feed_forward_length", u32::MAX),
        ("context_length", 0),
        ("context_length", u32::MAX),
        ("rope.dimension_count", u32::MAX),
        ("rope.dimension_count", 3),
        ("vocab_size", u32::MAX),
    ] {
        check_file(CannotRun, "", keys(&format!("llama.{key}"), MetaValue::U64(value.into())));
    }
    check_file(CannotRun, "`output_norm.weight`", Tiny::new().without_tensor("output_norm.weight").bytes());
    check_file(
        CannotRun,
        "`blk.0.magic.weight`",
        Tiny::new().with_tensor("blk.0.magic.weight", &[8]).bytes(),
    );
    let reshaped = Tiny::new().with_tensor("blk.0.ffn_up.weight", &[8, 8]).bytes();
    check_file(CannotRun, "tensor `blk.0.ffn_up.weight` has shape [8, 8]", reshaped);
}

#[test]
fn unusable_tokenizers_say_why() {
    let keys = |key: &str, value: MetaValue| Tiny::new().set(key, value).bytes();
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.tokens"] {
        check_file(CannotRun, &format!("`{key}` is missing"), Tiny::new().without(key).bytes());
    }
    check_file(CannotRun, "`magic`", keys("tokenizer.ggml.model", MetaValue::Str("magic".into())));
    check_file(
        CannotRun,
        "tokenizer.ggml.merges",
        keys("tokenizer.ggml.model", MetaValue::Str("gpt2".into())),
    );
    check_file(
        CannotRun,
        "has 2 entries for 64 tokens",
        keys("tokenizer.ggml.scores", MetaValue::F64s(vec![0.0; 2])),
    );
    check_file(
        CannotRun,
        "has 1 entries for 64 tokens",
        keys("tokenizer.ggml.token_type", MetaValue::U64s(vec![1])),
    );
    check_file(CannotRun, "`bos` is token 64", keys("tokenizer.ggml.bos_token_id", MetaValue::U64(64)));
    let pre = Tiny::new()
        .set("tokenizer.ggml.model", MetaValue::Str("gpt2".into()))
        .set("tokenizer.ggml.merges", MetaValue::Strs(["a b"].into_iter().collect()))
        .set("tokenizer.ggml.pre", MetaValue::Str("magic".into()));
    check_file(CannotRun, "pre-tokenizer `magic` is not supported", pre.bytes());
}

#[test]
fn split_models_must_be_complete() {
    let shard =
        || Tiny::new().set("split.no", MetaValue::U64(0)).set("split.count", MetaValue::U64(2)).bytes();
    check(Unreadable, "m-00002-of-00002.gguf: the model has 2 parts", |folder| {
        let path = folder.join("m-00001-of-00002.gguf");
        fs::write(&path, shard()).expect("written");
        path
    });
    check(Unreadable, "its split.no is that of another file", |folder| {
        for n in 1..=2 {
            fs::write(folder.join(format!("m-0000{n}-of-00002.gguf")), shard()).expect("written");
        }
        folder.join("m-00001-of-00002.gguf")
    });
    check_file(Unreadable, "file 2 of 2 is missing", shard());
}

#[test]
fn places_without_a_model_are_named() {
    check(Unreadable, "there is neither a .gguf file nor a config.json", Path::to_owned);
    check(Unreadable, "no such file or folder", |folder| folder.join("nothing.gguf"));
    check(Unreadable, "there is neither a .gguf file nor a config.json", |folder| {
        let path = folder.join("m.gguf");
        fs::create_dir(&path).expect("a folder");
        path
    });
    check(Unreadable, "there are several models: a.gguf, b.gguf", |folder| {
        for name in ["a.gguf", "b.gguf"] {
            fs::write(folder.join(name), tiny()).expect("written");
        }
        folder.to_owned()
    });
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let probe = tempfile::NamedTempFile::new().expect("a file");
    fs::set_permissions(probe.path(), fs::Permissions::from_mode(0o000)).expect("set");
    if fs::File::open(probe.path()).is_ok() {
        eprintln!("skipped: this user may read every file");
    } else {
        check(Unreadable, "m.gguf: Permission denied", |folder| {
            let path = folder.join("m.gguf");
            fs::write(&path, tiny()).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("set");
            path
        });
    }
    check(Unreadable, "cannot read", |folder| {
        let path = folder.join("m.gguf");
        std::os::unix::fs::symlink(&path, &path).expect("linked");
        path
    });
    check(Unreadable, "neither a file nor a folder", |folder| {
        let path = folder.join("m.gguf");
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        path
    });
}

#[test]
fn hugging_face_folders_must_hold_together() {
    let with = |from: &'static str, to: &'static str| {
        move |folder: &Path| hugging_face(folder, |config| config.replacen(from, to, 1))
    };
    check(CannotRun, "`tokenizer.json` is missing", with("{", "{"));
    for tokenizer in ["", "[", "{}", r#"{"model": {"type": "Magic"}}"#, "\u{feff}{}"] {
        check(CannotRun, "tokenizer.json", |folder| {
            let folder = hugging_face(folder, str::to_owned);
            fs::write(folder.join("tokenizer.json"), tokenizer).expect("written");
            folder
        });
    }
    check(CannotRun, "architecture `Mamba` is not supported", with("LlamaForCausalLM", "Mamba"));
    check(CannotRun, "`architectures` is missing", with("\"architectures\"", "\"architecture\""));
    check(CannotRun, "`magic` = 3", with("{", "{\"magic\": 3, "));
    check(CannotRun, "`hidden_act` = ", with("\"silu\"", "\"relu\""));
    check(Unreadable, "config.json: file `config.json`: invalid JSON", with("{", "["));
    check(Unreadable, "config.json: file `config.json`: invalid JSON", |folder| {
        hugging_face(folder, |_| "[".repeat(100_000))
    });
    check(Unreadable, "`model.safetensors` is missing", |folder| {
        let folder = hugging_face(folder, str::to_owned);
        fs::remove_file(folder.join("model.safetensors")).expect("removed");
        folder
    });
    check(Unreadable, "`model.safetensors.index.json` is missing", |folder| {
        let folder = hugging_face(folder, str::to_owned);
        for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            fs::copy(folder.join("model.safetensors"), folder.join(shard)).expect("copied");
        }
        fs::remove_file(folder.join("model.safetensors")).expect("removed");
        folder
    });
    check(Unreadable, "model.safetensors: ", |folder| {
        let folder = hugging_face(folder, str::to_owned);
        let weights = fs::read(folder.join("model.safetensors")).expect("written");
        fs::write(folder.join("model.safetensors"), &weights[..weights.len() / 2]).expect("written");
        folder
    });
    let index = |file: &'static str| {
        move |folder: &Path| {
            let folder = hugging_face(folder, str::to_owned);
            let map = format!(r#"{{"weight_map": {{"model.norm.weight": "{file}"}}}}"#);
            fs::write(folder.join("model.safetensors.index.json"), map).expect("written");
            folder
        }
    };
    check(
        Unreadable,
        "file `model-00001-of-00002.safetensors`: the file is missing",
        index("model-00001-of-00002.safetensors"),
    );
    check(Unreadable, "is not a plain file name", index("../../secret.safetensors"));
}

/// Runs a sound model whose context is 64 tokens with these arguments and this input; `status` of the end, and what the
/// first line of the error and its hint say.
fn check_run(args: &[&str], stdin: &[u8], status: i32, says: &str, hint: &str) {
    let home = tempfile::tempdir().expect("a folder");
    let (sound, vast) = (home.path().join("m.gguf"), home.path().join("vast.gguf"));
    fs::write(&sound, tiny()).expect("written");
    let context = MetaValue::U64(1 << 29);
    fs::write(&vast, Tiny::new().set("llama.context_length", context).bytes()).expect("written");
    let place = |arg: &&str| match *arg {
        "MODEL" => sound.display().to_string(),
        "VAST" => vast.display().to_string(),
        arg => arg.to_owned(),
    };
    let args: Vec<String> = args.iter().map(place).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = fed(home.path(), &[&["run"], &args[..]].concat(), stdin);
    let shown = format!("{args:?}\n{}\n{}", ended.out, ended.error);
    assert!(ended.status == Some(status) && !ended.error.contains("panicked"), "{shown}");
    if status == 0 {
        return assert!(ended.error.is_empty() && !ended.out.is_empty(), "{shown}");
    }
    let first = ended.error.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("error: ") && first.contains(says) && ended.out.is_empty(),
        "{says:?} not in {shown}"
    );
    let way_out = ended.error.split("\nhint: ").nth(1).unwrap_or_default();
    assert!(hint.is_empty() || way_out.contains(hint), "{hint:?} not in {shown}");
}

#[test]
fn prompts_that_cannot_be_answered_are_refused() {
    check_run(&["MODEL", "abc", "-n", "4", "--temperature", "0"], b"", 0, "", "");
    check_run(&["MODEL", "-n", "4"], b"abc", 0, "", "");
    check_run(&["MODEL", ""], b"", 1, "the prompt is empty", "give a prompt");
    check_run(&["MODEL"], b" \n", 1, "the prompt is empty", "give a prompt");
    check_run(&["MODEL"], b"abc\xffdef", 1, "standard input is not UTF-8 text: byte 3 is invalid", "iconv");
    let long = "a".repeat(200);
    check_run(&["MODEL", &long], b"", 1, "64", "");
    check_run(&["MODEL", "--context", "32", &long[..40]], b"", 1, "32", "");
    check_run(&["MODEL"], "a".repeat(1 << 20).as_bytes(), 1, "64", "");
}

#[test]
fn options_out_of_range_are_refused() {
    let abc = |option: &'static str, value: &'static str| ["MODEL", "abc", "-n", "2", option, value];
    check_run(&abc("--context", "65"), b"", 1, "`context` is 65, expected 1 to 64", "");
    check_run(&abc("--context", "0"), b"", 1, "`context` is 0", "");
    check_run(&["VAST", "abc", "--context", "536870912"], b"", 1, "of memory", "--context");
    check_run(&["VAST", "abc", "-n", "2"], b"", 0, "", "");
    check_run(&abc("--threads", "0"), b"", 1, "`threads` is 0", "");
    check_run(&abc("--threads", "1000000"), b"", 1, "`threads` is 1000000", "");
    check_run(&abc("--isa", "magic"), b"", 1, "instruction set `magic`", "");
    for (option, value) in
        [("--temperature", "nan"), ("--temperature=-1", "x"), ("--top-p", "7"), ("--min-p", "inf")]
    {
        check_run(&abc(option, value), b"", 1, "", "");
    }
    for (option, value) in [("--context", "many"), ("--threads", "-1"), ("--kv", "q3"), ("--frob", "1")] {
        check_run(&abc(option, value), b"", 2, "", "");
    }
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let (model, text) = (file("m.gguf", &tiny()), file("t.txt", "a".repeat(200).as_bytes()));
    let check = |option: &str, path: &str, chunk: &str, says: &str| {
        let args = ["perplexity", &model, option, path, "--chunk", chunk];
        let Ended { status, error, .. } = kinglet(home.path(), &args);
        assert!(
            status == Some(1) && error.contains(says) && !error.contains("panicked"),
            "{args:?}: {error}"
        );
    };
    for chunk in ["0", "3", "65"] {
        check("--text", &text, chunk, "4 to 64 are");
    }
    check("--text", &file("short.txt", b"abc"), "32", "the text has 5 tokens, one chunk takes 32");
    check("--text", &file("empty.txt", b""), "32", "one chunk takes 32");
    check("--text", &file("latin.txt", b"abc\xff"), "32", "byte 3 is not UTF-8 text");
    check("--text", "/nowhere.txt", "32", "/nowhere.txt: ");
    let saved = |sizes: [i32; 3], rest: usize| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|n| n.to_le_bytes()).collect();
        [b"_logits_".as_slice(), &sizes, &vec![0; rest]].concat()
    };
    for (bytes, says) in [
        (b"hello".to_vec(), "the file ends too early"),
        (saved([i32::MAX, 64, i32::MAX], 9), "sizes are impossible"),
        (saved([1 << 24, 64, 1 << 24], 9), "the file ends too early"),
        (saved([8, 63, 1], 32), "over a vocabulary of 63"),
        (saved([8, 64, 1], 40), "the file ends too early"),
        (saved([128, 64, 1], 1 << 20), "128"),
    ] {
        let path = file("saved", &bytes);
        check("--kl-divergence", &path, "32", says);
    }
}

#[test]
fn names_that_lead_nowhere_are_named() {
    let home = tempfile::tempdir().expect("a folder");
    let check = |name: &str, message: &str, hint: &str| {
        let Ended { status, error, .. } = kinglet(home.path(), &["show", name]);
        let mut lines = error.lines();
        let found = [lines.next().unwrap_or_default(), lines.next().unwrap_or_default()];
        assert!(found[0].starts_with("error: ") && found[0].contains(message), "{error}");
        assert!(status == Some(1) && found[1].starts_with("hint: ") && found[1].contains(hint), "{error}");
    };
    check("smollm2", "smollm2 is not on this machine", "`kinglet pull smollm2` fetches it");
    check("org/repo:Q4_K_M", "is not on this machine", "kinglet pull org/repo:Q4_K_M");
    check("smolm2", "no model is called `smolm2`", "did you mean smollm2");
    check("", "does not name a model", "a model is named as in");
    check("a\u{1b}[2Jb", "does not name a model", "a model is named as in");
    check("/nowhere/m.gguf", "/nowhere/m.gguf: no such file or folder", "check the path");
}

#[test]
fn benches_that_cannot_run_are_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("m.gguf");
    fs::write(&path, tiny()).expect("written");
    let model = path.display().to_string();
    for (options, status, says) in [
        (["--reps", "0"], 2, "at least 1"),
        (["--pp", "65"], 1, "takes 65 tokens of context, there are 64"),
        (["--depth", "60"], 1, "tokens of context, there are 64"),
        (["--pp", "many"], 2, "invalid"),
        (["--baseline", "/nowhere/before.json"], 1, "/nowhere/before.json"),
        (["--baseline", &model], 1, "m.gguf"),
    ] {
        let ended = kinglet(home.path(), &[&["bench", &model, "--tg", "8"], &options[..]].concat());
        assert!(ended.status == Some(status) && ended.error.contains(says), "{options:?}: {}", ended.error);
    }
}

#[test]
fn a_broken_template_fails_conversations_only() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("m.gguf");
    let template = MetaValue::Str("{% for message in messages %}".into());
    fs::write(&path, Tiny::new().set("tokenizer.chat_template", template).bytes()).expect("written");
    let ask = ["run", &path.display().to_string(), "abc", "--max-tokens", "2"].map(str::to_owned);
    let ask = ask.iter().map(String::as_str).collect::<Vec<_>>();
    let Ended { status, error, .. } = kinglet(home.path(), &ask);
    assert!(status == Some(1) && error.contains("chat template"), "{error}");
    let Ended { status, error, .. } = kinglet(home.path(), &[&ask[..], &["--raw"]].concat());
    assert!(status == Some(0), "{error}");
}

#[test]
fn a_prompt_does_not_wait_for_a_silent_pipe() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("m.gguf");
    fs::write(&path, tiny()).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    command
        .args(["run", &path.display().to_string(), "abc", "--max-tokens", "2"])
        .env("KINGLET_HOME", home.path());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let open = child.stdin.take();
    let output = child.wait_with_output().expect("it ends");
    drop(open);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.contains("standard input is open but silent"), "{error}");
}
