//! The Hugging Face hub: which files a repository has, and fetching them into the cache that every client of the hub
//! shares, so that a model fetched by one is there for all.
//!
//! ```text
//! $HF_HUB_CACHE/models--ORG--REPO/refs/REVISION             the commit that the revision stood for
//!                                 snapshots/COMMIT/FILE     a link to ../../blobs/ETAG
//!                                 blobs/ETAG                SHA-256 of a large file, git's id of a small one
//! ```
//! Where things lie in the cache is for `hf-hub` to say. Its client (feature `ureq`) is left out: it waits without limit
//! for a server that does not answer, cannot be cancelled, and checks neither a file's SHA-256 nor that a resumed answer
//! continues what is there; [`Http`] does all of that, for every source. Deliberately absent: uploading, datasets, and
//! the hub's own transfer protocol: its plain HTTP addresses serve the same bytes.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use kinglet_formats::gguf::shard_names;
use serde::Deserialize;

use super::error::{AtPath, CatalogError, Result};
use super::http::{Http, Wanted};
use super::name::{HubName, is_safe_file};
use super::progress::{Event, Progress};
use super::store::{self, ModelFile, make_parent};
use crate::files::read_text;

/// Bytes of a file that holds an access token, at most.
const MAX_TOKEN: usize = 1 << 16;

/// Quantisations in the order in which they are chosen when the name says none.
const PREFERRED: &[&str] = &["Q4_K_M", "Q8_0", "Q4_0", "Q5_K_M", "Q6_K", "F16", "BF16"];
/// Files of a repository in the safetensors layout that a model needs.
const FOLDER_ENDS: &[&str] = &[".safetensors", ".safetensors.index.json", ".jinja", ".model"];
const FOLDER_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
];

/// Where repositories keep the model in ONNX.
const ONNX: [&str; 2] = ["onnx/model.onnx", "model.onnx"];
/// What stands beside it: its vocabulary, how vectors of words become one, how pictures are prepared.
const BESIDE_ONNX: &[&str] =
    &["config.json", "tokenizer.json", "1_Pooling/config.json", "preprocessor_config.json"];

/// How the hub is reached.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// `HF_ENDPOINT`: the hub's address or a mirror's.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or the content of the file `token` in `HF_HOME`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: use the cache only.
    pub offline: bool,
}

impl HubSettings {
    /// As the environment variables of the hub's own clients say.
    pub fn from_env() -> HubSettings {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let home_folder = || std::env::home_dir().unwrap_or_default().join(".cache");
        let cache_folder = || var("XDG_CACHE_HOME").map_or_else(home_folder, PathBuf::from);
        let home = var("HF_HOME").map_or_else(|| cache_folder().join("huggingface"), PathBuf::from);
        let token_file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let stored_token =
            || read_text(&token_file, MAX_TOKEN).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        let on = |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        HubSettings {
            endpoint: var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            cache: var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            token: var("HF_TOKEN").or_else(stored_token),
            offline: var("HF_HUB_OFFLINE").is_some_and(on),
        }
    }
}

/// The hub and its cache.
pub(super) struct Hub {
    settings: HubSettings,
    /// Set once the hub was found unreachable: why.
    unreachable: OnceLock<String>,
}

/// A file of a repository, as the hub lists it.
#[derive(Clone, Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

impl Hub {
    pub(super) fn new(settings: HubSettings) -> Hub {
        Hub { settings, unreachable: OnceLock::new() }
    }

    /// Whether the network must not be used.
    pub(super) fn offline(&self) -> bool {
        self.settings.offline
    }

    /// The model's files in the cache, if they are all there; no network. Also the commit they are of.
    pub(super) fn cached(&self, name: &HubName) -> Option<(String, Vec<ModelFile>)> {
        let reference = self.folder(name).join("refs").join(&name.revision);
        let commit = fs::read_to_string(reference).unwrap_or(name.revision.clone());
        let snapshot = self.cache(name).pointer_path(commit.trim());
        let mut names = Vec::new();
        list_files(&snapshot, "", &mut names);
        let chosen = choose(&names, name).ok()?;
        let file = |n: &String| {
            let path = snapshot.join(n);
            let bytes = fs::metadata(&path).ok()?.len();
            Some(ModelFile { name: own_name(n), path, bytes, sha256: None, owned: false })
        };
        let files: Option<Vec<_>> = chosen.iter().map(file).collect();
        files.map(|files| (commit.trim().to_owned(), files))
    }

    /// Fetches what of the model is not in the cache. Also hands back the commit that it is of.
    pub(super) fn pull(
        &self,
        http: &Http,
        name: &HubName,
        progress: &dyn Progress,
    ) -> Result<(String, Vec<ModelFile>)> {
        if self.settings.offline {
            return self.cached(name).ok_or_else(|| CatalogError::Offline { what: name.to_string() });
        }
        let listing = self.listing(http, name)?;
        let names: Vec<String> = listing.siblings.iter().map(|s| s.rfilename.clone()).collect();
        let mut files = Vec::new();
        for chosen in choose(&names, name)? {
            let missing =
                || CatalogError::NotOneModel { place: name.repo.clone(), why: format!("it lacks {chosen}") };
            let sibling = listing.siblings.iter().find(|s| s.rfilename == chosen).ok_or_else(missing)?;
            let sibling = self.described(http, name, &listing.sha, sibling)?;
            files.push(self.pull_file(http, name, &listing.sha, &sibling, progress)?);
        }
        self.cache(name).create_ref(&listing.sha).at("write", &self.folder(name).join("refs"))?;
        Ok((listing.sha, files))
    }

    fn listing(&self, http: &Http, name: &HubName) -> Result<Listing> {
        if let Some(why) = self.unreachable.get() {
            return Err(CatalogError::Unreachable {
                place: self.settings.endpoint.clone(),
                why: why.clone(),
            });
        }
        let endpoint = self.settings.endpoint.trim_end_matches('/');
        let revision = name.revision.replace('/', "%2F");
        let url = format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", name.repo);
        let text = http.text(&url, self.settings.token.as_deref()).inspect_err(|e| {
            if let CatalogError::Unreachable { why, .. } = e {
                let _ = self.unreachable.set(why.clone());
            }
        })?;
        let bad = |why: String| CatalogError::BadAnswer { url: url.clone(), why };
        let mut listing: Listing = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let safe = |s: &Sibling| stays_inside(&s.rfilename) && s.etag().is_none_or(is_plain);
        if !is_plain(&listing.sha) || !listing.siblings.iter().all(safe) {
            return Err(bad("it lists a file name or a checksum that cannot be one".into()));
        }
        listing.siblings.retain(|s| is_safe_file(&s.rfilename));
        Ok(listing)
    }

    /// The entry, completed by what the server says of the file itself where the listing, as mirrors give it, does not.
    fn described(&self, http: &Http, name: &HubName, commit: &str, sibling: &Sibling) -> Result<Sibling> {
        if sibling.etag().is_some() {
            return Ok(sibling.clone());
        }
        let url = self.address(name, commit, &sibling.rfilename);
        let (etag, bytes) = http.describe(&url, self.settings.token.as_deref())?;
        let etag = etag.filter(|etag| is_plain(etag)).ok_or_else(|| CatalogError::BadAnswer {
            url,
            why: "neither the listing nor the server gives a checksum".into(),
        })?;
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        let lfs = bytes.filter(|_| is_sha256).map(|size| Lfs { sha256: etag.to_ascii_lowercase(), size });
        Ok(Sibling { rfilename: sibling.rfilename.clone(), size: bytes, blob_id: Some(etag), lfs })
    }

    /// Where the hub serves a file, each part of its name in the form that addresses take.
    fn address(&self, name: &HubName, commit: &str, file: &str) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
        let file: String = file
            .bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        format!("{}/{}/resolve/{commit}/{file}", self.settings.endpoint.trim_end_matches('/'), name.repo)
    }

    fn pull_file(
        &self,
        http: &Http,
        name: &HubName,
        commit: &str,
        sibling: &Sibling,
        progress: &dyn Progress,
    ) -> Result<ModelFile> {
        let file = &sibling.rfilename;
        let etag = sibling.etag().ok_or_else(|| CatalogError::BadAnswer {
            url: self.settings.endpoint.clone(),
            why: format!("the listing gives no checksum for {file}"),
        })?;
        let blob = self.folder(name).join("blobs").join(etag);
        let mut owned = false;
        if !sibling.is_whole(&blob) {
            // The lock that the hub's other clients take, too.
            let locks = self.settings.cache.join(".locks").join(repo(name).folder_name());
            let _lock = store::lock(&locks.join(format!("{etag}.lock")), progress)?;
            owned = !sibling.is_whole(&blob);
            if owned {
                self.fetch_blob(http, name, commit, sibling, &blob, progress)?;
            }
        }
        progress.event(Event::Done { file });
        let path = self.cache(name).pointer_path(commit).join(file);
        link(&blob, &path)?;
        let bytes = fs::metadata(&path).at("read", &path)?.len();
        let sha256 = sibling.lfs.as_ref().map(|l| l.sha256.clone());
        Ok(ModelFile { name: own_name(file), path, bytes, sha256, owned })
    }

    fn fetch_blob(
        &self,
        http: &Http,
        name: &HubName,
        commit: &str,
        sibling: &Sibling,
        blob: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let partial = blob.with_extension("incomplete");
        make_parent(&partial)?;
        let file = sibling.rfilename.as_str();
        let wanted = Wanted {
            url: &self.address(name, commit, file),
            token: self.settings.token.as_deref(),
            file,
            bytes: sibling.bytes(),
            sha256: sibling.lfs.as_ref().map(|l| l.sha256.as_str()),
        };
        http.fetch(&wanted, &partial, progress)?;
        fs::rename(&partial, blob).at("write", blob)
    }

    /// The repository's place in the cache.
    fn cache(&self, name: &HubName) -> CacheRepo {
        Cache::new(self.settings.cache.clone()).repo(repo(name))
    }

    fn folder(&self, name: &HubName) -> PathBuf {
        self.settings.cache.join(repo(name).folder_name())
    }
}

fn repo(name: &HubName) -> Repo {
    Repo::with_revision(name.repo.clone(), RepoType::Model, name.revision.clone())
}

impl Sibling {
    /// The name of its content in the cache.
    fn etag(&self) -> Option<&str> {
        self.lfs.as_ref().map(|l| l.sha256.as_str()).or(self.blob_id.as_deref())
    }

    fn bytes(&self) -> Option<u64> {
        self.lfs.as_ref().map(|l| l.size).or(self.size)
    }

    /// Whether its content is in the cache.
    fn is_whole(&self, blob: &Path) -> bool {
        fs::metadata(blob).is_ok_and(|m| self.bytes().is_none_or(|bytes| bytes == m.len()))
    }
}

/// Which of a repository's files make up the model that `name` means.
fn choose(names: &[String], name: &HubName) -> Result<Vec<String>> {
    let wrong = |why: String| Err(CatalogError::NotOneModel { place: name.repo.clone(), why });
    if let Some(file) = &name.file {
        return match names.iter().find(|n| *n == file) {
            Some(found) => Ok(with_parts(found)),
            None => wrong(format!("it has no file {file}")),
        };
    }
    let models: Vec<&String> = names.iter().filter(|n| is_whole_model(n)).collect();
    if let Some(quant) = &name.quant {
        return match models.iter().find(|n| has_quant(n, quant)) {
            Some(found) => Ok(with_parts(found)),
            None => wrong(format!("no file is quantised as {quant}; there are {}", list(&models))),
        };
    }
    if models.is_empty() {
        let sentences = names.iter().any(|n| n == "1_Pooling/config.json");
        let chosen = sentences.then(|| in_onnx(names)).flatten();
        let chosen = chosen.or_else(|| folder(names)).or_else(|| in_onnx(names));
        return chosen.map_or_else(|| wrong("it has neither GGUF, safetensors nor ONNX files".into()), Ok);
    }
    let best = PREFERRED.iter().find_map(|quant| models.iter().find(|n| has_quant(n, quant)));
    Ok(with_parts(best.unwrap_or(&models[0])))
}

/// A GGUF file with a language model: the first part of a split one counts, a projector or an importance matrix not.
fn is_whole_model(name: &str) -> bool {
    let base = base_name(name).to_ascii_lowercase();
    base.ends_with(".gguf")
        && !base.starts_with("mmproj")
        && !base.contains("imatrix")
        && shard_names(&base).is_none_or(|parts| parts[0] == base)
}

/// Whether `quant` is a word of the file's name: `q4` is not one of `x-q4_k_m.gguf`.
fn has_quant(name: &str, quant: &str) -> bool {
    let (name, quant) = (base_name(name).to_ascii_lowercase(), quant.to_ascii_lowercase());
    let is_edge = |c: Option<char>| c.is_none_or(|c| "-.".contains(c));
    name.match_indices(&quant).any(|(at, found)| {
        is_edge(name[..at].chars().next_back()) && is_edge(name[at + found.len()..].chars().next())
    })
}

/// The file, or all parts of the split model that it belongs to.
fn with_parts(name: &str) -> Vec<String> {
    shard_names(name).unwrap_or_else(|| vec![name.to_owned()])
}

/// The files of a repository in the safetensors layout.
fn folder(names: &[String]) -> Option<Vec<String>> {
    let needed = |n: &&String| {
        !n.contains('/')
            && (FOLDER_FILES.contains(&n.as_str()) || FOLDER_ENDS.iter().any(|end| n.ends_with(end)))
    };
    let mut files: Vec<String> = names.iter().filter(needed).cloned().collect();
    // Some repositories carry the weights a second time, under other names and in another layout.
    let is_model = |n: &String| n.starts_with("model") && n.ends_with(".safetensors");
    if files.iter().any(is_model) {
        files.retain(|n| is_model(n) || !n.ends_with(".safetensors"));
    }
    let whole = files.iter().any(|n| n == "config.json") && files.iter().any(|n| n.ends_with(".safetensors"));
    whole.then_some(files)
}

/// The model in ONNX, with its weights where they lie beside it, and what it needs to be used.
fn in_onnx(names: &[String]) -> Option<Vec<String>> {
    let there = |name: &str| names.iter().any(|n| n == name);
    let usual = ONNX.iter().find(|name| there(name)).map(|name| (*name).to_owned());
    let model =
        usual.or_else(|| match &names.iter().filter(|n| n.ends_with(".onnx")).collect::<Vec<_>>()[..] {
            [one] => Some((*one).clone()),
            _ => None,
        })?;
    let weights = ["_data", ".data"].map(|end| format!("{model}{end}"));
    let beside = weights.into_iter().chain(BESIDE_ONNX.iter().map(|name| (*name).to_owned()));
    let beside: Vec<String> = beside.filter(|name| there(name)).collect();
    Some([vec![model], beside].concat())
}

fn list(models: &[&String]) -> String {
    if models.is_empty() {
        return "no GGUF files".into();
    }
    models.iter().map(|m| base_name(m)).collect::<Vec<_>>().join(", ")
}

/// The name of a file in its model: GGUF files stand alone, all others keep their folders.
fn own_name(name: &str) -> String {
    if name.ends_with(".gguf") { base_name(name) } else { name.to_owned() }
}

fn base_name(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// Whether a commit or a checksum can be the name of a file.
fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether a name leads out of its folder nowhere; only then can a listing be trusted at all.
fn stays_inside(name: &str) -> bool {
    !name.starts_with('/') && !name.contains('\\') && !name.split('/').any(|part| part == "..")
}

/// Names of the files below `folder`, with `/` between folders.
fn list_files(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    /// Folders within folders: more are a link that leads back.
    const DEEPEST: usize = 6;
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() && prefix.matches('/').count() < DEEPEST {
            list_files(&path, &format!("{name}/"), names);
        } else if path.is_file() {
            names.push(name);
        }
    }
    names.sort();
}

/// Makes `path` lead to `blob`, by a relative link as the hub's clients do.
fn link(blob: &Path, path: &Path) -> Result<()> {
    make_parent(path)?;
    if path.exists() {
        return Ok(());
    }
    let _ = fs::remove_file(path); // A link that leads nowhere.
    let up =
        path.components().rev().skip(1).take_while(|c| *c != Component::Normal("snapshots".as_ref())).count()
            + 1;
    let mut target: PathBuf = std::iter::repeat_n("..", up).collect();
    target.push("blobs");
    target.push(blob.file_name().unwrap_or_default());
    symlink_or_move(&target, blob, path).at("write", path)
}

#[cfg(unix)]
fn symlink_or_move(target: &Path, _blob: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Where links need a privilege, the hub's clients put the content itself into the snapshot.
#[cfg(not(unix))]
fn symlink_or_move(_target: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    fs::rename(blob, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ModelName;

    /// Chooses among `names` for the model `text`; `shown` is the choice or the error.
    fn check(names: &[&str], text: &str, shown: &str) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let Ok(ModelName::Hub(name)) = ModelName::parse(text) else { panic!("{text}") };
        let got = choose(&names, &name).map_or_else(|e| e.to_string(), |files| files.join(" "));
        assert_eq!(got, shown);
    }

    #[test]
    fn one_model_is_chosen_from_a_repository() {
        let gguf = ["README.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "mmproj-m-f16.gguf", "sub/m-IQ2_XS.gguf"];
        check(&gguf, "o/r", "m-Q4_K_M.gguf");
        check(&gguf, "o/r:q8_0", "m-Q8_0.gguf");
        check(&gguf, "o/r:IQ2_XS", "sub/m-IQ2_XS.gguf");
        check(&gguf, "o/r/mmproj-m-f16.gguf", "mmproj-m-f16.gguf");
        check(
            &gguf,
            "o/r:Q4",
            "o/r: no file is quantised as Q4; there are m-Q8_0.gguf, m-Q4_K_M.gguf, m-IQ2_XS.gguf",
        );
        check(&gguf, "o/r/x.gguf", "o/r: it has no file x.gguf");
    }

    #[test]
    fn a_split_model_comes_whole() {
        let parts = ["m-q4_k_m-00001-of-00002.gguf", "m-q4_k_m-00002-of-00002.gguf"];
        check(&parts, "o/r:Q4_K_M", "m-q4_k_m-00001-of-00002.gguf m-q4_k_m-00002-of-00002.gguf");
        check(&parts, "o/r", "m-q4_k_m-00001-of-00002.gguf m-q4_k_m-00002-of-00002.gguf");
    }

    #[test]
    fn a_safetensors_repository_comes_with_its_tokenizer() {
        let names = ["config.json", "model.safetensors", "onnx/model.onnx", "tokenizer.json", "train.py"];
        check(&names, "o/r", "config.json model.safetensors tokenizer.json");
        let twice = ["config.json", "consolidated.safetensors", "model-00001-of-00001.safetensors"];
        check(&twice, "o/r", "config.json model-00001-of-00001.safetensors");
        check(&["train.py"], "o/r", "o/r: it has neither GGUF, safetensors nor ONNX files");
    }

    #[test]
    fn vectors_of_sentences_and_pictures_come_with_what_they_need() {
        let sentences = [
            "1_Pooling/config.json",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "tokenizer.json",
        ];
        check(&sentences, "o/r", "onnx/model.onnx config.json tokenizer.json 1_Pooling/config.json");
        let pictures = ["config.json", "model.safetensors", "preprocessor_config.json", "pytorch_model.bin"];
        check(&pictures, "o/r", "config.json model.safetensors preprocessor_config.json");
        let split = ["big.onnx", "big.onnx_data", "config.json", "README.md"];
        check(&split, "o/r", "big.onnx big.onnx_data config.json");
        check(&["a.onnx", "b.onnx"], "o/r", "o/r: it has neither GGUF, safetensors nor ONNX files");
    }
}
