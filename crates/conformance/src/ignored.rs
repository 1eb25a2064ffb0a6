//! The list of cases that are known to fail, each with its reason.

use std::collections::BTreeMap;

/// Reasons by `suite/case`.
pub(crate) fn ignored() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("../ignored.txt").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_line_names_a_case_and_a_reason() {
        for line in include_str!("../ignored.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (case, reason) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            assert!(case.contains('/') && reason.len() > 10, "{line}");
        }
    }
}
