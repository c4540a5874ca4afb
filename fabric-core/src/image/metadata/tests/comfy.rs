use serde_json::{Value, json};

use super::super::{MAX_PROMPT, MetadataSource};
use super::*;
use crate::models::WeightNormalisation;

fn prompt(graph: &Value) -> FoundMetadata {
    let found = read(&[("workflow", "{\"nodes\": []}"), ("prompt", &graph.to_string())]).unwrap();
    assert_eq!(found.source, MetadataSource::ComfyUi);
    found.metadata.request().unwrap().validate().unwrap();
    found
}

/// The graph that ComfyUI starts with.
fn first_graph() -> Value {
    json!({
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 156_680_208_700_286_u64, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m",
                "scheduler": "karras", "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0],
                "negative": ["7", 0], "latent_image": ["5", 0],
            },
            "_meta": {"title": "KSampler"},
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SD1.5\\v1-5-pruned.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a glass bottle, (galaxy:1.2)", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "text, watermark", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    })
}

#[test]
fn the_first_graph_is_read_as_a_whole() {
    let found = prompt(&first_graph());
    let metadata = &found.metadata;
    assert_eq!(metadata.prompt, "a glass bottle, (galaxy:1.2)");
    assert_eq!(metadata.negative_prompt.as_deref(), Some("text, watermark"));
    assert_eq!((metadata.seed(), metadata.software.as_str()), (Some(156_680_208_700_286), "ComfyUI"));
    assert_eq!(metadata.origin, ["v1-5-pruned.safetensors"]);
    let settings = metadata.request().unwrap().settings;
    assert_eq!((settings.steps, settings.guidance_scale), (20, 8.0));
    assert_eq!((settings.width, settings.height), (Some(512), Some(768)));
    assert_eq!(settings.sampler, "dpmpp_2m_karras".parse().ok());
    assert_eq!(settings.text.weight_normalisation, WeightNormalisation::Comfy);
    assert!(settings.text.weights && settings.text.long_prompts);
    assert!(found.unread.is_empty(), "{:?}", found.unread);
}

#[test]
fn a_second_pass_loras_and_chained_conditioning_are_read_or_reported() {
    let mut graph = first_graph();
    let more = json!({
        "10": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 1, "steps": 14, "cfg": 8, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.5,
                "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["11", 0],
            },
        },
        "11": {"class_type": "LatentUpscale", "inputs": {"width": 1024, "height": 1536, "samples": ["3", 0]}},
        "12": {"class_type": "LoraLoader", "inputs": {
            "lora_name": "styles/ink.safetensors", "strength_model": 0.75, "model": ["13", 0], "clip": ["4", 1],
        }},
        "13": {"class_type": "FreeU_V2", "inputs": {"b1": 1.3, "model": ["4", 0]}},
        "14": {"class_type": "ControlNetApplyAdvanced", "inputs": {
            "strength": 1, "positive": ["15", 0], "negative": ["7", 0], "control_net": ["20", 0], "image": ["21", 0],
        }},
        "15": {"class_type": "ConditioningCombine", "inputs": {
            "conditioning_1": ["6", 0], "conditioning_2": ["16", 0],
        }},
        "16": {"class_type": "CLIPTextEncodeSDXL", "inputs": {"text_g": ["17", 0], "text_l": ["17", 0], "width": 1024}},
        "17": {"class_type": "StringConcatenate", "inputs": {
            "string_a": ["18", 0], "string_b": "night", "delimiter": " at ",
        }},
        "18": {"class_type": "PrimitiveString", "inputs": {"value": "a lamp"}},
        "19": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["4", 1]}},
        "22": {"class_type": "Seed", "inputs": {"seed": 77}, "is_changed": ["x"]},
        "23": {"class_type": "VAELoader", "inputs": {"vae_name": "/models/vae/mse.pt"}},
    });
    graph.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let sampler = &mut graph["3"]["inputs"];
    sampler["positive"] = json!(["14", 0]);
    sampler["negative"] = json!(["14", 1]);
    sampler["model"] = json!(["12", 0]);
    sampler["seed"] = json!(["22", 0]);

    let found = prompt(&graph);
    let metadata = &found.metadata;
    assert_eq!(metadata.prompt, "a glass bottle, (galaxy:1.2), a lamp at night");
    assert_eq!(metadata.negative_prompt.as_deref(), Some("text, watermark"));
    assert_eq!(metadata.seed(), Some(77));
    assert_eq!(metadata.origin, ["v1-5-pruned.safetensors", "LoRA ink.safetensors at 0.75", "VAE mse.pt"]);
    let settings = metadata.request().unwrap().settings;
    assert_eq!((settings.steps, settings.width, settings.text.clip_skip), (20, Some(512), Some(1)));
    for part in ["node 10 (`KSampler`)", "FreeU_V2", "ControlNetApplyAdvanced", "2 texts of `positive`", "ink"] {
        assert!(found.unread.iter().any(|note| note.contains(part)), "{part}: {:?}", found.unread);
    }
}

#[test]
fn a_sampler_in_parts_is_read() {
    // Python's `NaN` is no JSON.
    let graph = r#"{
        "1": {"class_type": "SamplerCustomAdvanced", "is_changed": [NaN], "inputs": {"noise": ["2", 0],
              "guider": ["3", 0], "sampler": ["4", 0], "sigmas": ["5", 0], "latent_image": ["6", 0]}},
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 18446744073709551615}},
        "3": {"class_type": "CFGGuider", "inputs": {"cfg": 4.5, "model": ["7", 0], "positive": ["8", 0],
              "negative": ["9", 0]}},
        "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler_ancestral"}},
        "5": {"class_type": "SplitSigmas", "inputs": {"step": 9, "sigmas": ["10", 0]}},
        "6": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 4}},
        "7": {"class_type": "UNETLoader", "inputs": {"unet_name": "sdxl.safetensors"}},
        "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox, \u65e5", "clip": ["11", 0]}},
        "9": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["8", 0]}},
        "10": {"class_type": "BasicScheduler", "inputs": {"scheduler": "normal", "steps": 25, "denoise": 0.9,
               "model": ["7", 0]}}
    }"#;
    let found = read(&[("prompt", graph)]).unwrap();
    let metadata = &found.metadata;
    assert_eq!((metadata.prompt.as_str(), &metadata.negative_prompt), ("a fox, 日", &None));
    assert_eq!((metadata.seed(), &metadata.origin), (Some(u64::MAX), &vec!["sdxl.safetensors".to_owned()]));
    let settings = metadata.request().unwrap().settings;
    assert_eq!((settings.steps, settings.guidance_scale), (25, 4.5));
    assert_eq!((settings.sampler, settings.height), ("euler_a".parse().ok(), Some(1024)));
    for part in ["ConditioningZeroOut", "one of 4", "0.9"] {
        assert!(found.unread.iter().any(|note| note.contains(part)), "{part}: {:?}", found.unread);
    }
}

#[test]
fn the_text_of_this_library_comes_before_that_of_the_web_ui_and_that_before_comfyui() {
    let graph = first_graph().to_string();
    let own = ImageMetadata { prompt: "ours".to_owned(), ..ImageMetadata::default() };
    let own = super::super::json::write(&own).unwrap();
    let texts = [("prompt", graph.as_str()), ("parameters", "theirs"), ("fabric", own.as_str())];
    let first_of = |count| read(&texts[..count]).unwrap().metadata.prompt;
    assert_eq!([3, 2, 1].map(first_of), ["ours", "theirs", "a glass bottle, (galaxy:1.2)"]);
}

#[test]
fn graphs_that_lead_in_circles_or_nowhere_end() {
    let mut graph = first_graph();
    for (id, input, to) in [("3", "seed", "3"), ("3", "positive", "6"), ("3", "model", "3"), ("6", "text", "6")] {
        graph[id]["inputs"][input] = json!([to, 0]);
    }
    let inputs = json!({"conditioning_1": ["7", 0], "conditioning_2": [99, 0]});
    graph["7"] = json!({"class_type": "ConditioningCombine", "inputs": inputs});
    let found = prompt(&graph);
    assert_eq!((found.metadata.prompt.as_str(), found.metadata.seed()), ("", None));
    assert!(found.unread.iter().any(|note| note.contains("no prompt")), "{:?}", found.unread);

    // Each node joins the one before it with itself: 2^100 texts.
    let mut graph = first_graph();
    graph["100"] = json!({"class_type": "Text", "inputs": {"value": "x"}});
    for id in 101..200 {
        let before = json!([(id - 1).to_string(), 0]);
        graph[id.to_string()] = json!({"class_type": "Join", "inputs": {"string_a": before, "string_b": before}});
    }
    graph["6"]["inputs"]["text"] = json!(["199", 0]);
    assert_eq!(prompt(&graph).metadata.prompt, "");
}

#[test]
fn long_texts_that_many_nodes_link_to_are_read_up_to_a_limit() {
    // 1200 texts of 62 MB, in a file of 0.3 MB.
    let mut graph = first_graph();
    graph["100"] = json!({"class_type": "Text", "inputs": {"value": "x".repeat(250_000)}});
    for id in 101..=350 {
        let inputs = json!({"string_a": ["100", 0], "string_b": [(id - 1).to_string(), 0]});
        graph[id.to_string()] = json!({"class_type": "Join", "inputs": inputs});
    }
    let mut all = serde_json::Map::new();
    for id in 400..600 {
        let long = json!(["350", 0]);
        let inputs = json!({
            "text": long, "text_g": long, "text_l": long, "clip_l": long, "t5xxl": long, "prompt": long,
        });
        graph[id.to_string()] = json!({"class_type": "Encode", "inputs": inputs});
        all.insert(format!("conditioning_{id}"), json!([id.to_string(), 0]));
    }
    graph["600"] = json!({"class_type": "ConditioningCombine", "inputs": all});
    graph["3"]["inputs"]["positive"] = json!(["600", 0]);
    assert!(graph.to_string().len() < 400_000);

    let found = prompt(&graph);
    assert_eq!(found.unread[0], "parts of the graph were not read, because its texts are too long");
    assert_eq!(found.metadata.prompt, "");
    // A text that is short enough is still read.
    assert_eq!(found.metadata.negative_prompt.as_deref(), Some("text, watermark"));

    // So are names of files.
    let mut graph = first_graph();
    graph["100"] = json!({"class_type": "Text", "inputs": {"value": "x".repeat(250_000)}});
    for id in 101..=350 {
        let inputs = json!({"lora_name": ["100", 0], "strength_model": 1, "model": [(id - 1).to_string(), 0]});
        graph[id.to_string()] = json!({"class_type": "LoraLoader", "inputs": inputs});
    }
    graph["3"]["inputs"]["model"] = json!(["350", 0]);
    let found = prompt(&graph);
    assert_eq!(found.unread[0], "parts of the graph were not read, because its texts are too long");
    let length: usize = found.metadata.origin.iter().map(String::len).sum();
    assert!(length <= 5 * MAX_PROMPT, "{length} bytes");
}

#[test]
fn links_are_followed_up_to_a_limit_for_the_whole_file() {
    let mut graph = first_graph();
    for id in 100..2100 {
        let inputs = json!({"stop_at_clip_layer": [(id + 1).to_string(), 0]});
        graph[id.to_string()] = json!({"class_type": "CLIPSetLastLayer", "inputs": inputs});
    }
    graph["2100"] = json!({"class_type": "Number", "inputs": {"value": -2}});
    let found = prompt(&graph);
    assert_eq!(found.unread[0], "parts of the graph were not read, because it has too many links");
    assert_eq!(found.metadata.prompt, "a glass bottle, (galaxy:1.2)");
    assert_eq!(found.metadata.request().unwrap().settings.steps, 20);
}

#[test]
fn a_long_chain_of_joined_texts_is_read() {
    let mut graph = first_graph();
    graph["100"] = json!({"class_type": "Text", "inputs": {"value": "x"}});
    for id in 101..=300 {
        let inputs = json!({"string_a": [(id - 1).to_string(), 0], "string_b": "y", "delimiter": ","});
        graph[id.to_string()] = json!({"class_type": "Join", "inputs": inputs});
    }
    graph["6"]["inputs"]["text"] = json!(["300", 0]);
    let found = prompt(&graph);
    assert_eq!(found.metadata.prompt, format!("x{}", ",y".repeat(200)));
    assert!(found.unread.is_empty(), "{:?}", found.unread);
}

#[test]
fn square_brackets_are_text_as_in_comfyui() {
    let mut graph = first_graph();
    graph["6"]["inputs"]["text"] = json!("a [cat], \\(big\\), (red:1.2)");
    graph["7"]["inputs"]["text"] = json!("[blurry]");
    let metadata = prompt(&graph).metadata;
    assert_eq!(metadata.prompt, "a \\[cat\\], \\(big\\), (red:1.2)");
    assert_eq!(metadata.negative_prompt.as_deref(), Some("\\[blurry\\]"));
}

#[test]
fn settings_that_cannot_be_read_are_reported() {
    let inputs = [
        ("3", "seed"),
        ("3", "steps"),
        ("3", "cfg"),
        ("3", "sampler_name"),
        ("3", "scheduler"),
        ("3", "denoise"),
        ("5", "width"),
        ("5", "height"),
        ("5", "batch_size"),
    ];
    for (id, input) in inputs {
        let with = |value: Value| {
            let mut graph = first_graph();
            graph["30"] = json!({"class_type": "Odd", "inputs": {"odd": 1}});
            graph[id]["inputs"][input] = value;
            prompt(&graph).unread
        };
        // To a node without a known value, and to no node.
        assert_eq!(with(json!(["30", 0])), [format!("`{input}` is not written out")]);
        assert_eq!(with(json!(["99", 0])), [format!("`{input}` is not written out")]);
        assert_eq!(with(json!({"odd": 1})), [format!("`{input}` has no usable value")]);
    }
    let missing = [
        ("3", "steps", "number of steps"),
        ("3", "cfg", "guidance scale"),
        ("3", "sampler_name", "named sampler"),
        ("3", "scheduler", "named noise schedule"),
        ("5", "height", "height"),
    ];
    for (id, input, what) in missing {
        let mut graph = first_graph();
        graph[id]["inputs"].as_object_mut().unwrap().remove(input);
        assert_eq!(prompt(&graph).unread, [format!("the graph has no {what}")]);
    }
}

#[test]
fn json_that_is_no_graph_is_an_error() {
    for text in ["", "a cat", "[]", "7", "{}", r#"{"1": {"class_type": "Note"}}"#, r#"{"1": 7, "2": {"inputs": {}}}"#] {
        let error = read(&[("prompt", text)]).unwrap_err();
        assert!(matches!(error, MetadataError::Text { keyword: "prompt", .. }), "{text}: {error}");
    }
    let error = read(&[("workflow", &first_graph().to_string())]).unwrap_err();
    assert!(matches!(error, MetadataError::OnlyWorkflow { .. }), "{error}");
}
