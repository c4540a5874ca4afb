//! Tests of valid and invalid configurations.

use super::*;
use crate::layers::{ParameterCount, count_parameters};
use crate::load::parameters;

#[test]
fn parameter_counts_are_the_published_ones() {
    let count = |config: UNetConfig| count_parameters(&config.init(&cpu()).unwrap());
    assert_eq!(count(UNetConfig::sd15()), ParameterCount { parameters: 859_520_964, tensors: 686 });
    assert_eq!(count(UNetConfig::sd21()), ParameterCount { parameters: 865_910_724, tensors: 686 });
    assert_eq!(count(UNetConfig::sdxl()), ParameterCount { parameters: 2_567_463_684, tensors: 1680 });
}

#[test]
fn sites_are_those_of_the_published_networks() {
    let sites = |config: UNetConfig| config.init(&cpu()).unwrap().attention_sites();
    let sd15 = sites(UNetConfig::sd15());
    assert_eq!(sd15.len(), 32);
    assert_eq!(sd15[0].to_string(), "down_blocks.0.attentions.0.transformer_blocks.0.attn1");
    assert_eq!(sd15[13].to_string(), "mid_block.attentions.0.transformer_blocks.0.attn2");
    assert_eq!(sd15[31].to_string(), "up_blocks.3.attentions.2.transformer_blocks.0.attn2");
    assert_eq!(sites(UNetConfig::sdxl()).len(), 140);
}

#[test]
fn no_two_parameters_have_one_name_and_sites_are_names() {
    let unet = UNetConfig::sdxl().init(&cpu()).unwrap();
    let mut names: Vec<String> = parameters(&unet).into_iter().map(|parameter| parameter.name).collect();
    for site in unet.attention_sites() {
        assert!(names.contains(&format!("{site}.to_k.weight")), "{site}");
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn saved_configurations_read_back() {
    for config in [UNetConfig::sd15(), UNetConfig::sd21(), UNetConfig::sdxl(), tiny()] {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(UNetConfig::from_json(&text).unwrap(), config);
    }
}

#[test]
fn depths_may_be_listed_for_each_transformer() {
    let json = r#"{
        "block_out_channels": [32, 64], "cross_attention_dim": 8,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [0, [1, 2]],
        "reverse_transformer_layers_per_block": [[3, 2, 1], 0],
        "mid_block_type": null
    }"#;
    let unet = UNetConfig::from_json(json).unwrap().init(&cpu()).unwrap();
    let sites: Vec<String> = unet.attention_sites().iter().map(ToString::to_string).collect();
    assert_eq!(sites.len(), 2 * (1 + 2 + 3 + 2 + 1));
    assert!(sites.contains(&"up_blocks.0.attentions.0.transformer_blocks.2.attn1".to_owned()));
    let missing = json.replace("reverse_", "other_");
    let error = UNetConfig::from_json(&missing).unwrap_err();
    assert!(
        error.to_string().contains("`reverse_transformer_layers_per_block`: expected")
            && error.to_string().contains("got nothing"),
        "{error}"
    );
}

#[test]
fn the_proper_name_of_the_number_of_heads_wins() {
    let config = UNetConfig { num_attention_heads: Some(OneOrMany::One(2)), ..tiny() };
    assert!(config.validate().is_ok());
    let error = UNetConfig { num_attention_heads: Some(OneOrMany::One(5)), ..tiny() }.validate().unwrap_err();
    assert!(error.to_string().contains("got 5"), "{error}");
}

#[test]
fn configurations_that_cannot_be_built_are_refused_by_field() {
    let cases = [
        (r#"{"down_block_types": ["AttnDownBlock2D"]}"#, "`down_block_types`: expected .. got [\"AttnDownBlock2D\"]"),
        (r#"{"down_block_types": ["DownBlock2D"]}"#, "`down_block_types`: expected 4, .. got 1 blocks"),
        (r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#, "`mid_block_type`"),
        (r#"{"block_out_channels": []}"#, "`block_out_channels`: expected .. got 0"),
        (r#"{"block_out_channels": [320, 640, 1280, 1290]}"#, "`norm_num_groups`: expected .. got 32"),
        (r#"{"block_out_channels": [99999999999999999999]}"#, "`block_out_channels`"),
        (r#"{"attention_head_dim": [8, 8]}"#, "`attention_head_dim`: expected one value .. got 2 values"),
        (r#"{"attention_head_dim": 7}"#, "`attention_head_dim`: expected .. got 7"),
        (r#"{"attention_head_dim": 0}"#, "`attention_head_dim`: expected .. got 0"),
        (r#"{"cross_attention_dim": null}"#, "`cross_attention_dim`: expected .. got null"),
        (r#"{"layers_per_block": 100000000}"#, "`layers_per_block`: expected .. got 100000000"),
        (
            r#"{"transformer_layers_per_block": [1, 1, 1, 4000]}"#,
            "`transformer_layers_per_block`: expected .. got 4000",
        ),
        (r#"{"transformer_layers_per_block": [1, 1]}"#, "`transformer_layers_per_block`: expected .. got 2 values"),
        (r#"{"norm_eps": 0}"#, "`norm_eps`: expected .. got 0"),
        (r#"{"norm_eps": 1e-40}"#, "`norm_eps`: expected a number of at least 1e-30 .. got 0.0000"),
        (r#"{"norm_eps": 1}"#, "`norm_eps`: expected .. got 1"),
        (r#"{"norm_num_groups": null}"#, "`norm_num_groups`: expected .. got null"),
        (r#"{"in_channels": 0}"#, "`in_channels`: expected .. got 0"),
        (r#"{"act_fn": "mish"}"#, "`act_fn`: expected .. got \"mish\""),
        (r#"{"conv_in_kernel": 2}"#, "`conv_in_kernel`: expected .. got 2"),
        (r#"{"downsample_padding": 3}"#, "`downsample_padding`: expected .. got 3"),
        (r#"{"freq_shift": 160}"#, "`freq_shift` (160)"),
        (r#"{"freq_shift": -1e300}"#, "`freq_shift`: expected a number from -1000000 to 1000000, got -1000"),
        (r#"{"addition_embed_type": "text"}"#, "`addition_embed_type`: expected .. got \"text\""),
        (r#"{"addition_embed_type": "text_time"}"#, "`addition_time_embed_dim`: expected .. got nothing"),
        (r#"{"class_embed_type": "timestep"}"#, "`class_embed_type`: expected null, got \"timestep\""),
        (r#"{"time_cond_proj_dim": 2}"#, "`time_cond_proj_dim`: expected an even number of at least 4 .. got 2"),
        (r#"{"time_cond_proj_dim": 255}"#, "`time_cond_proj_dim`: expected an even number of at least 4 .. got 255"),
        (r#"{"encoder_hid_dim": 1024}"#, "`encoder_hid_dim`: expected .. got 1024"),
        (r#"{"only_cross_attention": [true, false]}"#, "`only_cross_attention`: expected .. got [true,false]"),
        (r#"{"resnet_time_scale_shift": "scale_shift"}"#, "`resnet_time_scale_shift`"),
        (r#"{"_class_name": "UNet2DModel"}"#, "`_class_name`: expected .. got \"UNet2DModel\""),
    ];
    for (json, part) in cases {
        let message = UNetConfig::from_json(json).unwrap_err().to_string();
        assert!(part.split(" .. ").all(|part| message.contains(part)), "{json}: {message}");
    }
}

#[test]
fn a_middle_of_one_resnet_without_attention_is_that_of_ssd_1b() {
    // The published settings except for the widths.
    let json = r#"{
        "block_out_channels": [8, 8, 16], "norm_num_groups": 4, "cross_attention_dim": 10,
        "attention_head_dim": [1, 1, 2], "use_linear_projection": true, "mid_block_only_cross_attention": null,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1]
    }"#;
    let unet = UNetConfig::from_json(json).unwrap().init(&cpu()).unwrap();
    let names: Vec<String> = parameters(&unet).into_iter().map(|parameter| parameter.name).collect();
    let mid = |part: &str| names.iter().any(|name| name.starts_with(&format!("mid_block.{part}.")));
    assert!(mid("resnets.0") && !mid("resnets.1") && !mid("attentions"));
    assert_eq!(unet.attention_sites().len(), 2 * (2 + 2 + 4 + 4 + 4 + 4 + 10 + 2 + 1 + 1));
    let input = UNetInput::new(random([2, 4, 8, 8]), &[500.0], random([2, 3, CONTEXT]));
    let output = unet.forward(input).sample.unwrap();
    assert_eq!(output.dims(), [2, 4, 8, 8]);
    assert!(output.is_finite().all().into_scalar::<bool>());
}

#[test]
fn a_configuration_of_absurdly_many_layers_is_refused_before_they_are_built() {
    let many = UNetConfig {
        layers_per_block: OneOrMany::One(256),
        transformer_layers_per_block: Depths::Same(256),
        ..UNetConfig::sd15()
    };
    let message = many.init(&cpu()).unwrap_err().to_string();
    assert!(message.contains("`transformer_layers_per_block`: expected 1 to 2048, got 394240"), "{message}");
    let levels = 16;
    let resnets = |layers| UNetConfig {
        block_out_channels: vec![8; levels],
        down_block_types: vec![DownBlockType::DownBlock2D; levels],
        up_block_types: vec![UpBlockType::UpBlock2D; levels],
        layers_per_block: OneOrMany::One(layers),
        norm_num_groups: 1,
        ..UNetConfig::sd15()
    };
    resnets(31).validate().unwrap();
    let message = resnets(256).validate().unwrap_err().to_string();
    assert!(message.contains("`layers_per_block`: expected at most 1024 resnets"), "{message}");
    assert!(message.contains("got 8210 resnets"), "{message}");
    for side in [0, usize::MAX / 2 + 8] {
        let config = UNetConfig { sample_size: Some(side.into()), ..UNetConfig::sd15() };
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains("`sample_size`") && message.contains("1 to 65536"), "{message}");
    }
}
