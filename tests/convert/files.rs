//! Single files: weights of any network, adapters and tokenizers.

use fabric::ipadapter::AdapterError;
use fabric::models::tokenizer::ClipTokenizer;

use super::*;

/// File of PyTorch with six tensors.
const PICKLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.ckpt");

#[test]
fn tensors_of_any_network_keep_their_names_and_metadata() {
    let place = Place::new();
    let [lora, out] = ["lora.safetensors", "out.safetensors"].map(|name| place.named(name));
    let source = tensors(format!("{MODEL}/lora/peft.safetensors"));
    write(&lora, &[("ss_network_dim", "4")], &source);
    call(&["weights", &lora, &out, "--dtype", "f16"]).expect("a file");
    let converted = SafetensorsFile::open(&out).expect("a file");
    assert_eq!(converted.metadata()["ss_network_dim"], "4");
    assert!(converted.tensors().keys().eq(source.keys()));
    for (name, tensor) in source {
        let expected = tensor.into_data(LoadDtype::F16, true, "", &name).expect("floats");
        assert_eq!(converted.read(&name).expect("a tensor"), HostTensor::from_data(&expected), "{name}");
    }
}

#[cfg(feature = "pickle")]
#[test]
fn a_pickle_becomes_a_safetensors_file_with_the_same_tensors() {
    let place = Place::new();
    let out = place.named("out.safetensors");
    let report = call(&["weights", PICKLE, &out]).expect("a file");
    assert_eq!(tensors(&out), tensors(PICKLE));
    let step = SafetensorsFile::open(&out).expect("a file").note("global_step");
    assert_eq!(step.as_deref(), Some("5"), "a number that the checkpoint has beside its tensors");
    assert_eq!((report.files.len(), report.files[0].tensors), (1, 6));
}

#[cfg(not(feature = "pickle"))]
#[test]
fn a_pickle_without_the_feature_is_an_error_that_names_it() {
    let place = Place::new();
    let error = call(&["weights", PICKLE, &place.named("out.safetensors")]).expect_err("no feature");
    let got = error.downcast_ref::<LoadError>();
    assert!(matches!(got, Some(LoadError::FeatureOff { feature: "pickle", .. })), "{error}");
    assert!(place.entries().is_empty());
}

#[test]
fn an_adapter_with_the_names_of_training_gets_the_published_names() {
    let place = Place::new();
    let [file, out] = ["trained.safetensors", "out.safetensors"].map(|name| place.named(name));
    let published = tensors(ADAPTER);
    let trained =
        |name: &str| name.replace("image_proj.", "image_proj_model.").replace("ip_adapter.", "adapter_modules.");
    let mut all: BTreeMap<String, HostTensor> =
        published.iter().map(|(name, tensor)| (trained(name), tensor.clone())).collect();
    all.insert("unet.conv_in.bias".to_owned(), published["image_proj.norm.bias"].clone());
    write(&file, &[], &all);
    let report = call(&["weights", &file, &out]).expect("a file");
    assert_eq!(tensors(&out), published);
    assert_eq!(report.unused, ["unet.conv_in.bias"]);
    assert!(report.to_string().contains("an adapter of pooled features (4 tokens)"), "{report}");

    // A tensor that every adapter of this kind has is missing.
    all.remove("adapter_modules.3.to_v_ip.weight").expect("a tensor");
    write(&file, &[], &all);
    let error = call(&["weights", &file, &place.named("other.safetensors")]).expect_err("no adapter");
    assert!(matches!(error.downcast_ref::<AdapterError>(), Some(AdapterError::NotAnAdapter { .. })), "{error}");
    assert_eq!(place.entries(), ["out.safetensors", "trained.safetensors"]);
}

#[cfg(not(feature = "train"))]
#[test]
fn a_checkpoint_without_the_feature_is_an_error_that_names_it() {
    let place = Place::new();
    let error = call(&["adapter", &place.named("run"), &place.named("out.safetensors")]).expect_err("no feature");
    assert!(error.to_string().contains("--features train"), "{error}");
    assert!(place.entries().is_empty());
}

#[test]
fn a_tokenizer_in_one_file_becomes_the_files_of_the_same_tokenizer() {
    let place = Place::new();
    let out = place.named("tokenizer");
    let report = call(&["tokenizer", TOKENIZER, &out]).expect("a folder");
    assert!(report.to_string().contains("tokenizer.json: 713 tokens"), "{report}");
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
        let path = Path::new(&out).join(name);
        assert!(path.is_file() && report.files.iter().any(|file| file.path == path), "{name}");
    }
    let [one, two] = [ClipTokenizer::from_tokenizer_json(TOKENIZER), ClipTokenizer::from_folder(&out)]
        .map(|tokenizer| tokenizer.expect("a tokenizer"));
    for text in ["a large red star above two striped circles", "<|endoftext|> é!"] {
        assert_eq!(one.encode(text).expect("ids"), two.encode(text).expect("ids"), "{text}");
    }
}
