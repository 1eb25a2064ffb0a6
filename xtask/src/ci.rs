//! The steps of continuous integration, in the order in which a mistake shows soonest. Every step runs even when an
//! earlier one failed; a step whose tool or target cannot be had is skipped with its reason, and the table says so.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{asm, sh};

/// What became of a step that did not fail.
enum Outcome {
    /// It passed; the text is shown in the table (a count, or nothing).
    Passed(String),
    /// It could not run here; the text says why.
    Skipped(String),
}
use Outcome::{Passed, Skipped};

struct Step {
    name: &'static str,
    what: &'static str,
    /// Whether `--quick` runs it too.
    quick: bool,
    run: fn() -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", what: "formatting", quick: true, run: fmt },
    Step { name: "typos", what: "spelling, where the tool is installed", quick: true, run: typos },
    Step { name: "clippy", what: "lints, without a warning", quick: true, run: clippy },
    Step { name: "test", what: "tests of the whole workspace", quick: true, run: test },
    Step { name: "client", what: "OpenAI's Python client against the server", quick: false, run: client },
    Step { name: "doctest", what: "examples in the documentation", quick: false, run: doctest },
    Step { name: "doc", what: "documentation, without a warning", quick: false, run: doc },
    Step { name: "deny", what: "licences, bans and sources of dependencies", quick: false, run: deny },
    Step { name: "wasm", what: "floors 0-4 for the browser", quick: false, run: wasm },
    Step { name: "apple", what: "floors 0-4 for macOS on ARM64", quick: false, run: apple },
    Step { name: "asm", what: "no vector operation of the kernels is a call", quick: false, run: asm },
    Step { name: "fuzz", what: "fuzz targets compile", quick: false, run: fuzz },
    Step { name: "arm64", what: "kernels' tests on emulated ARM64", quick: false, run: arm64 },
];

/// Crates whose code differs by instruction set: tested on ARM64 as well.
const PER_ISA: &str = "-p kinglet-simd -p kinglet-kernels";

/// Prints the steps.
pub(crate) fn list() {
    for step in STEPS {
        println!("{:8}  {}{}", step.name, step.what, if step.quick { "" } else { " (not with --quick)" });
    }
}

/// Runs the named steps, or all (`quick`: the short ones); an error if one failed.
pub(crate) fn run(quick: bool, names: &[&str]) -> Result<()> {
    if let Some(name) = names.iter().find(|n| !STEPS.iter().any(|s| s.name == **n)) {
        bail!("no step is called {name}; `cargo xtask ci --list` shows them");
    }
    let chosen = |s: &&Step| if names.is_empty() { s.quick || !quick } else { names.contains(&s.name) };
    let results: Vec<_> = STEPS.iter().filter(chosen).map(run_step).collect();
    summarise(&results)
}

/// A step's name, its result, and how long it took.
type Row = (&'static str, Result<Outcome>, Duration);

fn run_step(step: &Step) -> Row {
    eprintln!("\n=== {}: {}", step.name, step.what);
    let start = Instant::now();
    let result = (step.run)();
    match &result {
        Ok(Passed(_)) => {}
        Ok(Skipped(why)) => eprintln!("!!! SKIPPED {}: {why}", step.name),
        Err(error) => eprintln!("!!! FAILED {}: {error:#}", step.name),
    }
    (step.name, result, start.elapsed())
}

fn summarise(results: &[Row]) -> Result<()> {
    eprintln!("\n=== summary");
    for (name, result, time) in results {
        let (verdict, note) = match result {
            Ok(Passed(note)) => ("passed", note.clone()),
            Ok(Skipped(why)) => ("SKIPPED", why.clone()),
            Err(error) => ("FAILED", format!("{error:#}")),
        };
        eprintln!("{name:8}  {verdict:8}  {:7.1} s  {note}", time.as_secs_f64());
    }
    let failed: Vec<_> = results.iter().filter(|r| r.1.is_err()).map(|r| r.0).collect();
    let total: Duration = results.iter().map(|r| r.2).sum();
    if !failed.is_empty() {
        bail!(
            "{} of {} steps failed ({}) in {:.0} s",
            failed.len(),
            results.len(),
            failed.join(", "),
            total.as_secs_f64()
        );
    }
    eprintln!("ci: {} steps, none failed, {:.0} s", results.len(), total.as_secs_f64());
    Ok(())
}

fn passed() -> Result<Outcome> {
    Ok(Passed(String::new()))
}

fn fmt() -> Result<Outcome> {
    sh::run("cargo fmt --all --check", &[])?;
    passed()
}

fn typos() -> Result<Outcome> {
    if !sh::succeeds("typos --version") {
        return Ok(Skipped("`typos` is not installed (pip install typos)".into()));
    }
    sh::run("typos", &[])?;
    passed()
}

fn clippy() -> Result<Outcome> {
    sh::run("cargo clippy --locked --workspace --all-targets -- -D warnings", &[])?;
    passed()
}

fn test() -> Result<Outcome> {
    run_tests("--locked --workspace", &[])
}

/// Runs tests with nextest, or with cargo's own runner where that is missing; hands back their count.
fn run_tests(what: &str, env: &[(&str, &str)]) -> Result<Outcome> {
    if sh::succeeds("cargo nextest --version") {
        let counted = |l: &str| l.contains("tests run:") || l.contains("test run:");
        let lines = sh::run_keeping(&format!("cargo nextest run --no-tests=warn {what}"), env, counted)?;
        let count =
            lines.last().and_then(|l| l.split_once(']')).map_or("no tests", |(_, count)| count.trim());
        return Ok(Passed(count.to_owned()));
    }
    eprintln!("!!! cargo-nextest is not installed: using cargo test");
    let lines =
        sh::run_keeping(&format!("cargo test --all-targets {what}"), env, |l| l.starts_with("test result:"))?;
    let count = |l: &String| l.split_whitespace().nth(3).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let sum: usize = lines.iter().map(count).sum();
    Ok(Passed(format!("{sum} tests run: {sum} passed")))
}

fn doctest() -> Result<Outcome> {
    sh::run("cargo test --locked --workspace --doc --quiet", &[])?;
    passed()
}

fn doc() -> Result<Outcome> {
    sh::run("cargo doc --locked --workspace --no-deps --quiet", &[("RUSTDOCFLAGS", "-D warnings")])?;
    passed()
}

/// The first version of cargo-deny that reads `deny.toml` as it is.
const OLDEST_DENY: (u32, u32) = (0, 16);

fn deny() -> Result<Outcome> {
    let install = "cargo install --locked cargo-deny";
    let Ok(version) = sh::output("cargo deny --version") else {
        return Ok(Skipped(format!("cargo-deny is not installed ({install})")));
    };
    let words = version.trim().rsplit(' ').next().unwrap_or_default().split('.');
    let numbers: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
    if numbers.first().copied().zip(numbers.get(1).copied()).is_none_or(|found| found < OLDEST_DENY) {
        return Ok(Skipped(format!("{} is too old for deny.toml ({install})", version.trim())));
    }
    sh::run("cargo deny --locked --log-level error check --show-stats licenses bans sources", &[])?;
    if !sh::succeeds("cargo deny --locked fetch db") {
        eprintln!("!!! advisories NOT checked: their database cannot be fetched from this machine");
        return Ok(Passed("advisories NOT checked: no database".into()));
    }
    sh::run("cargo deny --locked --log-level error check advisories", &[])?;
    Ok(Passed("with advisories".into()))
}

fn wasm() -> Result<Outcome> {
    check_floors("wasm32-unknown-unknown", &[("RUSTFLAGS", "-C target-feature=+simd128")])
}

fn apple() -> Result<Outcome> {
    check_floors("aarch64-apple-darwin", &[])
}

/// Compiles the crates of floors 0-4 for `target` without linking.
fn check_floors(target: &str, env: &[(&str, &str)]) -> Result<Outcome> {
    if let Err(why) = add_target(target) {
        return Ok(Skipped(why));
    }
    let packages = lower_floors()?.join(" -p ");
    sh::run(&format!("cargo check --locked --target {target} -p {packages}"), env)?;
    passed()
}

/// Names of the packages whose floor is below 5.
fn lower_floors() -> Result<Vec<String>> {
    let json: Value =
        serde_json::from_str(&sh::output("cargo metadata --format-version=1 --no-deps --offline")?)?;
    let packages = json["packages"].as_array().cloned().unwrap_or_default();
    let low = |p: &&Value| p["metadata"]["floor"].as_i64().is_some_and(|f| f < 5);
    Ok(packages.iter().filter(low).filter_map(|p| p["name"].as_str().map(str::to_owned)).collect())
}

/// Makes a target's standard library available, or says why it is not.
fn add_target(target: &str) -> Result<(), String> {
    let libdir = sh::output(&format!("rustc --print target-libdir --target {target}")).unwrap_or_default();
    if std::path::Path::new(libdir.trim()).is_dir() || sh::succeeds(&format!("rustup target add {target}")) {
        return Ok(());
    }
    Err(format!("no standard library for {target}: `rustup target add {target}` failed"))
}

fn asm() -> Result<Outcome> {
    let mut seen = Vec::new();
    for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        match add_target(target) {
            Ok(()) => seen.push(format!("{} entries on {target}", asm::check(target)?)),
            Err(why) => eprintln!("!!! {why}"),
        }
    }
    Ok(if seen.is_empty() {
        Skipped("neither target can be compiled for".into())
    } else {
        Passed(seen.join(", "))
    })
}

fn fuzz() -> Result<Outcome> {
    if ["c++", "g++", "clang++"].iter().all(|compiler| sh::which(compiler).is_none()) {
        return Ok(Skipped("libFuzzer needs a C++ compiler".into()));
    }
    sh::run("cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir target", &[])?;
    passed()
}

/// Installs the Python package in a folder of its own, unless it is there, and lets it talk to the server.
fn client() -> Result<Outcome> {
    const PYTHON: &str = "target/openai/bin/python";
    let has = |python: &str| sh::succeeds(&format!("{python} -m pip show --quiet openai"));
    let install = [
        "python3 -m venv target/openai".to_owned(),
        format!("{PYTHON} -m pip install --quiet --disable-pip-version-check openai>=1.50"),
    ];
    if !has(PYTHON) && !install.iter().all(|command| sh::succeeds(command)) {
        return Ok(Skipped("Python's package `openai` cannot be installed here".into()));
    }
    let python = std::path::absolute(PYTHON)?;
    // As in `test`, and right after it, so that nothing is compiled again.
    let what = "--locked --workspace openai_client";
    run_tests(what, &[("PYTHON", python.to_str().unwrap_or(PYTHON))])
}

/// Builds the tests of the kernels for ARM64 and runs them under an emulator that has every extension.
fn arm64() -> Result<Outcome> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    let native = cfg!(all(target_arch = "aarch64", target_os = "linux"));
    if native {
        return Ok(Passed("this machine is one: covered by `test`".into()));
    }
    if let Err(why) = add_target(TARGET) {
        return Ok(Skipped(why));
    }
    for tool in ["aarch64-linux-gnu-gcc", "qemu-aarch64-static"] {
        if sh::which(tool).is_none() {
            return Ok(Skipped(format!(
                "{tool} is missing (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user-static)"
            )));
        }
    }
    let what = format!("--locked --target {TARGET} --profile emulated --cargo-profile dev {PER_ISA}");
    run_tests(
        &what,
        &[
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"),
            (
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
                "qemu-aarch64-static -cpu max -L /usr/aarch64-linux-gnu",
            ),
            ("PROPTEST_CASES", "8"),
        ],
    )
}
