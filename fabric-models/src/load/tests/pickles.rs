//! PyTorch files, good ones and bad ones.

use std::fs;

use super::*;
use crate::load::open_weights;

#[cfg(not(feature = "pickle"))]
#[test]
fn a_pickle_without_the_feature_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a.ckpt", "a.bin", "a.pt", "a.pth"] {
        let path = folder.path().join(name);
        fs::write(&path, b"PK\x03\x04").expect("written");
        let error = assert_says(open_weights(&path), &[name, "feature `pickle`", "--features pickle", "safetensors"]);
        assert!(matches!(error, LoadError::FeatureOff { feature: "pickle", .. }));
    }
}

#[cfg(feature = "pickle")]
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

#[cfg(feature = "pickle")]
#[test]
fn a_pickle_gives_the_tensors_it_holds() {
    use crate::load::{LoadDtype, LoadOptions, load_into};

    for name in ["tiny.bin", "tiny.ckpt"] {
        let source = open_weights(fixture(name)).expect("opens");
        let options = LoadOptions::default().with_dtype(LoadDtype::F32);
        let (tiny, report) = load_into(Tiny::untouchable(), &source, &options).expect("loads");
        assert!(report.is_complete(), "{name}: {report}");
        let weight = HostTensor::from_data(&tiny.entry.weight.val().into_data());
        assert_eq!(weight, tiny_tensors()["net.0.proj.weight"], "{name}");
        // Stored transposed, as a view: rows and columns must not be mixed up.
        let block = HostTensor::from_data(&tiny.blocks[0].weight.val().into_data());
        assert_eq!(block, tiny_tensors()["blocks.0.weight"], "{name}");
    }
}

#[cfg(feature = "pickle")]
#[test]
fn a_pickle_that_would_run_a_program_runs_nothing() {
    let marker = std::env::temp_dir().join("fabric-pickle-was-run");
    let _ = fs::remove_file(&marker);
    assert_says(open_weights(fixture("malicious.bin")), &["malicious.bin"]);
    assert!(!marker.exists());
}

#[cfg(feature = "pickle")]
#[test]
fn broken_pickles_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = fs::read(fixture("tiny.bin")).expect("a fixture");
    let path = folder.path().join("a.bin");
    for length in (0..whole.len()).step_by(37) {
        fs::write(&path, &whole[..length]).expect("written");
        assert_says(open_weights(&path), &["a.bin"]);
    }
    fs::write(&path, b"no pickle at all").expect("written");
    assert_says(open_weights(&path), &["a.bin", "not a PyTorch checkpoint", "torch.save"]);
}

#[cfg(feature = "pickle")]
#[test]
fn a_training_checkpoint_says_its_step_beside_its_tensors() {
    let source = open_weights(fixture("tiny.ckpt")).expect("a checkpoint");
    assert_eq!(source.note("global_step").as_deref(), Some("5"));
    assert_eq!(source.note("state_dict"), None);
    assert_eq!(open_weights(fixture("tiny.bin")).expect("weights").note("global_step"), None);
}
