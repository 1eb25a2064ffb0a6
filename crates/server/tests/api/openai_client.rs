//! OpenAI's own Python client talks to the server, where the package `openai` is installed (`PYTHON` names another
//! interpreter than `python3`).

use std::process::Command;

use crate::common::Running;

#[test]
fn the_openai_package_is_content() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import openai"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {python} has no package `openai`");
        return;
    }
    let server = Running::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/openai_client.py");
    let output = Command::new(&python).args([script, &format!("http://{}/v1", server.address)]).output();
    let output = output.expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
