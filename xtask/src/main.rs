//! Development tasks: `cargo xtask ci [--quick] [STEP…]`. What `ci` runs here is what continuous integration runs.
#![forbid(unsafe_code)]

mod asm;
mod ci;
mod sh;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask ci [--quick] [STEP…]   everything that must pass; --quick leaves out other targets and documents
       cargo xtask ci --list              the steps";

fn main() -> std::process::ExitCode {
    match task() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn task() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (flags, words): (Vec<&str>, Vec<&str>) =
        args.iter().map(String::as_str).partition(|a| a.starts_with("--"));
    match (words.as_slice(), flags.as_slice()) {
        (["ci"], ["--list"]) => ci::list(),
        (["ci", steps @ ..], []) => ci::run(false, steps)?,
        (["ci", steps @ ..], ["--quick"]) => ci::run(true, steps)?,
        _ => bail!("{USAGE}"),
    }
    Ok(())
}
