//! Checkpoints with the original code's names.

use std::sync::Arc;

use fabric_core::schedule::{Prediction, SamplerKind, SchedulerConfig};
use safetensors::Dtype;
use serde_json::Value;

use super::*;
use crate::clip::ClipTextConfig;
use crate::config::OneOrMany;
use crate::load::compvis::unet::UNetShape;
use crate::load::compvis::{KeyTable, text, vae};
use crate::load::{Component, Family, LoadDtype, SafetensorsFile, SingleFile, open_vae, parameters, save_weights};
use crate::unet::{Depths, DownBlockType, MidBlockType, UNetConfig, UpBlockType};
use crate::vae::{DecoderBlockType, EncoderBlockType, VaeConfig};
use crate::{ModelOptions, load_model};

/// A checkpoint's tensors by name; only what a test needs of them.
pub(super) type Tensors = BTreeMap<String, HostTensor>;

fn empty(dtype: Dtype, shape: &[usize]) -> HostTensor {
    HostTensor { info: TensorInfo { dtype, shape: shape.to_vec() }, bytes: Vec::new() }
}

/// Names and shapes of a network of full size, without values.
fn without_values<M: Module + PublishedNames>(network: &M) -> Tensors {
    parameters(network).into_iter().map(|p| (p.name, empty(Dtype::F16, &p.shape))).collect()
}

fn unet_tensors(config: &UNetConfig) -> Tensors {
    without_values(&config.init(&cpu()).expect("a network"))
}

fn text_tensors(config: &ClipTextConfig) -> Tensors {
    without_values(&config.init(&cpu()).expect("a network"))
}

/// The tensors of a golden model.
fn golden(path: &str) -> Tensors {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/models")).join(path);
    read_all(&SafetensorsFile::open(path).expect("a golden model"))
}

/// A U-Net with CompVis' names.
fn unet_to_compvis(tensors: Tensors) -> Tensors {
    let shape = UNetShape::of_diffusers(tensors.keys().map(String::as_str));
    let table = KeyTable::to_compvis(shape.pairs());
    rename(tensors, "model.diffusion_model.", |name| table.translate(name))
}

fn rename(tensors: Tensors, prefix: &str, new: impl Fn(&str) -> Option<String>) -> Tensors {
    let name = |name: &str| format!("{prefix}{}", new(name).unwrap_or_else(|| panic!("{name} has no other name")));
    tensors.into_iter().map(|(old, tensor)| (name(&old), tensor)).collect()
}

/// A VAE with CompVis' names and kernels.
fn vae_to_compvis(tensors: Tensors, prefix: &str) -> Tensors {
    let levels = (0..).take_while(|i| tensors.contains_key(&format!("encoder.down_blocks.{i}.resnets.0.conv1.bias")));
    let levels = levels.count();
    let table = KeyTable::to_compvis(vae::pairs_for(levels, 2, levels, 3));
    let kernels = tensors.into_iter().map(|(name, mut tensor)| {
        if vae::is_attention_projection(&name) {
            tensor.info.shape.extend([1, 1]);
        }
        (name, tensor)
    });
    rename(kernels.collect(), prefix, |name| table.translate(name))
}

/// An OpenCLIP text encoder: joint projections, `text_projection` the other way round, a bare positional table.
fn open_clip(mut tensors: Tensors, prefix: &str) -> Tensors {
    let joint: Vec<String> = tensors.keys().filter(|name| name.contains(".q_proj.")).cloned().collect();
    let mut converted = Tensors::new();
    for query in joint {
        let parts = ["q_proj", "k_proj", "v_proj"]
            .map(|part| tensors.remove(&query.replace("q_proj", part)).expect("all three"));
        let mut info = parts[0].info.clone();
        info.shape[0] *= 3;
        let bytes = parts.into_iter().flat_map(|part| part.bytes).collect();
        let name = query.replace("text_model.encoder.layers", "transformer.resblocks");
        let name = name.replace("self_attn.q_proj.", "attn.in_proj_");
        converted.insert(format!("{prefix}{name}"), HostTensor { info, bytes });
    }
    if let Some(mut projection) = tensors.remove("text_projection.weight") {
        let [rows, columns] = projection.info.shape[..] else { panic!("a matrix") };
        let value = |row: usize, column: usize| &projection.bytes[(row * columns + column) * 4..][..4];
        let pairs = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
        let has_values = !projection.bytes.is_empty();
        let bytes = pairs.filter(|_| has_values).flat_map(|(row, column)| value(row, column).to_vec()).collect();
        let info = TensorInfo { dtype: projection.info.dtype, shape: vec![columns, rows] };
        projection = HostTensor { info, bytes };
        converted.insert(format!("{prefix}text_projection"), projection);
    }
    let table = KeyTable::to_compvis(text::open_clip_pairs(40));
    converted.extend(rename(tensors, prefix, |name| table.translate(name)));
    converted
}

fn checkpoint(parts: impl IntoIterator<Item = Tensors>) -> SingleFile {
    let mut tensors: Tensors = parts.into_iter().flatten().collect();
    // What the original files carry along.
    tensors.insert("model_ema.decay".into(), floats(&[], &[1.0]));
    tensors.insert("alphas_cumprod".into(), floats(&[2], &[1.0, 0.5]));
    SingleFile::new(Arc::new(InMemory::new(tensors))).expect("a checkpoint")
}

fn infos(tensors: &Tensors) -> BTreeMap<String, TensorInfo> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.info.clone())).collect()
}

#[test]
fn unet_names_of_every_family_survive_the_way_there_and_back() {
    for (config, family, count) in [
        (UNetConfig::sd15(), Family::Sd1, 686),
        (UNetConfig::sd21(), Family::Sd2, 686),
        (UNetConfig::sdxl(), Family::Sdxl, 1680),
    ] {
        let tensors = unet_tensors(&config);
        assert_eq!(tensors.len(), count, "{family}");
        let file = checkpoint([unet_to_compvis(tensors.clone())]);
        assert_eq!(file.family(), family);
        assert_eq!(file.weights(Component::UNet).expect("weights").tensors(), &infos(&tensors), "{family}");
        let got: Value = file.config(Component::UNet).expect("settings");
        let got = UNetConfig::from_json(&got.to_string()).expect("a good configuration");
        assert_eq!(infos(&unet_tensors(&got)), infos(&tensors), "{family}");
    }
}

#[test]
fn whole_checkpoints_of_every_family_give_every_tensor_and_the_published_settings() {
    let vae = VaeConfig::sd15().init(&cpu()).expect("a network");
    let vae = without_values(&vae);
    assert_eq!(vae.len(), 248);
    let vit_l = text_tensors(&ClipTextConfig::vit_l());
    let clip = |prefix: &str| rename(vit_l.clone(), prefix, |name| Some(name.to_owned()));
    let vit_h = text_tensors(&ClipTextConfig::vit_h());
    let big_g = text_tensors(&ClipTextConfig::big_g());
    assert_eq!((vit_l.len(), vit_h.len(), big_g.len()), (196, 372, 517));
    let families = [
        (UNetConfig::sd15(), clip("cond_stage_model.transformer."), vit_l.clone(), None),
        (UNetConfig::sd21(), open_clip(vit_h.clone(), "cond_stage_model.model."), vit_h, None),
        (
            UNetConfig::sdxl(),
            [clip("conditioner.embedders.0.transformer."), open_clip(big_g.clone(), "conditioner.embedders.1.model.")]
                .into_iter()
                .flatten()
                .collect(),
            vit_l,
            Some(big_g),
        ),
    ];
    for (config, text, first, second) in families {
        let unet = unet_to_compvis(unet_tensors(&config));
        let file = checkpoint([unet, vae_to_compvis(vae.clone(), "first_stage_model."), text]);
        let weights = |component| file.weights(component).expect("weights").tensors().clone();
        let settings = |component| file.config::<Value>(component).expect("settings").to_string();
        assert_eq!(weights(Component::Vae), infos(&vae));
        assert_eq!(weights(Component::TextEncoder), infos(&first));
        let got = VaeConfig::from_json(&settings(Component::Vae)).expect("a good configuration");
        assert_eq!(infos(&without_values(&got.init(&cpu()).expect("a network"))), infos(&vae));
        let encoders = [(Component::TextEncoder, Some(first)), (Component::TextEncoder2, second)];
        for (component, expected) in encoders {
            assert_eq!(file.has(component), expected.is_some());
            let Some(expected) = expected else { continue };
            assert_eq!(weights(component), infos(&expected));
            let got = ClipTextConfig::from_json(&settings(component)).expect("a good configuration");
            assert_eq!(infos(&text_tensors(&got)), infos(&expected));
        }
    }
}

#[test]
fn some_names_are_those_of_the_published_checkpoints() {
    let names = |config: &UNetConfig| unet_to_compvis(unet_tensors(config));
    let (sd1, xl) = (names(&UNetConfig::sd15()), names(&UNetConfig::sdxl()));
    for name in [
        "input_blocks.0.0.weight",
        "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.bias",
        "input_blocks.3.0.op.weight",
        "input_blocks.4.0.skip_connection.weight",
        "input_blocks.11.0.out_layers.3.weight",
        "middle_block.1.proj_in.weight",
        "middle_block.2.in_layers.2.bias",
        "output_blocks.2.1.conv.weight",
        "output_blocks.5.2.conv.weight",
        "output_blocks.8.2.conv.weight",
        "output_blocks.11.1.proj_out.weight",
        "time_embed.2.weight",
        "out.2.weight",
    ] {
        assert!(sd1.contains_key(&format!("model.diffusion_model.{name}")), "{name}");
    }
    for name in [
        "label_emb.0.0.weight",
        "input_blocks.4.1.transformer_blocks.1.ff.net.0.proj.weight",
        "input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight",
        "output_blocks.2.2.conv.weight",
        "output_blocks.5.2.conv.bias",
        "output_blocks.8.0.emb_layers.1.weight",
    ] {
        assert!(xl.contains_key(&format!("model.diffusion_model.{name}")), "{name}");
    }
    assert!(!xl.contains_key("model.diffusion_model.input_blocks.1.1.norm.weight"));
}

#[test]
fn a_latent_consistency_model_is_told_by_the_projection_of_its_guidance_scale() {
    let plain = UNetConfig::sd15();
    let distilled = UNetConfig { time_cond_proj_dim: Some(256), ..UNetConfig::sd15() };
    for (config, kind) in [(plain, SamplerKind::Pndm), (distilled, SamplerKind::Lcm)] {
        let file = checkpoint([unet_to_compvis(unet_tensors(&config))]);
        let told: UNetConfig = file.config(Component::UNet).expect("a configuration");
        assert_eq!(told.time_cond_proj_dim, config.time_cond_proj_dim);
        let scheduler: SchedulerConfig = file.scheduler_config().expect("a configuration");
        assert_eq!(scheduler.kind, kind);
    }
}

#[test]
fn a_small_model_of_generation_1_has_the_same_values_from_one_file() {
    let (unet, vae, clip) = (
        golden("unet/diffusion_pytorch_model.safetensors"),
        golden("vae/diffusion_pytorch_model.safetensors"),
        golden("text_encoder/model.safetensors"),
    );
    let prefixed = rename(clip.clone(), "cond_stage_model.transformer.", |name| Some(name.to_owned()));
    let file = checkpoint([unet_to_compvis(unet.clone()), vae_to_compvis(vae.clone(), "first_stage_model."), prefixed]);
    assert_eq!(file.family(), Family::Sd1);
    assert_eq!(read_all(&file.weights(Component::UNet).expect("weights")), unet);
    assert_eq!(read_all(&file.weights(Component::Vae).expect("weights")), vae);
    assert_eq!(read_all(&file.weights(Component::TextEncoder).expect("weights")), clip);
    assert!(!file.has(Component::TextEncoder2));
    let scheduler: Value = file.scheduler_config().expect("settings");
    assert_eq!(scheduler["prediction_type"], "epsilon");
    let config: Value = file.config(Component::TextEncoder).expect("settings");
    assert_eq!((&config["hidden_act"], &config["vocab_size"]), (&"quick_gelu".into(), &49408.into()));
    let config: Value = file.config(Component::Vae).expect("settings");
    assert_eq!((&config["scaling_factor"], &config["latent_channels"]), (&0.18215.into(), &4.into()));
}

#[test]
fn a_small_xl_model_has_the_same_values_from_one_file() {
    let (unet, first, second) = (
        golden("sdxl/unet/diffusion_pytorch_model.safetensors"),
        golden("sdxl/text_encoder/model.safetensors"),
        golden("sdxl/text_encoder_2/model.safetensors"),
    );
    let mut bigg = open_clip(second.clone(), "conditioner.embedders.1.model.");
    bigg.insert("conditioner.embedders.1.model.logit_scale".into(), floats(&[], &[4.6]));
    let first_stored = rename(first.clone(), "conditioner.embedders.0.transformer.", |name| Some(name.to_owned()));
    let file = checkpoint([unet_to_compvis(unet.clone()), first_stored, bigg]);
    assert_eq!(file.family(), Family::Sdxl);
    assert_eq!(read_all(&file.weights(Component::UNet).expect("weights")), unet);
    assert_eq!(read_all(&file.weights(Component::TextEncoder).expect("weights")), first);
    assert_eq!(read_all(&file.weights(Component::TextEncoder2).expect("weights")), second);
    let config: Value = file.config(Component::TextEncoder2).expect("settings");
    assert_eq!(config["projection_dim"], second["text_projection.weight"].info.shape[0]);
    assert_eq!(config["hidden_act"], "gelu");
    assert_says(file.weights(Component::Vae), &["`vae` in this checkpoint", "load one from"]);
}

#[test]
fn generation_2_drops_the_layer_it_does_not_use_and_the_projection() {
    let mut clip: Tensors = golden("sdxl/text_encoder_2/model.safetensors");
    let projection = clip.remove("text_projection.weight").expect("a projection");
    let layer: Tensors = clip
        .iter()
        .filter_map(|(name, tensor)| {
            let rest = name.strip_prefix("text_model.encoder.layers.0.")?;
            Some((format!("text_model.encoder.layers.23.{rest}"), tensor.clone()))
        })
        .collect();
    let mut stored: Tensors = clip.clone().into_iter().chain(layer).collect();
    stored.insert("text_projection.weight".into(), projection);
    let unet = unet_to_compvis(unet_tensors(&UNetConfig::sd21()));
    let file = checkpoint([unet, open_clip(stored, "cond_stage_model.model.")]);
    assert_eq!(file.family(), Family::Sd2);
    assert_eq!(read_all(&file.weights(Component::TextEncoder).expect("weights")), clip);
    let scheduler: Value = file.scheduler_config().expect("settings");
    assert_eq!(scheduler["prediction_type"], "v_prediction");
}

#[test]
fn a_text_encoder_without_its_outermost_module_is_understood() {
    let clip = golden("text_encoder/model.safetensors");
    let stored = rename(clip.clone(), "cond_stage_model.transformer.", |name| {
        name.strip_prefix("text_model.").map(str::to_owned)
    });
    let file = checkpoint([unet_to_compvis(unet_tensors(&UNetConfig::sd15())), stored]);
    assert_eq!(read_all(&file.weights(Component::TextEncoder).expect("weights")), clip);
}

#[test]
fn text_encoders_are_found_whatever_held_them() {
    let (first, second) =
        (golden("sdxl/text_encoder/model.safetensors"), golden("sdxl/text_encoder_2/model.safetensors"));
    let moved = |tensors: &Tensors, prefix: &str| rename(tensors.clone(), prefix, |name| Some(name.to_owned()));
    let bare = |tensors: &Tensors, prefix: &str| {
        rename(tensors.clone(), prefix, |name| Some(name.strip_prefix("text_model.").unwrap_or(name).to_owned()))
    };
    for stem in ["cond_stage_model.", "cond_stage_model.transformer."] {
        for stored in [moved(&first, stem), bare(&first, stem)] {
            let file = checkpoint([unet_to_compvis(unet_tensors(&UNetConfig::sd15())), stored]);
            assert!(file.has(Component::TextEncoder), "{stem}");
            assert_eq!(read_all(&file.weights(Component::TextEncoder).expect("weights")), first, "{stem}");
            let config: Value = file.config(Component::TextEncoder).expect("settings");
            assert_eq!(config["num_hidden_layers"], 3, "{stem}");
        }
    }
    let unet = || unet_to_compvis(unet_tensors(&UNetConfig::sdxl()));
    for module in ["transformer.", ""] {
        let stored = [
            moved(&first, &format!("conditioner.embedders.0.{module}")),
            bare(&second, &format!("conditioner.embedders.1.{module}")),
        ];
        let file = checkpoint([unet()].into_iter().chain(stored));
        assert_eq!(read_all(&file.weights(Component::TextEncoder).expect("weights")), first);
        assert_eq!(read_all(&file.weights(Component::TextEncoder2).expect("weights")), second);
    }
}

#[test]
fn unknown_tensors_of_a_network_stay_visible() {
    let mut unet = unet_to_compvis(unet_tensors(&UNetConfig::sd15()));
    unet.insert("model.diffusion_model.motion.0.weight".into(), empty(Dtype::F16, &[1]));
    let weights = checkpoint([unet]).weights(Component::UNet).expect("weights");
    assert!(weights.tensors().contains_key("motion.0.weight"));
    assert_eq!(weights.tensors().len(), 687);
}

#[test]
fn marks_of_velocity_prediction_are_heeded() {
    let unet = unet_to_compvis(unet_tensors(&UNetConfig::sdxl()));
    let marks = Tensors::from([("v_pred".into(), floats(&[0], &[])), ("ztsnr".into(), floats(&[0], &[]))]);
    let scheduler: Value = checkpoint([unet, marks]).scheduler_config().expect("settings");
    assert_eq!(scheduler["prediction_type"], "v_prediction");
    assert_eq!(scheduler["rescale_betas_zero_snr"], true);
}

/// Stable Diffusion 2's U-Net in small, with so many input channels, under its names in single files.
fn small_sd2(in_channels: usize) -> Tensors {
    let config = UNetConfig {
        in_channels,
        block_out_channels: vec![64, 128],
        down_block_types: vec![DownBlockType::CrossAttnDownBlock2D, DownBlockType::DownBlock2D],
        up_block_types: vec![UpBlockType::UpBlock2D, UpBlockType::CrossAttnUpBlock2D],
        attention_head_dim: OneOrMany::Many(vec![1, 2]),
        ..UNetConfig::sd21()
    };
    unet_to_compvis(unet_tensors(&config))
}

/// What a checkpoint predicts, and the side of the latents that it was trained on, as its settings say.
fn predicts(file: &SingleFile) -> (String, u64) {
    let scheduler: Value = file.scheduler_config().expect("settings");
    let unet: Value = file.config(Component::UNet).expect("settings");
    (scheduler["prediction_type"].as_str().expect("a name").to_owned(), unet["sample_size"].as_u64().expect("a side"))
}

fn scalar(dtype: Dtype, bytes: &[u8]) -> Tensors {
    let info = TensorInfo { dtype, shape: vec![] };
    Tensors::from([("global_step".to_owned(), HostTensor { info, bytes: bytes.to_vec() })])
}

#[test]
fn stable_diffusion_2_predicts_noise_where_it_inpaints_or_has_the_step_of_the_base_model() {
    let (noise, velocity) = (("epsilon".to_owned(), 64), ("v_prediction".to_owned(), 96));
    assert_eq!(predicts(&checkpoint([small_sd2(4)])), velocity);
    assert_eq!(predicts(&checkpoint([small_sd2(9)])), noise);
    for (dtype, bytes) in [
        (Dtype::I64, 875_000_i64.to_le_bytes().to_vec()),
        (Dtype::I32, 875_000_i32.to_le_bytes().to_vec()),
        (Dtype::F32, 875_000_f32.to_le_bytes().to_vec()),
    ] {
        assert_eq!(predicts(&checkpoint([small_sd2(4), scalar(dtype, &bytes)])), noise, "{dtype:?}");
    }
    let step_of_768v = scalar(Dtype::I64, &140_000_i64.to_le_bytes());
    assert_eq!(predicts(&checkpoint([small_sd2(4), step_of_768v])), velocity);
    // A training checkpoint has the step beside its tensors.
    for (step, expected) in [("875000", &noise), ("110000", &velocity)] {
        let source = InMemory::new(small_sd2(4)).with_note("global_step", step);
        assert_eq!(&predicts(&SingleFile::new(Arc::new(source)).expect("a checkpoint")), expected);
    }
}

#[test]
fn the_header_and_the_caller_say_what_a_checkpoint_predicts() {
    let noted = |channels, note: &str| {
        let source = InMemory::new(small_sd2(channels)).with_note("modelspec.prediction_type", note);
        SingleFile::new(Arc::new(source))
    };
    assert_eq!(predicts(&noted(4, "epsilon").expect("a checkpoint")).0, "epsilon");
    assert_eq!(predicts(&noted(9, "v").expect("a checkpoint")).0, "v_prediction");
    assert_eq!(predicts(&noted(4, "something").expect("a checkpoint")).0, "v_prediction");
    assert_says(noted(4, "rectified flow"), &["`modelspec.prediction_type` is `rectified flow`", "epsilon"]);
    let base = checkpoint([small_sd2(4)]).with_prediction(Prediction::Epsilon);
    assert_eq!(predicts(&base), ("epsilon".to_owned(), 64));
}

#[test]
fn checkpoints_that_only_look_like_stable_diffusion_are_refused_by_name() {
    let xl = || unet_to_compvis(unet_tensors(&UNetConfig::sdxl()));
    let refused = |tensors: Tensors, more: &[(&str, &[usize])], says: &[&str]| {
        let more = more.iter().map(|(name, shape)| ((*name).to_owned(), empty(Dtype::F16, shape)));
        let tensors: Tensors = tensors.into_iter().chain(more).collect();
        let mut parts = vec!["memory"];
        parts.extend(says);
        assert_says(SingleFile::new(Arc::new(InMemory::new(tensors))), &parts);
    };
    refused(xl(), &[("edm_mean", &[1, 4, 1, 1]), ("edm_std", &[1, 4, 1, 1])], &["EDM", "`edm_mean`", "not supported"]);
    refused(xl(), &[("edm_std", &[1, 4, 1, 1])], &["EDM", "`edm_std`"]);
    let cosxl: [(&str, &[usize]); 2] = [("edm_vpred.sigma_max", &[]), ("edm_vpred.sigma_min", &[])];
    refused(xl(), &cosxl, &["CosXL", "`edm_vpred.sigma_max`"]);
    let label: (&str, &[usize]) = ("model.diffusion_model.label_emb.0.0.weight", &[256, 2048]);
    refused(small_sd2(4), &[label, ("noise_augmentor.data_mean", &[1, 1024])], &["unCLIP", "use the base model"]);
    refused(small_sd2(4), &[label, ("cond_stage_model.model.ln_final.bias", &[1024])], &["unCLIP"]);
    refused(small_sd2(7), &[("model.diffusion_model.label_emb.weight", &[1000, 256])], &["x4 upscaler"]);
    refused(small_sd2(5), &[], &["depth map"]);
    refused(small_sd2(8), &[], &["InstructPix2Pix"]);
    let video: [(&str, &[usize]); 1] = [("model.diffusion_model.input_blocks.1.1.time_mixer.mix_factor", &[1])];
    refused(small_sd2(8), &video, &["Stable Video Diffusion"]);
}

#[test]
fn distilled_networks_are_read_with_the_depth_of_each_transformer_and_the_middle_that_they_have() {
    let list = |depths: &[usize]| OneOrMany::Many(depths.to_vec());
    let one = OneOrMany::One;
    let small = |mid, down: Vec<OneOrMany<usize>>, up: Vec<OneOrMany<usize>>| UNetConfig {
        block_out_channels: vec![64, 64, 128],
        attention_head_dim: OneOrMany::Many(vec![1, 1, 2]),
        mid_block_type: mid,
        transformer_layers_per_block: Depths::PerLevel(down),
        reverse_transformer_layers_per_block: Some(up),
        ..UNetConfig::sdxl()
    };
    let ssd_1b = small(
        Some(MidBlockType::UNetMidBlock2D),
        vec![one(1), list(&[2, 2]), list(&[4, 4])],
        vec![list(&[4, 4, 10]), list(&[2, 1, 1]), one(1)],
    );
    let without_middle = small(None, vec![one(1), one(2), one(3)], vec![one(3), one(2), one(1)]);
    for config in [ssd_1b, without_middle] {
        let tensors = unet_tensors(&config);
        let file = checkpoint([unet_to_compvis(tensors.clone())]);
        assert_eq!(file.weights(Component::UNet).expect("weights").tensors(), &infos(&tensors));
        let got: Value = file.config(Component::UNet).expect("settings");
        let got = UNetConfig::from_json(&got.to_string()).expect("a good configuration");
        assert_eq!(got.mid_block_type, config.mid_block_type);
        assert_eq!(infos(&unet_tensors(&got)), infos(&tensors));
    }
}

#[test]
fn a_checkpoint_of_thousands_of_levels_is_refused_before_any_work_for_each() {
    let prefix = "model.diffusion_model.";
    let levels = (2..4000).map(|level| format!("{prefix}input_blocks.{level}.0.op.weight"));
    let names = levels.chain([format!("{prefix}time_embed.0.weight"), format!("{prefix}input_blocks.0.0.weight")]);
    let tensors: Tensors = names.map(|name| (name, floats(&[0], &[]))).collect();
    assert_says(SingleFile::new(Arc::new(InMemory::new(tensors))), &["not this U-Net", "not supported"]);
}

/// A network's random weights, by published name.
fn with_values<M: Module + PublishedNames>(network: &M) -> Tensors {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    save_weights(network, &path, LoadDtype::Keep).expect("a written file");
    read_all(&SafetensorsFile::open(path).expect("weights"))
}

/// Small checkpoint, and what is read from it.
pub(super) struct SmallCheckpoint {
    pub(super) family: Family,
    pub(super) tensors: Tensors,
    pub(super) prediction: Prediction,
    /// Side of the latents that the network was trained on.
    side: usize,
}

/// Checkpoints of every family with random weights, whose VAEs halve the size of an image.
pub(super) fn small_checkpoints() -> [SmallCheckpoint; 5] {
    let text = |config: ClipTextConfig| {
        let small = ClipTextConfig {
            hidden_size: 64,
            intermediate_size: 128,
            projection_dim: 64,
            num_hidden_layers: 2,
            num_attention_heads: 1,
            ..config
        };
        with_values(&small.init(&cpu()).expect("a network"))
    };
    let unet = |context: usize, config: UNetConfig| {
        let small = UNetConfig {
            block_out_channels: vec![64, 128],
            down_block_types: vec![DownBlockType::DownBlock2D, DownBlockType::CrossAttnDownBlock2D],
            up_block_types: vec![UpBlockType::CrossAttnUpBlock2D, UpBlockType::UpBlock2D],
            attention_head_dim: OneOrMany::Many(vec![1, 2]),
            cross_attention_dim: OneOrMany::One(context),
            transformer_layers_per_block: Depths::Same(1),
            ..config
        };
        unet_to_compvis(with_values(&small.init(&cpu()).expect("a network")))
    };
    let vae = VaeConfig {
        block_out_channels: vec![32, 64],
        down_block_types: vec![EncoderBlockType::DownEncoderBlock2D; 2],
        up_block_types: vec![DecoderBlockType::UpDecoderBlock2D; 2],
        ..VaeConfig::sd15()
    };
    let vae = vae_to_compvis(with_values(&vae.init(&cpu()).expect("a network")), "first_stage_model.");
    let clip = |prefix: &str| rename(text(ClipTextConfig::vit_l()), prefix, |name| Some(name.to_owned()));
    let xl = UNetConfig { projection_class_embeddings_input_dim: Some(64 + 6 * 256), ..UNetConfig::sdxl() };
    let both = [
        clip("conditioner.embedders.0.transformer."),
        open_clip(text(ClipTextConfig::big_g()), "conditioner.embedders.1.model."),
    ];
    let open_clip = |config| open_clip(text(config), "cond_stage_model.model.");
    let inpainting = UNetConfig { in_channels: 9, ..UNetConfig::sd21() };
    let (epsilon, velocity) = (Prediction::Epsilon, Prediction::Velocity);
    [
        (Family::Sd1, unet(64, UNetConfig::sd15()), clip("cond_stage_model.transformer."), epsilon, 64),
        (Family::Sd1, unet(64, UNetConfig::sd15()), clip("cond_stage_model."), epsilon, 64),
        (Family::Sd2, unet(64, UNetConfig::sd21()), open_clip(ClipTextConfig::vit_h()), velocity, 96),
        (Family::Sd2, unet(64, inpainting), open_clip(ClipTextConfig::vit_h()), epsilon, 64),
        (Family::Sdxl, unet(128, xl), both.into_iter().flatten().collect(), epsilon, 128),
    ]
    .map(|(family, unet, text, prediction, side)| {
        let tensors = [unet, text, vae.clone()].into_iter().flatten().collect();
        SmallCheckpoint { family, tensors, prediction, side }
    })
}

#[test]
fn small_checkpoints_of_every_family_load_as_pipelines() {
    let folder = tempfile::tempdir().expect("a folder");
    for SmallCheckpoint { family, tensors, prediction, side } in small_checkpoints() {
        let path = write(&folder.path().join("model.safetensors"), &tensors);
        let (pipeline, report) = load_model(&path, &cpu(), &ModelOptions::default()).expect("a pipeline");
        assert_eq!(report.family, family);
        assert_eq!((pipeline.scheduler().prediction, pipeline.native_size()), (prediction, 2 * side), "{family}");
        let said = ModelOptions { prediction: Some(Prediction::Velocity), ..ModelOptions::default() };
        let (pipeline, _) = load_model(&path, &cpu(), &said).expect("a pipeline");
        assert_eq!(pipeline.scheduler().prediction, Prediction::Velocity, "{family}");
    }
}

#[test]
fn a_vae_by_itself_loads_with_either_kind_of_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let vae = golden("vae/diffusion_pytorch_model.safetensors");
    let mut original = vae_to_compvis(vae.clone(), "");
    original.insert("loss.logvar".into(), floats(&[], &[0.0]));
    let diffusers = open_vae(write(&folder.path().join("a.safetensors"), &vae)).expect("opens");
    let compvis = open_vae(write(&folder.path().join("b.safetensors"), &original)).expect("opens");
    assert_eq!(read_all(&diffusers), vae);
    assert_eq!(read_all(&compvis), vae);
}

#[test]
fn other_files_are_no_checkpoint_and_are_recognised() {
    let refused = |tensors: Tensors| SingleFile::new(Arc::new(InMemory::new(tensors)));
    let named = |name: &str| Tensors::from([(name.to_owned(), floats(&[1], &[0.0]))]);
    assert_says(refused(unet_tensors(&UNetConfig::sdxl())), &["got the U-Net of Stable Diffusion XL", "memory"]);
    assert_says(refused(named("lora_unet_down.lora_up.weight")), &["got a LoRA", "load it as what it is"]);
    assert_says(refused(named("image_proj.norm.weight")), &["got an IP-Adapter"]);
    assert_says(refused(named("something")), &["got no U-Net"]);
    assert_says(refused(named("model.diffusion_model.joint_blocks.0.x")), &["not this U-Net", "not supported"]);
    let huge = named("model.diffusion_model.input_blocks.18446744073709551615.0.op.weight");
    assert_says(refused(huge), &["not this U-Net"]);
    let mut refiner = unet_to_compvis(unet_tensors(&UNetConfig::sdxl()));
    refiner.extend(named("conditioner.embedders.0.model.ln_final.weight"));
    assert_says(refused(refiner), &["refiner", "use the base model"]);
}
