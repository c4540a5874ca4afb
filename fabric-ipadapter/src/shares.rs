//! Shares of several image conditions in one softmax.

use fabric_core::pipeline::Window;
use fabric_core::{Aspect, ImageCondition};

/// Scale and weights of one image condition beside the others of its request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shares {
    /// Scale of all conditions of its direction and aspect together, at most 1 (as trained) unless one alone has more. A
    /// condition whose window only partly overlaps those of the others keeps this scale where it acts alone.
    pub(crate) strength: f64,
    /// Weight of the image relative to that scale.
    pub(crate) own: f64,
    /// Weight of "no image" on the branches that do not show the image, from 0 to 1. It is smaller if these branches show
    /// images of the other direction, and 0 if those are as strong.
    pub(crate) none: f64,
}

impl Shares {
    /// Returns the shares of `one` of these conditions. Conditions without a common evaluation have nothing to share. With
    /// `has_all_layers`, all act in the same layers; otherwise only those of the same aspect, or of everything, surely do.
    pub(crate) fn of(one: &ImageCondition, all: &[ImageCondition], has_all_layers: bool) -> Self {
        let strength = strength(one, all);
        let replaces = |other: &&ImageCondition| {
            let is_everywhere = has_all_layers || [aspect(one), &Aspect::Everything].contains(&aspect(other));
            other.away != one.away && contains(other.window, one.window) && is_everywhere
        };
        let against = all.iter().filter(replaces).map(|other| self::strength(other, all)).fold(0.0, f64::max);
        let of_strength = |scale: f64| if strength > 0.0 { scale / strength } else { 0.0 };
        Self { strength, own: of_strength(one.scale), none: of_strength(strength - against).max(0.0) }
    }
}

/// Returns the scale of all conditions that have the direction and the aspect of this one and act together with it.
fn strength(one: &ImageCondition, all: &[ImageCondition]) -> f64 {
    let is_like = |other: &&ImageCondition| {
        other.away == one.away && aspect(other) == aspect(one) && overlap(other.window, one.window)
    };
    let scales = all.iter().filter(is_like).map(|other| other.scale);
    scales.clone().sum::<f64>().min(scales.fold(1.0, f64::max))
}

/// Returns the aspect of a condition; an image without one is used as a whole.
fn aspect(condition: &ImageCondition) -> &Aspect {
    condition.aspect.as_ref().unwrap_or(&Aspect::Everything)
}

fn overlap(a: Window, b: Window) -> bool {
    let [(a_start, a_end), (b_start, b_end)] = [a, b].map(<(f64, f64)>::from);
    a_start < b_end && b_start < a_end
}

fn contains(outer: Window, inner: Window) -> bool {
    let [(outer_start, outer_end), (start, end)] = [outer, inner].map(<(f64, f64)>::from);
    outer_start <= start && end <= outer_end
}

#[cfg(test)]
mod tests {
    use fabric_core::image::Image;

    use super::*;

    fn condition(aspect: Aspect, scale: f64) -> ImageCondition {
        ImageCondition::new(Image::filled(8, 8, [9; 3]).expect("an image")).using(aspect).with_scale(scale)
    }

    fn window(start: f64, end: f64) -> Window {
        Window::new(start, end).expect("a window")
    }

    fn shares(all: &[ImageCondition]) -> Vec<[f64; 3]> {
        let of = |one| Shares::of(one, all, true);
        all.iter().map(of).map(|shares| [shares.strength, shares.own, shares.none]).collect()
    }

    #[test]
    fn conditions_of_an_aspect_have_the_strength_of_one_together_and_a_weak_one_is_weak() {
        use Aspect::{Colour, Style};
        assert_eq!(shares(&[condition(Style, 0.3)]), [[0.3, 1.0, 1.0]]);
        assert_eq!(shares(&[condition(Style, 0.5), condition(Style, 0.5)]), [[1.0, 0.5, 1.0]; 2]);
        assert_eq!(shares(&[condition(Style, 1.0), condition(Style, 1.0)]), [[1.0, 1.0, 1.0]; 2]);
        assert_eq!(shares(&[condition(Style, 2.0), condition(Style, 1.0)]), [[2.0, 1.0, 1.0], [2.0, 0.5, 1.0]]);
        assert_eq!(shares(&[condition(Style, 0.2), condition(Colour, 1.0)]), [[0.2, 1.0, 1.0], [1.0, 1.0, 1.0]]);
        assert_eq!(shares(&[condition(Style, 0.0)]), [[0.0, 0.0, 0.0]]);
        let plain = ImageCondition::new(Image::filled(8, 8, [9; 3]).expect("an image")).with_scale(0.5);
        assert_eq!(shares(&[plain, condition(Aspect::Everything, 0.5)]), [[1.0, 0.5, 1.0]; 2]);
    }

    #[test]
    fn only_what_acts_together_shares() {
        let halves = [[0.0, 0.5], [0.5, 1.0]];
        let apart = halves.map(|[start, end]| condition(Aspect::Style, 0.5).with_window(window(start, end)));
        assert_eq!(shares(&apart), [[0.5, 1.0, 1.0]; 2]);
        let away = condition(Aspect::Pose, 1.0).away().with_window(window(0.5, 1.0));
        // No image to lead away from takes the place of "no image" in the first half.
        assert_eq!(shares(&[apart[0].clone(), away.clone()])[0], [0.5, 1.0, 1.0]);
        assert_eq!(shares(&[apart[1].clone(), away])[0], [0.5, 1.0, 0.0]);
    }

    #[test]
    fn images_to_lead_away_from_replace_no_image_as_far_as_they_are_as_strong() {
        let towards = condition(Aspect::Style, 1.0);
        for (scale, none) in [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (2.0, 0.0)] {
            let away = condition(Aspect::Colour, scale).away();
            assert_eq!(shares(&[towards.clone(), away])[0], [1.0, 1.0, none], "{scale}");
        }
        // Of an adapter that takes aspects through layers, another aspect acts elsewhere.
        let both = [towards.clone(), condition(Aspect::Composition, 1.0).away()];
        assert_eq!(Shares::of(&towards, &both, false).none, 1.0);
    }
}
