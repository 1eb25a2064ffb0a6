//! Sound models, from their files to answers: both formats give the same, ends and names are where the files say.

#[allow(dead_code, reason = "shared with the tests of bad input")]
#[path = "bad_input/files.rs"]
mod files;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use files::{Tiny, hugging_face, tokens};
use kinglet::tensor::MetaValue;
use serde_json::{Value, json};

/// The command with a store of its own in `home`, and no network.
fn kinglet(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    command.args(args).current_dir(home).stdin(Stdio::null());
    command.env("KINGLET_HOME", home.join("store")).env("HF_HOME", home).env("HF_HUB_OFFLINE", "1");
    command.env_remove("HF_HUB_CACHE");
    command
}

/// What `run --json` says, greedily and exactly.
fn answer(home: &Path, model: &str) -> Value {
    let args =
        ["--json", "run", model, "abc", "--raw", "-n", "6", "--temperature", "0", "--precision", "f32"];
    let output = kinglet(home, &args).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn gguf(home: &Path, name: &str) -> PathBuf {
    let path = home.join(name);
    let plain = Tiny::new().set("tokenizer.ggml.add_space_prefix", MetaValue::Bool(false));
    fs::write(&path, plain.set("tokenizer.ggml.add_bos_token", MetaValue::Bool(false)).bytes())
        .expect("written");
    path
}

/// The same model as a folder, with the same tokens.
fn folder(home: &Path, name: &str, extra: &[(&str, Value)]) -> PathBuf {
    let folder = hugging_face(&home.join(name), str::to_owned);
    let vocab: serde_json::Map<_, _> = tokens().into_iter().zip((0..).map(Value::from)).collect();
    let tokenizer = json!({"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "decoder": {"type": "Fuse"}, "added_tokens": []});
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    for (file, content) in extra {
        fs::write(folder.join(file), content.to_string()).expect("written");
    }
    folder
}

#[test]
fn both_formats_give_the_same_answer() {
    let home = tempfile::tempdir().expect("a folder");
    let (file, folder) = (gguf(home.path(), "m.gguf"), folder(home.path(), "m", &[]));
    let (first, second) = (answer(home.path(), "m.gguf"), answer(home.path(), "./m"));
    assert_eq!((&first["text"], &first["prompt_tokens"]), (&second["text"], &second["prompt_tokens"]));
    assert_eq!(first["completion_tokens"], 6);
    for path in [file, folder.clone(), folder.join("config.json"), folder.join("model.safetensors")] {
        assert_eq!(
            answer(home.path(), &path.display().to_string())["text"],
            first["text"],
            "{}",
            path.display()
        );
    }
    assert_eq!(answer(home.path(), "m")["text"], first["text"], "a folder by its bare name");
}

#[test]
fn answers_end_where_the_folder_says() {
    let home = tempfile::tempdir().expect("a folder");
    folder(home.path(), "m", &[]);
    let text = answer(home.path(), "./m")["text"].as_str().expect("a text").to_owned();
    let second = text.chars().nth(1).expect("some characters").to_string();
    let end = tokens().iter().position(|token| *token == second).expect("a token of one character");
    for (name, file, key) in [
        ("a", "generation_config.json", json!({"eos_token_id": [2, end]})),
        ("b", "generation_config.json", json!({"eos_token_id": end})),
    ] {
        folder(home.path(), name, &[(file, key)]);
        let ended = answer(home.path(), &format!("./{name}"));
        let shown = (ended["text"].as_str().expect("a text"), &ended["finish_reason"]);
        assert_eq!(shown, (&text[..text.find(&second).expect("there")], &json!("stop")), "{name}");
    }
}

#[test]
fn split_and_sharded_models_run_from_any_of_their_files() {
    let home = tempfile::tempdir().expect("a folder");
    let whole = answer(home.path(), &gguf(home.path(), "m.gguf").display().to_string());
    let model = folder(home.path(), "s", &[]);
    fs::rename(model.join("model.safetensors"), model.join("model-00001-of-00001.safetensors"))
        .expect("renamed");
    let bytes = fs::read(model.join("model-00001-of-00001.safetensors")).expect("there");
    let weights = kinglet_formats::Safetensors::parse(bytes.into(), &kinglet_formats::Limits::default());
    let file = "model-00001-of-00001.safetensors";
    let map: serde_json::Map<_, _> =
        weights.expect("sound").tensors().iter().map(|t| (t.name().to_owned(), json!(file))).collect();
    fs::write(model.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string())
        .expect("written");
    for path in [model.clone(), model.join(file), model.join("model.safetensors.index.json")] {
        assert_eq!(
            answer(home.path(), &path.display().to_string())["text"],
            whole["text"],
            "{}",
            path.display()
        );
    }
}

/// Asks a server on this machine; the status line and the body.
fn ask(address: &str, path: &str, body: Option<Value>) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let (verb, body) = body.map_or(("GET", String::new()), |body| ("POST", body.to_string()));
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().expect("a status").to_owned(), body.to_owned())
}

#[test]
fn a_served_model_answers_to_every_spelling_of_its_name() {
    let home = tempfile::tempdir().expect("a folder");
    gguf(home.path(), "tiny.gguf");
    let mut command = kinglet(home.path(), &["--json", "serve", "./tiny.gguf", "--port", "0"]);
    let mut server = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let stdout = BufReader::new(server.stdout.take().expect("piped"));
    let lines: Vec<String> =
        stdout.lines().map(|line| line.expect("UTF-8")).take_while(|line| line != "}").collect();
    let told: Value = serde_json::from_str(&(lines.join("") + "}")).expect("JSON");
    let address = told["address"].as_str().expect("an address");
    let (status, models) = ask(address, "/v1/models", None);
    assert!(status.contains("200") && models.contains("./tiny.gguf"), "{status} {models}");
    for (name, expected) in [("./tiny.gguf", "200"), ("tiny.gguf", "200"), ("tiny", "200"), ("other", "404")]
    {
        let body = json!({"model": name, "prompt": "abc", "max_tokens": 2});
        let (status, body) = ask(address, "/v1/completions", Some(body));
        assert!(status.contains(expected), "{name}: {status} {body}");
    }
    server.kill().expect("it can be stopped");
    server.wait().expect("it ends");
}
