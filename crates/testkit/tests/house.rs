//! The rules of the house, checked on the sources themselves: floors, `unsafe`, file headers and lengths, paths
//! named in the documentation, nothing that belongs to one machine. What a compiler or clippy checks is not here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates that may contain `unsafe`; every other target root forbids it.
const UNSAFE_CRATES: &[&str] = &["kinglet-simd", "kinglet-tensor", "kinglet-kernels"];
/// Lines a source file may have, its inline test module not counted.
const MAX_LINES: usize = 800;
/// A file of so few lines needs no header: what it includes says what it is.
const GLUE: usize = 6;
/// Top-level folders whose paths documentation may name in backticks.
const FOLDERS: &[&str] =
    &["crates/", "docs/", "xtask/", "fuzz/", "tools/", "examples/", ".ci/", ".cargo/", ".config/"];
/// The line by which a crate below floor 5 denies the list in `clippy.toml`, and printing.
const PURE: &str =
    "#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/testkit is two folders deep")
        .to_owned()
}

/// One package of the workspace, from `cargo metadata`.
struct Package {
    name: String,
    /// `None` is the floor "dev": free to depend on anything, and only tests may depend on it.
    floor: Option<i64>,
    /// Dependencies inside the workspace: name, and whether only tests have it.
    deps: Vec<(String, bool)>,
    /// Root sources of its library and binaries.
    roots: Vec<PathBuf>,
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["metadata", "--format-version=1", "--no-deps", "--offline"];
    let out = Command::new(cargo).args(args).current_dir(root()).output().expect("cargo runs");
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let json: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    json["packages"].as_array().expect("packages").iter().map(package).collect()
}

fn package(json: &Value) -> Package {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let floor = &json["metadata"]["floor"];
    assert!(
        floor.is_i64() || floor == "dev",
        "{}: package.metadata.floor is a number or \"dev\"",
        json["name"]
    );
    let list = |key: &str| json[key].as_array().cloned().unwrap_or_default();
    Package {
        name: text(&json["name"]),
        floor: floor.as_i64(),
        deps: list("dependencies")
            .iter()
            .filter(|d| d["path"].is_string())
            .map(|d| (text(&d["name"]), d["kind"] == "dev"))
            .collect(),
        roots: list("targets")
            .iter()
            .filter(|t| t["kind"].as_array().is_some_and(|k| k.iter().any(|k| k != "test" && k != "bench")))
            .map(|t| PathBuf::from(text(&t["src_path"])))
            .collect(),
    }
}

/// Files below `dir` for which `keep` holds, build outputs and the repository's own database left out.
fn files(dir: &Path, keep: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !matches!(name.to_str(), Some("target" | ".git" | "node_modules" | ".venv")) {
            files(&path, keep, found);
        } else if path.is_file() && keep(&path) {
            found.push(path);
        }
    }
}

fn files_with(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let keep = |p: &Path| p.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e));
    files(&root(), &keep, &mut found);
    let relative = |p: &PathBuf| p.strip_prefix(root()).expect("below the root").to_owned();
    found.iter().map(|p| (relative(p), fs::read_to_string(p).unwrap_or_default())).collect()
}

/// Fails with every complaint at once, so that one run shows the whole picture.
fn check(rule: &str, complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}

#[test]
fn every_dependency_goes_strictly_down() {
    let packages = packages();
    let floors: BTreeMap<_, _> = packages.iter().map(|p| (p.name.as_str(), p.floor)).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let Some(from) = package.floor else { continue };
        for (dep, only_tests) in &package.deps {
            match floors.get(dep.as_str()).copied().flatten() {
                Some(to) if to < from => {}
                None if *only_tests => {}
                to => wrong.push(format!("{} (floor {from}) -> {dep} (floor {to:?})", package.name)),
            }
        }
    }
    check("a crate depends only on crates of a lower floor", wrong);
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut wrong = Vec::new();
    for package in packages().iter().filter(|p| !UNSAFE_CRATES.contains(&p.name.as_str())) {
        for path in &package.roots {
            if !fs::read_to_string(path).unwrap_or_default().contains("#![forbid(unsafe_code)]") {
                wrong.push(path.display().to_string());
            }
        }
    }
    check("a crate without `unsafe` says #![forbid(unsafe_code)]", wrong);
}

#[test]
fn lower_floors_have_no_side_effects() {
    let mut wrong = Vec::new();
    for package in packages().iter().filter(|p| p.floor.is_some_and(|f| f < 5)) {
        let examples = std::ffi::OsStr::new("examples");
        for path in package.roots.iter().filter(|path| path.iter().all(|part| part != examples)) {
            if !fs::read_to_string(path).unwrap_or_default().contains(PURE) {
                wrong.push(path.display().to_string());
            }
        }
    }
    check(&format!("a crate below floor 5 says {PURE}"), wrong);
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut wrong = Vec::new();
    for (path, text) in files_with(&["rs"]) {
        if !text.starts_with("//!") && text.lines().count() > GLUE {
            wrong.push(format!("{}: opens without a //! header", path.display()));
        }
        let own = text.find("\n#[cfg(test)]\nmod tests {").map_or(text.as_str(), |end| &text[..end]);
        let lines = own.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}", path.display()));
        }
    }
    check("a file is one readable page", wrong);
}

#[test]
fn named_paths_exist() {
    let mut wrong = Vec::new();
    for (file, text) in files_with(&["md"]) {
        let folder = root().join(file.parent().unwrap_or(Path::new("")));
        for link in links(&text) {
            if !folder.join(&link).exists() {
                wrong.push(format!("{}: link to {link}", file.display()));
            }
        }
        for path in quoted_paths(&text) {
            if !root().join(&path).exists() {
                wrong.push(format!("{}: `{path}`", file.display()));
            }
        }
    }
    check("a path that the documentation names exists", wrong);
}

/// Targets of relative Markdown links, without their anchors.
fn links(text: &str) -> Vec<String> {
    let target = |rest: &str| rest.split([')', '#', ' ']).next().unwrap_or_default().to_owned();
    text.split("](").skip(1).map(target).filter(|t| !t.is_empty() && !t.contains(':')).collect()
}

/// Backticked words that start with one of [`FOLDERS`]; patterns and commands are left out.
fn quoted_paths(text: &str) -> Vec<String> {
    let path = |word: &&str| {
        FOLDERS.iter().any(|f| word.starts_with(f)) && !word.contains(['*', '{', '<', ' ', '\n'])
    };
    text.split('`').skip(1).step_by(2).filter(path).map(str::to_owned).collect()
}

#[test]
fn nothing_belongs_to_one_machine() {
    let mut wrong = Vec::new();
    for (path, text) in files_with(&["rs", "md", "toml", "py", "sh", "yml", "yaml", "json"]) {
        for (number, line) in text.lines().enumerate() {
            if names_a_machine(line) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    check("no absolute path of some machine", wrong);
}

/// Whether a line holds an absolute path into somebody's home or scratch folder.
fn names_a_machine(line: &str) -> bool {
    ["home", "root", "tmp", "work", "Users"].iter().any(|folder| {
        let needle = format!("/{folder}/");
        line.match_indices(&needle).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + needle.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || "_.:/-}~$".contains(c))
                && after.is_some_and(|c| c.is_ascii_alphabetic())
        })
    })
}

#[test]
fn the_checks_themselves_find_what_they_seek() {
    let slash = '/';
    assert!(names_a_machine(&format!("open(\"{slash}home{slash}ann/x\")")));
    assert!(!names_a_machine(&format!("https://example.org{slash}home/page and ~{slash}work/x")));
    assert_eq!(links("see [a](docs/a.md#x), [b](https://b) and [c](#c)"), ["docs/a.md"]);
    assert_eq!(
        quoted_paths("`crates/cli` and `crates/*/src`, `cargo x`, `docs/a.md`"),
        ["crates/cli", "docs/a.md"]
    );
}
