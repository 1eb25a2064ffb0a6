//! Running tools: one line of command text, its environment, and what it printed.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// A command in the root folder; words are separated by blanks, so no argument may contain one.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command has a name"));
    command.args(words).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs `line` with `env` set, showing what it prints; an exit status other than 0 is an error.
pub(crate) fn run(line: &str, env: &[(&str, &str)]) -> Result<()> {
    echo(line);
    let status =
        command(line).envs(env.iter().copied()).status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

/// As [`run`], and hands back the lines for which `keep` holds (both streams are shown on standard error).
pub(crate) fn run_keeping(line: &str, env: &[(&str, &str)], keep: fn(&str) -> bool) -> Result<Vec<String>> {
    echo(line);
    let (reader, writer) = std::io::pipe()?;
    let mut command = command(line);
    command.envs(env.iter().copied()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    drop(command); // Its ends of the pipe: the last one closed is the child's.
    let mut kept = Vec::new();
    for text in BufReader::new(reader).split(b'\n') {
        let text = String::from_utf8_lossy(&text?).into_owned();
        writeln!(std::io::stderr(), "{text}")?;
        if keep(&text) {
            kept.push(text.trim().to_owned());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}`: {status}{}", kept.last().map(|k| format!("; {k}")).unwrap_or_default());
    }
    Ok(kept)
}

/// Whether `line` runs and succeeds; prints nothing.
pub(crate) fn succeeds(line: &str) -> bool {
    command(line).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// What `line` prints on standard output.
pub(crate) fn output(line: &str) -> Result<String> {
    let out =
        command(line).stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !out.status.success() {
        bail!("`{line}`: {}", out.status);
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// The full path of a program on `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn echo(line: &str) {
    eprintln!("$ {line}");
}
