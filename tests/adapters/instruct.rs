//! Guidance branches of Instruct, and unusual instructions.

use super::*;

#[test]
fn instruct_runs_with_two_branches_and_with_four() {
    let adapter = adapter("instruct");
    let request = request().with_negative_prompt("blurry");
    let simple = make(&request.clone().with_steering(instructed(&adapter, InstructGuidance::Simple)));
    // All three scales are the request's guidance scale, so that the intermediate branches cancel.
    let equal = InstructGuidance::ThreeWay { instruction: 5.0, image: 5.0 };
    let three = make(&request.clone().with_steering(instructed(&adapter, equal)));
    assert!(distance(&simple, &three) < 1e-3, "{}", distance(&simple, &three));
    let published = instructed(&adapter, InstructGuidance::THREE_WAY);
    let both = make(&request.clone().with_steering(published.clone()));
    assert!(distance(&both, &simple) > 1e-2);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        let alone = make(&request.clone().with_seeds([seed]).with_steering(published.clone()));
        assert!(distance(&alone, part) < 1e-3, "{}", distance(&alone, part));
    }
    // Two adapters with different guidance cannot share a run; an adapter without its own guidance can be added.
    let clash = request.clone().with_steering(published.clone()).with_steering(instructed(&adapter, equal));
    assert!(clash.validate().expect_err("two kinds of guidance").to_string().starts_with("guidance: expected"));
    let plus = self::adapter("plus");
    let joined = request.with_steering(published).with_steering(prompt(&plus, &features(&plus, 1, 1)));
    assert!(distance(&make(&joined), &both) > 1e-3);
}

#[test]
fn disliked_images_act_under_four_branches() {
    let adapter = adapter("instruct");
    let mut request = request().with_steering(instructed(&adapter, InstructGuidance::THREE_WAY));
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
    let (layers, none) = (pipeline().cross_attentions(), Tensor::zeros([0, 5, tokens.dims()[2]], &tokens.device()));
    let empty = InstructTexts { query: texts.query.clone().narrow(1, 0, 1), ..texts.clone() };
    let refused = ImagePrompt::instructed(&adapter, &layers, [&tokens, &tokens], &empty, instruction.guidance);
    let message = refused.expect_err("a text cut short").to_string();
    assert!(message.starts_with("texts of an Instruct adapter: expected"), "{message}");
    let refused = ImagePrompt::instructed(&adapter, &layers, [&none, &tokens], &texts, instruction.guidance);
    let message = refused.expect_err("no image").to_string();
    assert!(message.starts_with("images of a prompt: expected one at least, got none"), "{message}");
}

#[test]
fn any_instruction_and_a_hundred_images_can_be_used() {
    let adapter = adapter("instruct");
    let Features::Instructed { tokens, .. } = features(&adapter, 1, 3) else { panic!("no Instruct adapter") };
    let (layers, none) = (pipeline().cross_attentions(), tokens.zeros_like());
    let long = "use the style ".repeat(4000);
    let mut made = Vec::new();
    for query in ["", "den Stil verwenden", "\u{4f7f}\u{7528}\u{98a8}\u{683c}", "\u{1f3a8}\0", &long] {
        let instruction = Instruction::new(query).with_guidance(InstructGuidance::Simple);
        let (encoder, options) = (pipeline().text_encoder(), TextOptions::default());
        let texts = InstructTexts::encode(encoder, adapter.config(), "a red star", "", &instruction, &options);
        let texts = texts.expect("texts");
        let guidance = instruction.guidance;
        let prompt = ImagePrompt::instructed(&adapter, &layers, [&tokens, &none], &texts, guidance);
        made.push(make(&request().with_steering(prompt.expect("a prompt"))));
    }
    // An instruction of about 10 MB is refused.
    let endless = Instruction::new("use the style ".repeat(10 << 16));
    let (encoder, options) = (pipeline().text_encoder(), TextOptions::default());
    let refused = InstructTexts::encode(encoder, adapter.config(), "a red star", "", &endless, &options);
    let message = refused.expect_err("ten megabytes").to_string();
    assert!(message.contains("9175040"), "{message}");
    assert!(made.iter().flatten().all(|value| value.is_finite()));
    // Different instructions give different images.
    assert!(distance(&made[0], &made[1]) > 1e-5);
    let base = self::adapter("base");
    let hundred = prompt(&base, &features(&base, 100, 1));
    assert!(make(&request().with_steering(hundred)).iter().all(|value| value.is_finite()));
}
