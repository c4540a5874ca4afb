//! Files of LoRAs and of adapters, saved features, and scales of layers.

use std::fs;
use std::path::Path;

use fabric::core::models::UNetModel;
use fabric::ipadapter::{AdapterFile, Features, IpAdapter, LayerScales};
use fabric::models::load::open_weights;
use fabric::models::lora::{LoraFile, merge};
use fabric::models::{LoraChoice, ModelOptions, load_model};

use crate::case::{Case, Outcome, file, nothing, said, sparse_file};
use crate::models::{device, fixture, golden, options, untrained_unet};
use crate::pickle_writer::{Entry, dict, pickle, storage, tensor, zip};
use crate::tensor_file::TensorFile;

pub(crate) const COUNT: usize = 176;

const LORA: &str = "lora.safetensors";
const DOWN: &str = "unet.conv_in.lora_A.weight";
const UP: &str = "unet.conv_in.lora_B.weight";
const ALPHA: &str = "unet.conv_in.alpha";

/// A LoRA of rank 2 for the first convolution of the small model's U-Net.
fn lora() -> TensorFile {
    TensorFile::default().with(DOWN, &[2, 4, 3, 3], &[0.01; 72]).with(UP, &[32, 2, 1, 1], &[0.01; 64])
}

fn open_lora(place: &Path) -> Outcome {
    said(LoraFile::open(place.join(LORA)))
}

/// A LoRA that is refused.
fn refused(name: impl Into<String>, tensors: TensorFile, words: &[&str]) -> Case {
    Case::refused(name, &[words, &[LORA]].concat(), file(LORA, tensors.to_bytes()), open_lora)
}

/// A LoRA that is refused when it is merged at this scale.
fn unmerged(name: &str, tensors: TensorFile, scale: f32, words: &[&str]) -> Case {
    Case::refused(name, &[words, &[LORA]].concat(), file(LORA, tensors.to_bytes()), move |place| merged(place, scale))
}

fn merged(place: &Path, scale: f32) -> Outcome {
    let lora = LoraFile::open(place.join(LORA)).map_err(|error| error.to_string())?;
    said(merge(untrained_unet("unet"), &lora.unet, scale))
}

const ADAPTER: &str = "adapter.safetensors";

fn adapter(kind: &str) -> TensorFile {
    TensorFile::read(&golden("ip_adapter").join(format!("{kind}.safetensors")))
}

/// An adapter that is refused.
fn unfit(name: impl Into<String>, tensors: TensorFile, words: &[&str]) -> Case {
    Case::refused(name, &[words, &[ADAPTER]].concat(), file(ADAPTER, tensors.to_bytes()), |place| {
        said(IpAdapter::open(place.join(ADAPTER), &device()))
    })
}

pub(crate) fn check_base() {
    let place = tempfile::tempdir().expect("a folder");
    fs::write(place.path().join(LORA), lora().to_bytes()).expect("a written file");
    assert_eq!(merged(place.path(), 1.0), Ok(()));
    for kind in ["base", "plus", "instruct", "full-face"] {
        fs::write(place.path().join(ADAPTER), adapter(kind).to_bytes()).expect("a written file");
        IpAdapter::open(place.path().join(ADAPTER), &device()).expect(kind);
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lora_keys();
    cases.extend(lora_tensors());
    cases.extend(lora_settings());
    cases.extend(peft_folders());
    cases.extend(lora_uses());
    cases.extend(adapter_layers());
    cases.extend(adapter_projections());
    cases.extend(several_adapters());
    cases.extend(features());
    cases.extend(scales());
    cases
}

/// Names of tensors that no LoRA has, or that other kinds of files have.
fn lora_keys() -> Vec<Case> {
    let expected = "expected keys of a LoRA";
    let weight = |name: &str| TensorFile::default().with_zeros(name, &[1]);
    let many = (0..20).fold(lora(), |lora, at| lora.with_zeros(&format!("{at}{}", "x".repeat(1000)), &[1]));
    let mut cases = vec![
        refused("a LoRA without tensors", TensorFile::default(), &[expected, "got no tensors"]),
        refused("a LoRA of another tensor", weight("a.weight"), &[expected, "1 tensors such as `a.weight`"]),
        refused(
            "a LoRA of a name that hides its end",
            weight("a\u{202e}\u{2028}b"),
            &[expected, "`a\\u{202e}\\u{2028}b`"],
        ),
        refused("a LoRA of a name of 1000 letters", weight(&"x".repeat(1000)), &[expected, "xxx"]),
        refused("a LoRA of a name without a module", weight("lora_unet_.lora_up.weight"), &[expected]),
        refused("a LoRA beside another tensor", lora().with_zeros("other", &[1]), &["1 keys are not known", "`other`"]),
        refused("a LoRA beside 20 tensors with long names", many, &["20 keys are not known", "xxx", "..."]),
        refused("a matrix down alone", lora().without(UP), &["`conv_in` has the matrix down and lacks the one up"]),
        refused("a matrix up alone", lora().without(DOWN), &["`conv_in` has the matrix up and lacks the one down"]),
        refused(
            "an alpha alone",
            lora().with_zeros("unet.conv_out.alpha", &[]),
            &["`conv_out` has an alpha and lacks its two matrices"],
        ),
        refused(
            "one matrix in two layouts",
            lora().with_zeros("lora_unet_conv_in.lora_down.weight", &[2, 4, 3, 3]),
            &["both `lora_unet_conv_in.lora_down.weight` and `unet.conv_in.lora_A.weight`", "for the same weight"],
        ),
        refused(
            "one matrix under two names of peft",
            lora().with_zeros("unet.conv_in.lora_A.default.weight", &[2, 4, 3, 3]),
            &["for the same weight", "mixes two layouts"],
        ),
        refused(
            "a matrix under a wrong name",
            lora().renamed(UP, "unet.conv_in.lora_C.weight"),
            &["1 keys are not known"],
        ),
    ];
    for (ending, kind) in [
        ("dora_scale", "DoRA"),
        ("lora_magnitude_vector", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_mid.weight", "Tucker"),
        ("oft_blocks", "OFT"),
        ("lora_embedding_A", "embedding table"),
        ("lora_B.bias", "biases"),
        ("diff", "whole differences of weights"),
        ("diff_b", "whole differences of weights"),
        ("w_norm", "differences of norms"),
        ("on_input", "scales activations"),
    ] {
        let key = format!("unet.conv_in.{ending}");
        let word = format!("key `{key}`");
        let words = [word.as_str(), kind, "supported are products of two matrices"];
        cases.push(refused(format!("a LoRA with `{ending}`"), lora().with_zeros(&key, &[1]), &words));
    }
    let bundled = lora().with_zeros("bundle_emb.star.string_to_param.*", &[1]);
    cases.push(refused(
        "a LoRA with a textual inversion",
        bundled,
        &["`bundle_emb.star", "bundled with a textual inversion"],
    ));
    cases
}

/// Shapes, types and values of a LoRA's tensors.
fn lora_tensors() -> Vec<Case> {
    let [down, up] = [DOWN, UP].map(|name| format!("tensor `{name}`"));
    let [down, up] = [down.as_str(), up.as_str()];
    let axes = "[rank, in] or [rank, in, height, width]";
    let alpha = "expected more than 0 and at most 10000 · rank";
    let with_alpha = |value: f32| lora().with(ALPHA, &[], &[value]);
    let value = |name: &str, value: f32| {
        lora().changed(name, |stored| stored.bytes[20..24].copy_from_slice(&value.to_le_bytes()))
    };
    let typed = |name: &str, dtype: &str| lora().changed(name, |stored| stored.dtype = dtype.to_owned());
    let largest = lora().with_bytes(ALPHA, "I64", &[], i64::MAX.to_le_bytes().to_vec());
    let negative = lora().with_bytes(ALPHA, "I8", &[], vec![0xff]);
    vec![
        refused("a matrix down of one axis", lora().with_zeros(DOWN, &[2]), &[down, axes, "got shape [2]"]),
        refused(
            "a matrix down of three axes",
            lora().with_zeros(DOWN, &[2, 4, 3]),
            &[down, axes, "got shape [2, 4, 3]"],
        ),
        refused("a matrix down of five axes", lora().with_zeros(DOWN, &[2, 4, 3, 3, 1]), &[down, axes]),
        refused("a matrix down of rank zero", lora().with_zeros(DOWN, &[0, 4, 3, 3]), &[down, "all at least 1"]),
        refused("a matrix down without inputs", lora().with_zeros(DOWN, &[2, 0, 3, 3]), &[down, "all at least 1"]),
        refused("a number in place of the matrix down", lora().with_zeros(DOWN, &[]), &[down, axes]),
        refused(
            "a matrix up of another rank",
            lora().with_zeros(UP, &[32, 3, 1, 1]),
            &[up, "[out, 2]", "got shape [32, 3, 1, 1]"],
        ),
        refused("a matrix up with a larger kernel", lora().with_zeros(UP, &[32, 2, 3, 3]), &[up, "[out, 2, 1, 1]"]),
        refused("a matrix up without outputs", lora().with_zeros(UP, &[0, 2]), &[up, "got shape [0, 2]"]),
        refused("a matrix up that is transposed", lora().with_zeros(UP, &[2, 32, 1, 1]), &[up, "has rank 2"]),
        refused("an alpha of zero", with_alpha(0.0), &["`conv_in`", alpha, "got alpha 0 at rank 2"]),
        refused("an alpha below zero", with_alpha(-1.0), &[alpha, "got alpha -1"]),
        refused("an alpha that is NaN", with_alpha(f32::NAN), &[alpha, "got alpha NaN"]),
        refused("an infinite alpha", with_alpha(f32::INFINITY), &[alpha, "got alpha inf"]),
        refused("an alpha of a billion", with_alpha(1e9), &[alpha, "got alpha 1000000000"]),
        refused("the largest integer as alpha", largest, &[alpha, "got alpha 9223372036854776000"]),
        refused("an integer below zero as alpha", negative, &[alpha, "got alpha -1"]),
        refused("two alphas", lora().with(ALPHA, &[2], &[1.0, 1.0]), &[ALPHA, "expected one number, got shape [2]"]),
        refused("no number as alpha", lora().with_zeros(ALPHA, &[0]), &[ALPHA, "expected one number, got shape [0]"]),
        refused("an alpha that is true", lora().with_bytes(ALPHA, "BOOL", &[], vec![1]), &[ALPHA, "has type BOOL"]),
        refused("a matrix of integers", typed(DOWN, "I32"), &[down, "has type I32", "expected F32, F16, BF16 or F64"]),
        refused("a matrix of unsigned integers", typed(UP, "U32"), &[up, "has type U32"]),
        refused(
            "a matrix with NaN",
            value(DOWN, f32::NAN),
            &[down, "has the value NaN at index 5", "expected finite weights"],
        ),
        refused("a matrix with infinity", value(UP, f32::INFINITY), &[up, "has the value inf at index 5"]),
        unmerged("a matrix with 1e30", value(DOWN, 1e30), 1.0, &["`conv_in` at scale 1 may change weights by up to"]),
    ]
}

/// Settings in the header of a LoRA.
fn lora_settings() -> Vec<Case> {
    let entry = "settings in `lora_adapter_metadata`";
    let settings = |name: &str, text: &str, words: &[&str]| {
        refused(name, lora().with_metadata("lora_adapter_metadata", text), &[words, &[entry]].concat())
    };
    let patterns = |patterns: &[String]| {
        let patterns: Vec<String> =
            patterns.iter().map(|pattern| format!("{}: 1", serde_json::json!(pattern))).collect();
        format!("{{\"unet.alpha_pattern\": {{{}}}}}", patterns.join(", "))
    };
    let object = "a JSON object with peft's settings";
    let number = "`alpha_pattern` with a number for each name or regular expression";
    let short = "a short regular expression for the end of a module's name";
    let few = "at most 32 patterns that are no names of modules, of 16 KiB together";
    let alphas = |at: usize| format!("a{at}.*");
    let long: Vec<String> = (0..20).map(|at| format!("{at}.*|{}", "a|".repeat(500))).collect();
    let limit = "expected more than 0 and at most 10000 · rank";
    let alpha = |name: &str, text: &str, words: &[&str]| {
        refused(name, lora().with_metadata("lora_adapter_metadata", text), words)
    };
    vec![
        settings("empty settings", "", &[object]),
        settings("settings that are a list", "[]", &[object, "got []"]),
        settings("settings that are no JSON", "rank=4", &[object, "got rank=4"]),
        settings("settings that clear the terminal", "\u{1b}[2J\nok", &[object, "\\u{1b}[2J\\nok"]),
        settings("settings nested 100,000 times", &"[".repeat(100_000), &[object]),
        settings(
            "settings of more than 4 MB",
            &format!("{{}}{}", " ".repeat(4 << 20)),
            &["at most 4 MiB of JSON", "got 4194306 bytes"],
        ),
        settings("an alpha in quotes", r#"{"unet.lora_alpha": "8"}"#, &["a number as `lora_alpha`"]),
        settings("an alpha that is Python's NaN", r#"{"unet.lora_alpha": NaN}"#, &["a number as `lora_alpha`", "NaN"]),
        settings("an alpha that is a list", r#"{"unet.lora_alpha": [8]}"#, &["a number as `lora_alpha`", "[8]"]),
        settings("patterns that are a list", r#"{"unet.alpha_pattern": [1]}"#, &[number, "got [1]"]),
        settings("a pattern without a number", r#"{"unet.alpha_pattern": {"a": null}}"#, &[number, "null for `a`"]),
        settings(
            "a pattern that clears the terminal",
            "{\"unet.alpha_pattern\": {\"\\u001b[2J\": 1}}",
            &[short, "\\u{1b}[2J"],
        ),
        settings("a pattern that is no expression", &patterns(&["(".to_owned()]), &[short, "got ("]),
        settings("a pattern that becomes large", &patterns(&[r"\w{90}".repeat(10)]), &[short]),
        settings("a pattern of repetitions in repetitions", &patterns(&["((a{100}){100}){100}".to_owned()]), &[short]),
        settings("33 patterns", &patterns(&(0..33).map(alphas).collect::<Vec<_>>()), &[few]),
        settings("20 kB of patterns", &patterns(&long), &[few]),
        alpha("an alpha of zero in settings", r#"{"unet.lora_alpha": 0}"#, &[limit, "got alpha 0"]),
        alpha(
            "an alpha below zero in a pattern",
            r#"{"unet.alpha_pattern": {"conv_in": -4}}"#,
            &[limit, "got alpha -4"],
        ),
        alpha("an alpha of 1e300 in settings", r#"{"unet.lora_alpha": 1e300}"#, &[limit]),
        alpha("DoRA in settings", r#"{"unet.use_dora": true}"#, &["key `lora_adapter_metadata`", "DoRA"]),
        settings(
            "4 MB of other settings",
            &format!("{{\"a\": [{}0]}}", "0,".repeat(2_000_000)),
            &["at most 8 MiB of memory", "got values of 128000704 bytes"],
        ),
        Case::falls_back(
            "a text of 4 MB in other settings",
            "settings that are unknown are ignored",
            file(
                LORA,
                lora()
                    .with_metadata("lora_adapter_metadata", &format!("{{\"a\": \"{}\"}}", "x".repeat(4_000_000)))
                    .to_bytes(),
            ),
            open_lora,
        ),
    ]
}

/// Folders in which peft saved a LoRA.
fn peft_folders() -> Vec<Case> {
    let [down, up] = [DOWN, UP].map(|name| name.replace("unet.", "base_model.model."));
    let tensors = lora().renamed(DOWN, &down).renamed(UP, &up);
    let folder = move |config: Box<dyn FnOnce(&Path)>| {
        let bytes = tensors.to_bytes();
        move |place: &Path| {
            fs::write(place.join("adapter_model.safetensors"), bytes).expect("a written file");
            config(place);
        }
    };
    let config = |name: &str, text: &str, words: &[&str]| {
        let prepare = folder(Box::new(file("adapter_config.json", text.as_bytes().to_vec())));
        let words = [words, &["adapter_config.json"]].concat();
        Case::refused(format!("peft: {name}"), &words, prepare, |place| said(LoraFile::open(place)))
    };
    let mut cases = vec![
        config("settings that are no JSON", "{", &["settings", "EOF"]),
        config("settings that are a list", "[]", &["settings", "expected an object"]),
        config("an alpha in quotes", r#"{"lora_alpha": "2"}"#, &["a number as `lora_alpha`"]),
        config("an alpha that is Python's NaN", r#"{"lora_alpha": NaN}"#, &["a number as `lora_alpha`", "NaN"]),
        config("a pattern that is no expression", r#"{"alpha_pattern": {"[": 1}}"#, &["a short regular expression"]),
        config("DoRA", r#"{"use_dora": true}"#, &["DoRA"]),
        Case::refused(
            "peft: settings of more than 4 MB",
            &["adapter_config.json", "at most 4194304 bytes of JSON"],
            folder(Box::new(sparse_file("adapter_config.json", b"{".to_vec(), 5 << 20))),
            |place| said(LoraFile::open(place)),
        ),
        Case::refused("peft: a folder without a LoRA", &["folder of a LoRA", "none of its files"], nothing, |place| {
            said(LoraFile::open(place))
        }),
        Case::falls_back(
            "peft: a folder in place of the settings",
            "it counts as missing",
            folder(Box::new(|place: &Path| fs::create_dir(place.join("adapter_config.json")).expect("a folder"))),
            |place| said(LoraFile::open(place)),
        ),
    ];
    for (kind, word) in [
        ("LOHA", "LoHa"),
        ("LOKR", "LoKr"),
        ("OFT", "a rotation of the weights"),
        ("IA3", "scales activations"),
        ("VERA", "another of peft's methods than LoRA"),
    ] {
        cases.push(config(&format!("a file of the kind {kind}"), &format!(r#"{{"peft_type": "{kind}"}}"#), &[word]));
    }
    cases
}

/// LoRAs with networks, scales, and PyTorch files.
fn lora_uses() -> Vec<Case> {
    let scale = "expected a finite number, got a scale of";
    let second = TensorFile::default()
        .with_zeros("text_encoder_2.text_model.a.lora_A.weight", &[2, 4])
        .with_zeros("text_encoder_2.text_model.a.lora_B.weight", &[4, 2]);
    let loaded = |name: &str, tensors: TensorFile, scale: f32, words: &[&str]| {
        Case::refused(name, words, file(LORA, tensors.to_bytes()), move |place| {
            let loras = vec![LoraChoice { path: place.join(LORA), scale }];
            said(load_model(golden(""), &device(), &ModelOptions { loras, ..options() }))
        })
    };
    let matrix = |shape: &[i64]| tensor(storage("FloatStorage", 1), 0, shape, &vec![0; shape.len()]);
    let pickled = |entries: &[(&str, Vec<u8>)]| {
        let archive = [Entry::new("m/data.pkl", &pickle(&dict(entries))), Entry::new("m/data/0", &3_f32.to_le_bytes())];
        file("lora.bin", zip(&archive))
    };
    let missing = TensorFile::default()
        .with_zeros("unet.no_such.lora_A.weight", &[2, 4])
        .with_zeros("unet.no_such.lora_B.weight", &[4, 2]);
    vec![
        unmerged("a scale of NaN", lora(), f32::NAN, &[scale, "NaN"]),
        unmerged("an infinite scale", lora(), f32::INFINITY, &[scale, "inf"]),
        unmerged("a scale of minus infinity", lora(), f32::NEG_INFINITY, &[scale, "-inf"]),
        unmerged("a scale of 1e30", lora(), 1e30, &["`conv_in` at scale", "may change weights by up to"]),
        unmerged("a LoRA of a layer that the U-Net lacks", missing, 1.0, &["no_such", "have no place in it"]),
        unmerged(
            "a LoRA for five channels",
            lora().with_zeros(DOWN, &[2, 5, 3, 3]),
            1.0,
            &["have another shape", "conv_in"],
        ),
        loaded(
            "a LoRA for a second text encoder",
            second,
            1.0,
            &["the network `text_encoder_2`, which Stable Diffusion 1 does not have"],
        ),
        loaded("a model with a LoRA at a scale of NaN", lora(), f32::NAN, &[scale, "NaN"]),
        Case::refused("a missing LoRA", &["there is no", "lora.safetensors"], nothing, open_lora),
        Case::refused(
            "a pickled LoRA with a name that clears the terminal",
            &["expected keys of a LoRA", "\\u{1b}[2J"],
            pickled(&[("\u{1b}[2J\n", matrix(&[1]))]),
            |place| said(LoraFile::open(place.join("lora.bin"))),
        ),
        Case::refused(
            "a pickled LoRA of a million times a million values",
            &["lora.bin", "repeats 1 values"],
            pickled(&[(DOWN, matrix(&[1_000_000, 1_000_000])), (UP, matrix(&[4, 1_000_000]))]),
            |place| said(LoraFile::open(place.join("lora.bin"))),
        ),
        Case::falls_back(
            "a pickled LoRA whose matrices repeat one value",
            "the value is repeated",
            pickled(&[(DOWN, matrix(&[2, 4, 3, 3])), (UP, matrix(&[32, 2]))]),
            |place| said(LoraFile::open(place.join("lora.bin"))),
        ),
    ]
}

/// Layers of adapters.
fn adapter_layers() -> Vec<Case> {
    let key = |number: usize| format!("ip_adapter.{number}.to_k_ip.weight");
    let value = |number: usize| format!("ip_adapter.{number}.to_v_ip.weight");
    let base = || adapter("base");
    let only = |names: &[String]| names.iter().fold(TensorFile::default(), |file, name| file.with_zeros(name, &[1]));
    let numbers = "numbers of layers";
    let axes = "a tensor with 2 axes";
    let names = "names of tensors";
    let projection_alone = (1..12).step_by(2).fold(base(), |file, at| file.without(&key(at)).without(&value(at)));
    let many = (0..30_000)
        .fold(base(), |file, at| file.with_zeros(&key(2 * at + 1), &[1, 32]).with_zeros(&value(2 * at + 1), &[1, 32]));
    let nan = base().changed(&key(5), |stored| stored.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let integers = base().with_bytes(&key(5), "I32", &[32, 32], vec![0; 4096]);
    vec![
        unfit("an adapter without tensors", TensorFile::default(), &[names, "got none"]),
        unfit("an adapter of other tensors", only(&["a".to_owned(), "b".to_owned()]), &[names, "got a, b"]),
        unfit(
            "an adapter of a name that hides its end",
            only(&["a\u{202e}\u{2028}b".to_owned()]),
            &[names, "got a\\u{202e}\\u{2028}b"],
        ),
        unfit("an adapter of names of 1000 letters", only(&["x".repeat(1000), "y".repeat(1000)]), &[names, "xxx"]),
        unfit("an adapter without layers", projection_alone, &[names, "ip_adapter.N.to_k_ip.weight"]),
        unfit(
            "an adapter with a gap",
            base().renamed(&key(3), &key(13)).renamed(&value(3), &value(13)),
            &[numbers, "got number 5", "number 3"],
        ),
        unfit("an adapter with an even number", base().with_zeros(&key(2), &[32, 32]), &[numbers, "got number 2"]),
        unfit(
            "an adapter with the largest number",
            base().with_zeros(&key(usize::MAX), &[32, 32]),
            &[numbers, "got number 18446744073709551615"],
        ),
        unfit(
            "an adapter that begins at seven",
            base().without(&key(1)).without(&key(3)).without(&key(5)),
            &[numbers, "got number 7", "number 1"],
        ),
        unfit("an adapter of 30,000 layers", many, &[numbers, "at most 2048 layers, got 30000 layers"]),
        unfit(
            "a layer without values",
            base().without(&value(3)),
            &["tensor `ip_adapter.3.to_v_ip.weight`", "got none"],
        ),
        unfit(
            "a layer with wider values",
            base().with_zeros(&value(3), &[64, 32]),
            &["shape of tensor `ip_adapter.3.to_v_ip.weight`", "got [64, 32]"],
        ),
        unfit(
            "a layer of other tokens",
            base().with_zeros(&key(3), &[32, 48]),
            &["shape of tensor `ip_adapter.3.to_k_ip.weight`", "expected [32, 32]"],
        ),
        unfit("a layer of one axis", base().with_zeros(&key(3), &[32]), &[axes, "got [32]"]),
        unfit("a layer of three axes", base().with_zeros(&key(3), &[32, 32, 1]), &[axes, "got [32, 32, 1]"]),
        unfit("a layer without channels", base().with_zeros(&key(3), &[0, 32]), &[axes, "got [0, 32]"]),
        unfit("a layer of no tokens", base().with_zeros(&key(1), &[32, 0]), &[axes, "got [32, 0]"]),
        unfit("a layer with NaN", nan, &["tensor `ip_adapter.5.to_k_ip.weight` has the value NaN at index 0"]),
        unfit("a layer of integers", integers, &["tensor `ip_adapter.5.to_k_ip.weight` has type I32"]),
        unfit(
            "a layer of half an 8-bit weight",
            base().with_bytes("ip_adapter.1.to_k_ip.weight._data", "I8", &[32, 32], vec![0; 1024]),
            &["ip_adapter.1.to_k_ip.weight"],
        ),
    ]
}

/// Projections of adapters.
fn adapter_projections() -> Vec<Case> {
    let (base, plus, instruct) = (|| adapter("base"), || adapter("plus"), || adapter("instruct"));
    let bare = || {
        let names = ["norm.bias", "norm.weight", "proj.bias", "proj.weight"];
        names.iter().fold(adapter("base"), |file, name| file.without(&format!("image_proj.{name}")))
    };
    let differ = "the tensors are not those of the network";
    let query = "image_proj.layers.0.0.to_q.weight";
    let shallow = plus().without("image_proj.layers.1.0.to_q.weight");
    let unprompted = instruct().without("image_proj.prompt_layers.0.0.to_q.weight");
    let both = base().with_zeros("image_proj_model.proj.weight", &[128, 24]);
    vec![
        unfit("an adapter without a projection", bare(), &["the projection", "one of the published projections"]),
        unfit(
            "an unknown projection",
            bare().with_zeros("image_proj.mlp.weight", &[1]),
            &["the projection", "got image_proj.mlp.weight"],
        ),
        unfit(
            "a projection to a part of a token",
            base().with_zeros("image_proj.proj.weight", &[120, 24]),
            &["outputs of the projection", "a multiple of 32", "got 120"],
        ),
        unfit(
            "a projection of one axis",
            base().with_zeros("image_proj.proj.weight", &[128]),
            &["tensor `image_proj.proj.weight`", "got [128]"],
        ),
        unfit(
            "a projection of nothing",
            base().with_zeros("image_proj.proj.weight", &[128, 0]),
            &["tensor `image_proj.proj.weight`", "got [128, 0]"],
        ),
        unfit(
            "a projection without a norm",
            base().without("image_proj.norm.weight"),
            &[differ, "missing `image_proj.norm.weight`"],
        ),
        unfit(
            "a projection with a wider norm",
            base().with_zeros("image_proj.norm.weight", &[33]),
            &[differ, "`image_proj.norm.weight`"],
        ),
        unfit(
            "a projection with another tensor",
            base().with_zeros("image_proj.extra", &[1]),
            &[differ, "unexpected `image_proj.extra`"],
        ),
        unfit(
            "a projection under two names",
            both,
            &["tensor `image_proj.proj.weight`", "both `image_proj.proj.weight` and `image_proj_model.proj.weight`"],
        ),
        unfit(
            "a full-face projection without its beginning",
            adapter("full-face").without("image_proj.proj.0.weight"),
            &["tensor `image_proj.proj.0.weight`", "got none"],
        ),
        unfit(
            "latents of two axes",
            plus().with_zeros("image_proj.latents", &[16, 32]),
            &["tensor `image_proj.latents`", "3 axes", "got [16, 32]"],
        ),
        unfit(
            "no latents",
            plus().without("image_proj.latents"),
            &["the projection", "one of the published projections"],
        ),
        unfit(
            "latents of no tokens",
            plus().with_zeros("image_proj.latents", &[1, 0, 32]),
            &["tensor `image_proj.latents`", "got [1, 0, 32]"],
        ),
        unfit("latents of more channels", plus().with_zeros("image_proj.latents", &[1, 16, 64]), &[differ]),
        unfit(
            "queries of a part of a head",
            plus().with_zeros(query, &[63, 32]),
            &["outputs of `image_proj.layers.0.0.to_q.weight`", "a multiple of 64", "got 63"],
        ),
        unfit("no queries", plus().without(query), &["tensor `image_proj.layers.0.0.to_q.weight`", "got none"]),
        unfit("a layer without queries", shallow, &[differ]),
        unfit(
            "a resampler without inputs",
            plus().without("image_proj.proj_in.weight"),
            &["tensor `image_proj.proj_in.weight`", "got none"],
        ),
        unfit(
            "a resampler of other tokens",
            plus().with_zeros("image_proj.proj_out.weight", &[48, 32]),
            &["outputs of `image_proj.proj_out.weight`", "expected 32", "got 48"],
        ),
        unfit(
            "an instruction of one axis",
            instruct().with_zeros("image_proj.proj_new_input.weight", &[32]),
            &["tensor `image_proj.proj_new_input.weight`", "got [32]"],
        ),
        unfit("an instruction without queries", unprompted, &[differ, "image_proj.prompt_layers.0.0.to_q.weight"]),
    ]
}

/// Files with several adapters, and the LoRAs of adapters of faces.
fn several_adapters() -> Vec<Case> {
    let several = || TensorFile::read(&fixture("diffusers-adapters.safetensors"));
    let one_of = |name: &str, tensors: TensorFile, index: usize, words: &[&str]| {
        Case::refused(name, words, file(ADAPTER, tensors.to_bytes()), move |place| {
            let source = open_weights(place.join(ADAPTER)).map_err(|error| error.to_string())?;
            let file = AdapterFile::one_of_several(source, index).map_err(|error| error.to_string())?;
            said(file.config())
        })
    };
    let face = |name: &str, tensors: TensorFile, words: &[&str]| {
        Case::refused(name, &[words, &[ADAPTER]].concat(), file(ADAPTER, tensors.to_bytes()), |place| {
            let file = AdapterFile::open(place.join(ADAPTER)).map_err(|error| error.to_string())?;
            said(file.lora(&untrained_unet("unet").cross_attentions()))
        })
    };
    let layers = "encoder_hid_proj.image_projection_layers";
    let narrow = several().with_zeros(&format!("{layers}.2.layers.0.attn.to_v.weight"), &[128, 31]);
    let places = "numbers of the U-Net's 12 attention layers";
    vec![
        unfit("a file of three adapters", several(), &["adapters in this file: expected one, got 3"]),
        unfit(
            "a file of as many adapters as there are integers",
            adapter("base").with_zeros(&format!("{layers}.{}.norm.weight", usize::MAX), &[1]),
            &["adapters in this file: expected one, got 18446744073709551615"],
        ),
        one_of("the eighth of three adapters", several(), 7, &["names of tensors", "got none"]),
        one_of("an adapter with narrower values than keys", narrow, 2, &["[128, 32] and [128, 31]", "the same type"]),
        one_of(
            "an adapter without its latents",
            several().without(&format!("{layers}.2.latents")),
            2,
            &["the projection"],
        ),
        face(
            "the LoRA of a face with a large number",
            adapter("base").with_zeros("ip_adapter.99.to_k_lora.down.weight", &[4, 32]),
            &["a LoRA matrix", places],
        ),
        face(
            "the LoRA of a face without a number",
            adapter("base").with_zeros("ip_adapter.to_k_lora.down.weight", &[4, 32]),
            &["a LoRA matrix", places],
        ),
        face(
            "half of the LoRA of a face",
            adapter("base").with_zeros("ip_adapter.0.to_q_lora.down.weight", &[4, 32]),
            &["has the matrix down and lacks the one up"],
        ),
    ]
}

/// Saved features of images.
fn features() -> Vec<Case> {
    let opened = |name: &str, tensors: TensorFile, words: &[&str]| {
        Case::refused(
            format!("features: {name}"),
            &[words, &["features.safetensors"]].concat(),
            file("features.safetensors", tensors.to_bytes()),
            |place| said(Features::open(place.join("features.safetensors"), &device())),
        )
    };
    let pooled = |shape: &[usize]| TensorFile::default().with_zeros("pooled", shape);
    let set = "one set of saved features";
    let counts = TensorFile::default().with_zeros("identities", &[2, 8]).with_zeros("tokens", &[3, 2, 8]);
    vec![
        opened("no tensors", TensorFile::default(), &["names of tensors", set]),
        opened(
            "two sets",
            pooled(&[1, 8]).with_zeros("tokens", &[1, 2, 8]),
            &["names of tensors", set, "`pooled, tokens`"],
        ),
        opened(
            "a name that hides its end",
            TensorFile::default().with_zeros("a\u{202e}\u{2028}b", &[1]),
            &["names of tensors", "`a\\u{202e}\\u{2028}b`"],
        ),
        opened(
            "three axes in place of two",
            pooled(&[1, 2, 8]),
            &["shape of tensor `pooled`", "2 axes", "got [1, 2, 8]"],
        ),
        opened("no images", pooled(&[0, 8]), &["shape of tensor `pooled`", "none of them empty"]),
        opened("no channels", pooled(&[1, 0]), &["shape of tensor `pooled`", "got [1, 0]"]),
        opened(
            "NaN",
            TensorFile::default().with("pooled", &[1, 2], &[0.0, f32::NAN]),
            &["tensor `pooled` has the value NaN at index 1"],
        ),
        opened(
            "integers",
            TensorFile::default().with_bytes("pooled", "I64", &[1, 1], vec![0; 8]),
            &["tensor `pooled` has type I64"],
        ),
        Case::refused(
            "features: other numbers of images",
            &["features of images", "[2, 3] of them"],
            file("features.safetensors", counts.to_bytes()),
            |place| said(Features::open(place.join("features.safetensors"), &device())),
        ),
    ]
}

/// Scales of an adapter's layers in JSON.
fn scales() -> Vec<Case> {
    let scale = |name: &str, text: String, words: &[&str]| {
        Case::refused(format!("scales: {name}"), &[words, &["scales of an adapter"]].concat(), nothing, move |_| {
            said(LayerScales::from_json(&text))
        })
    };
    let expected = "a number, or {\"down\"";
    vec![
        scale("no text", String::new(), &[expected, "EOF"]),
        scale("half of an object", "{".to_owned(), &[expected, "EOF"]),
        scale("null", "null".to_owned(), &[expected, "got null"]),
        scale("a list", "[1]".to_owned(), &[expected, "got [1]"]),
        scale("an empty list behind white space", " []".to_owned(), &[expected, "[]"]),
        scale("an empty list behind a byte-order mark", "\u{feff}[]".to_owned(), &[expected]),
        scale("a number in quotes", "\"1\"".to_owned(), &[expected]),
        scale("NaN", "NaN".to_owned(), &[expected, "NaN"]),
        scale("a number beyond f64", "1e999".to_owned(), &[expected, "out of range"]),
        scale("an unknown part", r#"{"left": 1}"#.to_owned(), &[expected]),
        scale("a block of another name", r#"{"down": {"level_1": 1}}"#.to_owned(), &["block `level_1`"]),
        scale("a block with a number below zero", r#"{"up": {"block_-1": 1}}"#.to_owned(), &["block `block_-1`"]),
        scale(
            "a block with a number of 20 digits",
            r#"{"up": {"block_99999999999999999999": 1}}"#.to_owned(),
            &["block `block_99999999999999999999`"],
        ),
        scale("a block that clears the terminal", "{\"up\": {\"\\u001b[2J\": 1}}".to_owned(), &["block `\\u{1b}[2J`"]),
        scale("a block without scales", r#"{"down": {"block_2": []}}"#.to_owned(), &["no scales for block `block_2`"]),
        scale("a middle block without scales", r#"{"mid": []}"#.to_owned(), &["no scales for block `mid`"]),
        scale("objects nested 100,000 times", "{\"down\":".repeat(100_000), &[expected]),
        scale("a megabyte of letters", "x".repeat(1 << 20), &[expected]),
    ]
}
