//! Networks with files of other networks, and parts of different models together.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use fabric::core::models::UNetModel;
use fabric::core::pipeline::{Conditioning, Pipeline, RunContext};
use fabric::ipadapter::{Features, IpAdapter};
use fabric::models::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use fabric::models::control::{Control, ControlNet, T2IAdapter, T2IAdapterConfig};
use fabric::models::load::{LoadOptions, load_into, open_weights};
use fabric::models::lora::{LoraFile, merge};
use fabric::models::vae::{Vae, VaeConfig};
use fabric::models::{LoraChoice, ModelOptions, StableDiffusion, load_model};

use crate::case::{Case, Outcome, nothing, said};
use crate::models::{config_text, device, golden, image, options, pipeline, request, untrained_unet};

pub(crate) const COUNT: usize = 105;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";
const VISION: &str = "image_encoder/model.safetensors";
const CONTROLNET: &str = "controlnet/diffusion_pytorch_model.safetensors";
const ADAPTER: &str = "ip_adapter/base.safetensors";
const LORA: &str = "lora/peft.safetensors";
const XL_UNET: &str = "sdxl/unet/diffusion_pytorch_model.safetensors";

/// Files, and what they are.
const FILES: [(&str, &str); 8] = [
    (UNET, "the U-Net of Stable Diffusion 1"),
    (VAE, "a VAE"),
    (TEXT, "a CLIP text encoder"),
    (VISION, "a CLIP image encoder"),
    (CONTROLNET, "a ControlNet"),
    (ADAPTER, "an IP-Adapter"),
    (LORA, "a LoRA"),
    (XL_UNET, "the U-Net of Stable Diffusion XL"),
];

/// Name of a network, its own file, and what loads it.
type Network = (&'static str, &'static str, fn(&Path) -> Outcome);

const NETWORKS: [Network; 4] = [
    ("a U-Net", UNET, load_unet),
    ("a VAE", VAE, load_vae),
    ("a text encoder", TEXT, load_text),
    ("an image encoder", VISION, load_vision),
];

fn load_unet(path: &Path) -> Outcome {
    let source = open_weights(path).map_err(|error| error.to_string())?;
    said(load_into(untrained_unet("unet"), &source, &LoadOptions::default()))
}

fn load_vae(path: &Path) -> Outcome {
    let source = open_weights(path).map_err(|error| error.to_string())?;
    said(load_into(untrained_vae(4), &source, &LoadOptions::default()))
}

fn load_text(path: &Path) -> Outcome {
    let source = open_weights(path).map_err(|error| error.to_string())?;
    said(load_into(untrained_text("text_encoder"), &source, &LoadOptions::default()))
}

fn load_vision(path: &Path) -> Outcome {
    let source = open_weights(path).map_err(|error| error.to_string())?;
    let config = ClipVisionConfig::from_json(&config_text("image_encoder")).expect("a configuration");
    said(load_into(config.init(&device()).expect("a network"), &source, &LoadOptions::default()))
}

/// The small VAE with random weights and this many channels of latents.
fn untrained_vae(latents: usize) -> Vae {
    let text = config_text("vae").replace("\"latent_channels\": 4", &format!("\"latent_channels\": {latents}"));
    VaeConfig::from_json(&text).expect("a configuration").init(&device()).expect("a network")
}

fn untrained_text(part: &str) -> ClipText {
    let config = ClipTextConfig::from_json(&config_text(part)).expect("a configuration");
    config.init(&device()).expect("a network")
}

fn open_model(options: ModelOptions) -> Outcome {
    said(load_model(golden(""), &device(), &options))
}

pub(crate) fn check_base() {
    for (network, own, load) in NETWORKS {
        assert_eq!(load(&golden(own)), Ok(()), "{network}");
    }
    pipeline();
    for (name, kind) in adapters() {
        assert!(IpAdapter::open(golden(name), &device()).expect(kind).config().check_layers(&layers("unet")).is_ok());
    }
}

/// Adapters for the small model, and how messages call them.
fn adapters() -> [(&'static str, &'static str); 4] {
    [
        ("ip_adapter/base.safetensors", "an adapter of pooled features"),
        ("ip_adapter/full-face.safetensors", "a full-face adapter"),
        ("ip_adapter/plus.safetensors", "a plus adapter"),
        ("ip_adapter/instruct.safetensors", "an Instruct adapter"),
    ]
}

fn layers(unet: &str) -> Vec<fabric::core::models::CrossAttention> {
    untrained_unet(unet).cross_attentions()
}

/// A case without an input of its own.
fn case(name: impl Into<String>, words: &[&str], run: impl FnOnce() -> Outcome + 'static) -> Case {
    Case::refused(name, words, nothing, move |_| run())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = networks();
    cases.extend(other_readers());
    cases.extend(folders());
    cases.extend(replaced_parts());
    cases.extend(adapters_and_controls());
    cases.extend(tokens());
    cases
}

/// Each network with the files of all others.
fn networks() -> Vec<Case> {
    let mut cases = Vec::new();
    for (network, own, load) in NETWORKS {
        for (file, contents) in FILES.into_iter().filter(|(file, _)| *file != own) {
            let looks = format!("the file looks like {contents}: give it to the loader for that");
            cases.push(case(format!("{network} from {file}"), &[file, &looks], move || load(&golden(file))));
        }
    }
    let other_sizes = "of another shape; check that the file and its config.json belong together";
    cases.push(case("a text encoder from a larger one", &[other_sizes], || {
        load_text(&golden("sdxl/text_encoder/model.safetensors"))
    }));
    cases
}

/// Files that are opened as adapters, LoRAs, ControlNets, checkpoints and features.
fn other_readers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (file, contents) in FILES {
        if file != ADAPTER {
            cases.push(case(format!("an adapter from {file}"), &[file, "is this an IP-Adapter?"], move || {
                said(IpAdapter::open(golden(file), &device()))
            }));
            cases.push(case(format!("features from {file}"), &[file, "one set of saved features"], move || {
                said(Features::open(golden(file), &device()))
            }));
        }
        if file != LORA {
            let words = [file, "expected keys of a LoRA", contents];
            cases.push(case(format!("a LoRA from {file}"), &words, move || said(LoraFile::open(golden(file)))));
        }
        if file != CONTROLNET {
            let words = [file, "expected a ControlNet", contents];
            cases.push(case(format!("a ControlNet from {file}"), &words, move || {
                said(ControlNet::open(golden(file), &device()))
            }));
        }
        let words = [file, "expected a checkpoint of Stable Diffusion 1, 2 or XL", contents];
        cases.push(case(format!("a checkpoint from {file}"), &words, move || {
            said(load_model(golden(file), &device(), &options()))
        }));
    }
    cases
}

/// Folders of other networks.
fn folders() -> Vec<Case> {
    let class = "`_class_name`";
    vec![
        case("an image encoder from the folder of a text encoder", &["`model_type`", "got clip_text_model"], || {
            said(ClipVision::open(golden("text_encoder"), &device()))
        }),
        case("a ControlNet from the folder of a U-Net", &["ControlNet configuration", class], || {
            said(ControlNet::open(golden("unet"), &device()))
        }),
        case("a ControlNet from the folder of a VAE", &["ControlNet configuration", "DownEncoderBlock2D"], || {
            said(ControlNet::open(golden("vae"), &device()))
        }),
        case("a T2I-Adapter from the folder of a ControlNet", &["T2I-Adapter configuration", class], || {
            said(T2IAdapter::open(golden("controlnet"), &device()))
        }),
        case("a T2I-Adapter from the folder of a U-Net", &["T2I-Adapter configuration", class], || {
            said(T2IAdapter::open(golden("unet"), &device()))
        }),
        case("a model from the folder of a U-Net", &["no model_index.json", "the folder of one network"], || {
            said(load_model(golden("unet"), &device(), &options()))
        }),
        case("a model from a folder of adapters", &["no model_index.json", "the diffusers layout"], || {
            said(load_model(golden("ip_adapter"), &device(), &options()))
        }),
        case("a LoRA from the folder of a U-Net", &["folder of a LoRA", "none of its files"], || {
            said(LoraFile::open(golden("unet")))
        }),
    ]
}

/// A model with one part of another.
fn replaced_parts() -> Vec<Case> {
    let unfit = "the parts of this model do not belong together";
    let with_vae = |path: &str| ModelOptions { vae: Some(golden(path)), ..options() };
    let with_lora =
        |path: &str| ModelOptions { loras: vec![LoraChoice { path: golden(path), scale: 1.0 }], ..options() };
    let open = || StableDiffusion::open(golden(""), &device(), &options()).expect("a model").0;
    let [vae_text, vae_unet, lora_unet, lora_adapter] =
        [with_vae(TEXT), with_vae("unet"), with_lora(UNET), with_lora(ADAPTER)];
    vec![
        case("a text encoder in place of the VAE", &[TEXT, "looks like a CLIP text encoder"], || open_model(vae_text)),
        case("the folder of a U-Net in place of the VAE", &["VAE configuration", "DownBlock2D"], || {
            open_model(vae_unet)
        }),
        case("a U-Net in place of a LoRA", &[UNET, "the U-Net of Stable Diffusion 1"], || open_model(lora_unet)),
        case("an adapter in place of a LoRA", &[ADAPTER, "an IP-Adapter"], || open_model(lora_adapter)),
        case("a VAE of five channels", &[unfit, "`vae` has latents of 5 channels", "got 4 and 4"], move || {
            said(StableDiffusion { vae: untrained_vae(5), ..open() }.into_pipeline())
        }),
        case("the U-Net of another model", &[unfit, "`unet` reads text of 64 channels, got 32"], move || {
            said(StableDiffusion { unet: untrained_unet("sdxl/unet"), ..open() }.into_pipeline())
        }),
        case(
            "networks that were joined by hand",
            &["the U-Net's input channels", "got 4", "take both networks"],
            || {
                let (unet, vae) = (Arc::new(untrained_unet("unet")), Arc::new(untrained_vae(16)));
                let text = pipeline().shared_text_encoder();
                said(Pipeline::new(unet, vae, text, pipeline().scheduler().clone(), 128))
            },
        ),
        case(
            "a LoRA for another U-Net",
            &["the LoRA is for texts of width 32, the network for texts of width 64"],
            || {
                let lora = LoraFile::open(golden(LORA)).expect("a LoRA");
                said(merge(untrained_unet("sdxl/unet"), &lora.unet, 1.0))
            },
        ),
        case("the LoRA of a text encoder in a U-Net", &["have no place in it"], || {
            let lora = LoraFile::open(golden(LORA)).expect("a LoRA");
            said(merge(untrained_unet("unet"), &lora.text_encoder, 1.0))
        }),
    ]
}

/// Adapters with other U-Nets and encoders, and control networks with other U-Nets.
fn adapters_and_controls() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind) in adapters() {
        let open = move || IpAdapter::open(golden(name), &device()).expect("an adapter");
        cases.push(case(format!("{kind} on another U-Net"), &[kind, "does not fit", "the U-Net"], move || {
            said(open().config().check_layers(&layers("sdxl/unet")))
        }));
        // A shape of each kind that no adapter here reads.
        type Other = (&'static str, fn() -> Features);
        let others: [Other; 3] = [
            ("one vector of 25 channels per image", || Features::Pooled(Tensor::zeros([1, 25], &device()))),
            ("tokens of 41 channels", || Features::Tokens(Tensor::zeros([1, 2, 41], &device()))),
            ("identities of faces with 512 channels", || Features::Face(Tensor::zeros([1, 512], &device()))),
        ];
        for (features, make) in others {
            let words = [kind, "does not fit: the features of the images", features];
            cases.push(case(format!("{kind} with {features}"), &words, move || {
                said(open().config().check_features(&make()))
            }));
        }
    }
    cases.push(case(
        "a ControlNet on another U-Net",
        &["channels that a ControlNet adds to", "as the U-Net has"],
        || {
            let network = Arc::new(ControlNet::open(golden("controlnet"), &device()).expect("a ControlNet"));
            prepare(Control::new(network, image()), "sdxl/unet")
        },
    ));
    for (what, config) in [
        ("channels that a T2I-Adapter adds to", r#"{"channels": [8, 8], "num_res_blocks": 1}"#),
        ("channels of a control network's image", r#"{"in_channels": 2, "channels": [32, 64], "num_res_blocks": 1}"#),
    ] {
        cases.push(case(format!("a T2I-Adapter with other {what}"), &[what], move || {
            let config = T2IAdapterConfig::from_json(config).expect("a configuration");
            let network = Arc::new(config.init(&device()).expect("a network"));
            prepare(Control::new(network, image()), "unet")
        }));
    }
    cases
}

/// Prepares a control for a run with this U-Net.
fn prepare(control: Control, unet: &str) -> Outcome {
    let (request, unet) = (request(), untrained_unet(unet));
    let run = RunContext::new(&request, &unet, pipeline().text_encoder(), [4, 4]);
    said(control.prepare(&run))
}

/// Token ids that a text encoder cannot read.
fn tokens() -> Vec<Case> {
    let encode = |ids: Vec<Vec<u32>>| move || said(untrained_text("sdxl/text_encoder").forward(&ids));
    vec![
        case(
            "ids of a larger vocabulary",
            &["token 49406 of prompt 0", "vocabulary of 1000"],
            encode(vec![vec![49406, 7]]),
        ),
        case("prompts of different lengths", &["prompt 1 has 1 tokens"], encode(vec![vec![1, 2], vec![1]])),
        case("more tokens than positions", &["78 tokens", "takes 77"], encode(vec![vec![1; 78]])),
        case("no prompts", &["no tokens to encode"], encode(Vec::new())),
    ]
}
