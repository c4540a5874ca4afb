//! Repositories that the server has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

/// Name of the model on the server.
pub(crate) const MODEL: &str = "owner/name";

/// Size of each file of weights of [`small`].
pub(crate) const WEIGHTS_BYTES: usize = 20_000;

/// Weights of the U-Net of [`small`].
pub(crate) const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// Files by path.
pub(crate) type Repository = BTreeMap<String, Vec<u8>>;

/// Paths of the files of [`small`] that the loaders read.
pub(crate) const READ: [&str; 12] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    UNET,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// Model in the layout of a published Stable Diffusion 1, with files that the loaders do not read. Its weights are no
/// safetensors: fetching does not look into them.
pub(crate) fn small() -> Repository {
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    let others = [
        ".gitattributes",
        "README.md",
        "a cat: example.png",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/tokenizer.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
    ];
    let paths = READ.into_iter().chain(others).enumerate();
    let mut files: Repository = paths.map(|(number, path)| (path.to_owned(), content(number, path))).collect();
    files.insert("model_index.json".to_owned(), index.to_string().into_bytes());
    files
}

/// Content that no other file has.
fn content(number: usize, path: &str) -> Vec<u8> {
    if path.ends_with(".safetensors") || path.ends_with(".bin") {
        return (0..WEIGHTS_BYTES).map(|i| (i * 31 + i / 251 + number * 7) as u8).collect();
    }
    format!("{{\"file\": \"{path}\"}}").into_bytes()
}

/// Files of a folder and of the folders in it.
pub(crate) fn of_folder(folder: &Path) -> Repository {
    let mut files = Repository::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("a path within the folder");
                let name = name.to_str().expect("text").replace('\\', "/");
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}
