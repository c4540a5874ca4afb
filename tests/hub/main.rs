//! Fetching of models from a hub: a server on this machine speaks its protocol. No test needs a network.

mod repository;
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fabric::models::hub::{HubError, ModelHub};
use fabric::models::{ModelOptions, StableDiffusion};
use serde_json::json;
use tempfile::TempDir;

use repository::{MODEL, READ, UNET, WEIGHTS_BYTES, of_folder, small};
use server::{COMMIT, Fault, HubServer, LISTING, Served, etag};

fn new_cache() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn client(server: &HubServer, cache: &TempDir) -> ModelHub {
    ModelHub::in_cache(cache.path()).with_endpoint(server.url()).with_timeout(Duration::from_secs(20))
}

/// Fetches with a new cache, and returns the error.
fn error_of(server: &HubServer) -> HubError {
    client(server, &new_cache()).fetch(MODEL).expect_err("an error")
}

/// Paths of the files in the model's folder.
fn files_in(folder: &Path) -> BTreeSet<String> {
    of_folder(folder).into_keys().collect()
}

fn paths(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Bytes that were sent of one file.
fn bytes_of(served: &[Served], path: &str) -> usize {
    served.iter().filter(|request| request.path == path).map(|request| request.bytes).sum()
}

/// Number of requests for the content of one file.
fn downloads_of(served: &[Served], path: &str) -> usize {
    served.iter().filter(|request| request.path == path && request.method == "GET").count()
}

/// Asserts that nothing lies beside the cache of a model and its locks.
fn assert_nothing_outside(cache: &TempDir) {
    let entries = fs::read_dir(cache.path()).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let names: BTreeSet<String> = names.collect();
    assert!(names.is_subset(&paths(&[".locks", "models--owner--name"])), "{names:?}");
}

#[test]
fn a_fetched_model_opens() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let files = of_folder(&golden);
    let server = HubServer::start(files.clone());
    let cache = new_cache();
    let folder = client(&server, &cache).fetch(MODEL).expect("a model");
    for path in files_in(&folder) {
        assert!(fs::read(folder.join(&path)).expect("a file") == files[&path], "{path}");
    }
    assert!(!folder.join("controlnet").exists() && !folder.join("lora").exists());
    let device = fabric::default_device().expect("a device");
    StableDiffusion::open(folder, &device, &ModelOptions::default()).expect("an open model");
    assert_nothing_outside(&cache);
}

#[test]
fn only_files_that_the_loaders_read_are_fetched() {
    let server = HubServer::start(small());
    let cache = new_cache();
    let folder = client(&server, &cache).fetch(MODEL).expect("a model");
    assert_eq!(files_in(&folder), paths(&READ));
    let asked: BTreeSet<String> = server.take_served().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, paths(&[&READ[..], &[LISTING]].concat()));
    // The names are those of the hub's other tools.
    let model = cache.path().join("models--owner--name");
    assert_eq!(folder, model.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(model.join("refs/main")).expect("a file"), COMMIT);
    assert!(model.join("blobs").join(etag(UNET, &small()[UNET])).is_file());
}

#[test]
fn a_variant_is_preferred_where_it_exists() {
    let server = HubServer::start(small());
    let cache = new_cache();
    let folder = client(&server, &cache).with_variant("fp16").fetch(MODEL).expect("a model");
    let mut weights = files_in(&folder);
    weights.retain(|path| path.ends_with(".safetensors"));
    let expected = [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(weights, paths(&expected));
}

#[test]
fn sharded_weights_are_fetched_whole() {
    let mut files = small();
    let weights = files.remove(UNET).expect("weights");
    let (first, second) = ("part-1.safetensors", "part-2.safetensors");
    let index = json!({ "weight_map": { "a": first, "b": second, "c": first } });
    let index_path = "unet/diffusion_pytorch_model.safetensors.index.json";
    files.insert(index_path.to_owned(), index.to_string().into_bytes());
    files.insert(format!("unet/{first}"), weights[..100].to_vec());
    files.insert(format!("unet/{second}"), weights[100..].to_vec());
    files.remove("unet/diffusion_pytorch_model.fp16.safetensors");
    let server = HubServer::start(files.clone());
    let cache = new_cache();
    let folder = client(&server, &cache).fetch(MODEL).expect("a model");
    let (fetched, expected) = (files_in(&folder), [index_path, "unet/part-1.safetensors", "unet/part-2.safetensors"]);
    assert!(paths(&expected).is_subset(&fetched), "{fetched:?}");
    let offline = client(&server, &cache).with_offline(true);
    offline.fetch(MODEL).expect("a whole model");
    fs::remove_file(folder.join("unet/part-2.safetensors")).expect("a file");
    offline.fetch(MODEL).expect_err("a missing shard");

    files.remove("unet/part-2.safetensors");
    let error = error_of(&HubServer::start(files)).to_string();
    assert!(error.contains("unet/part-2.safetensors"), "{error}");
}

#[test]
fn pickles_are_fetched_only_where_they_can_be_read() {
    let mut files = small();
    files.retain(|path, _| !(path.starts_with("unet/") && path.ends_with(".safetensors")));
    let server = HubServer::start(files);
    let fetched = client(&server, &new_cache()).fetch(MODEL);
    if cfg!(feature = "pickle") {
        fetched.expect("a model");
    } else {
        let error = fetched.expect_err("no safetensors").to_string();
        assert!(error.contains("feature `pickle`"), "{error}");
    }
    let asked = server.take_served();
    let pickles: BTreeSet<&str> = asked.iter().map(|one| &*one.path).filter(|path| path.ends_with(".bin")).collect();
    let expected: Vec<&str> = if cfg!(feature = "pickle") { vec!["unet/diffusion_pytorch_model.bin"] } else { vec![] };
    assert_eq!(pickles.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_cut_download_is_continued_at_once() {
    let server = HubServer::start(small());
    server.set_fault(UNET, Fault::Cut(7_000));
    let cache = new_cache();
    let folder = client(&server, &cache).fetch(MODEL).expect("a model");
    assert!(fs::read(folder.join(UNET)).expect("a file") == small()[UNET]);
    let served = server.take_served();
    assert_eq!((downloads_of(&served, UNET), bytes_of(&served, UNET)), (3, WEIGHTS_BYTES));
}

#[test]
fn a_cut_download_is_continued_by_the_next_fetch() {
    let server = HubServer::start(small());
    server.set_fault(UNET, Fault::Cut(1_000));
    let cache = new_cache();
    let error = client(&server, &cache).fetch(MODEL).expect_err("a cut");
    assert!(matches!(error, HubError::Interrupted { expected: 20_000, got: 6_000, .. }), "{error:?}");
    assert!(error.to_string().contains("continues there"), "{error}");
    let before = server.take_served();
    server.heal();
    let folder = client(&server, &cache).fetch(MODEL).expect("a model");
    assert!(fs::read(folder.join(UNET)).expect("a file") == small()[UNET]);
    let after = server.take_served();
    assert_eq!((bytes_of(&before, UNET), bytes_of(&after, UNET)), (6_000, WEIGHTS_BYTES - 6_000));
    // What was complete before is not asked for again.
    assert_eq!(downloads_of(&after, "unet/config.json"), 0);
}

#[test]
fn a_server_without_ranges_sends_the_whole_file_again() {
    let server = HubServer::start(small());
    server.set_fault(UNET, Fault::Cut(1_000));
    let cache = new_cache();
    client(&server, &cache).fetch(MODEL).expect_err("a cut");
    server.set_fault(UNET, Fault::NoRanges);
    server.take_served();
    let folder = client(&server, &cache).fetch(MODEL).expect("a model");
    assert!(fs::read(folder.join(UNET)).expect("a file") == small()[UNET]);
    assert_eq!(bytes_of(&server.take_served(), UNET), WEIGHTS_BYTES);
}

#[test]
fn damage_in_a_continued_download_is_found() {
    let server = HubServer::start(small());
    server.set_fault(UNET, Fault::Cut(1_000));
    let cache = new_cache();
    client(&server, &cache).fetch(MODEL).expect_err("a cut");
    let partial = format!("models--owner--name/blobs/{}.partial", etag(UNET, &small()[UNET]));
    let partial = cache.path().join(partial);
    let mut bytes = fs::read(&partial).expect("the unfinished download");
    bytes[10] ^= 1;
    fs::write(&partial, bytes).expect("a file");
    server.heal();
    let error = client(&server, &cache).fetch(MODEL).expect_err("damage");
    assert!(matches!(error, HubError::WrongDigest { .. }), "{error:?}");
    assert!(!partial.exists());
    client(&server, &cache).fetch(MODEL).expect("a model, from the start");
}

#[test]
fn a_complete_model_costs_one_request() {
    let server = HubServer::start(small());
    let cache = new_cache();
    let first = client(&server, &cache).fetch(MODEL).expect("a model");
    server.take_served();
    assert_eq!(client(&server, &cache).fetch(MODEL).expect("a model"), first);
    let served = server.take_served();
    assert_eq!(served.iter().map(|request| &*request.path).collect::<Vec<_>>(), [LISTING]);
}

#[test]
fn a_complete_model_is_used_without_a_network() {
    let server = HubServer::start(small());
    let cache = new_cache();
    let hub = client(&server, &cache);
    let first = hub.fetch(MODEL).expect("a model");
    server.take_served();
    assert_eq!(hub.clone().with_offline(true).fetch(MODEL).expect("a model"), first);
    assert_eq!(hub.clone().with_offline(true).with_revision(COMMIT).fetch(MODEL).expect("a model"), first);
    assert!(server.take_served().is_empty());
    server.set_fault(LISTING, Fault::Status(503));
    assert_eq!(hub.fetch(MODEL).expect("a model"), first);
    drop(server);
    assert_eq!(hub.fetch(MODEL).expect("a model"), first);

    let error = hub.clone().with_offline(true).fetch("owner/other").expect_err("another model");
    assert!(matches!(error, HubError::NotInCache { .. }), "{error:?}");
    let error = hub.fetch("owner/other").expect_err("another model");
    assert!(matches!(error, HubError::Unreachable { .. }) && error.to_string().contains("HF_ENDPOINT"), "{error}");
    fs::remove_file(first.join(UNET)).expect("a file");
    let error = hub.with_offline(true).fetch(MODEL).expect_err("a missing file");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn another_revision_shares_equal_files() {
    let server = HubServer::start(small());
    let cache = new_cache();
    let main = client(&server, &cache).fetch(MODEL).expect("a model");
    let request = client(&server, &cache).with_revision("refs/pr/1").fetch(MODEL).expect("a model");
    assert_eq!(main, request);
    // As if the commit were another one.
    fs::rename(&main, main.with_file_name("f".repeat(40))).expect("a folder");
    server.take_served();
    client(&server, &cache).fetch(MODEL).expect("a model");
    let served = server.take_served();
    assert!(READ.iter().all(|path| bytes_of(&served, path) == 0), "{served:?}");
}

#[test]
fn threads_download_each_file_once() {
    let server = HubServer::start(small());
    let cache = new_cache();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client(&server, &cache).fetch(MODEL).expect("a model"));
        }
    });
    let served = server.take_served();
    for path in READ {
        assert_eq!(downloads_of(&served, path), 1, "{path}");
    }
}

#[test]
fn a_file_of_another_size_is_refused() {
    for size in [WEIGHTS_BYTES - 1, WEIGHTS_BYTES + 1, usize::MAX] {
        let server = HubServer::start(small());
        server.set_fault(UNET, Fault::Size(size));
        let cache = new_cache();
        let error = client(&server, &cache).fetch(MODEL).expect_err("another size");
        let HubError::WrongSize { expected, got, .. } = error else { panic!("{error:?}") };
        assert_eq!((expected, got), (size as u64, WEIGHTS_BYTES as u64));
        let model = cache.path().join("models--owner--name");
        assert!(!model.join("snapshots").join(COMMIT).join(UNET).exists());
        assert!(files_in(&model.join("blobs")).iter().all(|name| !name.ends_with(".partial")));
        assert!(!model.join("refs").exists());
    }
}

#[test]
fn a_file_with_another_content_is_refused() {
    let server = HubServer::start(small());
    server.set_fault(UNET, Fault::Etag("a".repeat(64)));
    let cache = new_cache();
    let error = client(&server, &cache).fetch(MODEL).expect_err("another content");
    let HubError::WrongDigest { expected, got, .. } = error else { panic!("{error:?}") };
    assert_eq!((expected, got), ("a".repeat(64), etag(UNET, &small()[UNET])));
    server.heal();
    client(&server, &cache).fetch(MODEL).expect("a model");
}

#[test]
fn refusals_say_which_variable_helps() {
    let server = HubServer::start(small());
    for (path, status) in [(LISTING, 401), (LISTING, 403), (UNET, 401), ("model_index.json", 403)] {
        server.heal();
        server.set_fault(path, Fault::Status(status));
        let error = error_of(&server);
        assert!(matches!(&error, HubError::Denied { status: got, .. } if *got == status), "{error:?}");
        assert!(error.to_string().contains("no token") && error.to_string().contains("HF_TOKEN"), "{error}");
    }
    let error = client(&server, &new_cache()).with_token("hf_secret").fetch(MODEL).expect_err("a refusal").to_string();
    assert!(error.contains("the token from `ModelHub::with_token`") && !error.contains("hf_secret"), "{error}");
    server.heal();
    for hub in [client(&server, &new_cache()).with_revision("other"), client(&server, &new_cache())] {
        let error = hub.fetch("owner/name-2").expect_err("no such model");
        assert!(matches!(error, HubError::NotFound { .. }) && error.to_string().contains("HF_TOKEN"), "{error}");
    }
    let error = client(&server, &new_cache()).with_revision("other").fetch(MODEL).expect_err("no such revision");
    assert!(matches!(error, HubError::NotFound { .. }) && error.to_string().contains("revision"), "{error}");
    server.set_fault(LISTING, Fault::Status(429));
    let error = error_of(&server);
    assert!(matches!(error, HubError::Status { status: 429, .. }) && error.to_string().contains("wait"), "{error}");
}

#[test]
fn the_token_is_sent_to_the_hub_alone() {
    let other = HubServer::start(small());
    let server = HubServer::start(small());
    server.set_fault(UNET, Fault::Redirect(other.url()));
    let cache = new_cache();
    let hub = client(&server, &cache).with_token(" hf_secret\n");
    assert!(!format!("{hub:?}").contains("hf_secret"));
    hub.fetch(MODEL).expect("a model");
    let served = server.take_served();
    assert!(served.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")), "{served:?}");
    let elsewhere = other.take_served();
    assert_eq!(bytes_of(&elsewhere, UNET), WEIGHTS_BYTES);
    assert!(elsewhere.iter().all(|request| request.authorization.is_none()), "{elsewhere:?}");
}

#[test]
fn hostile_listings_are_refused() {
    let server = HubServer::start(small());
    let listing = |commit: &str, path: &str| json!({ "sha": commit, "siblings": [{ "rfilename": path }] }).to_string();
    for path in ["../../evil", "/etc/evil", "unet/../../evil", "unet\\..\\evil", "C:\\evil", "unet//evil", "unet/."] {
        server.set_fault(LISTING, Fault::Text(listing(COMMIT, path)));
        let error = error_of(&server);
        assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
    }
    for commit in ["../../evil", "main", ""] {
        server.set_fault(LISTING, Fault::Text(listing(commit, "model_index.json")));
        let error = error_of(&server);
        assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
    }
    server.set_fault(LISTING, Fault::Text("<html>".to_owned()));
    let error = error_of(&server);
    assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
}

#[test]
fn hostile_headers_are_refused() {
    let server = HubServer::start(small());
    let faults = [
        Fault::Etag("../../evil".to_owned()),
        Fault::Etag("..".to_owned()),
        Fault::Etag("a\\b".to_owned()),
        Fault::Etag(String::new()),
        Fault::Commit("f".repeat(40)),
        Fault::Redirect("file:///etc/passwd?".to_owned()),
    ];
    for fault in faults {
        let cache = new_cache();
        let is_redirect = matches!(fault, Fault::Redirect(_));
        server.set_fault(UNET, fault);
        let error = client(&server, &cache).fetch(MODEL).expect_err("a hostile header");
        assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
        assert_nothing_outside(&cache);
        assert_eq!(error.to_string().contains("redirect"), is_redirect, "{error}");
    }
}

#[test]
fn hostile_shards_are_refused() {
    let outside = ["../../../evil.safetensors", "/etc/evil.safetensors", "..\\evil.safetensors", ".."];
    for shard in outside.into_iter().chain(["evil.bin", "evil"]) {
        let mut files = small();
        files.remove(UNET);
        files.remove("unet/diffusion_pytorch_model.fp16.safetensors");
        let index = json!({ "weight_map": { "a": shard } }).to_string().into_bytes();
        files.insert("unet/diffusion_pytorch_model.safetensors.index.json".to_owned(), index);
        files.insert("unet/evil.bin".to_owned(), vec![0; 10]);
        let server = HubServer::start(files);
        let cache = new_cache();
        let error = client(&server, &cache).fetch(MODEL).expect_err("a hostile shard");
        assert!(matches!(error, HubError::File(_)) && error.to_string().contains("shard name"), "{error}");
        assert_nothing_outside(&cache);
        assert!(server.take_served().iter().all(|request| !request.path.contains("evil")));
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let start = Instant::now();
    let server = HubServer::start(small());
    let faults = [Fault::Silence, Fault::Hang(5)].map(|fault| (LISTING, fault));
    for (path, fault) in faults.into_iter().chain([(UNET, Fault::Silence), (UNET, Fault::Hang(1_000))]) {
        server.heal();
        server.set_fault(path, fault.clone());
        let cache = new_cache();
        let hub = client(&server, &cache).with_timeout(Duration::from_millis(300));
        let error = hub.fetch(MODEL).expect_err("no answer");
        assert!(matches!(error, HubError::Timeout { .. }), "{path}, {fault:?}: {error:?}");
        assert!(error.to_string().contains("with_timeout"), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn progress_counts_all_weights() {
    let server = HubServer::start(small());
    let cache = new_cache();
    server.set_fault(UNET, Fault::Cut(1_000));
    client(&server, &cache).fetch(MODEL).expect_err("a cut");
    server.heal();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let hub = client(&server, &cache).with_progress(move |progress| {
        let numbers = [progress.file_done_bytes, progress.file_total_bytes, progress.done_bytes, progress.total_bytes];
        into.lock().expect("a list").push((progress.file.to_owned(), numbers));
    });
    hub.fetch(MODEL).expect("a model");
    let seen = seen.lock().expect("a list");
    let all = WEIGHTS_BYTES as u64;
    // The U-Net, of which 6,000 bytes are on disk, comes first.
    assert_eq!(seen.first(), Some(&(UNET.to_owned(), [6_000, all, 6_000, 3 * all])));
    assert!(seen.is_sorted_by_key(|(_, [_, _, done, _])| *done), "{seen:?}");
    assert_eq!(seen.last().map(|(_, numbers)| *numbers), Some([all, all, 3 * all, 3 * all]));
}

#[test]
fn a_panic_of_the_callback_is_an_error() {
    let server = HubServer::start(small());
    let cache = new_cache();
    let hub = client(&server, &cache).with_progress(|progress| panic!("{} is enough", progress.file));
    let error = hub.fetch(MODEL).expect_err("a panic").to_string();
    assert!(error.contains("is enough") && error.contains("progress callback"), "{error}");
}

#[test]
fn other_models_are_refused_before_their_weights_are_downloaded() {
    let refused = |index: &str| {
        let mut files = small();
        files.insert("model_index.json".to_owned(), index.as_bytes().to_vec());
        let server = HubServer::start(files);
        let error = error_of(&server).to_string();
        assert!(server.take_served().iter().all(|request| !request.path.ends_with(".safetensors")), "{error}");
        error
    };
    let error = refused(r#"{ "_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"] }"#);
    assert!(error.contains("FluxPipeline"), "{error}");
    let error = refused(r#"{ "unet": ["diffusers", "UNet3DConditionModel"] }"#);
    assert!(error.contains("UNet3DConditionModel"), "{error}");
    let mut files = small();
    files.remove("model_index.json");
    let error = error_of(&HubServer::start(files));
    assert!(matches!(error, HubError::Incomplete { .. }) && error.to_string().contains("model_index.json"), "{error}");
}

#[test]
fn invalid_settings_send_no_request() {
    let server = HubServer::start(small());
    let hub = || client(&server, &new_cache());
    let refused = [
        hub().fetch("../evil"),
        hub().fetch("owner"),
        hub().with_revision("../evil").fetch(MODEL),
        hub().with_variant("../evil").fetch(MODEL),
        hub().with_token("two words").fetch(MODEL),
        hub().with_endpoint("hub").fetch(MODEL),
        hub().with_endpoint("file:///etc").fetch(MODEL),
        hub().with_endpoint(format!("{}?a=b", server.url())).fetch(MODEL),
    ];
    for result in refused {
        let error = result.expect_err("an invalid setting");
        assert!(matches!(error, HubError::Settings(_)), "{error:?}");
    }
    assert!(server.take_served().is_empty());
}
