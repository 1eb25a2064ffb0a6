//! `cargo xtask bench`: the guard against getting slower.
//!
//! Runs the release build of `kinglet bench` over one fixed set of tests, so that the reports of two commits compare. A
//! baseline holds for the machine that wrote it: write one from the commit before, on the machine that judges.

use anyhow::{Result, bail};

use crate::sh;

/// What is measured: prompts and decoding, near and deep, alone and together.
const TESTS: [&str; 3] = [
    "--pp 128,512 --tg 64 --depth 0 --batch 1,8",
    "--pp 0 --tg 64 --depth 512",
    "--pp 0 --tg 32 --depth 4096",
];

/// `words` name the model, the catalogue's small one unless given; `--save FOLDER` writes reports, `--baseline FOLDER`
/// compares with them.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = Options::of(words)?;
    sh::run("cargo build --locked --release -p kinglet-cli", &[])?;
    let mut slower = Vec::new();
    for (number, test) in TESTS.iter().enumerate() {
        let bench = format!("target/release/kinglet --json bench {} {test} --reps 10", options.model);
        let file = |folder: &str| format!("{folder}/bench-{number}.json");
        if let Some(folder) = options.save {
            std::fs::create_dir_all(sh::root().join(folder))?;
            std::fs::write(sh::root().join(file(folder)), sh::output(&bench)?)?;
        }
        if let Some(folder) = options.baseline {
            let compare = bench.replace("--json ", "") + " --baseline " + &file(folder);
            slower.extend(sh::run(&compare, &[]).err().map(|_| *test));
        }
    }
    if slower.is_empty() { Ok(()) } else { bail!("slower than the baseline: {}", slower.join("; ")) }
}

#[derive(Debug, PartialEq, Eq)]
struct Options<'a> {
    model: &'a str,
    save: Option<&'a str>,
    baseline: Option<&'a str>,
}

impl<'a> Options<'a> {
    fn of(words: &[&'a str]) -> Result<Self> {
        let mut options = Self { model: "smollm2", save: None, baseline: None };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--save" => options.save = words.next(),
                "--baseline" => options.baseline = words.next(),
                model if !model.starts_with("--") => options.model = model,
                other => bail!("unknown option {other}"),
            }
        }
        if options.save.is_none() && options.baseline.is_none() {
            bail!("give --save FOLDER to write a baseline, or --baseline FOLDER to compare with one");
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_any_order() {
        let expected = Options { model: "x.gguf", save: None, baseline: Some("before") };
        for words in [["--baseline", "before", "x.gguf"], ["x.gguf", "--baseline", "before"]] {
            assert_eq!(Options::of(&words).expect("valid"), expected);
        }
        assert!(Options::of(&["x.gguf"]).is_err() && Options::of(&["--save", "a", "--fast"]).is_err());
    }
}
