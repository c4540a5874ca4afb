//! Image prompts, instructions and reasons in sessions of feedback.

use fabric::core::InitImage;
use fabric::core::attention::Block;
use fabric::core::fabric::{KeepPolicy, ReferenceScope};
use fabric::core::image::{Crop, clip_batch};
use fabric::core::models::ImageEncoder;
use fabric::core::pipeline::ImageAdapter;
use fabric::core::session::FeedbackSession;
use fabric::core::{Aspect, AspectKind, ImageCondition};
use fabric::models::clip::ClipVision;

use super::*;

fn encoder() -> ClipVision {
    let device = fabric::default_device().expect("a device");
    ClipVision::open(folder().join("image_encoder"), &device).expect("an encoder")
}

/// The shared pipeline with a plain and an Instruct adapter.
fn equipped() -> Pipeline {
    let [plus, instruct] = ["plus", "instruct"].map(|kind| adapter(kind).with_encoder(encoder()));
    pipeline().clone().with_adapter(plus).with_adapter(instruct)
}

fn session() -> FeedbackSession {
    FeedbackSession::new("a red star").with_seed(5).with_generation_settings(&request().settings)
}

#[test]
fn a_round_has_votes_reasons_an_image_prompt_and_any_conditioning() {
    let (pipeline, plus) = (equipped(), adapter("plus").with_encoder(encoder()));
    let mut session = session();
    let first = session.generate(&pipeline, 2).expect("a round");
    session.like(&first[0]).expect("a vote");
    session.like(&first[1]).expect("a vote").because(Aspect::Style).expect("a reason");
    session.add_image_condition(ImageCondition::new(image()).using("the composition")).expect("a condition");
    let request = session.next_request(&pipeline, 2).expect("a request").with(plus.prompt(image()).with_scale(0.5));
    let made = pipeline.generate(&request).expect("images");
    let second = session.record(&request, &made).expect("a round");

    assert_eq!((second.index, second.image_conditions.len(), made.report.references), (1, 2, [1, 0]));
    let origin = made.report.origin.join("; ");
    assert!(origin.contains("models") && origin.contains("`use the composition`"), "{origin}");
    // Several images have two branches, whatever their aspects.
    let without = Request { conditioning: Vec::new(), ..request.clone() };
    assert!(distance(&latents(&pipeline.generate(&without).expect("images")), &latents(&made)) > 1e-3);
    for left_out in 0..2 {
        let mut other = request.clone();
        other.image_conditions.remove(left_out);
        assert!(distance(&latents(&pipeline.generate(&other).expect("images")), &latents(&made)) > 1e-4);
    }
    let plain = Request { feedback: Vec::new(), ..request };
    assert!(distance(&latents(&pipeline.generate(&plain).expect("images")), &latents(&made)) > 1e-4);
}

#[test]
fn a_request_has_what_the_session_holds_and_a_round_what_the_request_had() {
    let mut session = session();
    let image = |at: u8| Image::filled(8, 8, [at, 0, 0]).expect("an image");
    session
        .add_image_condition(ImageCondition::new(image(3)).using("the colour").with_scale(0.6))
        .expect("a condition");
    session.add_image_condition(ImageCondition::new(image(3)).away()).expect("a condition");
    session.like(&image(1)).expect("a vote").because(Aspect::Style).expect("a reason");
    session.dislike(&image(2)).expect("a vote").because("its dark background").expect("a reason");
    session.like(&image(6)).expect("a vote");
    let init = InitImage::new(image(4), 0.7).with_mask(Image::filled(8, 8, [255; 3]).expect("an image"));
    session.set_init_image(Some(init.clone())).expect("an init image");
    let request = session.next_request(&equipped(), 2).expect("a request");
    let conditions: Vec<_> = request.image_conditions.iter().map(|one| (one.aspect.clone(), one.away)).collect();
    let words = Aspect::Words("its dark background".to_owned());
    let expected = [(Some(Aspect::Colour), false), (None, true), (Some(Aspect::Style), false), (Some(words), true)];
    assert_eq!(conditions, expected);
    assert_eq!((request.feedback.len(), request.init_image.as_ref(), request.seeds.len()), (1, Some(&init), 2));

    // Changes between the request and the record do not reach the round.
    let made = equipped().generate(&request).expect("images");
    session.set_prompt("something else");
    session.set_init_image(None).expect("no init image");
    let round = session.record(&request, &made).expect("a round");
    assert_eq!((&*round.prompt, round.image_conditions.len(), round.init_image), ("a red star", 4, Some(init)));
    assert_eq!(session.prompt(), "something else");
    let folder = tempfile::tempdir().expect("a folder");
    session.save(folder.path()).expect("saved");
    assert_eq!(FeedbackSession::load(folder.path()).expect("loaded"), session);
}

#[test]
fn reasoned_votes_are_limited_by_the_keep_policy() {
    let mut session = session();
    let mut settings = request().settings;
    settings.fabric.keep = KeepPolicy::MostRecent(2);
    session.set_settings(serde_json::to_value(&settings).expect("settings"));
    for at in 0..5 {
        let image = Image::filled(8, 8, [at, 0, 0]).expect("an image");
        session.like(&image).expect("a vote").because(Aspect::Style).expect("a reason");
    }
    let request = session.next_request(&equipped(), 1).expect("a request");
    let shades: Vec<u8> = request.image_conditions.iter().map(|one| one.image.rgb()[0]).collect();
    assert_eq!(shades, [3, 4]);
}

#[test]
fn votes_with_a_reason_are_references_where_the_settings_say_so() {
    let mut session = session();
    let window = Window::new(0.0, 0.5).expect("a window");
    let scope = ReferenceScope { window, ..ReferenceScope::default() };
    let mut settings = request().settings;
    settings.reasons.references = [(AspectKind::Style, scope.clone())].into();
    session.set_settings(serde_json::to_value(&settings).expect("settings"));
    let image = |at: u8| Image::filled(8, 8, [at, 0, 0]).expect("an image");
    session.like(&image(1)).expect("a vote").because(Aspect::Style).expect("a reason");
    session.dislike(&image(2)).expect("a vote");
    session.dislike(&image(3)).expect("a vote").because(Aspect::Style).expect("a reason");
    session.like(&image(4)).expect("a vote").because(Aspect::Colour).expect("a reason");
    let got = session.next_request(&equipped(), 1).expect("a request");
    let references: Vec<_> =
        got.feedback.iter().map(|one| (one.image.rgb()[0], one.strength, one.scope.clone())).collect();
    let everywhere = ReferenceScope::default();
    assert_eq!(references, [(1, 1.0, scope.clone()), (2, -1.0, everywhere), (3, -1.0, scope)]);
    assert_eq!(got.image_conditions.len(), 3);
    // At a scale of 0, they are references only, which need no adapter.
    (settings.reasons.scale, settings.reasons.away_scale) = (0.0, 0.0);
    session.set_settings(serde_json::to_value(&settings).expect("settings"));
    let got = session.next_request(pipeline(), 1).expect("a request");
    assert_eq!((got.feedback.len(), got.image_conditions.len()), (3, 0));
    assert!(pipeline().generate(&got).is_ok());
}

#[test]
fn measured_votes_with_reasons_have_the_same_shares_beside_references_of_either_pass_and_change_no_image() {
    let (pipeline, mut session) = (equipped(), session());
    let image = |at: u8| Image::filled(8, 8, [at, 0, 0]).expect("an image");
    session.like(&image(200)).expect("a vote");
    session.like(&image(90)).expect("a vote").because(Aspect::Style).expect("a reason");
    session.dislike(&image(20)).expect("a vote").because(Aspect::Colour).expect("a reason");
    let mut request = session.next_request(&pipeline, 2).expect("a request");
    let shares = [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 1 }].map(|pass| {
        request.settings.fabric = FabricSettings { execution: pass.into(), ..FabricSettings::paper_target() };
        request.settings.measure_attention = false;
        let plain = pipeline.generate(&request).expect("images");
        request.settings.measure_attention = true;
        let measured = pipeline.generate(&request).expect("images");
        assert_again(&latents(&measured), &latents(&plain), "measured");
        measured.report.image_prompts.iter().map(|effect| effect.mean as f32).collect::<Vec<f32>>()
    });
    let [interleaved, recorded] = &shares;
    assert!(interleaved.len() == 2 && interleaved.iter().all(|share| *share > 0.0 && *share < 1.0), "{shares:?}");
    assert!(distance(interleaved, recorded) < 1e-3, "{shares:?}");
}

#[test]
fn a_plain_adapter_uses_an_aspect_through_the_layers_that_are_set_for_it() {
    let plus = adapter("plus").with_encoder(encoder());
    let layers = LayerScales::none().with_block(Block::Mid, 0.8).with_block(Block::Up(1), 0.5);
    let equipped = pipeline().clone().with_adapter(plus.clone().with_aspect(AspectKind::Colour, layers.clone()));
    let made = |request: Request| latents(&equipped.generate(&request).expect("images"));
    let condition = ImageCondition::new(image()).using(Aspect::Colour).with_scale(0.6);
    let got = made(request().with_image_condition(condition.clone()));
    assert_again(&got, &made(request().with(plus.prompt(image()).with_scales(layers.times(0.6)))), "its layers");
    assert!(distance(&got, &made(request().with(plus.prompt(image()).with_scale(0.6)))) > 1e-3);
    let away = made(request().with_image_condition(condition.clone().away()));
    assert!(distance(&away, &got) > 1e-3);
    let whole = made(request().with_image_condition(ImageCondition::new(image()).using(Aspect::Everything)));
    assert_again(&whole, &made(request().with(plus.prompt(image()))), "everything");
    // The tiny U-Net is none whose style layers are published.
    let style = request().with_image_condition(ImageCondition::new(image()).using(Aspect::Style));
    let message = equipped.generate(&style).expect_err("no layers").to_string();
    assert!(message.contains("reads no instructions and has no layers for this aspect"), "{message}");
    // With an Instruct adapter, the layers are not used.
    let both = equipped.clone().with_adapter(adapter("instruct").with_encoder(encoder()));
    let instructed = latents(&both.generate(&request().with_image_condition(condition)).expect("images"));
    assert!(distance(&instructed, &got) > 1e-4);
}

#[test]
fn image_conditions_are_the_prompts_of_the_adapter() {
    let (pipeline, instruct) = (equipped(), adapter("instruct").with_encoder(encoder()));
    let made = |request: Request| latents(&pipeline.generate(&request).expect("images"));
    let condition = ImageCondition::new(image()).using(Aspect::Style).with_scale(0.7);
    let by_hand = instruct.prompt(image()).using("the style").with_scale(0.7);
    let pose = made(request().with_image_condition(ImageCondition::new(image()).using(Aspect::Pose)));
    let exact = instruct.prompt(image()).using(Aspect::Pose).without_scale_correction();
    assert_again(&pose, &made(request().with(exact)), "the scale as it is");
    let got = made(request().with_image_condition(condition.clone()));
    assert_again(&got, &made(request().with(by_hand.clone())), "an aspect");
    let away = made(request().with_image_condition(condition.away()));
    assert_again(&away, &made(request().with(by_hand.away())), "away");
    assert!(distance(&away, &got) > 1e-3);
    let plus = adapter("plus").with_encoder(encoder());
    let plain = made(request().with_image_condition(ImageCondition::new(image())));
    assert_again(&plain, &made(request().with(plus.prompt(image()))), "without an aspect");
    assert!(distance(&plain, &made(request())) > 1e-3);
}

#[test]
fn leading_away_is_the_prompt_with_the_branches_exchanged() {
    let adapter = adapter("plus");
    let [images, none] = [features(&adapter, 1, 1), features(&adapter, 1, 0)];
    let away = make(&request().with(adapter.prompt_from_features(images.clone(), Some(none.clone())).away()));
    let exchanged = make(&request().with(adapter.prompt_from_features(none, Some(images))));
    assert_again(&away, &exchanged, "exchanged");
}

#[test]
fn leading_away_has_an_effect_with_two_branches_and_with_four() {
    let (instruct, plus) = (adapter("instruct").with_encoder(encoder()), adapter("plus").with_encoder(encoder()));
    let plain = make(&request());
    for aspect in [Aspect::Style, Aspect::Pose] {
        let away = make(&request().with(instruct.prompt(image()).using(aspect).away()));
        assert!(distance(&away, &plain) > 1e-3);
    }
    // At guidance scale 1 there is no branch to lead away from.
    let mut alone = request();
    alone.settings.guidance_scale = 1.0;
    for prompt in [instruct.prompt(image()).using(Aspect::Style).away(), plus.prompt(image()).away()] {
        let made = pipeline().generate(&alone.clone().with(prompt)).expect("images");
        assert_again(&latents(&made), &make(&alone), "guidance scale 1");
        assert!(made.report.notes.iter().any(|note| note.contains("leads away")), "{:?}", made.report.notes);
    }
    let precise = plus.prompt(image()).with_preset(LayerPreset::StyleTransferPrecise, 1.0, None).away();
    assert!(refusal(precise).contains("preset"));
    // A plain prompt beside one that needs four branches.
    let pose = request().with(instruct.prompt(image()).using(Aspect::Pose));
    let both = pose.clone().with(plus.prompt(image()).away());
    assert!(distance(&make(&both), &make(&pose)) > 1e-3);
}

#[test]
fn an_instruct_adapter_alone_realises_plain_images_too() {
    let pipeline = pipeline().clone().with_adapter(adapter("instruct").with_encoder(encoder()));
    let plain = ImageCondition::new(image());
    let request = request().with_image_condition(plain.clone()).with_image_condition(plain.using(Aspect::Pose));
    assert!(pipeline.generate(&request).is_ok(), "with an aspect and without");
}

#[test]
fn several_images_and_one_that_leads_away_have_two_branches() {
    let instruct = adapter("instruct").with_encoder(encoder());
    let branches = |images: &[ImageCondition]| -> Vec<usize> {
        let made = instruct.conditioning(images, &[]);
        made.iter().map(|one| one.guidance(7.5).expect("a guidance").branches().len()).collect()
    };
    let pose = ImageCondition::new(image()).using(Aspect::Pose);
    assert_eq!(branches(std::slice::from_ref(&pose)), [4]);
    assert_eq!(branches(&[pose.clone().away()]), [2]);
    assert_eq!(branches(&[pose.clone(), pose]), [2, 2]);
}

#[test]
fn images_of_a_request_share_one_softmax() {
    let pipeline = pipeline().clone().with_adapter(adapter("instruct").with_encoder(encoder()));
    let make = |images: &[ImageCondition]| {
        let request = images.iter().cloned().fold(request(), Request::with_image_condition);
        latents(&pipeline.generate(&request).expect("images"))
    };
    // Of the style, the guidance has two branches with one image too.
    let style = ImageCondition::new(image()).using(Aspect::Style);
    let once = make(std::slice::from_ref(&style));
    assert!(distance(&make(&[style.clone(), style.clone()]), &once) < 1e-4, "the same image twice is the image once");
    let halves = [style.clone().with_scale(0.5), style.clone().with_scale(0.5)];
    assert!(distance(&make(&halves), &once) < 1e-4, "two weak votes are as strong as one");
    let other = style.clone().using(Aspect::Colour);
    assert!(distance(&make(&[style, other]), &once) > 1e-3);
}

#[test]
fn an_image_to_lead_away_from_takes_the_place_of_no_image() {
    let device = fabric::default_device().expect("a device");
    let encoder = encoder();
    let adapter = adapter("plus").with_encoder(encoder.clone());
    let pipeline = pipeline().clone().with_adapter(adapter.clone());
    let other =
        Image::from_rgb(64, 64, (0..64 * 64 * 3_usize).map(|at| (at * 3 % 199) as u8).collect()).expect("an image");
    let [liked, disliked] = [image(), other].map(|image| {
        let pixels =
            clip_batch(std::slice::from_ref(&image), encoder.image_size(), Crop::Centre, &device).expect("pixels");
        (ImageCondition::new(image), Features::of(&encoder, pixels, adapter.config().reads()).expect("features"))
    });
    let make = |request: &Request| latents(&pipeline.generate(request).expect("images"));
    let both =
        |away: ImageCondition| make(&request().with_image_condition(liked.0.clone()).with_image_condition(away.away()));
    let exchanged = make(&request().with(adapter.prompt_from_features(liked.1.clone(), Some(disliked.1))));
    assert!(distance(&both(disliked.0.clone()), &exchanged) < 1e-4, "as a negative image");
    // The weaker it is, the nearer to "no image".
    let alone = make(&request().with_image_condition(liked.0.clone()));
    let apart = |scale: f64| distance(&both(disliked.0.clone().with_scale(scale)), &alone);
    let [weak, strong] = [1e-4, 1.0].map(apart);
    assert!(weak < 1e-2 * strong, "{weak} and {strong}");
}

#[test]
fn a_pipeline_without_the_adapter_refuses_before_the_run() {
    let mut session = session();
    let first = session.generate(pipeline(), 1).expect("a round");
    session.like(&first[0]).expect("a vote").because("its light").expect("a reason");
    let message = session.generate(pipeline(), 1).expect_err("no adapter").to_string();
    let expected = "image condition `use its light`: expected a pipeline with an Instruct adapter, got";
    assert!(message.starts_with(expected) && message.contains("with_adapter"), "{message}");
    let plain_only = pipeline().clone().with_adapter(adapter("plus").with_encoder(encoder()));
    assert!(session.generate(&plain_only, 1).expect_err("no Instruct adapter").to_string().starts_with(expected));
    let without_encoder = pipeline().clone().with_adapter(adapter("instruct"));
    let message = session.generate(&without_encoder, 1).expect_err("no encoder").to_string();
    assert!(message.contains("image encoder of an image prompt: expected"), "{message}");
    assert_eq!(session.rounds().len(), 1);
    assert!(session.generate(&equipped(), 1).is_ok());
}
