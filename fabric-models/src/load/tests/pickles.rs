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
fn where_burn_store_reads_a_file_its_tensors_are_the_same() {
    use burn_store::pytorch_reader::PytorchReader;

    for (name, prefix) in [("tiny.bin", ""), ("tiny.ckpt", "state_dict.")] {
        let reader = PytorchReader::new(fixture(name)).expect("burn-store reads it");
        let other: BTreeMap<String, (Vec<usize>, Vec<u8>)> = reader
            .into_tensors()
            .into_iter()
            .filter_map(|(key, tensor)| {
                let bytes = tensor.read().expect("a tensor");
                Some((key.strip_prefix(prefix)?.to_owned(), (tensor.shape().to_vec(), bytes)))
            })
            .collect();
        let own = read_all(&open_weights(fixture(name)).expect("opens"));
        let own: BTreeMap<_, _> =
            own.into_iter().map(|(key, tensor)| (key, (tensor.info.shape, tensor.bytes))).collect();
        assert!(!own.is_empty() && own == other, "{name}");
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

#[cfg(feature = "pickle")]
#[test]
fn what_lies_beside_the_weights_may_have_any_keys() {
    let source = open_weights(fixture("side-data.ckpt")).expect("opens");
    assert_eq!(read_all(&source), tiny_tensors());
    for name in ["class-key", "tuple-key", "bool-key"] {
        let source = open_weights(fixture(&format!("pickles/{name}.ckpt"))).expect("opens");
        assert_eq!(
            read_all(&source),
            BTreeMap::from([("a.weight".to_owned(), floats(&[4], &[0.0, 1.0, 2.0, 3.0]))]),
            "{name}"
        );
    }
}

#[cfg(feature = "pickle")]
#[test]
fn a_network_saved_as_an_object_gives_its_state() {
    assert_eq!(read_all(&open_weights(fixture("module.bin")).expect("opens")), tiny_tensors());
}

#[cfg(feature = "pickle")]
#[test]
fn archives_are_read_in_the_form_of_large_files_and_not_compressed() {
    assert_eq!(read_all(&open_weights(fixture("zip64.bin")).expect("opens")), tiny_tensors());
    assert_says(open_weights(fixture("compressed.bin")), &["compressed", "pack the archive without"]);
}

#[cfg(feature = "pickle")]
#[test]
fn a_tensor_that_is_no_plain_array_is_refused_by_name() {
    assert_says(open_weights(fixture("sparse.bin")), &["`a.weight`", "`torch._utils._rebuild_sparse_tensor`"]);
}

#[cfg(feature = "pickle")]
#[test]
fn the_form_before_pytorch_1_6_gives_the_same_tensors() {
    let before = open_weights(fixture("before-1.6.bin")).expect("opens");
    assert_eq!(read_all(&before), read_all(&open_weights(fixture("tiny.ckpt")).expect("opens")));
    let folder = tempfile::tempdir().expect("a folder");
    let whole = fs::read(fixture("before-1.6.bin")).expect("a fixture");
    let path = folder.path().join("a.bin");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("written");
        assert_says(open_weights(&path), &["a.bin"]);
    }
}

#[cfg(feature = "pickle")]
#[test]
fn a_value_repeated_without_end_is_refused_and_not_made() {
    assert_says(open_weights(fixture("expanded.bin")), &["`weight`", "[1000000, 1000000]", "repeats 1 values"]);
}

/// A plain pickle in the older form, with no storages.
#[cfg(feature = "pickle")]
fn older_form(values: &[u8]) -> Vec<u8> {
    older_form_with_storages(values, b"\x80\x02].")
}

#[cfg(feature = "pickle")]
fn older_form_with_storages(values: &[u8], storages: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [magic.as_slice(), b"\x80\x02M\xe9\x03.", b"\x80\x02}.", values, storages].concat()
}

#[cfg(feature = "pickle")]
#[test]
fn a_tensor_has_at_most_eight_axes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.bin");
    // One value, shared by as many axes of length 1 as asked for.
    let opened = |axes: usize| {
        let ones = [b"(".as_slice(), &b"K\x01".repeat(axes), b"t"].concat();
        let values = [
            b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n(".as_slice(),
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\x00",
            &ones,
            &ones,
            b"\x89}tRs.",
        ];
        let storages = [b"\x80\x02]X\x01\0\0\x000a.".as_slice(), &1_u64.to_le_bytes(), &3_f32.to_le_bytes()];
        fs::write(&path, older_form_with_storages(&values.concat(), &storages.concat())).expect("written");
        open_weights(&path)
    };
    let source = opened(8).expect("opens");
    assert_eq!(read_all(&source), BTreeMap::from([("a".to_owned(), floats(&[1; 8], &[3.0]))]));
    assert_says(opened(9), &["a.bin", "`a`"]);
}

#[cfg(feature = "pickle")]
#[test]
fn a_tensor_beyond_all_memory_is_refused_and_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.bin");
    let long = |number: u64| [b"\x8a\x08".as_slice(), &number.to_le_bytes()].concat();
    // The file has one value of the storage, which says that it has `length`; the tensor is the value at `offset`.
    let opened = |class: &str, length: u64, offset: u64| {
        let values = [
            b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n".as_slice(),
            class.as_bytes(),
            b"\nX\x01\0\0\x000X\x03\0\0\0cpu",
            &long(length),
            b"tQ",
            &long(offset),
            b"(K\x01t(K\x01t\x89}tRs.",
        ]
        .concat();
        let data = [3_f32.to_le_bytes(); 2].concat();
        let storages = [b"\x80\x02]X\x01\0\0\x000a.".as_slice(), &1_u64.to_le_bytes(), &data].concat();
        fs::write(&path, older_form_with_storages(&values, &storages)).expect("written");
        open_weights(&path)
    };
    let source = opened("FloatStorage", 1, 0).expect("a value within the storage");
    assert_eq!(read_all(&source), BTreeMap::from([("a".to_owned(), floats(&[1], &[3.0]))]));
    // In bits or in bytes, the end of each has no 64-bit number, and would be a small one after an overflow.
    for (class, offset) in
        [("FloatStorage", 1 << 59), ("FloatStorage", 1 << 61), ("DoubleStorage", 1 << 60), ("DoubleStorage", 1 << 61)]
    {
        assert_says(opened(class, 1 << 62, offset), &["a.bin", "`a`"]);
    }
}

#[cfg(feature = "pickle")]
#[test]
fn pickles_made_to_fill_memory_or_never_to_end_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.bin");
    let refused = |values: &[u8], part: &str| {
        fs::write(&path, older_form(values)).expect("written");
        assert_says(open_weights(&path), &["a.bin", part]);
    };
    // A list within itself, and lists of the same two lists, 60 times.
    refused(b"\x80\x02]q\x00h\x00a.", "nested");
    let mut doubled = b"\x80\x02]q\x00".to_vec();
    for i in 1..60_u8 {
        doubled.extend([b'h', i - 1, b'h', i - 1, 0x86, b'q', i]);
    }
    doubled.push(b'.');
    refused(&doubled, "nested");
    // A tensor without a storage must not go missing.
    refused(b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n)Rs.", "`a`, a tensor made by");
    // Bytes that are announced and do not come.
    refused(b"\x80\x02X\xff\xff\xff\xff", "ends too early");
    refused(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "ends too early");
    for bad in [b"\x80\x020.".as_slice(), b"\x80\x02h\x07.", b"\x80\x02Na.", b"\x80\x02}(Nu.", b"\x80\x02NNs.", b"\xff"]
    {
        refused(bad, "PyTorch file");
    }
    refused(b"\x80\x02}.", "no tensors");
    // One byte makes a value of 40, and one more a reference of 8.
    let many = [b"\x80\x02".as_slice(), &vec![b'N'; (1 << 19) + 2]].concat();
    refused(&many, "a pickle of more than 524288 values");
    let marks = [b"\x80\x02".as_slice(), &vec![b'('; (1 << 20) + 2]].concat();
    let items = [b"\x80\x02Nq\x000]".as_slice(), &b"h\x00a".repeat(1 << 20)].concat();
    let tuples = [b"\x80\x02Nq\x000".as_slice(), &b"h\x00h\x00\x86".repeat(1 << 19)].concat();
    let memo: Vec<u8> = (0..=1_u32 << 20).flat_map(|at| [b"r".as_slice(), &at.to_le_bytes()].concat()).collect();
    let memo = [b"\x80\x02N".as_slice(), &memo].concat();
    for references in [marks, items, tuples, memo] {
        refused(&references, "a pickle of more than 1048576 references");
    }
}
