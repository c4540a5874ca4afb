//! The same LoRA in every layout, and names.

use burn::module::Module;
use serde_json::json;

use super::*;
use crate::layers::{Conv2d, Linear};
use crate::load::{Component, Dtype, original_unet_names};
use crate::lora::names::Names;

#[test]
fn every_layout_of_one_lora_gives_the_same_weights() {
    let unet = tiny_unet();
    let attention = |name: &str| name.contains(".attn");
    let merged = |keys| {
        let file = lora_for(&unet, 7, keys, attention).read_lora().unwrap();
        let (merged, report) = merge(unet.clone(), &file.unet, 1.0).unwrap();
        assert_eq!(report.applied.len(), 2 * 4 * 4, "four transformers with two attentions each");
        weights(&merged)
    };
    let peft = merged(peft_keys);
    assert!(distance(&peft, &weights(&unet)) > 0.1);
    let layouts: [fn(&str) -> [String; 2]; 5] = [
        kohya_keys,
        |module| ["down", "up"].map(|side| format!("unet.{module}.lora.{side}.weight")),
        |module| ["A", "B"].map(|side| format!("base_model.model.{module}.lora_{side}.weight")),
        |module| processor_keys("unet.", module),
        |module| processor_keys("", module),
    ];
    for keys in layouts {
        assert!(same_bits(&merged(keys), &peft), "{:?}", keys("a.attn1.to_out.0"));
    }
}

fn processor_keys(prefix: &str, module: &str) -> [String; 2] {
    let (layer, projection) = module.trim_end_matches(".0").rsplit_once('.').unwrap();
    ["down", "up"].map(|side| format!("{prefix}{layer}.processor.{projection}_lora.{side}.weight"))
}

#[test]
fn original_names_mean_the_same_weights() {
    let unet = tiny_unet();
    let names = [
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("down_blocks.0.resnets.0.conv1", "input_blocks.1.0.in_layers.2"),
        ("down_blocks.0.attentions.0.proj_in", "input_blocks.1.1.proj_in"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
        ("down_blocks.1.resnets.0.time_emb_proj", "input_blocks.3.0.emb_layers.1"),
        (
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
            "middle_block.1.transformer_blocks.0.ff.net.0.proj",
        ),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.1.1.conv"),
        ("up_blocks.1.resnets.1.conv_shortcut", "output_blocks.3.0.skip_connection"),
        (
            "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0",
            "output_blocks.3.1.transformer_blocks.0.attn2.to_out.0",
        ),
        ("conv_out", "out.2"),
    ];
    let shapes = adaptable(&unet);
    let comfy_keys = |name: &str| ["down", "up"].map(|side| format!("diffusion_model.{name}.lora_{side}.weight"));
    let merged = |keys: &dyn Fn(&str, &str) -> [String; 2]| {
        let file = names.iter().enumerate().fold(Memory::default(), |file, (seed, (published, name))| {
            let weight = format!("{published}.weight");
            let shape = &shapes.iter().find(|parameter| parameter.name == weight).unwrap().shape;
            file.with_pair(keys(published, name), shape, 2, seed as u64)
        });
        let (merged, report) = merge(unet.clone(), &file.read_lora().unwrap().unet, 1.0).unwrap();
        assert_eq!(report.applied.len(), names.len());
        weights(&merged)
    };
    let published = merged(&|published, _| kohya_keys(published));
    assert!(same_bits(&merged(&|_, original| kohya_keys(original)), &published));
    assert!(same_bits(&merged(&|_, original| comfy_keys(original)), &published));
}

#[test]
fn every_weight_of_the_published_networks_has_one_name_in_each_layout() {
    for config in [UNetConfig::sd15(), UNetConfig::sd21(), UNetConfig::sdxl()] {
        let unet = config.init(&cpu()).unwrap();
        let parameters = adaptable(&unet);
        let all = super::parameters(&unet);
        let names = Names::of(&all);
        let originals = original_unet_names(all.iter().map(|parameter| parameter.name.as_str()));
        for parameter in &parameters {
            let module = parameter.name.strip_suffix(".weight").unwrap();
            let index = all.iter().position(|other| other == parameter).unwrap();
            let original = originals[index].as_deref().unwrap().strip_suffix(".weight").unwrap().to_owned();
            for name in [module.to_owned(), module.replace('.', "_"), original.replace('.', "_"), original] {
                assert_eq!(names.find(&name), [parameter], "{name}");
            }
        }
    }
}

#[test]
fn published_names_of_xl_loras_are_understood() {
    let unet = UNetConfig::sdxl().init(&cpu()).unwrap();
    let parameters = super::parameters(&unet);
    let names = Names::of(&parameters);
    for (name, weight) in [
        (
            "input_blocks_4_1_transformer_blocks_1_attn1_to_q",
            "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.weight",
        ),
        (
            "input_blocks_8_1_transformer_blocks_9_ff_net_2",
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2.weight",
        ),
        ("middle_block_1_proj_out", "mid_block.attentions.0.proj_out.weight"),
        (
            "output_blocks_5_1_transformer_blocks_0_attn2_to_v",
            "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_v.weight",
        ),
        ("label_emb_0_2", "add_embedding.linear_2.weight"),
    ] {
        let got: Vec<&str> = names.find(name).iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(got, [weight]);
    }
}

/// One module with a dot where another has an underscore.
#[derive(Module, Debug)]
struct Twins {
    a_b: Linear,
    a: Inner,
}

#[derive(Module, Debug)]
struct Inner {
    b: Linear,
    kernel: Conv2d,
}

impl PublishedNames for Twins {
    fn published_name(path: &str) -> String {
        path.to_owned()
    }
}

fn twins() -> Twins {
    let linear = || Linear::new(3, 5, false, &cpu());
    Twins { a_b: linear(), a: Inner { b: linear(), kernel: Conv2d::new(3, 5, 1, &cpu()) } }
}

#[test]
fn a_name_that_could_be_two_is_refused() {
    let file = Memory::default().with_pair(kohya_keys("a.b"), &[5, 3], 1, 0).read_lora().unwrap();
    let error = merge(twins(), &file.unet, 1.0).unwrap_err();
    assert!(matches!(&error, LoraError::Ambiguous { names, .. } if names.len() == 2), "{error}");
    // With a dot it is clear.
    let file = Memory::default().with_pair(peft_keys("a.b"), &[5, 3], 1, 0).read_lora().unwrap();
    assert_eq!(merge(twins(), &file.unet, 1.0).unwrap().1.applied, ["a.b.weight"]);
}

#[test]
fn a_pointwise_convolution_takes_a_lora_of_a_matrix() {
    let file = |shape: &[usize]| Memory::default().with_pair(peft_keys("a.kernel"), shape, 2, 3).read_lora().unwrap();
    let twins = twins();
    let merged = |file: LoraFile| weights(&merge(twins.clone(), &file.unet, 1.0).unwrap().0);
    assert!(same_bits(&merged(file(&[5, 3])), &merged(file(&[5, 3, 1, 1]))));
}

#[test]
fn alphas_in_the_header_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peft.safetensors");
    let tensors = Memory::default().with_pair(peft_keys("conv_in"), &[8, 4, 3, 3], 2, 0);
    let settings = json!({ "unet.lora_alpha": 3.0, "unet.r": 2 }).to_string();
    let metadata = [("format".into(), "pt".into()), ("lora_adapter_metadata".into(), settings)].into();
    tensors.write(&path, &metadata);
    let file = LoraFile::open(&path).unwrap();
    assert_eq!(file.unet.entries[0].factor, 1.5);
    assert_eq!(file.to_string(), format!("{}: LoRA, unet: 1 weights (peft layout)", path.display()));
}

#[test]
fn integer_alphas_count() {
    let cases: [(Dtype, &[u8]); 6] = [
        (Dtype::I64, &1_i64.to_le_bytes()),
        (Dtype::I32, &1_i32.to_le_bytes()),
        (Dtype::I16, &1_i16.to_le_bytes()),
        (Dtype::U16, &1_u16.to_le_bytes()),
        (Dtype::I8, &[1]),
        (Dtype::U8, &[1]),
    ];
    for (dtype, bytes) in cases {
        let file = Memory::default().with_pair(peft_keys("conv_in"), &[8, 4, 3, 3], 2, 0);
        let lora = file.with_integer("unet.conv_in.alpha", dtype, bytes).read_lora().unwrap().unet;
        assert_eq!(lora.entries[0].factor, 0.5, "{dtype:?}");
    }
}

/// The folder that peft saves of an adapter.
fn peft_folder(place: &Path, settings: &serde_json::Value, module: &str) {
    let keys = ["A", "B"].map(|side| format!("base_model.model.{module}.lora_{side}.weight"));
    let file = Memory::default().with_pair(keys, &[8, 4, 3, 3], 4, 0);
    file.write(&place.join("adapter_model.safetensors"), &BTreeMap::new());
    std::fs::write(place.join("adapter_config.json"), settings.to_string()).unwrap();
}

#[test]
fn a_folder_of_pefts_is_scaled_as_its_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let factor = |settings: serde_json::Value| {
        peft_folder(folder.path(), &settings, "conv_in");
        let from_folder = LoraFile::open(folder.path()).unwrap().unet.entries[0].factor;
        let from_file = LoraFile::open(folder.path().join("adapter_model.safetensors")).unwrap();
        assert_eq!(from_file.unet.entries[0].factor, from_folder);
        from_folder
    };
    assert_eq!(factor(json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 2, "alpha_pattern": {} })), 0.5);
    assert_eq!(factor(json!({ "r": 2, "rank_pattern": { "conv_in": 4 }, "lora_alpha": 2 })), 0.5);
    assert_eq!(factor(json!({ "r": 4, "lora_alpha": 2, "alpha_pattern": { "conv_in": 6 } })), 1.5);
    assert_eq!(factor(json!({ "r": 4, "lora_alpha": 2, "use_rslora": true })), 1.0);
    // Without its settings, or under names that are not peft's, it is any other file.
    std::fs::remove_file(folder.path().join("adapter_config.json")).unwrap();
    assert_eq!(LoraFile::open(folder.path()).unwrap().unet.entries[0].factor, 1.0);
    std::fs::write(folder.path().join("adapter_config.json"), r#"{"lora_alpha": 2}"#).unwrap();
    let other = Memory::default().with_pair(peft_keys("conv_in"), &[8, 4, 3, 3], 4, 0);
    other.write(&folder.path().join("other.safetensors"), &BTreeMap::new());
    let other = LoraFile::open(folder.path().join("other.safetensors")).unwrap();
    assert_eq!(other.unet.entries[0].factor, 1.0);
}

#[test]
fn what_peft_saved_counts_half_where_alpha_is_half_of_the_rank() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/peft");
    let file = LoraFile::open(folder).unwrap();
    assert!(file.unet.entries.len() > 4 && file.text_encoder.is_empty());
    assert!(file.unet.entries.iter().all(|entry| entry.factor == 0.5 && entry.up.shape()[1] == 4));
}

#[test]
fn pefts_settings_say_which_network_they_are_for() {
    let folder = tempfile::tempdir().unwrap();
    let read = |class: &str, module: &str| {
        let settings = json!({ "lora_alpha": 4, "auto_mapping": { "base_model_class": class } });
        peft_folder(folder.path(), &settings, module);
        let file = LoraFile::open(folder.path()).unwrap();
        let lora = file.parts().into_iter().find(|lora| !lora.is_empty()).unwrap().clone();
        (lora.part(), lora.entries[0].target.clone())
    };
    let (bare, full) = ("encoder.layers.0.mlp.fc1", "text_model.encoder.layers.0.mlp.fc1");
    for (class, part) in [
        ("CLIPTextModel", Component::TextEncoder),
        ("CLIPTextModelWithProjection", Component::TextEncoder2),
        ("Another", Component::TextEncoder),
    ] {
        assert_eq!(read(class, bare), (part, full.to_owned()));
        assert_eq!(read(class, full), (part, full.to_owned()));
    }
    assert_eq!(read("UNet2DConditionModel", "conv_in"), (Component::UNet, "conv_in".to_owned()));
}

#[test]
fn a_folder_of_diffusers_has_its_own_name_for_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = LoraFile::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("adapter_model.safetensors") && error.contains("pytorch_lora_weights.bin"), "{error}");
    let file = Memory::default().with_pair(peft_keys("conv_in"), &[8, 4, 3, 3], 4, 0);
    file.write(&folder.path().join("pytorch_lora_weights.safetensors"), &BTreeMap::new());
    assert_eq!(LoraFile::open(folder.path()).unwrap().unet.entries.len(), 1);
}
