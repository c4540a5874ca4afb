//! What is fuzzed: functions of bytes, with good inputs to begin with.

use std::cell::OnceCell;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use fabric::core::ImageCondition;
use fabric::core::image::{Image, ImageMetadata};
use fabric::core::models::TextOptions;
use fabric::core::schedule::{Schedule, SchedulerConfig};
use fabric::core::session::{FeedbackSession, Vote};
use fabric::ipadapter::AdapterFile;
use fabric::models::clip::{ClipTextConfig, ClipVisionConfig};
use fabric::models::control::{ControlNetConfig, T2IAdapterConfig};
use fabric::models::load::{TensorSource, open_weights};
use fabric::models::lora::LoraFile;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNetConfig;
use fabric::models::vae::VaeConfig;
use image::{ImageFormat, ImageReader};
use serde_json::json;

use crate::models::{config_text, fixture, golden, pipeline};
use crate::pickle_writer::{Entry, dict, older_form, one_value, pickle, storage, tensor, zip};
use crate::png_writer::{chunk, header, png, zlib};
use crate::tensor_file::TensorFile;

/// Result of an input: accepted, or the message of its error.
pub(crate) type Outcome = Result<(), String>;

/// Function of bytes, with what is needed to fuzz it.
pub(crate) struct Target {
    /// Name, as in `docs/reliability.md`.
    pub(crate) name: &'static str,
    /// Good inputs.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Mends the lengths and checksums of a changed input, so that what is behind their checks is reached too.
    pub(crate) repair: Option<fn(Vec<u8>) -> Vec<u8>>,
    pub(crate) run: fn(&[u8]) -> Outcome,
}

const fn target(name: &'static str, seeds: fn() -> Vec<Vec<u8>>, run: fn(&[u8]) -> Outcome) -> Target {
    Target { name, seeds, repair: None, run }
}

/// All targets.
pub(crate) const TARGETS: [Target; 11] = [
    Target { repair: Some(repair_safetensors), ..target("safetensors files", safetensors, read_safetensors) },
    target("shard indexes", indexes, read_index),
    target("pickles", pickles, read_pickle),
    target("configurations", configurations, read_configuration),
    target("tokenizers", tokenizers, read_tokenizer),
    target("sessions", sessions, read_session),
    Target { repair: Some(repair_png), ..target("PNG metadata", metadata, read_metadata) },
    target("prompts", prompts, read_prompt),
    Target { repair: Some(repair_png), ..target("images", images, read_image) },
    Target { repair: Some(repair_safetensors), ..target("LoRAs", loras, read_lora) },
    Target { repair: Some(repair_safetensors), ..target("adapters", adapters, read_adapter) },
];

fn said<T, E: std::error::Error>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Writes a file to a folder that this thread keeps. Returns its path.
fn written(name: &str, bytes: &[u8]) -> PathBuf {
    thread_local! {
        static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a folder");
        }
        fs::write(&path, bytes).expect("a written file");
        path
    })
}

/// Reads all tensors of a file of weights.
fn read_weights(path: &Path) -> Outcome {
    let weights = said(open_weights(path))?;
    weights.tensors().keys().try_for_each(|name| said(weights.read(name)).map(drop))
}

fn small_tensors() -> TensorFile {
    TensorFile::default().with("a.weight", &[2, 3], &[0.5; 6]).with("b", &[], &[1.0]).with_metadata("format", "pt")
}

fn safetensors() -> Vec<Vec<u8>> {
    let bytes = vec![1; 8];
    let types = ["F16", "I64", "U8"].into_iter().zip([[4], [1], [8]]);
    let types = types.fold(TensorFile::default(), |file, (dtype, shape)| {
        file.with_bytes(&dtype.to_lowercase(), dtype, &shape, bytes.clone())
    });
    vec![small_tensors().to_bytes(), types.to_bytes()]
}

fn read_safetensors(bytes: &[u8]) -> Outcome {
    read_weights(&written("a.safetensors", bytes))
}

/// Sets the length of the header to where the last two braces are, or to that of the rest.
fn repair_safetensors(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.windows(2).rposition(|pair| pair == b"}}").map_or(bytes.len(), |at| at + 2);
    if end >= 8 {
        bytes[..8].copy_from_slice(&(end as u64 - 8).to_le_bytes());
    }
    bytes
}

fn indexes() -> Vec<Vec<u8>> {
    let map = json!({"a.weight": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"});
    vec![json!({"metadata": {"total_size": 32}, "weight_map": map}).to_string().into_bytes()]
}

fn read_index(bytes: &[u8]) -> Outcome {
    written("one.safetensors", &small_tensors().to_bytes());
    written("two.safetensors", &TensorFile::default().with("c", &[1], &[2.0]).to_bytes());
    read_weights(&written("m.safetensors.index.json", bytes))
}

fn pickles() -> Vec<Vec<u8>> {
    let view = tensor(storage("FloatStorage", 1), 0, &[1, 1], &[1, 1]);
    let inner = dict(&[("w", one_value()), ("v", view)]);
    let outer = pickle(&dict(&[("epoch", b"K\x05".to_vec()), ("state_dict", inner)]));
    let archive = zip(&[Entry::new("m/data.pkl", &outer), Entry::new("m/data/0", &3_f32.to_le_bytes())]);
    let read = |name: &str| fs::read(fixture(name)).expect("a file of the tests");
    let files = ["tiny.bin", "before-1.6.bin", "module.bin", "pickles/class-key.ckpt"].map(read);
    [vec![older_form(&outer), archive], files.into_iter().filter(|file| file.len() < 1 << 16).collect()].concat()
}

fn read_pickle(bytes: &[u8]) -> Outcome {
    read_weights(&written("a.bin", bytes))
}

/// Configurations, each behind a line with the name of its part.
fn configurations() -> Vec<Vec<u8>> {
    let parts = ["unet", "vae", "text_encoder", "image_encoder", "controlnet"];
    let mut texts: Vec<String> = parts.map(|part| format!("{part}\n{}", config_text(part))).into();
    let scheduler = fs::read_to_string(golden("scheduler/scheduler_config.json")).expect("a configuration");
    texts.push(format!("scheduler\n{scheduler}"));
    texts.push("t2iadapter\n{\"channels\": [32, 64]}".to_owned());
    texts.into_iter().map(String::into_bytes).collect()
}

fn read_configuration(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let (part, text) = text.split_once('\n').unwrap_or_default();
    match part {
        "unet" => said(UNetConfig::from_json(text)).map(drop),
        "vae" => said(VaeConfig::from_json(text)).map(drop),
        "text_encoder" => said(ClipTextConfig::from_json(text)).map(drop),
        "image_encoder" => said(ClipVisionConfig::from_json(text)).map(drop),
        "controlnet" => said(ControlNetConfig::from_json(text)).map(drop),
        "t2iadapter" => said(T2IAdapterConfig::from_json(text)).map(drop),
        _ => said(Schedule::new(&said(SchedulerConfig::from_json(text))?, 10)).map(drop),
    }
}

/// Separates the files of a tokenizer in one input.
const SEPARATOR: &[u8] = b"\n----\n";

fn tokenizers() -> Vec<Vec<u8>> {
    let vocabulary = br#"{"h": 0, "i</w>": 1, "hi</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
    let merges = b"#version: 0.2\nh i</w>\n";
    let config = br#"{"model_max_length": 77, "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}"#;
    let added = br#"{"<new>": 5}"#;
    let two = [vocabulary.as_slice(), merges, config, added].join(SEPARATOR);
    let one = fs::read(fixture("tokenizer-json").join("tokenizer.json")).expect("a tokenizer");
    vec![two, one].into_iter().filter(|seed| seed.len() < 1 << 16).collect()
}

/// Reads a tokenizer of one file, or of several that are separated by dashes, and encodes a text.
fn read_tokenizer(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let parts: Vec<&str> = text.split("\n----\n").collect();
    let tokenizer = if let [vocabulary, merges, rest @ ..] = parts.as_slice() {
        let mut path = written("several/vocab.json", vocabulary.as_bytes());
        written("several/merges.txt", merges.as_bytes());
        let rest = rest.iter().copied().chain(std::iter::repeat("{}"));
        for (name, part) in ["tokenizer_config.json", "added_tokens.json"].into_iter().zip(rest) {
            path = written(&format!("several/{name}"), part.as_bytes());
        }
        said(ClipTokenizer::from_folder(path.parent().expect("a folder")))?
    } else {
        said(ClipTokenizer::from_tokenizer_json(written("one/tokenizer.json", bytes)))?
    };
    let ids = said(tokenizer.encode("Hi, a small red star!"))?;
    said(tokenizer.decode(&ids)).map(drop)
}

/// A session with a step of each kind. Its images are those of every input.
fn session() -> FeedbackSession {
    let shade = |red| Image::filled(8, 8, [red, 0, 0]).expect("an image");
    let mut session = FeedbackSession::new("a small red star").with_seed(5).with_settings(json!({"steps": 2}));
    session.add_image_condition(ImageCondition::new(shade(9))).expect("a condition");
    let round = session.push_round(vec![(shade(1), 1), (shade(2), 2)], json!({"seconds": 1.5})).expect("a round");
    session.vote(&round[0], Vote::LIKE).expect("a vote");
    session.dislike(&round[1]).expect("a vote");
    session.set_prompt("a blue star");
    session.set_settings(json!({"steps": 3}));
    session
}

fn sessions() -> Vec<Vec<u8>> {
    let folder = written("session/session.json", b"").parent().expect("a folder").to_owned();
    fs::remove_dir_all(&folder).expect("an empty folder");
    session().save(&folder).expect("a saved session");
    vec![fs::read(folder.join("session.json")).expect("a session")]
}

fn read_session(bytes: &[u8]) -> Outcome {
    let path = written("session/session.json", bytes);
    said(FeedbackSession::load(path.parent().expect("a folder"))).map(drop)
}

fn metadata() -> Vec<Vec<u8>> {
    let own = json!({
        "format": "fabric-image",
        "version": 1,
        "image": {
            "software": "fabric", "prompt": "a small red star", "negative_prompt": null, "seeds": [7], "index": 0,
            "initial_noise": [], "width": 0, "height": 0, "settings": {"steps": 2}, "origin": [], "references": [],
            "image_conditions": [], "init_image": null, "not_restored": [],
        },
    });
    let graph = json!({
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 7, "steps": 20, "cfg": 6.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
            "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], "model": ["4", 0],
        }},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red:1.2) star", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blur", "clip": ["4", 1]}},
    });
    let web_ui = "a red star\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, Seed: 7, CFG scale: 6, Size: 64x64";
    let texts = [("fabric", own.to_string()), ("prompt", graph.to_string()), ("parameters", web_ui.to_owned())];
    let file = |(keyword, contents): (&str, String)| {
        let text = [keyword.as_bytes(), &[0], contents.as_bytes()].concat();
        png(&[chunk(b"IHDR", &header(8, 8, 8, 2)), chunk(b"tEXt", &text), chunk(b"IDAT", &[]), chunk(b"IEND", &[])])
    };
    texts.into_iter().map(file).collect()
}

fn read_metadata(bytes: &[u8]) -> Outcome {
    said(said(ImageMetadata::from_png_bytes(bytes))?.metadata.request()).map(drop)
}

/// Sets the lengths and checksums of a PNG file's chunks to what they should be, up to the first chunk with a name that
/// is not one.
fn repair_png(bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    let mut mended: Vec<u8> = bytes.iter().take(8).copied().collect();
    while let Some(head) = bytes.get(at..at + 8) {
        let (length, name) = head.split_at(4);
        let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        let name = <[u8; 4]>::try_from(name).expect("four bytes");
        if !name.iter().all(u8::is_ascii_alphabetic) {
            break;
        }
        let end = (at + 8).saturating_add(length).min(bytes.len());
        mended.extend(chunk(&name, &bytes[at + 8..end]));
        at = end.saturating_add(4);
    }
    if mended.len() > 8 { mended } else { bytes }
}

fn prompts() -> Vec<Vec<u8>> {
    let texts = ["a small red star", "a (red:1.5) star [blue] \\(small\\)", "((a)) [b:c:0.5] (é:0.1)", "日本 ✩, a, b"];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn read_prompt(bytes: &[u8]) -> Outcome {
    let options = TextOptions { weights: true, ..TextOptions::default() };
    let text = String::from_utf8_lossy(bytes).into_owned();
    said(pipeline().text_encoder().encode(&[text], &options)).map(drop)
}

fn images() -> Vec<Vec<u8>> {
    let image = Image::from_rgb(6, 4, (0..6 * 4 * 3).map(|at| (at * 3) as u8).collect()).expect("an image");
    let pixels = chunk(b"IDAT", &zlib(&[0, 10, 20, 0, 30, 40]));
    let grey = png(&[chunk(b"IHDR", &header(2, 2, 8, 0)), pixels, chunk(b"IEND", &[])]);
    let palette = png(&[
        chunk(b"IHDR", &header(2, 2, 8, 3)),
        chunk(b"PLTE", &[1, 2, 3, 4, 5, 6]),
        chunk(b"tRNS", &[0]),
        chunk(b"IDAT", &zlib(&[0, 0, 1, 0, 1, 0])),
        chunk(b"IEND", &[]),
    ]);
    let lossless = [
        b"RIFF\x26\0\0\0WEBPVP8L\x11\0\0\0".as_slice(),
        &[0x2f, 2, 0x40, 0, 0, 7, 0x50, 0xe4, 0x2a, 0xd4, 0xa3, 0xff, 0x81, 0x88, 0xe8, 0x7f, 0, 0],
    ]
    .concat();
    let jpegs = ["444", "420-restart", "progressive", "progressive-restart", "grey-progressive", "cmyk"];
    let jpegs = jpegs.map(|name| fs::read(fixture(&format!("jpeg/{name}.jpg"))).expect("a file of the tests"));
    [vec![image.to_png_bytes().expect("a PNG file"), grey, palette, lossless], jpegs.into()].concat()
}

fn read_image(bytes: &[u8]) -> Outcome {
    // A lossless WebP file of one colour has 30 bytes whatever its size, which is the size that it says.
    let size = ImageReader::with_format(Cursor::new(bytes), ImageFormat::WebP).into_dimensions();
    if size.is_ok_and(|(width, height)| u64::from(width) * u64::from(height) > 1 << 22) {
        return Ok(());
    }
    said(Image::from_bytes(bytes)).map(drop)
}

fn loras() -> Vec<Vec<u8>> {
    let lora = |names: [&str; 2]| {
        TensorFile::default()
            .with(names[0], &[2, 4, 3, 3], &[0.01; 72])
            .with(names[1], &[32, 2, 1, 1], &[0.01; 64])
            .with_metadata("lora_adapter_metadata", r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"conv_in": 4}}"#)
            .to_bytes()
    };
    vec![
        lora(["unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight"]),
        lora(["lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_up.weight"]),
    ]
}

fn read_lora(bytes: &[u8]) -> Outcome {
    said(LoraFile::open(written("lora.safetensors", bytes))).map(drop)
}

fn adapters() -> Vec<Vec<u8>> {
    let names = [("to_k_ip", 1), ("to_v_ip", 1), ("to_k_ip", 3), ("to_v_ip", 3)];
    let adapter = names.into_iter().fold(TensorFile::default(), |file, (name, number)| {
        file.with_zeros(&format!("ip_adapter.{number}.{name}.weight"), &[4, 4])
    });
    let adapter = adapter.with_zeros("image_proj.proj.weight", &[8, 4]).with_zeros("image_proj.proj.bias", &[8]);
    vec![adapter.with_zeros("image_proj.norm.weight", &[4]).with_zeros("image_proj.norm.bias", &[4]).to_bytes()]
}

fn read_adapter(bytes: &[u8]) -> Outcome {
    said(AdapterFile::open(written("adapter.safetensors", bytes))).map(drop)
}
