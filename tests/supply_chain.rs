//! What the library is built from: sources, licences and number of its packages.
//!
//! `cargo deny check` (`deny.toml`) checks more and is not everywhere; these tests need cargo alone.

#![allow(clippy::print_stdout, reason = "a test tells the number of packages")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Most packages of a build with default features, our own among them. It has 192.
const MOST_PACKAGES: usize = 200;

/// All features that need no GPU.
const FEATURES: &str = "ndarray pickle train remote tracing hub";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Lines that `cargo tree` prints about packages that are linked or run at build time.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let common = ["tree", "--offline", "--edges", "normal,build", "--prefix", "none"];
    let made = Command::new(env!("CARGO")).args(common).args(arguments).current_dir(root()).output();
    let made = made.expect("cargo runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).expect("names of packages");
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn all_packages_come_from_the_registry_or_this_repository() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let (mut own, mut others) = (0, 0);
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let start = format!("{name} = \"");
            package.lines().find_map(|line| line.strip_prefix(start.as_str())?.strip_suffix('"'))
        };
        let name = field("name").expect("a name");
        match field("source") {
            Some(source) => {
                assert_eq!(source, registry, "source of `{name}`");
                assert!(field("checksum").is_some(), "`{name}` has no checksum");
                others += 1;
            }
            None => {
                assert!(name.starts_with("fabric-"), "`{name}` is not from the registry");
                own += 1;
            }
        }
    }
    assert!(own >= 5 && others > 100, "{own} packages of our own and {others} others");
}

#[test]
fn a_default_build_is_small_and_has_no_network() {
    let packages = tree(&["--package", "fabric-diffusion", "--format", "{p}"]);
    println!("{} packages in a default build", packages.len());
    assert!(packages.len() <= MOST_PACKAGES, "{} packages, at most {MOST_PACKAGES}: {packages:#?}", packages.len());
    let network = ["tokio", "hyper", "ureq", "reqwest", "rustls", "native-tls", "openssl", "socket2", "axum", "iroh"];
    let name = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let found: Vec<String> = packages.iter().map(name).filter(|name| network.contains(&name.as_str())).collect();
    assert!(found.is_empty(), "{found:?} in a default build");
}

#[test]
fn no_package_of_ours_has_a_build_script() {
    let folders = ["", "fabric-backends", "fabric-core", "fabric-models", "fabric-ipadapter"];
    let examples = ["examples/world", "examples/experiments", "examples/studio"];
    for folder in folders.into_iter().chain(examples) {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        assert!(!manifest.lines().any(|line| line.starts_with("build = ")), "{folder}/Cargo.toml names a build script");
        assert!(!root().join(folder).join("build.rs").exists(), "{folder}/build.rs");
    }
}

#[test]
fn licences_are_those_that_deny_toml_allows() {
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let (_, list) = deny.split_once("[licenses]\nallow = [").expect("a list of licences");
    let (list, _) = list.split_once("\n]").expect("the end of the list");
    let allowed: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    let packages = tree(&["--workspace", "--features", FEATURES, "--format", "{p}|{l}"]);
    assert!(packages.len() > 200, "{} packages", packages.len());
    for package in packages {
        let (name, licence) = package.split_once('|').expect("a licence");
        let name = name.split(" (").next().unwrap_or(name);
        assert!(is_allowed(licence, &allowed), "`{name}` has the licence `{licence}`, which deny.toml does not allow");
    }
}

/// Whether an expression of licences such as `(MIT OR Apache-2.0) AND Unicode-3.0` can be met with those allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Older packages separate alternatives with a slash.
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    let holds = any(&mut words, allowed);
    assert_eq!(words.next(), None, "the end of `{expression}`");
    holds
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut holds = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        holds |= all(words, allowed);
    }
    holds
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut holds = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        holds &= one(words, allowed);
    }
    holds
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        let holds = any(words, allowed);
        assert_eq!(words.next(), Some(")"));
        return holds;
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(licence.as_str())
}

#[test]
fn expressions_of_licences_are_read_as_written() {
    let allowed = BTreeSet::from(["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"]);
    for (expression, holds) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), holds, "{expression}");
    }
}
