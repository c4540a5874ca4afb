use serde_json::json;

use super::super::MetadataSource;
use super::*;
use crate::models::WeightNormalisation;

fn parameters(text: &str) -> FoundMetadata {
    let found = read(&[("parameters", text)]).unwrap();
    assert_eq!(found.source, MetadataSource::WebUi);
    // Whatever was read can be used.
    found.metadata.request().unwrap().validate().unwrap();
    found
}

#[test]
fn the_text_of_the_first_versions_is_read() {
    let found = parameters(
        "girl with an artist's beret, ((eyeshadow)), detailed\n\
         Negative prompt: ugly, (((deformed))), [blurry]\n\
         Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b",
    );
    let metadata = &found.metadata;
    assert_eq!(metadata.prompt, "girl with an artist's beret, ((eyeshadow)), detailed");
    assert_eq!(metadata.negative_prompt.as_deref(), Some("ugly, (((deformed))), [blurry]"));
    assert_eq!((metadata.seed(), metadata.width, metadata.height), (Some(965_400_086), 6, 4));
    let settings = metadata.request().unwrap().settings;
    assert_eq!((settings.steps, settings.guidance_scale), (20, 7.0));
    assert_eq!((settings.sampler, settings.width, settings.height), ("euler_a".parse().ok(), Some(512), Some(512)));
    // Weights in prompts act as in the web UI.
    assert!(settings.text.weights && settings.text.long_prompts);
    assert_eq!(settings.text.weight_normalisation, WeightNormalisation::Mean);
    assert_eq!(found.unread, ["`Model hash: 45dee52b` is not used here"]);
}

#[test]
fn a_schedule_a_second_pass_and_loras_are_read_or_reported() {
    let found = parameters(
        "portrait <lora:add_detail:0.8>, light, <b> <hypernet:film>\n\
         Negative prompt: lowres\n\
         Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 18446744073709551615, \
         Size: 512x768, Model hash: cc6cb27103, Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, \
         VAE: vae-ft-mse.safetensors, Denoising strength: 0.7, Clip skip: 2, Hires upscale: 2, Hires steps: 10, \
         Hires upscaler: Latent, Lora hashes: \"add_detail: 7c6bad76eb54, x: 1\", Version: v1.9.4",
    );
    let metadata = &found.metadata;
    assert_eq!(metadata.prompt, "portrait , light, <b> ");
    assert_eq!(metadata.software, "AUTOMATIC1111 v1.9.4");
    assert_eq!(metadata.seed(), Some(u64::MAX));
    let expected = [
        "v1-5-pruned-emaonly (hash cc6cb27103)",
        "VAE vae-ft-mse.safetensors",
        "LoRA add_detail at 0.8",
        "hypernetwork film at 1",
    ];
    assert_eq!(metadata.origin, expected);
    let settings = metadata.request().unwrap().settings;
    assert_eq!((settings.sampler, settings.text.clip_skip), ("dpmpp_2m_karras".parse().ok(), Some(1)));
    assert_eq!((settings.width, settings.height), (Some(512), Some(768)));
    for part in ["add_detail", "film", "`0.7` of a second pass", "Hires upscale: 2", "x: 1", "VAE hash"] {
        assert!(found.unread.iter().any(|note| note.contains(part)), "{part}: {:?}", found.unread);
    }
}

#[test]
fn prompts_of_many_lines_and_names_with_commas_are_read() {
    let found = parameters(
        "  a castle,\r\n\r\n  on a hill: at dawn\nNegative prompt:  fog\n rain, 20\n\
         Steps: 12, Sampler: DPM++ SDE Karras, CFG scale: 7.5, Seed: 3, Size: 64x64, \
         Model: \"mix, \\\"v2\\\": final\", Hires prompt: \"a\\nb, c\"",
    );
    let metadata = &found.metadata;
    assert_eq!(metadata.prompt, "a castle,\n\non a hill: at dawn");
    assert_eq!(metadata.negative_prompt.as_deref(), Some("fog\nrain, 20"));
    assert_eq!(metadata.origin, ["mix, \"v2\": final"]);
    assert_eq!(metadata.request().unwrap().settings.sampler, "dpmpp_sde_karras".parse().ok());
    assert_eq!(found.unread, ["`Hires prompt: a b, c` is not used here"]);
}

#[test]
fn json_among_the_fields_and_lines_behind_them_are_read_as_a_whole() {
    let found = parameters(
        "a cat\n\
         Steps: 4, Sampler: LCM, Schedule type: Automatic, CFG scale: 1.5, Seed: 1, Size: 512x512, \
         Denoising strength: 0.4, Emphasis: No norm, Hashes: {\"model\": \"abc\", \"lora:x, y\": \"d\"}, \
         Version: f2.0.1v1.10.1\n\
         Template: a {cat|dog}",
    );
    let metadata = &found.metadata;
    assert_eq!((metadata.prompt.as_str(), &metadata.negative_prompt), ("a cat", &None));
    assert_eq!(metadata.software, "AUTOMATIC1111 f2.0.1v1.10.1");
    let settings = metadata.request().unwrap().settings;
    assert_eq!((settings.sampler, settings.steps), ("lcm".parse().ok(), 4));
    assert_eq!(settings.text.weight_normalisation, WeightNormalisation::None);
    assert_eq!(found.unread.len(), 3, "{:?}", found.unread);
    for part in ["Template: a {cat|dog}", "an init image", "`Hashes: {", "\"lora:x, y\":\"d\""] {
        assert!(found.unread.iter().any(|note| note.contains(part)), "{part}: {:?}", found.unread);
    }
}

#[test]
fn a_prompt_alone_is_a_prompt() {
    for prompt in ["only a prompt, nothing else", "a: b, c: d", "{red|blue} star\nSteps: of stone"] {
        let found = parameters(prompt);
        assert_eq!(found.metadata.prompt, prompt);
        assert_eq!((found.metadata.seed(), found.metadata.request().unwrap().seeds), (None, vec![0]));
        assert_eq!(found.unread, ["the text has no seed"]);
    }
}

#[test]
fn numbers_and_samplers_that_cannot_be_used_are_reported() {
    let found = parameters(
        "x\nSteps: many, Sampler: Restart, CFG scale: -, Seed: -1, Size: 5xy, Clip skip: 1.5, Emphasis: Odd",
    );
    assert_eq!(found.metadata.seed(), None);
    let text = json!({"weights": true, "weight_normalisation": "mean", "long_prompts": true});
    assert_eq!(found.metadata.settings, json!({ "text": text }));
    for part in ["Steps: many", "`Restart`", "CFG scale: -", "Seed: -1", "5xy", "Clip skip: 1.5", "`Odd`"] {
        assert!(found.unread.iter().any(|note| note.contains(part)), "{part}: {:?}", found.unread);
    }
}

#[test]
fn prompt_syntax_without_a_counterpart_is_reported() {
    let found = parameters(
        "a [cat:dog:0.5] BREAK a tree AND (a house:1.2)\nNegative prompt: [blurry], <lora:x:1>\n\
         Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1",
    );
    assert_eq!(found.metadata.prompt, "a [cat:dog:0.5] BREAK a tree AND (a house:1.2)");
    assert_eq!(found.unread.len(), 3, "{:?}", found.unread);
    for part in ["`BREAK`", "`AND`", "`[a:b:0.5]`"] {
        assert!(found.unread.iter().any(|note| note.contains(part)), "{part}: {:?}", found.unread);
    }
}

#[test]
fn json_of_another_program_is_no_prompt() {
    for text in [r#"{"sui_image_params": {"prompt": "a cat"}}"#, "", " \n"] {
        let error = read(&[("parameters", text)]).unwrap_err();
        assert!(matches!(error, MetadataError::Text { keyword: "parameters", .. }), "{error}");
    }
}

#[test]
fn long_and_hostile_texts_take_little_time() {
    let texts = ["a b ", "<lora:", "ab:[\"", "ab:\"\\", "a/", "Steps: 1, a: 2, b\n", "<lora:x:1>", "ab: {\"", "~/ "];
    for part in texts {
        let text = part.repeat((1 << 20) / part.len());
        let found = read(&[("parameters", text.as_str())]).unwrap();
        assert!(found.unread.len() <= 65, "{}", found.unread.len());
    }
}
