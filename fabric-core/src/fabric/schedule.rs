//! Weights of references by evaluation and by depth in the U-Net.

use std::ops::Range;

use super::{DislikesWithoutGuidance, FabricSettings, Side, TimeCurve, WindowRule, acted_on};
use crate::denoise::ModelCall;
use crate::guidance::Branch;

/// Weights of one reference at one evaluation: at full resolution and at the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallWeights {
    /// Weight at full resolution.
    pub shallow: f64,
    /// Weight at the bottleneck.
    pub deep: f64,
}

impl CallWeights {
    /// Returns the weight at this depth, 0 to 1 ([`depth_position`](super::depth_position)), by linear interpolation.
    pub fn at(&self, depth: f64) -> f64 {
        self.shallow + (self.deep - self.shallow) * depth
    }

    /// Whether the reference has no weight in any layer.
    pub fn is_zero(&self) -> bool {
        self.shallow == 0.0 && self.deep == 0.0
    }
}

/// Schedule of reference weights over a run. Holds only host data; the weights are known before the run starts.
#[derive(Debug, Clone)]
pub(crate) struct FeedbackSchedule {
    settings: FabricSettings,
    train_steps: usize,
}

impl FeedbackSchedule {
    /// Creates a schedule for a model trained on `train_steps` timesteps (1000 for Stable Diffusion).
    pub(crate) fn new(settings: &FabricSettings, train_steps: usize) -> Self {
        Self { settings: settings.clone(), train_steps }
    }

    /// Returns the indices of the branches that attend to references of this side, and for disliked references that act on
    /// the conditional branch, because no branch runs that guidance leads away from, their effect there.
    pub(crate) fn branches(&self, side: Side, branches: &[Branch]) -> (Range<usize>, Option<DislikesWithoutGuidance>) {
        let own = acted_on(side, branches);
        let dislike = self.settings.dislikes_without_guidance;
        if side == Side::Disliked && own.is_empty() && dislike.acts() {
            return (acted_on(Side::Liked, branches), Some(dislike));
        }
        (own, None)
    }

    /// Returns the weight of a liked reference at full resolution, before strength and normalization.
    pub(crate) fn weight(&self, call: &ModelCall) -> f64 {
        let FabricSettings { min_weight, max_weight, .. } = self.settings;
        let Some(progress) = self.progress(call) else { return min_weight };
        let share = match self.settings.curve {
            TimeCurve::Constant => 1.0,
            TimeCurve::Falling => 1.0 - progress,
            TimeCurve::Rising => progress,
        };
        min_weight + (max_weight - min_weight) * share
    }

    /// Returns the weights of a reference with this side and strength, if `count` references have the same side.
    pub(crate) fn weights(&self, call: &ModelCall, side: Side, strength: f64, count: usize) -> CallWeights {
        let settings = &self.settings;
        let (scale, bottleneck) = match side {
            Side::Liked => (1.0, settings.liked_bottleneck_scale),
            Side::Disliked => (settings.negative_scale, settings.disliked_bottleneck_scale),
        };
        let share = if settings.normalise { count as f64 } else { 1.0 };
        let shallow = self.weight(call) * scale * strength / share;
        CallWeights { shallow, deep: shallow * bottleneck }
    }

    /// Position of the evaluation in the window, 0 to 1; `None` outside of it.
    fn progress(&self, call: &ModelCall) -> Option<f64> {
        let FabricSettings { start, end, .. } = self.settings;
        let calls = call.total as f64;
        let (first, last, here) = match self.settings.window {
            WindowRule::Official => {
                // Rounds halves to even, as Python's `round` does.
                let first = (calls * start).round_ties_even();
                let last = (calls * end).round_ties_even();
                (first, last.min(calls - 1.0), call.index as f64)
            }
            WindowRule::Timestep => {
                let here = 1.0 - call.level.timestep / (self.train_steps as f64 - 1.0);
                (start, end, here)
            }
            WindowRule::HalfOpen => ((calls * start).floor(), (calls * end).floor() - 1.0, call.index as f64),
        };
        if !(first..=last).contains(&here) {
            return None;
        }
        Some(if last > first { (here - first) / (last - first) } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denoise::NoiseLevel;

    /// Euler's 20 levels of the spec's table: `linspace(999, 0, 20)`.
    fn active(settings: &FabricSettings) -> Vec<usize> {
        let schedule = FeedbackSchedule::new(settings, 1000);
        let weight = |index: usize| {
            let timestep = 999.0 * (1.0 - index as f64 / 19.0);
            schedule.weight(&ModelCall { index, total: 20, level: NoiseLevel { timestep, alpha: 0.6, sigma: 0.8 } })
        };
        (0..20).filter(|&index| weight(index) == settings.max_weight).collect()
    }

    fn window(start: f64, end: f64, window: WindowRule) -> Vec<usize> {
        active(&FabricSettings { start, end, window, min_weight: 0.0, max_weight: 1.0, ..FabricSettings::default() })
    }

    #[test]
    fn windows_contain_the_steps_that_each_implementation_runs() {
        let range = |first: usize, last: usize| (first..=last).collect::<Vec<_>>();
        assert_eq!(window(0.0, 1.0, WindowRule::Official), range(0, 19));
        assert_eq!(window(0.0, 0.8, WindowRule::Official), range(0, 16));
        assert_eq!(window(0.33, 0.66, WindowRule::Official), range(7, 13));
        assert_eq!(window(0.3, 0.6, WindowRule::Official), range(6, 12));
        assert_eq!(window(0.0, 1.0, WindowRule::Timestep), range(0, 19));
        assert_eq!(window(0.0, 0.8, WindowRule::Timestep), range(0, 15));
        assert_eq!(window(0.33, 0.66, WindowRule::Timestep), range(7, 12));
        assert_eq!(window(0.3, 0.6, WindowRule::Timestep), range(6, 11));
        assert_eq!(window(0.0, 1.0, WindowRule::HalfOpen), range(0, 19));
        assert_eq!(window(0.0, 0.8, WindowRule::HalfOpen), range(0, 15));
    }

    #[test]
    fn halves_round_to_even() {
        // 20 * 0.125 = 2.5 and 20 * 0.175 = 3.5: Python's round gives 2 and 4.
        assert_eq!(window(0.125, 0.175, WindowRule::Official), vec![2, 3, 4]);
    }

    #[test]
    fn curves_run_linearly_from_one_weight_to_the_other() {
        let weights = |curve| {
            let settings = FabricSettings {
                start: 0.0,
                end: 1.0,
                min_weight: 0.2,
                max_weight: 1.0,
                curve,
                ..FabricSettings::default()
            };
            let schedule = FeedbackSchedule::new(&settings, 1000);
            let level = NoiseLevel { timestep: 0.0, alpha: 0.6, sigma: 0.8 };
            [0, 2, 4].map(|index| schedule.weight(&ModelCall { index, total: 5, level }))
        };
        for (got, expected) in
            [(weights(TimeCurve::Falling), [1.0, 0.6, 0.2]), (weights(TimeCurve::Rising), [0.2, 0.6, 1.0])]
        {
            for (a, b) in got.iter().zip(expected) {
                assert!((a - b).abs() < 1e-12, "{got:?}");
            }
        }
    }

    #[test]
    fn normalised_weights_sum_to_one_reference() {
        let settings = FabricSettings { normalise: true, start: 0.0, end: 1.0, ..FabricSettings::default() };
        let schedule = FeedbackSchedule::new(&settings, 1000);
        let level = NoiseLevel { timestep: 0.0, alpha: 0.6, sigma: 0.8 };
        let call = ModelCall { index: 0, total: 5, level };
        let one = schedule.weights(&call, Side::Liked, 1.0, 1).shallow;
        let four = schedule.weights(&call, Side::Liked, 1.0, 4).shallow;
        assert_eq!(one, 4.0 * four);
    }
}
