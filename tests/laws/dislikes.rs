//! Laws of disliked images where no branch runs that guidance leads away from.

use fabric::core::attention::Extrapolation;
use fabric::core::fabric::DislikesWithoutGuidance;
use fabric::core::pipeline::Window;

use super::*;

const FLIPPED: DislikesWithoutGuidance = DislikesWithoutGuidance::Flipped { scale: 1.0 };

fn extrapolated() -> DislikesWithoutGuidance {
    DislikesWithoutGuidance::Extrapolated(Extrapolation::default())
}

/// Returns a request with a liked and a disliked image at this guidance scale.
fn judged(dislikes: DislikesWithoutGuidance, guidance: f64, pass: ReferencePass) -> Request {
    let fabric = FabricSettings { dislikes_without_guidance: dislikes, ..everywhere().with_pass(pass) };
    let mut request = request(fabric).with_liked(image(1, 64)).with_disliked(image(3, 64));
    request.settings.guidance_scale = guidance;
    request
}

fn at_guidance_1(dislikes: DislikesWithoutGuidance) -> Generation {
    make(&judged(dislikes, 1.0, ReferencePass::Interleaved))
}

#[test]
fn dislikes_act_at_guidance_1_only_if_asked_and_the_report_says_so() {
    let none = at_guidance_1(DislikesWithoutGuidance::NoEffect);
    assert_eq!((none.report.references, none.report.references_without_effect), ([1, 0], 1));
    let advice = "or `fabric.dislikes_without_guidance`";
    assert!(none.report.notes.iter().any(|note| note.contains(advice)), "{:?}", none.report.notes);
    for dislikes in [FLIPPED, extrapolated()] {
        let made = at_guidance_1(dislikes);
        assert_differ(&made, &none);
        assert_eq!((made.report.references, made.report.references_without_effect), ([1, 1], 0));
        assert!(made.report.notes.is_empty(), "{:?}", made.report.notes);
    }
    assert_differ(&at_guidance_1(FLIPPED), &at_guidance_1(extrapolated()));
}

#[test]
fn with_guidance_dislikes_act_as_published_whatever_is_set() {
    let of = |dislikes| make(&judged(dislikes, 5.0, ReferencePass::Interleaved));
    let published = of(DislikesWithoutGuidance::NoEffect);
    for dislikes in [FLIPPED, extrapolated()] {
        assert_again(&values(&of(dislikes).latents), &values(&published.latents), "with guidance");
    }
}

#[test]
fn what_leads_nowhere_is_as_without_dislikes() {
    let none = at_guidance_1(DislikesWithoutGuidance::NoEffect);
    for how in [
        Extrapolation { scale: 1.0, ..Extrapolation::default() },
        Extrapolation { share: 0.0, ..Extrapolation::default() },
    ] {
        assert_same(&at_guidance_1(DislikesWithoutGuidance::Extrapolated(how)), &none);
    }
}

#[test]
fn dislikes_without_guidance_are_the_same_in_all_three_ways() {
    for dislikes in [FLIPPED, extrapolated()] {
        let interleaved = at_guidance_1(dislikes);
        for pass in
            [ReferencePass::TwoPasses { chunk: 1 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
        {
            assert_same(&make(&judged(dislikes, 1.0, pass)), &interleaved);
        }
    }
}

#[test]
fn outside_of_the_guidance_window_they_act_as_set() {
    let of = |dislikes| {
        let mut request = judged(dislikes, 5.0, ReferencePass::Interleaved);
        request.settings.guidance_window = Window::new(0.0, 0.5).expect("a window");
        make(&request)
    };
    assert_differ(&of(FLIPPED), &of(DislikesWithoutGuidance::NoEffect));
}

#[test]
fn a_weak_dislike_leads_less_far_away() {
    let none = at_guidance_1(DislikesWithoutGuidance::NoEffect);
    for dislikes in [FLIPPED, extrapolated()] {
        let of = |strength: f64| {
            let mut request = judged(dislikes, 1.0, ReferencePass::Interleaved);
            request.feedback[1].strength = -strength;
            distance(&make(&request), &none)
        };
        let [weak, strong] = [0.05, 1.0].map(of);
        assert!(weak > 0.0 && weak < strong, "{dislikes:?}: {weak} and {strong}");
    }
}
