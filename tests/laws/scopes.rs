//! Laws of references that act in a part of the run or of the U-Net.

use fabric::core::fabric::ReferenceScope;
use fabric::core::pipeline::Window;

use super::*;

fn liked(scope: ReferenceScope) -> Request {
    scoped(scope, everywhere())
}

/// Returns a request with a disliked image that acts everywhere and a liked one with this scope.
fn scoped(scope: ReferenceScope, fabric: FabricSettings) -> Request {
    request(fabric).with_disliked(image(3, 64)).with_scoped_feedback(image(1, 64), 1.0, scope)
}

fn window(start: f64, end: f64) -> ReferenceScope {
    ReferenceScope { window: Window::new(start, end).expect("a window"), ..ReferenceScope::default() }
}

/// Factors for the tiny U-Net, which has two levels: one for its coarse blocks, one for those at full resolution.
fn blocks(coarse: f64, fine: f64) -> BlockWeights {
    BlockWeights { down: vec![fine, coarse], mid: coarse, up: vec![coarse, fine] }
}

#[test]
fn a_scope_of_everything_is_no_scope() {
    let plain = make(&request(everywhere()).with_disliked(image(3, 64)).with_liked(image(1, 64)));
    assert_same(&make(&liked(ReferenceScope::default())), &plain);
    assert_same(&make(&liked(ReferenceScope { blocks: blocks(1.0, 1.0), ..window(0.0, 1.0) })), &plain);
}

#[test]
fn the_weight_of_a_scope_is_a_factor_on_the_strength() {
    let half = make(&liked(ReferenceScope { weight: 0.5, ..ReferenceScope::default() }));
    let weak = request(everywhere()).with_disliked(image(3, 64)).with_feedback(image(1, 64), 0.5);
    assert_same(&half, &make(&weak));
    let blockwise = make(&liked(ReferenceScope { blocks: blocks(0.5, 0.5), ..ReferenceScope::default() }));
    assert_same(&blockwise, &make(&weak));
}

#[test]
fn a_scope_without_an_evaluation_leaves_the_reference_out_and_says_so() {
    let without = make(&request(everywhere()).with_disliked(image(3, 64)));
    let expected = "references left out, as their scope leaves them no weight in any evaluation of their branch: 1";
    let check = |made: &Generation| {
        assert_eq!((made.report.references, made.report.references_without_effect), ([0, 1], 1));
        assert!(made.report.notes.iter().any(|note| note == expected), "{:?}", made.report.notes);
    };
    for scope in [window(0.5, 0.5), ReferenceScope { weight: 0.0, ..ReferenceScope::default() }] {
        let made = make(&liked(scope));
        assert_same(&made, &without);
        check(&made);
    }
    // Outside of the window of the settings, there is no weight either.
    let first_half = FabricSettings { end: 0.4, min_weight: 0.0, ..everywhere() };
    check(&make(&scoped(window(0.7, 1.0), first_half)));
}

#[test]
fn a_scope_restricts_only_its_own_reference() {
    let whole = make(&liked(ReferenceScope::default()));
    let without = make(&request(everywhere()).with_disliked(image(3, 64)));
    for scope in [window(0.0, 0.5), window(0.5, 1.0), ReferenceScope { blocks: blocks(1.0, 0.0), ..window(0.0, 1.0) }] {
        let made = make(&liked(scope));
        assert_differ(&made, &whole);
        assert_differ(&made, &without);
    }
    // All factors of a scope that restricts every reference alike are those of the settings.
    let scope = ReferenceScope { blocks: blocks(1.0, 0.3), ..ReferenceScope::default() };
    let alone = request(everywhere()).with_scoped_feedback(image(1, 64), 1.0, scope);
    let settings = FabricSettings { block_weights: blocks(1.0, 0.3), ..everywhere() };
    assert_same(&make(&alone), &make(&request(settings).with_liked(image(1, 64))));
}

#[test]
fn scopes_act_alike_in_all_three_ways() {
    let scope = ReferenceScope { blocks: blocks(0.2, 1.0), ..window(0.0, 0.7) };
    let interleaved = make(&liked(scope.clone()));
    for pass in
        [ReferencePass::TwoPasses { chunk: 1 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
    {
        assert_same(&make(&scoped(scope.clone(), everywhere().with_pass(pass))), &interleaved);
    }
}

#[test]
fn scopes_that_cannot_be_used_are_refused_by_name() {
    let short = BlockWeights { up: vec![1.0], ..BlockWeights::default() };
    for (scope, expected) in [
        (ReferenceScope { weight: -1.0, ..ReferenceScope::default() }, "feedback[1].scope.weight: expected"),
        (ReferenceScope { blocks: blocks(f64::NAN, 1.0), ..ReferenceScope::default() }, "feedback[1].scope.blocks: "),
        (ReferenceScope { blocks: short, ..ReferenceScope::default() }, "feedback[1].scope.blocks.up: expected 2"),
    ] {
        let message = pipeline().generate(&liked(scope)).expect_err("a bad scope").to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}
