//! The command as a user meets it: help, exit status, errors, and Ctrl-C in the middle of a download.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// The command with a store of its own and a hub that cannot be reached.
fn kinglet(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    command
        .env("KINGLET_HOME", home)
        .env("HF_HOME", home.join("hf"))
        .env("HF_ENDPOINT", "http://127.0.0.1:1");
    for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

/// Runs it; hands back exit status, standard output and standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().expect("a folder");
    told(&kinglet(home.path()).args(args).output().expect("it starts"))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_command_has_help_with_examples() {
    let (_, help, _) = run(&["--help"]);
    let commands =
        help.split("Commands:").nth(1).and_then(|h| h.split("Options:").next()).expect("a list of commands");
    let names: Vec<&str> = commands.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next()).collect();
    for name in names.into_iter().filter(|n| !n.is_empty() && *n != "help") {
        let (status, help, _) = run(&[name, "--help"]);
        assert!(status == 0 && help.contains("Examples:") && help.contains("kinglet "), "{name}: {help}");
    }
}

#[test]
fn mistakes_in_the_command_line_exit_with_2() {
    for args in [&["frobnicate"][..], &["pull"], &["list", "--frob"], &["-q", "-v", "list"], &[]] {
        let (status, _, error) = run(args);
        assert!(status == 2 && error.contains("Usage:"), "{args:?}: {status} {error}");
    }
}

#[test]
fn failures_say_what_to_do() {
    let (status, out, error) = run(&["pull", "smolm2"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        error.starts_with("error: no model is called `smolm2`\nhint: did you mean smollm2:135m"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'), "colours without a terminal: {error:?}");

    let (_, _, coloured) = run(&["--color", "always", "pull", "smolm2"]);
    assert!(coloured.contains("\u{1b}["), "{coloured:?}");

    let (status, _, error) = run(&["--json", "-q", "rm", "smollm2"]);
    let json: serde_json::Value = serde_json::from_str(&error).expect("JSON");
    assert_eq!((status, &json["error"]["message"]), (1, &"no model is called `smollm2`".into()));
    assert!(json["error"]["hint"].is_string());
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_takes_nothing_is_named() {
    for args in [&["list", "--known"][..], &["completions", "bash"], &["man"], &["--json", "list"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let home = tempfile::tempdir().expect("a folder");
        let output = kinglet(home.path()).args(args).stdout(full).output().expect("it starts");
        let (status, _, error) = told(&output);
        assert!(
            status == 1 && error.contains("standard output: No space left"),
            "{args:?}: {status} {error}"
        );
    }
}

#[test]
fn lists_are_tables_or_json() {
    let (status, out, _) = run(&["list", "--known"]);
    assert!(status == 0 && out.lines().any(|l| l.starts_with("smollm2:135m ")), "{out}");
    assert_eq!(run(&["list", "--json"]).1, "[]\n");
    let (status, out, note) = run(&["list"]);
    assert!(status == 0 && out.is_empty() && note.contains("kinglet pull smollm2"), "{out} {note}");
}

#[test]
fn shells_and_manuals_are_served() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell]).1.contains("pull"), "{shell}");
    }
    assert!(run(&["man"]).1.contains(".TH kinglet 1"));
    let folder = tempfile::tempdir().expect("a folder");
    let (status, ..) = run(&["man", "--dir", &folder.path().display().to_string()]);
    assert!(status == 0 && folder.path().join("kinglet-pull.1").is_file());
}

/// Serves one file for ever: 100 kB at once, then 1 kB every 10 ms.
fn slow_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}/x.gguf", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\nETag: \"a\"\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[7; 100_000]));
            while stream.write_all(&[7; 1000]).is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    address
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_download_that_can_go_on() {
    let home = tempfile::tempdir().expect("a folder");
    let mut child = kinglet(home.path())
        .args(["pull", &slow_server()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let partials = home.path().join("partial");
    let fetched = || {
        let entries = fs::read_dir(&partials).into_iter().flatten().flatten();
        entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).max().unwrap_or(0)
    };
    for _ in 0..1000 {
        if fetched() >= 100_000 || child.try_wait().expect("a status").is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill starts").success());
    let (status, _, error) = told(&child.wait_with_output().expect("it ends"));
    assert_eq!(status, 130, "{error}");
    assert!(error.contains("error: cancelled\nhint: the same command goes on where it stopped"), "{error}");
    assert!(fetched() >= 100_000);
}
