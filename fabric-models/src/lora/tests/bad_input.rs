//! Files and settings that cannot be used, each with an error that says why.

use super::*;
use crate::load::Dtype;

/// A good file with one small entry.
fn good() -> Memory {
    Memory::default().with_pair(peft_keys("conv_in"), &[8, 4, 3, 3], 2, 1)
}

#[track_caller]
fn refused(error: LoraError, kind: fn(&LoraError) -> bool, words: &[&str]) {
    let text = error.to_string();
    assert!(kind(&error), "{error:?}");
    for word in words.iter().chain(&["memory.safetensors"]) {
        assert!(text.contains(word), "`{word}` in: {text}");
    }
}

#[test]
fn files_without_a_lora_are_refused() {
    let not_a_lora = |error: &LoraError| matches!(error, LoraError::NotALora { .. });
    refused(Memory::default().read_lora().unwrap_err(), not_a_lora, &["no tensors"]);
    let model = Memory::default().with("conv_in.weight", &[1], &[0.0]);
    refused(model.read_lora().unwrap_err(), not_a_lora, &["conv_in.weight", "load this one as what it is"]);
    let mixed = good().with("conv_in.weight", &[1], &[0.0]);
    let unknown = |error: &LoraError| matches!(error, LoraError::UnknownKeys { .. });
    refused(mixed.read_lora().unwrap_err(), unknown, &["1 keys", "`conv_in.weight`"]);
}

#[test]
fn files_of_other_kinds_are_called_by_their_name() {
    let not_a_lora = |error: &LoraError| matches!(error, LoraError::NotALora { .. });
    let file = |names: &[&str]| names.iter().fold(Memory::default(), |file, name| file.with(*name, &[1], &[0.0]));
    let checkpoint = file(&["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.bias"]);
    refused(checkpoint.read_lora().unwrap_err(), not_a_lora, &["a single-file checkpoint"]);
    let control = file(&["input_blocks.1.0.emb_layers.1.down", "input_blocks.1.0.emb_layers.1.up", "lora_controlnet"]);
    refused(control.read_lora().unwrap_err(), not_a_lora, &["a Control-LoRA"]);
    let control = file(&["controlnet_cond_embedding.conv_in.bias"]);
    refused(control.read_lora().unwrap_err(), not_a_lora, &["a ControlNet"]);
}

#[test]
fn names_of_any_length_are_refused_cheaply() {
    // A comparison by edit distance with every weight of the network would take minutes.
    let module = "a_".repeat(200_000);
    let file = Memory::default().with_pair(kohya_keys(&module), &[4, 4], 1, 0);
    let error = merge(tiny_unet(), &file.read_lora().unwrap().unet, 1.0).unwrap_err();
    let LoraError::Mismatch(mismatch) = &error else { panic!("{error}") };
    assert_eq!(mismatch.unmatched[0].nearest, None);
    assert!(error.to_string().len() < 1000, "the message shows the beginning of the name");
    let [down, up] = kohya_keys(&module);
    for (key, shape) in [(down, [1, 4]), (up, [4, 1])] {
        let half = Memory::default().with(key, &shape, &[0.0; 4]);
        assert!(half.read_lora().unwrap_err().to_string().len() < 1000);
    }
}

#[test]
fn other_kinds_of_adaptation_are_refused_by_name() {
    let unsupported = |error: &LoraError| matches!(error, LoraError::Unsupported { .. });
    for (key, word) in [
        ("lora_unet_conv_in.dora_scale", "DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "LoHa"),
        ("lora_unet_conv_in.lokr_w1", "LoKr"),
        ("lora_unet_conv_in.lora_mid.weight", "third matrix"),
    ] {
        let file = good().with(key, &[1], &[0.0]);
        refused(file.read_lora().unwrap_err(), unsupported, &[word, key]);
    }
}

#[test]
fn half_a_product_is_refused() {
    let incomplete = |error: &LoraError| matches!(error, LoraError::Incomplete { .. });
    let lone = |key: &str| good().with(key, &[1, 4], &[0.0; 4]).read_lora().unwrap_err();
    refused(lone("unet.a.lora_A.weight"), incomplete, &["`a`", "lacks the one up"]);
    refused(lone("unet.a.lora_B.weight"), incomplete, &["`a`", "lacks the one down"]);
    refused(lone("unet.a.alpha"), incomplete, &["`a`", "lacks its two matrices"]);
}

#[test]
fn matrices_that_do_not_fit_together_are_refused() {
    let shape = |error: &LoraError| matches!(error, LoraError::Shape { .. });
    let pair = |down: &[usize], up: &[usize]| {
        let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
        let [down_key, up_key] = peft_keys("a");
        Memory::default().with(down_key, down, &zeros(down)).with(up_key, up, &zeros(up)).read_lora().unwrap_err()
    };
    refused(pair(&[2, 4], &[8, 3]), shape, &["lora_B", "got shape [8, 3]", "[out, 2]"]);
    refused(pair(&[2, 4, 3, 3], &[8, 2, 3, 3]), shape, &["lora_B", "[8, 2, 3, 3]"]);
    refused(pair(&[0, 4], &[8, 0]), shape, &["lora_A", "[0, 4]"]);
    refused(pair(&[2, 0], &[8, 2]), shape, &["lora_A", "[2, 0]"]);
    refused(pair(&[2, 4, 3], &[8, 2]), shape, &["lora_A", "[2, 4, 3]"]);
    refused(pair(&[], &[8, 2]), shape, &["lora_A", "[]"]);
    let alphas = good().with("unet.conv_in.alpha", &[2], &[1.0, 2.0]);
    refused(alphas.read_lora().unwrap_err(), shape, &["alpha", "[2]", "one number"]);
}

#[test]
fn absurd_numbers_are_refused() {
    let alpha = |error: &LoraError| matches!(error, LoraError::Alpha { .. });
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e9] {
        let file = good().with("unet.conv_in.alpha", &[1], &[value]);
        refused(file.read_lora().unwrap_err(), alpha, &["`conv_in`", "at rank 2"]);
    }
    let not_finite = |error: &LoraError| matches!(error, LoraError::Load(LoadError::NotFinite { .. }));
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let mut values = [0.0; 16];
        values[5] = value;
        let [_, up] = peft_keys("conv_in");
        refused(good().with(&up, &[8, 2], &values).read_lora().unwrap_err(), not_finite, &[&up, "index 5"]);
    }
    let huge = good().with_integer("unet.conv_in.alpha", Dtype::I64, &i64::MAX.to_le_bytes());
    refused(huge.read_lora().unwrap_err(), alpha, &["`conv_in`"]);
    let mut integers = good();
    integers.tensors.values_mut().for_each(|info| info.dtype = Dtype::I32);
    let wrong_type = |error: &LoraError| matches!(error, LoraError::Load(LoadError::WrongType { .. }));
    refused(integers.read_lora().unwrap_err(), wrong_type, &["I32"]);
}

#[test]
fn absurd_scales_are_refused() {
    let lora = good().read_lora().unwrap().unet;
    for scale in [f32::NAN, f32::INFINITY] {
        let scales = |error: &LoraError| matches!(error, LoraError::Scale { .. });
        refused(merge(tiny_unet(), &lora, scale).unwrap_err(), scales, &["finite"]);
    }
    let strong = |error: &LoraError| matches!(error, LoraError::TooStrong { .. });
    refused(merge(tiny_unet(), &lora, -1e6).unwrap_err(), strong, &["`conv_in`", "-1000000", "smaller scale"]);
    refused(attach(tiny_unet(), &lora, f32::MAX).unwrap_err(), strong, &["`conv_in`"]);
}

#[test]
fn one_weight_named_twice_is_refused() {
    let duplicate = |error: &LoraError| matches!(error, LoraError::Duplicate { .. });
    let [_, up] = peft_keys("conv_in");
    let twice = good().with("unet.conv_in.lora.up.weight", &[8, 2], &[0.0; 16]);
    refused(twice.read_lora().unwrap_err(), duplicate, &[&up, "unet.conv_in.lora.up.weight"]);
    let layouts = Memory::default().with_pair(peft_keys("mid_block.resnets.0.conv1"), &[16, 16, 3, 3], 1, 0).with_pair(
        kohya_keys("mid_block.resnets.0.conv1"),
        &[16, 16, 3, 3],
        1,
        0,
    );
    let error = merge(tiny_unet(), &layouts.read_lora().unwrap().unet, 1.0).unwrap_err();
    refused(error, duplicate, &["mid_block.resnets.0.conv1", "mid_block_resnets_0_conv1"]);
}

#[test]
fn entries_without_a_place_are_named_with_the_nearest_weight() {
    let file = good().with_pair(kohya_keys("mid_block.resnets.0.conv3"), &[16, 16, 3, 3], 1, 0).with_pair(
        peft_keys("conv_out"),
        &[4, 8, 1, 1],
        1,
        0,
    );
    let lora = file.read_lora().unwrap().unet;
    let mismatch = |error: &LoraError| matches!(error, LoraError::Mismatch(_));
    let words = [
        "of 3 entries for the unet 1 have no place in it and 1 have another shape",
        "`mid_block_resnets_0_conv3` (the network has `mid_block.resnets.0.conv",
        "`conv_out.weight`: expected [4, 8, 3, 3], got [4, 8, 1, 1]",
        "with_strict(false)",
    ];
    refused(merge(tiny_unet(), &lora, 1.0).unwrap_err(), mismatch, &words);

    let unet = tiny_unet();
    let (merged, report) = merge(unet.clone(), &lora.with_strict(false), 1.0).unwrap();
    assert_eq!(report.applied, ["conv_in.weight"]);
    assert_eq!((report.unmatched.len(), report.mismatched.len()), (1, 1));
    let (merged, base) = (weights(&merged), weights(&unet));
    let changed: Vec<&String> = base.keys().filter(|name| merged[*name] != base[*name]).collect();
    assert_eq!(changed, ["conv_in.weight"]);
}

#[test]
fn a_lora_for_another_model_says_for_which() {
    let device = cpu();
    let sd15 = || UNetConfig::sd15().init(&device).unwrap();
    let sdxl = || UNetConfig::sdxl().init(&device).unwrap();
    let file = |module: &str, shape: &[usize]| {
        Memory::default().with_pair(kohya_keys(module), shape, 1, 0).read_lora().unwrap().unet
    };
    let mismatch = |error: &LoraError| matches!(error, LoraError::Mismatch(_));
    let for_xl = file("input_blocks.4.1.transformer_blocks.0.attn2.to_k", &[640, 2048]);
    let words =
        ["the LoRA is for Stable Diffusion XL", "the network for Stable Diffusion 1", "[640, 2048]", "[640, 768]"];
    refused(merge(sd15(), &for_xl, 1.0).unwrap_err(), mismatch, &words);
    let for_1 = file("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", &[320, 768]);
    let words = ["the LoRA is for Stable Diffusion 1", "the network for Stable Diffusion XL"];
    refused(merge(sdxl(), &for_1, 1.0).unwrap_err(), mismatch, &words);
    let for_flux = file("double_blocks.0.img_attn.proj", &[8, 8]);
    refused(merge(sd15(), &for_flux, 1.0).unwrap_err(), mismatch, &["Flux"]);
}

#[test]
fn a_cut_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.safetensors");
    let tensors = good();
    let list: Vec<_> = tensors.tensors.clone().into_iter().collect();
    crate::load::write_safetensors(&path, &BTreeMap::new(), &list, |name| tensors.read(name)).unwrap();
    LoraFile::open(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = LoraFile::open(&path).unwrap_err();
        assert!(matches!(error, LoraError::Load(_)), "{error}");
        assert!(error.to_string().contains("cut.safetensors"), "{error}");
    }
    assert!(matches!(LoraFile::open(folder.path().join("no.safetensors")), Err(LoraError::Load(_))));
}

#[test]
fn many_patterns_for_many_modules_are_refused() {
    let module = |i: usize| format!("{i}{}", "x".repeat(1000));
    let file = (0..600).fold(Memory::default(), |file, i| file.with_pair(peft_keys(&module(i)), &[1, 1], 1, 0));
    let read = |expressions: usize| {
        let patterns = (0..expressions).map(|i| (format!("{i}x+"), 1.into()));
        let patterns: serde_json::Map<String, serde_json::Value> = patterns.collect();
        let settings = serde_json::json!({ "unet.alpha_pattern": patterns }).to_string();
        LoraFile::read(&file, &BTreeMap::from([("lora_adapter_metadata".to_owned(), settings)]))
    };
    assert_eq!(read(2).unwrap().unet.entries.len(), 600);
    let metadata = |error: &LoraError| matches!(error, LoraError::Metadata { .. });
    refused(read(32).unwrap_err(), metadata, &["32 regular expressions", "with fewer regular expressions"]);
}

#[cfg(feature = "pickle")]
#[test]
fn matrices_that_repeat_one_value_without_end_are_refused_and_not_made() {
    let long = |number: u64| [b"\x8a\x08".as_slice(), &number.to_le_bytes()].concat();
    // A tensor of any shape that shows the first value of the storage everywhere, because its strides are 0.
    let tensor = |name: &str, shape: [u64; 2]| {
        let storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\x00";
        [
            b"X".as_slice(),
            &(name.len() as u32).to_le_bytes(),
            name.as_bytes(),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            storage,
            b"(",
            &long(shape[0]),
            &long(shape[1]),
            b"t(K\x00K\x00t\x89}tRs",
        ]
        .concat()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    let [down, up] = kohya_keys("conv_in");
    let opened = |inputs: u64| {
        // The form before PyTorch 1.6.
        let file = [
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".as_slice(),
            b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}",
            &tensor(&down, [1, inputs]),
            &tensor(&up, [4, 1]),
            b".\x80\x02]X\x01\0\0\x000a.",
            &1_u64.to_le_bytes(),
            &1_f32.to_le_bytes(),
        ]
        .concat();
        std::fs::write(&path, file).unwrap();
        LoraFile::open(&path)
    };
    assert_eq!(opened(1000).unwrap().unet.entries.len(), 1);
    let error = opened(2_400_000_000).unwrap_err();
    assert!(matches!(error, LoraError::Load(LoadError::Malformed { .. })), "{error}");
    assert!(error.to_string().contains("a.bin") && error.to_string().contains("repeats 1 values"), "{error}");
}
