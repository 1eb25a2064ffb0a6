//! `cargo xtask ci asm`: no vector operation of the kernels has become a function call.
//!
//! An intrinsic that is not inlined into its `#[target_feature]` function still computes the right result, some seventy
//! times slower, so no test notices. This compiles the kernels to assembly text and looks at what is called from it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::sh;

/// Parts of symbols that only a vector operation has: the standard library's intrinsics, and the methods of `Isa`.
const VECTOR_OPS: &[&str] = &["core_arch", "kinglet_simd4arch", "kinglet_simd..arch"];
/// What the functions are called by which a kernel enters an instruction set (`enter`, `enter_dot`, and `dispatch` itself
/// on instruction sets that need no switch): these are calls.
const ENTRIES: [&str; 2] = ["enter", "8dispatch"];

/// Checks the kernels as compiled for `target`; hands back how many entries into an instruction set it saw.
pub(crate) fn check(target: &str) -> Result<usize> {
    let folder = sh::root().join("target/asm").join(target).join("release/deps");
    for stale in assembly(&folder)? {
        fs::remove_file(stale)?;
    }
    let build = "cargo rustc --locked --release --target-dir target/asm -p kinglet-kernels --lib";
    let plain = [
        ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
        ("CARGO_INCREMENTAL", "0"),
    ];
    sh::run("touch crates/kernels/src/lib.rs", &[])?; // An up-to-date build would emit nothing.
    sh::run(&format!("{build} --target {target} -- --emit asm"), &plain)?;
    let (mut entries, mut found) = (0, Vec::new());
    for path in assembly(&folder)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        entries += text.lines().filter(|l| l.ends_with(':') && is_entry(l)).count();
        found.extend(called_vector_ops(&text));
    }
    found.sort();
    found.dedup();
    if !found.is_empty() {
        bail!("{target}: vector operations that are calls, not instructions:\n  {}", found.join("\n  "));
    }
    if entries == 0 {
        bail!("{target}: the kernels enter no instruction set: this check looks at nothing");
    }
    Ok(entries)
}

/// The kernels' assembly files in `folder`, which may not exist yet.
fn assembly(folder: &PathBuf) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let is_ours = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("kinglet_kernels-") && name.ends_with(".s")
    };
    Ok(fs::read_dir(folder)?.flatten().map(|e| e.path()).filter(is_ours).collect())
}

/// `caller calls callee` for each call or jump to a vector operation.
fn called_vector_ops(text: &str) -> Vec<String> {
    let mut caller = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(label) = line.strip_suffix(':').filter(|l| l.starts_with('_')) {
            caller = label;
        }
        let mut words = line.split_whitespace();
        let is_call =
            words.next().is_some_and(|op| op.starts_with("call") || matches!(op, "jmp" | "bl" | "b"));
        let Some(callee) = words.next().filter(|_| is_call) else { continue };
        if VECTOR_OPS.iter().any(|op| callee.contains(op)) && !is_entry(callee) {
            found.push(format!("{caller} calls {callee}"));
        }
    }
    found
}

fn is_entry(symbol: &str) -> bool {
    let of_arch = VECTOR_OPS[1..].iter().any(|op| symbol.contains(op));
    of_arch && ENTRIES.iter().any(|entry| symbol.contains(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_vector_operations_are_found() {
        let text = "_ZN6kernel3dotE:\n\tcallq\t_ZN4core9core_arch3x864avx217_mm256_add_epi32E\n\
            \tcallq\t_ZN12kinglet_simd4arch4avx25enter17h00E\n\tjmp\t*_ZN12kinglet_simd4arch4avx23add17h00E@GOTPCREL(%rip)\n\
            \tcallq\t_ZN3x77_$LT$kinglet_simd..arch..scalar..Scalar$u20$as$u20$Isa$GT$8dispatch17h00E\n\
            \tvaddps\t%ymm0, %ymm1, %ymm2\n\tcallq\tmemcpy@PLT\n";
        assert_eq!(
            called_vector_ops(text),
            [
                "_ZN6kernel3dotE calls _ZN4core9core_arch3x864avx217_mm256_add_epi32E",
                "_ZN6kernel3dotE calls *_ZN12kinglet_simd4arch4avx23add17h00E@GOTPCREL(%rip)",
            ]
        );
    }
}
