//! Development tasks: `cargo xtask ci [--quick] [STEP…]`, `cargo xtask bench`. What `ci` runs here is what continuous
//! integration runs.
#![forbid(unsafe_code)]

mod asm;
mod bench;
mod ci;
mod sh;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask ci [--quick] [STEP…]   everything that must pass; --quick leaves out other targets and documents
       cargo xtask ci --list              the steps
       cargo xtask bench [MODEL] --save FOLDER       write what this machine does now
       cargo xtask bench [MODEL] --baseline FOLDER   fail where it does less";

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
    if args.iter().any(|arg| ["--help", "-h", "help"].contains(&arg.as_str())) {
        println!("{USAGE}");
        return Ok(());
    }
    if args.first().is_some_and(|task| task == "bench") {
        return bench::run(&args[1..].iter().map(String::as_str).collect::<Vec<_>>());
    }
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
