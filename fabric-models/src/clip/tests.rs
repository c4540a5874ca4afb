//! Tests of parameter counts, end-of-text positions and invalid input.

use burn::tensor::{Device, Distribution, Tensor};
use fabric_backends::{DeviceKind, device};
use fabric_core::models::ImageEncoder;

use super::*;
use crate::config::ConfigError;
use crate::layers::{ParameterCount, count_parameters};

fn cpu() -> Device {
    device(DeviceKind::Flex).unwrap()
}

fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).abs().max().into_scalar()
}

fn tiny_text(eos_token_id: u32) -> ClipText {
    let config = ClipTextConfig {
        architectures: vec!["CLIPTextModelWithProjection".to_owned()],
        vocab_size: 50,
        hidden_size: 12,
        intermediate_size: 20,
        projection_dim: 7,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        max_position_embeddings: 9,
        eos_token_id,
        ..Default::default()
    };
    config.init(&cpu()).unwrap()
}

fn tiny_vision() -> ClipVision {
    let config = ClipVisionConfig {
        hidden_size: 12,
        intermediate_size: 20,
        projection_dim: 7,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        image_size: 8,
        patch_size: 4,
        ..Default::default()
    };
    config.init(&cpu()).unwrap()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    let text = |config: ClipTextConfig| count_parameters(&config.init(&cpu()).unwrap());
    assert_eq!(text(ClipTextConfig::vit_l()), ParameterCount { parameters: 123_060_480, tensors: 196 });
    assert_eq!(text(ClipTextConfig::vit_h()), ParameterCount { parameters: 340_387_840, tensors: 372 });
    assert_eq!(text(ClipTextConfig::big_g()), ParameterCount { parameters: 694_659_840, tensors: 517 });
    let vision = |config: ClipVisionConfig| count_parameters(&config.init(&cpu()).unwrap());
    assert_eq!(vision(ClipVisionConfig::vit_h()), ParameterCount { parameters: 632_076_800, tensors: 520 });
    assert_eq!(vision(ClipVisionConfig::big_g()), ParameterCount { parameters: 1_844_907_264, tensors: 776 });
}

#[test]
fn a_token_sees_only_those_before_it() {
    let text = tiny_text(49);
    let a = text.forward(&[vec![1, 2, 3, 4, 5]]).unwrap().last_hidden_state;
    let b = text.forward(&[vec![1, 2, 3, 40, 30]]).unwrap().last_hidden_state;
    assert!(difference(a.clone().narrow(1, 0, 3), b.clone().narrow(1, 0, 3)) < 1e-6);
    assert!(difference(a.narrow(1, 3, 2), b.narrow(1, 3, 2)) > 1e-3);
}

#[test]
fn prompts_do_not_see_one_another() {
    let text = tiny_text(49);
    let (a, b) = (vec![1, 2, 49, 0], vec![7, 49, 0, 0]);
    let both = text.forward(&[a.clone(), b.clone()]).unwrap();
    for (row, ids) in [a, b].into_iter().enumerate() {
        let alone = text.forward(&[ids]).unwrap();
        assert!(difference(both.pooled.clone().narrow(0, row, 1), alone.pooled) < 1e-5);
        assert!(difference(both.last_hidden_state.clone().narrow(0, row, 1), alone.last_hidden_state) < 1e-5);
    }
}

#[test]
fn prompts_are_pooled_at_the_first_end_marker_or_by_the_legacy_rule_at_the_highest_id() {
    let ids = vec![1, 30, 45, 30, 45];
    for (eos, at) in [(30, 1), (45, 2), (2, 2), (17, 0)] {
        let output = tiny_text(eos).forward(std::slice::from_ref(&ids)).unwrap();
        let state = output.last_hidden_state.narrow(1, at, 1).reshape([1, 12]);
        assert_eq!(difference(output.pooled, state), 0.0, "end marker {eos}");
    }
}

#[test]
fn skipping_no_layer_is_the_last_state() {
    let text = tiny_text(49);
    let output = text.forward(&[vec![1, 2, 3]]).unwrap();
    let kept = text.skip_layers(&output, 0).unwrap();
    assert_eq!(difference(kept, output.last_hidden_state.clone()), 0.0);
    assert!(text.skip_layers(&output, 3).is_ok());
    assert_eq!(text.skip_layers(&output, 4).unwrap_err(), ClipTextError::Skip { got: 4, layers: 3 });
}

#[test]
fn bad_prompts_are_refused() {
    let text = tiny_text(49);
    assert_eq!(text.forward(&[]).unwrap_err(), ClipTextError::Empty);
    assert_eq!(text.forward(&[vec![]]).unwrap_err(), ClipTextError::Empty);
    let ragged = text.forward(&[vec![1, 2], vec![1]]).unwrap_err();
    assert_eq!(ragged, ClipTextError::Ragged { prompt: 1, got: 1, expected: 2 });
    let long = text.forward(&[vec![1; 10]]).unwrap_err();
    assert_eq!(long, ClipTextError::TooLong { got: 10, most: 9 });
    let unknown = text.forward(&[vec![1, 50]]).unwrap_err();
    assert_eq!(unknown, ClipTextError::Unknown { prompt: 0, id: 50, vocabulary: 50 });
}

#[test]
fn penultimate_is_the_state_before_the_last_layer() {
    let vision = tiny_vision();
    let pixels = Tensor::random([2, 3, 8, 8], Distribution::Normal(0.0, 1.0), &cpu());
    let all = vision.forward(pixels.clone());
    assert_eq!(all.hidden.len(), 4);
    assert_eq!(difference(vision.penultimate(pixels.clone()), all.hidden[2].clone()), 0.0);
    assert_eq!(difference(vision.embed(pixels), all.image_embeds), 0.0);
}

#[test]
fn configurations_of_other_models_are_refused() {
    let refused = |json: &str| ClipTextConfig::from_json(json).unwrap_err().to_string();
    assert!(
        refused(r#"{"model_type": "t5"}"#).contains("`model_type`: expected")
            && refused(r#"{"model_type": "t5"}"#).contains("got t5")
    );
    assert!(
        refused(r#"{"hidden_act": "mish"}"#).contains("`hidden_act`: expected")
            && refused(r#"{"hidden_act": "mish"}"#).contains("got \"mish\"")
    );
    assert!(
        refused(r#"{"num_attention_heads": 7}"#).contains("`num_attention_heads`: expected")
            && refused(r#"{"num_attention_heads": 7}"#).contains("got 7")
    );
    assert!(refused(r#"{"num_hidden_layers": 1000000000}"#).contains("`num_hidden_layers`"));
    let error = ClipVisionConfig::from_json(r#"{"patch_size": 0}"#).unwrap_err();
    assert!(matches!(error, ConfigError::Invalid { ref value, .. } if value.what == "`patch_size`"), "{error}");
}
