//! The arms of experiments that are not in FABRIC's paper.

use std::collections::BTreeMap;

use fabric::core::attention::Extrapolation;
use fabric::core::fabric::{DislikesWithoutGuidance, FabricSettings, KeepPolicy, LikedPerImage};
use fabric::core::guidance::Apg;
use fabric::core::pipeline::Cads;
use serde_json::{Value, json};

use crate::{Arm, FirstRound};

/// Returns arms with one side or both, and with disliked images of more and less weight.
pub(crate) fn sides(control: &Arm) -> Vec<Arm> {
    let arm = |name: &str, likes: bool, dislikes: bool, negative_scale: f64| Arm {
        name: name.to_owned(),
        likes,
        dislikes,
        fabric: FabricSettings { negative_scale, ..control.fabric.clone() },
        ..control.clone()
    };
    vec![
        control.clone(),
        arm("liked", true, false, 0.5),
        arm("disliked, 0.5", false, true, 0.5),
        arm("disliked, 1", false, true, 1.0),
        arm("disliked, 2", false, true, 2.0),
        arm("both, 0.5", true, true, 0.5),
        arm("both, 1", true, true, 1.0),
        arm("both, 2", true, true, 2.0),
    ]
}

/// Returns arms at guidance scale 1, where disliked images have no effect as published, with each way to give them one,
/// and arms with the model's own guidance for comparison. The control has no guidance either.
pub(crate) fn without_guidance(plain: &Arm) -> Vec<Arm> {
    let off: BTreeMap<String, Value> = [("guidance_scale".to_owned(), 1.0.into())].into();
    let control = Arm { generation: off, ..plain.clone() };
    let arm = |name: &str, control: &Arm, dislikes_without_guidance: DislikesWithoutGuidance| Arm {
        name: name.to_owned(),
        likes: true,
        dislikes: true,
        fabric: FabricSettings { dislikes_without_guidance, ..control.fabric.clone() },
        ..control.clone()
    };
    let flipped = |scale: f64| DislikesWithoutGuidance::Flipped { scale };
    let extrapolated =
        |scale: f64| DislikesWithoutGuidance::Extrapolated(Extrapolation { scale, ..Extrapolation::default() });
    let guided = Arm { name: "no feedback, guided".to_owned(), ..plain.clone() };
    vec![
        control.clone(),
        arm("liked", &control, DislikesWithoutGuidance::NoEffect),
        arm("flipped, 0.5", &control, flipped(0.5)),
        arm("flipped, 1", &control, flipped(1.0)),
        arm("flipped, 2", &control, flipped(2.0)),
        arm("extrapolated, 3", &control, extrapolated(3.0)),
        arm("extrapolated, 5", &control, extrapolated(5.0)),
        arm("extrapolated, 9", &control, extrapolated(9.0)),
        Arm { likes: true, name: "liked, guided".to_owned(), ..guided.clone() },
        arm("liked and disliked, guided", &guided, DislikesWithoutGuidance::NoEffect),
        guided,
    ]
}

/// Returns arms that differ from the paper's settings in one or two ways each, in the guidance scale, or in the number of
/// votes that act.
pub(crate) fn sweep(control: &Arm) -> Vec<Arm> {
    let base = &control.fabric;
    let weighted = |max_weight: f64| FabricSettings { max_weight, ..base.clone() };
    let first_half = |max_weight: f64| FabricSettings { end: 0.5, ..weighted(max_weight) };
    let bottleneck =
        |scale: f64| FabricSettings { liked_bottleneck_scale: scale, disliked_bottleneck_scale: scale, ..base.clone() };
    let settings = [
        ("weight 0.1", weighted(0.1)),
        ("weight 0.3", weighted(0.3)),
        ("weight 0.8", weighted(0.8)),
        ("weight 1.5", weighted(1.5)),
        ("weight 3", weighted(3.0)),
        ("weight 0.8, first half", first_half(0.8)),
        ("weight 1.5, first half", first_half(1.5)),
        ("weight 1.5, divided by the votes", FabricSettings { normalise: true, ..weighted(1.5) }),
        ("bottleneck 0.3", bottleneck(0.3)),
        ("bottleneck 3", bottleneck(3.0)),
        ("official interface", FabricSettings::official_api()),
        ("official configurations", FabricSettings::official_configs()),
        ("official demo", FabricSettings::official_demo()),
        ("newest vote of each side", FabricSettings { keep: KeepPolicy::Balanced(2), ..base.clone() }),
    ];
    let arm = |(name, fabric): (&str, FabricSettings)| Arm {
        name: name.to_owned(),
        likes: true,
        dislikes: true,
        fabric,
        ..control.clone()
    };
    let guided = |scale: f64| Arm {
        generation: [("guidance_scale".to_owned(), scale.into())].into(),
        ..arm((&format!("guidance {scale}"), base.clone()))
    };
    let guided = [1.5, 5.0].map(guided);
    std::iter::once(control.clone()).chain(settings.into_iter().map(arm)).chain(guided).collect()
}

/// Returns arms whose first round is generated, or found in a folder of drawings, and the arm without feedback. The
/// first one is the control: both have votes, and differ in the first round alone.
pub(crate) fn corpus(without: &Arm) -> Vec<Arm> {
    let from = |name: &str, first_round: FirstRound| Arm {
        name: name.to_owned(),
        likes: true,
        dislikes: true,
        first_round: Some(first_round),
        ..without.clone()
    };
    vec![
        from("first round generated", FirstRound::Generated),
        from("first round from the corpus", FirstRound::Corpus { drawings: 200 }),
        without.clone(),
    ]
}

/// Leaves out 30 % of the words of the prompt, as in the paper's section 5.4.
pub(crate) fn words_left_out() -> BTreeMap<String, Value> {
    [("prompt_dropout".to_owned(), 0.3.into())].into()
}

/// Returns arms with feedback, and with one option each against the loss of diversity.
pub(crate) fn diversity(control: &Arm, feedback: &Arm) -> Vec<Arm> {
    let option = |name: &str, generation: Value| {
        let generation = generation.as_object().into_iter().flatten();
        let generation = generation.map(|(name, value)| (name.clone(), value.clone())).collect();
        Arm { name: name.to_owned(), generation, ..feedback.clone() }
    };
    let normalised = FabricSettings { normalise: true, ..feedback.fabric.clone() };
    let first_half = FabricSettings { end: 0.5, ..feedback.fabric.clone() };
    let each = |name: &str, liked: usize, max_weight: f64| {
        let fabric =
            FabricSettings { liked_per_image: Some(LikedPerImage::new(liked)), max_weight, ..feedback.fabric.clone() };
        Arm { name: name.to_owned(), fabric, ..feedback.clone() }
    };
    let weight = feedback.fabric.max_weight;
    vec![
        control.clone(),
        feedback.clone(),
        each("one liked image each", 1, weight),
        each("two liked images each", 2, weight),
        each("one liked image each, weight 1.5", 1, 1.5),
        each("one liked image each, weight 3", 1, 3.0),
        Arm { generation: words_left_out(), name: "dropout 0.3".to_owned(), ..feedback.clone() },
        Arm { fabric: normalised, name: "divided by the votes".to_owned(), ..feedback.clone() },
        Arm { fabric: first_half, name: "first half".to_owned(), ..feedback.clone() },
        option("guidance from 0.2 to 0.8", json!({ "guidance_window": [0.2, 0.8] })),
        option("CADS", json!({ "cads": Cads::default() })),
        option("APG", json!({ "apg": Apg::default() })),
    ]
}
