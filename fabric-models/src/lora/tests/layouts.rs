//! The same LoRA in every layout, and names.

use burn::module::Module;
use serde_json::json;

use super::*;
use crate::layers::{Conv2d, Linear};
use crate::load::{original_unet_names, write_safetensors};
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
    let merged = |original: bool| {
        let file = names.iter().enumerate().fold(Memory::default(), |file, (seed, (published, name))| {
            let weight = format!("{published}.weight");
            let shape = &shapes.iter().find(|parameter| parameter.name == weight).unwrap().shape;
            file.with_pair(kohya_keys(if original { name } else { published }), shape, 2, seed as u64)
        });
        let (merged, report) = merge(unet.clone(), &file.read_lora().unwrap().unet, 1.0).unwrap();
        assert_eq!(report.applied.len(), names.len());
        weights(&merged)
    };
    assert!(same_bits(&merged(true), &merged(false)));
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
            let original = originals[index].as_deref().unwrap().strip_suffix(".weight").unwrap().replace('.', "_");
            for name in [module.to_owned(), module.replace('.', "_"), original] {
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
        let found: Vec<&str> = names.find(name).iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(found, [weight]);
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
    let list: Vec<_> = tensors.tensors.clone().into_iter().collect();
    write_safetensors(&path, &metadata, &list, |name| tensors.read(name)).unwrap();
    let file = LoraFile::open(&path).unwrap();
    assert_eq!(file.unet.targets()[0].factor(), 1.5);
    assert_eq!(file.to_string(), format!("{}: LoRA, unet: 1 weights (peft layout)", path.display()));
}
