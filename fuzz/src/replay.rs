//! Replaying of corpora as plain tests: included by the `tests/corpus.rs` of each crate that has a parser.

use std::path::Path;

/// Feeds `run` each file of `fuzz/corpus/<target>`; panics, with the file's name, when it does or there is no file.
pub fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let result = std::panic::catch_unwind(|| run(&bytes));
        assert!(result.is_ok(), "{} makes the target `{target}` panic", file.display());
    }
}
