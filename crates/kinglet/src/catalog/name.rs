//! What a user may call a model, taken apart. Nothing is looked up except whether a path exists.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{CatalogError, Result};
use super::known;

/// A model's name, by the kind of place it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// `smollm2`, `qwen2.5:0.5b`: an entry of the catalogue.
    Short {
        /// The family.
        name: String,
        /// The member; without it, the family's first.
        tag: Option<String>,
    },
    /// `org/repo:Q4_K_M`, `org/repo/x.gguf`, `hf:org/repo@v1.0`: on the Hugging Face hub.
    Hub(HubName),
    /// A file at a web address.
    Url(String),
    /// A file or folder on this machine.
    Path(PathBuf),
}

/// A model on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `org/repo`.
    pub repo: String,
    /// One file of it.
    pub file: Option<String>,
    /// Which of its quantised files: a part of the file's name, letter case ignored.
    pub quant: Option<String>,
    /// Branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl ModelName {
    /// Takes a name apart; whatever looks like a path, or exists as one and is no short name, is a path.
    pub fn parse(text: &str) -> Result<ModelName> {
        let bad = |why| CatalogError::BadName { text: text.into(), why };
        if text.is_empty() || text.chars().any(|c| c.is_control()) {
            return Err(bad("it is empty, or contains a control character"));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(ModelName::Url(text.into()));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub_name(rest).map(ModelName::Hub).map_err(bad);
        }
        if is_path(text) {
            return Ok(ModelName::Path(expand_home(text)));
        }
        if text.contains('/') {
            return hub_name(text).map(ModelName::Hub).map_err(bad);
        }
        let name = short_name(text).map_err(bad);
        let known = matches!(&name, Ok(ModelName::Short { name, tag }) if known::find(name, tag.as_deref()).is_some());
        if !known && exists(text) { Ok(ModelName::Path(text.into())) } else { name }
    }
}

/// The one spelling of a name under which the store keeps the model.
impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Short { name, tag: None } => f.write_str(name),
            ModelName::Short { name, tag: Some(tag) } => write!(f, "{name}:{tag}"),
            ModelName::Hub(hub) => hub.fmt(f),
            ModelName::Url(url) => f.write_str(url),
            ModelName::Path(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if let Some(quant) = &self.quant {
            write!(f, ":{quant}")?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

fn is_path(text: &str) -> bool {
    let explicit =
        ["./", "../", "/", "~/", ".\\", "..\\"].iter().any(|p| text.starts_with(p)) || text.contains('\\');
    // A file on the hub has an owner and a repository before it.
    let is_file = [".gguf", ".safetensors"].iter().any(|end| text.ends_with(end));
    let in_folder = text.matches('/').count() < 2
        || text.split_once('/').is_some_and(|(folder, _)| Path::new(folder).is_dir());
    let existing = text.contains('/') && exists(text);
    explicit || is_file && in_folder || existing || matches!(text, "." | "..")
}

/// Whether there is anything of this name, be it a link that leads nowhere.
fn exists(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => text.into(),
    }
}

fn short_name(text: &str) -> Result<ModelName, &'static str> {
    let text = text.to_ascii_lowercase();
    let (name, tag) = match text.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (text.as_str(), None),
    };
    if !is_word(name) || !tag.is_none_or(is_word) {
        return Err("a short name is letters, digits, `.`, `-` and `_`, and at most one `:`");
    }
    Ok(ModelName::Short { name: name.into(), tag: tag.map(str::to_owned) })
}

/// `org/repo[/file…][:quant][@revision]`
fn hub_name(text: &str) -> Result<HubName, &'static str> {
    let (text, revision) = text.rsplit_once('@').unwrap_or((text, "main"));
    let (text, quant) = match text.rsplit_once(':') {
        Some((text, quant)) => (text, Some(quant)),
        None => (text, None),
    };
    let mut parts = text.splitn(3, '/');
    let (org, repo, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
    if !is_word(org) || !is_word(repo) {
        return Err("a model on the hub is org/repo, org/repo:QUANT or org/repo/FILE");
    }
    if !file.is_none_or(is_safe_file) || !quant.is_none_or(is_word) || !revision.split('/').all(is_word) {
        return Err("its file, quantisation or revision has characters that the hub does not use");
    }
    if file.is_some() && quant.is_some() {
        return Err("name a file or a quantisation, not both");
    }
    let owned = |t: Option<&str>| t.map(str::to_owned);
    Ok(HubName {
        repo: format!("{org}/{repo}"),
        file: owned(file),
        quant: owned(quant),
        revision: revision.into(),
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether a file's name, as a server or a user gives it, stays inside the folder it is put in.
pub(super) fn is_safe_file(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    name.split('/').all(plain) && !name.chars().any(|c| c.is_control() || "\\:?#%\"<>|*".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `text`; `shown` is the kind and the one spelling, or what is wrong.
    fn check(text: &str, shown: &str) {
        let got = match ModelName::parse(text) {
            Ok(name @ ModelName::Short { .. }) => format!("short {name}"),
            Ok(name @ ModelName::Hub(_)) => format!("hub {name}"),
            Ok(name @ ModelName::Url(_)) => format!("url {name}"),
            Ok(name @ ModelName::Path(_)) => format!("path {name}"),
            Err(_) => "error".into(),
        };
        assert_eq!(got, shown, "{text:?}");
    }

    #[test]
    fn names_point_to_their_places() {
        check("smollm2", "short smollm2");
        check("Qwen2.5-Coder:0.5B", "short qwen2.5-coder:0.5b");
        check("org/repo", "hub org/repo");
        check("org/repo:Q4_K_M", "hub org/repo:Q4_K_M");
        check("hf:org/repo/sub/x.gguf@refs/pr/1", "hub org/repo/sub/x.gguf@refs/pr/1");
        check("hf:org/repo@main", "hub org/repo");
        check("https://example.org/x.gguf", "url https://example.org/x.gguf");
        check("./x", "path ./x");
        check("x.gguf", "path x.gguf");
        check("models/x.gguf", "path models/x.gguf");
        check("src/models/x.gguf", "path src/models/x.gguf");
        check("org/repo/x.gguf", "hub org/repo/x.gguf");
        check("src/lib.rs", "path src/lib.rs");
        check("src", "path src");
        check("..", "path ..");
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in
            ["", "a\nb", "a:b:c", "ä", "org/", "hf:repo", "org/repo/x.gguf:Q4", "org/repo/../x", "org/repo:"]
        {
            check(text, "error");
        }
    }

    #[test]
    fn a_file_stays_in_its_folder() {
        for name in ["config.json", "sub/x-00001-of-00002.gguf"] {
            assert!(is_safe_file(name), "{name}");
        }
        for name in ["", "/x", "../x", "a//b", "a/./b", "a\\b", "c:x", "x?y"] {
            assert!(!is_safe_file(name), "{name}");
        }
    }
}
