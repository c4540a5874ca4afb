//! Names and shapes that are compared without reading values.

use super::*;
use crate::load::{Mismatch, match_tensors};

#[test]
fn a_matching_source_gives_its_tensors_and_no_parameter_is_initialised() {
    let mut tensors = tiny_tensors();
    let expected: BTreeMap<String, TensorInfo> =
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.info.clone())).collect();
    tensors.insert("blocks.0.position_ids".to_owned(), floats(&[2], &[0.0, 1.0]));
    let matched = match_tensors(Tiny::untouchable(), &InMemory::new(tensors)).expect("matches");
    assert_eq!(matched.tensors, expected);
    assert_eq!(matched.ignored, ["blocks.0.position_ids"]);
}

#[test]
fn all_differences_are_one_error() {
    let mut tensors = tiny_tensors();
    tensors.remove("blocks.0.bias").expect("a tensor");
    tensors.insert("blocks.0.biaz".to_owned(), floats(&[2], &[0.0, 1.0]));
    tensors.insert("blocks.1.bias".to_owned(), floats(&[2], &[0.0, 1.0]));
    let got = match_tensors(Tiny::untouchable(), &InMemory::new(tensors));
    let LoadError::Mismatch(mismatch) = assert_says(got, &["memory", "`blocks.0.bias`"]) else {
        panic!("another error");
    };
    let Mismatch { missing, unexpected, mismatched, .. } = *mismatch;
    assert_eq!((missing.len(), unexpected, mismatched.len()), (1, vec!["blocks.0.biaz".to_owned()], 1));
}
