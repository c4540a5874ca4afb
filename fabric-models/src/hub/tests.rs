//! Names, addresses, the environment and the selection of files. `tests/hub` has the rest, with a server.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::HubError;
use super::address::{Origin, redirected, without_query};
use super::environment::Environment;
use super::listing::Listing;
use super::names::{ModelName, check_revision, check_variant, is_possible_path};
use super::select::Selection;
use super::token::Token;
use crate::load::Component;

fn model() -> ModelName {
    ModelName::parse("owner/name").expect("a name")
}

/// Settings from variables; the home folder is `/home/me`.
fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let get = |name: &str| variables.get(name).map(OsString::from);
    Environment::from_variables(get, Some(PathBuf::from("/home/me"))).expect("settings")
}

#[test]
fn names_of_models_cannot_lead_out_of_the_cache() {
    let good = ["stabilityai/stable-diffusion-xl-base-1.0", "a/b", "_/x_y", "A-b/1.2"];
    good.iter().for_each(|name| assert_eq!(ModelName::parse(name).expect(name).to_string(), *name));
    assert_eq!(model().folder_name(), "models--owner--name");
    let incomplete = ["", "name", "/", "/name", "owner/", "a/b/c", "/a/b", "C:/b", "https://a/b"];
    let hostile = ["../b", "a/..", "a/.", "./b", "a/b..c", "a\\b/c", "a/b\\c", "a/b c", "a/b%2e", "a/\u{e9}", "a/b\0"];
    for name in incomplete.into_iter().chain(hostile).chain(["a--b/c", "-a/b", "a/b."]) {
        let error = ModelName::parse(name).expect_err(name).to_string();
        assert!(error.contains("expected `owner/name`"), "{error}");
    }
    assert!(ModelName::parse(&format!("a/{}", "b".repeat(97))).is_err());
}

#[test]
fn revisions_and_variants_are_plain_names() {
    for revision in ["main", "fp16", "v1.0", "refs/pr/3", "0123456789abcdef0123456789abcdef01234567"] {
        check_revision(revision).expect(revision);
    }
    for revision in ["", "..", "a/../b", "/main", "main/", "a\\b", "a b", "a?b", "a#b", "a%2f"] {
        check_revision(revision).expect_err(revision);
    }
    check_variant("fp16").expect("a variant");
    for variant in ["", "../x", "fp16.safetensors", "a/b"] {
        check_variant(variant).expect_err(variant);
    }
}

#[test]
fn listed_paths_stay_in_the_folder() {
    for path in ["model_index.json", "unet/config.json", ".gitattributes", "a b: c.png", "a..b"] {
        assert!(is_possible_path(path), "{path}");
    }
    for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\\..\\x", "\\\\host\\x", "a/\0"] {
        assert!(!is_possible_path(path), "{path}");
    }
}

#[test]
fn listings_with_hostile_names_are_refused() {
    let listing = |commit: &str, path: &str| {
        let json = serde_json::json!({ "sha": commit, "siblings": [{ "rfilename": path }], "more": 1 });
        Listing::parse(json.to_string().as_bytes())
    };
    let commit = "a".repeat(40);
    let good = listing(&commit, "unet/config.json").expect("a listing");
    assert_eq!((good.commit.as_str(), good.files.len()), (commit.as_str(), 1));
    let error = listing(&commit, "../../evil").expect_err("a hostile name").to_string();
    assert!(error.contains("../../evil") && error.contains("HF_ENDPOINT"), "{error}");
    for commit in ["", "../..", "main", &"A".repeat(40), &"a".repeat(41)] {
        listing(commit, "unet/config.json").expect_err(commit);
    }
    Listing::parse(b"<html>").expect_err("no JSON");
    good.clone().of_revision("main").expect("a branch");
    good.clone().of_revision(&commit).expect("the commit");
    good.of_revision(&"b".repeat(40)).expect_err("another commit");
}

#[test]
fn redirects_never_leave_https() {
    let from = "https://hub.test/owner/name?x=1";
    let to = |location: &str| redirected(from, location);
    assert_eq!(to("/other/name").as_deref(), Some("https://hub.test/other/name"));
    assert_eq!(to("//cdn.test/x").as_deref(), Some("https://cdn.test/x"));
    assert_eq!(to("https://cdn.test/x?sign=1").as_deref(), Some("https://cdn.test/x?sign=1"));
    for location in ["", "http://hub.test/x", "file:///etc/passwd", "other", "https://", "https://a b/"] {
        assert_eq!(to(location), None, "{location}");
    }
    assert_eq!(redirected("http://hub.test/x", "http://cdn.test/x").as_deref(), Some("http://cdn.test/x"));
    assert_eq!(without_query("https://cdn.test/x?sign=1#y"), "https://cdn.test/x");
}

#[test]
fn servers_differ_by_scheme_host_and_port() {
    let origin = |url: &str| Origin::of(url).expect(url);
    assert_eq!(origin("https://hub.test/a"), origin("https://hub.test/b?c"));
    for other in ["http://hub.test/a", "https://hub.test:444/a", "https://hub.test.evil/a", "https://hub.test@evil/a"] {
        assert_ne!(origin("https://hub.test/a"), origin(other), "{other}");
    }
    let loopback = ["http://localhost:80", "http://127.0.0.1:8080/x", "http://[::1]:80"];
    loopback.iter().for_each(|url| assert!(origin(url).is_loopback(), "{url}"));
    assert!(!origin("https://127.0.0.1.evil/").is_loopback());
}

#[test]
fn variables_of_the_hub_are_read_in_order() {
    let plain = environment(&[]);
    assert_eq!(plain.cache.as_deref(), Some(Path::new("/home/me/.cache/huggingface/hub")));
    assert_eq!((plain.endpoint, plain.token, plain.offline), (None, None, false));
    let cache = |variables: &[(&str, &str)]| environment(variables).cache.expect("a folder");
    let (xdg, home, direct) = (("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c"));
    assert_eq!(cache(&[xdg]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[xdg, home]), Path::new("/h/hub"));
    assert_eq!(cache(&[xdg, home, direct]), Path::new("/c"));
    assert_eq!(cache(&[("HF_HUB_CACHE", ""), home]), Path::new("/h/hub"));
    let set = environment(&[("HF_ENDPOINT", "https://mirror.test"), ("HF_HUB_OFFLINE", "True")]);
    assert_eq!((set.endpoint.as_deref(), set.offline), (Some("https://mirror.test"), true));
    assert!(!environment(&[("HF_HUB_OFFLINE", "0")]).offline);
    let none = Environment::from_variables(|_| None, None).expect("settings");
    assert_eq!(none.cache, None);
}

#[test]
fn the_token_is_that_of_the_variable_or_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().to_str().expect("text");
    assert_eq!(environment(&[("HF_HOME", home)]).token, None);
    std::fs::write(folder.path().join("token"), "hf_file\n").expect("a file");
    let other = folder.path().join("other");
    std::fs::write(&other, " hf_other ").expect("a file");
    let other = other.to_str().expect("text");
    let authorization = |variables: &[(&str, &str)]| {
        environment(variables).token.map(|token| token.authorization()).unwrap_or_default()
    };
    assert_eq!(authorization(&[("HF_HOME", home)]), "Bearer hf_file");
    assert_eq!(authorization(&[("HF_HOME", home), ("HF_TOKEN_PATH", other)]), "Bearer hf_other");
    assert_eq!(authorization(&[("HF_HOME", home), ("HF_TOKEN", "hf_variable")]), "Bearer hf_variable");
}

#[test]
fn the_token_is_in_no_message() {
    let token = Token::new(" hf_secret\n", "HF_TOKEN").expect("a token");
    token.check().expect("a valid token");
    assert_eq!(format!("{token} {token:?}"), "the token from HF_TOKEN Token(HF_TOKEN)");
    let broken = Token::new("hf_secret\u{7}", "HF_TOKEN").expect("a token");
    let error = broken.check().expect_err("a control character").to_string();
    assert!(error.contains("HF_TOKEN") && !error.contains("secret"), "{error}");
    assert_eq!(Token::new(" \n", "HF_TOKEN"), None);
}

fn files(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(ToString::to_string).collect()
}

/// Files of a U-Net with these files of weights.
fn unet_with(weights: &[&str]) -> BTreeSet<String> {
    let mut all = files(&["scheduler/scheduler_config.json", "unet/config.json"]);
    all.extend(weights.iter().map(|name| format!("unet/{name}")));
    all
}

fn select(files: &BTreeSet<String>, variant: Option<&str>) -> Result<Selection, HubError> {
    Selection::new(&model(), files, &[Component::UNet], variant)
}

#[test]
fn safetensors_come_before_pickles_and_the_variant_before_others() {
    let plain = "diffusion_pytorch_model.safetensors";
    let (half, pickle) = ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin");
    let weights = |names: &[&str], variant| {
        let selection = select(&unet_with(names), variant).expect("weights");
        selection.weights.first().map(|path| path.replace("unet/", "")).expect("a file")
    };
    assert_eq!(weights(&[plain, half, pickle], None), plain);
    assert_eq!(weights(&[plain, half, pickle], Some("fp16")), half);
    assert_eq!(weights(&[plain, pickle], Some("fp16")), plain);
    assert_eq!(weights(&[half, pickle], None), half);
    let only_pickle = select(&unet_with(&[pickle]), None);
    if cfg!(feature = "pickle") {
        assert_eq!(only_pickle.expect("weights").weights, [format!("unet/{pickle}")]);
    } else {
        let error = only_pickle.expect_err("no pickles").to_string();
        assert!(error.contains(pickle) && error.contains("feature `pickle`"), "{error}");
    }
}

#[test]
fn missing_files_are_named() {
    let mut all = unet_with(&["diffusion_pytorch_model.safetensors"]);
    all.remove("unet/config.json");
    let error = select(&all, None).expect_err("no configuration").to_string();
    assert!(error.contains("owner/name") && error.contains("`unet/config.json`"), "{error}");
    let error = select(&unet_with(&["flax_model.msgpack"]), None).expect_err("no weights").to_string();
    assert!(error.contains("weights in `unet`") && error.contains("only config.json, flax_model.msgpack"), "{error}");
}

#[test]
fn a_tokenizer_is_fetched_as_it_is_read() {
    let tokenizer = |names: &[&str]| {
        let encoder = ["text_encoder/config.json", "text_encoder/model.safetensors"];
        let mut all = files(&[encoder[0], encoder[1], "scheduler/scheduler_config.json"]);
        all.extend(names.iter().map(|name| format!("tokenizer/{name}")));
        let selection = Selection::new(&model(), &all, &[Component::TextEncoder], None).expect("files");
        let names = selection.small.iter().filter_map(|path| path.strip_prefix("tokenizer/").map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    let whole = ["vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json", "README.md"];
    assert_eq!(tokenizer(&whole), ["vocab.json", "merges.txt", "tokenizer_config.json"]);
    assert_eq!(tokenizer(&["tokenizer.json", "vocab.json"]), ["vocab.json", "tokenizer.json"]);
    assert!(tokenizer(&[]).is_empty());
}
