//! Guidance branches of Instruct, and unusual instructions.

use fabric::ipadapter::Aspect;

use super::*;

#[test]
fn instruct_runs_with_two_branches_and_with_four() {
    let adapter = adapter("instruct");
    let request = request().with_negative_prompt("blurry");
    let simple = make(&request.clone().with(instructed(&adapter, InstructGuidance::Simple)));
    // All three scales are the request's guidance scale, so that the intermediate branches cancel.
    let equal = InstructGuidance::ThreeWay { instruction: 5.0, image: 5.0 };
    let three = make(&request.clone().with(instructed(&adapter, equal)));
    assert!(distance(&simple, &three) < 1e-3, "{}", distance(&simple, &three));
    let published = instructed(&adapter, InstructGuidance::THREE_WAY);
    let both = make(&request.clone().with(published.clone()));
    assert!(distance(&both, &simple) > 1e-2);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        let alone = make(&request.clone().with_seeds([seed]).with(published.clone()));
        assert!(distance(&alone, part) < 1e-3, "{}", distance(&alone, part));
    }
    // Two adapters with different guidance cannot share a run; an adapter without its own guidance can be added.
    let clash = request.clone().with(published.clone()).with(instructed(&adapter, equal));
    assert!(clash.validate().expect_err("two kinds of guidance").to_string().starts_with("guidance: expected"));
    let plus = self::adapter("plus");
    let joined = request.with(published).with(prompt(&plus, &features(&plus, 1, 1)));
    assert!(distance(&make(&joined), &both) > 1e-3);
}

#[test]
fn disliked_images_act_under_four_branches() {
    let adapter = adapter("instruct");
    let mut request = request().with(instructed(&adapter, InstructGuidance::THREE_WAY));
    request.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let plain = make(&request);
    for judged in [request.clone().with_disliked(image()), request.clone().with_liked(image())] {
        assert!(distance(&make(&judged), &plain) > 1e-3);
    }
}

#[test]
fn an_instruction_without_an_image_is_refused() {
    let adapter = adapter("instruct");
    let Features::Instructed { tokens, .. } = features(&adapter, 1, 3) else { panic!("no Instruct adapter") };
    let (instruction, options) = (Instruction::new("use the style"), TextOptions::default());
    let texts =
        InstructTexts::encode(pipeline().text_encoder(), adapter.config(), "a red star", "", &instruction, &options);
    let texts = texts.expect("texts");
    let none = Features::Tokens(tokens.zeros_like());
    let prompt = adapter.prompt_from_features(Features::Tokens(tokens.clone()), Some(none.clone()));
    let empty = InstructTexts { query: texts.query.clone().narrow(1, 0, 1), ..texts };
    let message = refusal(prompt.with_instruction(instruction).with_texts(empty));
    assert!(message.starts_with("texts of an Instruct adapter: expected"), "{message}");
    let no_image = Features::Tokens(Tensor::zeros([0, 5, tokens.dims()[2]], &tokens.device()));
    let message = refusal(adapter.prompt_from_features(no_image, Some(none)).using("the style"));
    assert!(message.starts_with("images of an image prompt: expected at least one, got none"), "{message}");
}

#[test]
fn texts_that_were_encoded_elsewhere_are_those_of_the_run() {
    let adapter = adapter("instruct");
    let prompt = instructed(&adapter, InstructGuidance::Simple);
    let request = request().with_negative_prompt("blurry");
    let instruction = Instruction::new("use the pose");
    let (encoder, options) = (pipeline().text_encoder(), TextOptions::default());
    let texts = InstructTexts::encode(encoder, adapter.config(), &request.prompt, "blurry", &instruction, &options);
    let texts = texts.expect("texts");
    let given = prompt.clone().with_texts(texts.clone());
    let from_run = make(&request.clone().with(prompt.clone()));
    assert_again(&make(&request.clone().with(given)), &from_run, "the same texts");
    let other = InstructTexts { query: texts.everything.clone(), ..texts };
    assert!(distance(&make(&request.with(prompt.with_texts(other))), &from_run) > 1e-4);
}

#[test]
fn composition_and_pose_are_used_at_the_published_scale() {
    let adapter = adapter("instruct");
    let Features::Instructed { tokens, .. } = features(&adapter, 1, 3) else { panic!("no Instruct adapter") };
    let none = Features::Tokens(tokens.zeros_like());
    let prompt = adapter.prompt_from_features(Features::Tokens(tokens), Some(none));
    let made = |prompt: ImagePrompt| make(&request().with(prompt));
    let pose = prompt.clone().using(Aspect::Pose).with_scale(0.9);
    let exact = prompt.clone().using("the pose").without_scale_correction();
    assert_again(&made(pose), &made(exact.clone().with_scale(0.9_f32 - 0.2)), "0.2 less");
    let by_layer = prompt.clone().using(Aspect::Pose).with_scales(LayerScales::same(0.9));
    assert_again(&made(by_layer), &made(exact.with_scale(0.9)), "scales by layer are used as they are");
    // Without an instruction, everything is used.
    assert_again(&made(prompt.clone()), &made(prompt.using(Aspect::Everything)), "everything");
}

#[test]
fn any_instruction_and_a_hundred_images_can_be_used() {
    let adapter = adapter("instruct");
    let Features::Instructed { tokens, .. } = features(&adapter, 1, 3) else { panic!("no Instruct adapter") };
    let none = Features::Tokens(tokens.zeros_like());
    let prompt = adapter.prompt_from_features(Features::Tokens(tokens), Some(none));
    let long = "use the style ".repeat(4000);
    let mut made = Vec::new();
    for query in ["", "den Stil verwenden", "\u{4f7f}\u{7528}\u{98a8}\u{683c}", "\u{1f3a8}\0", &long] {
        let instruction = Instruction::new(query).with_guidance(InstructGuidance::Simple);
        made.push(make(&request().with(prompt.clone().with_instruction(instruction))));
    }
    // An instruction of about 10 MB is refused.
    let endless = Instruction::new("use the style ".repeat(10 << 16));
    let message = refusal(prompt.with_instruction(endless));
    assert!(message.contains("9175040"), "{message}");
    assert!(made.iter().flatten().all(|value| value.is_finite()));
    // Different instructions give different images.
    assert!(distance(&made[0], &made[1]) > 1e-5);
    let base = self::adapter("base");
    let hundred = super::prompt(&base, &features(&base, 100, 1));
    assert!(make(&request().with(hundred)).iter().all(|value| value.is_finite()));
}
