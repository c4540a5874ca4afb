//! Guidance over a run: which branches each evaluation runs.

use super::Window;
use crate::denoise::ModelCall;
use crate::guidance::{Branch, Guidance};
use crate::schedule::Schedule;

/// Guidance of a run, which acts in a window; outside of it, the conditional branch runs alone.
#[derive(Debug)]
pub(super) struct RunGuidance {
    inside: Guidance,
    outside: Guidance,
    window: Window,
    /// Whether any evaluation lies inside the window.
    has_inside: bool,
    /// Whether any evaluation lies outside of the window.
    has_outside: bool,
}

impl RunGuidance {
    pub(super) fn new(guidance: Guidance, window: Window, schedule: &Schedule) -> Self {
        let outside = Guidance::classifier_free(1.0);
        let has = |inside: bool| calls(schedule).any(|call| window.contains(&call) == inside);
        Self { inside: guidance, outside, window, has_inside: has(true), has_outside: has(false) }
    }

    /// Returns the guidance of an evaluation.
    pub(super) fn at(&self, call: &ModelCall) -> &Guidance {
        if self.window.contains(call) { &self.inside } else { &self.outside }
    }

    /// The guidance inside the window.
    pub(super) fn inside(&self) -> &Guidance {
        &self.inside
    }

    /// Whether no evaluation lies inside the window, although some are made.
    pub(super) fn is_never_inside(&self) -> bool {
        self.has_outside && !self.has_inside
    }

    /// Whether any evaluation lies outside of the window.
    pub(super) fn has_outside(&self) -> bool {
        self.has_outside
    }

    /// Returns the branches that run in any evaluation, each once, in batch order.
    pub(super) fn branches(&self) -> Vec<Branch> {
        let mut branches: Vec<Branch> = self.used().into_iter().flat_map(Guidance::branches).collect();
        branches.sort_unstable();
        branches.dedup();
        branches
    }

    /// Whether an evaluation outside of the window runs other branches than one inside, or none lies inside.
    pub(super) fn differs_outside(&self) -> bool {
        self.has_outside && (!self.has_inside || self.inside.branches() != self.outside.branches())
    }

    fn used(&self) -> Vec<&Guidance> {
        match (self.has_inside, self.has_outside) {
            (_, false) => vec![&self.inside],
            (false, true) => vec![&self.outside],
            (true, true) => vec![&self.inside, &self.outside],
        }
    }
}

/// Returns the evaluations of a run, in order.
pub(super) fn calls(schedule: &Schedule) -> impl Iterator<Item = ModelCall> {
    let total = schedule.calls();
    schedule.levels().iter().enumerate().map(move |(index, &level)| ModelCall { index, total, level })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{SamplerKind, SchedulerConfig};

    fn of_ten_steps(scale: f64, window: [f64; 2]) -> (RunGuidance, Vec<Vec<Branch>>) {
        let config = SchedulerConfig::default().with_sampler(SamplerKind::Ddim);
        let schedule = Schedule::new(&config, 10).expect("a schedule");
        let window = Window::new(window[0], window[1]).expect("a window");
        let guidance = RunGuidance::new(Guidance::classifier_free(scale), window, &schedule);
        let branches = calls(&schedule).map(|call| guidance.at(&call).branches()).collect();
        (guidance, branches)
    }

    #[test]
    fn a_window_has_all_branches_inside_and_the_conditional_one_outside() {
        use Branch::{Conditional, Unconditional};
        let both = vec![Conditional, Unconditional];
        let (whole, branches) = of_ten_steps(7.5, [0.0, 1.0]);
        assert!(branches.iter().all(|branches| *branches == both));
        assert!(!whole.has_outside() && !whole.is_never_inside());

        let (part, branches) = of_ten_steps(7.5, [0.2, 0.5]);
        let inside: Vec<usize> = (0..branches.len()).filter(|&at| branches[at] == both).collect();
        assert_eq!(inside, [2, 3, 4]);
        assert!((0..branches.len()).all(|at| inside.contains(&at) || branches[at] == [Conditional]));
        assert_eq!(part.branches(), both);
        assert!(part.differs_outside() && !whole.differs_outside());

        let (none, branches) = of_ten_steps(7.5, [0.0, 0.0]);
        assert!(branches.iter().all(|branches| *branches == [Conditional]));
        assert!(none.is_never_inside());
        assert_eq!(none.branches(), [Conditional]);
        assert!(none.differs_outside());

        // A scale of 0 runs the unconditional branch alone, but only inside the window.
        let (zero, _) = of_ten_steps(0.0, [0.0, 0.5]);
        assert_eq!(zero.branches(), [Conditional, Unconditional]);
        assert!(zero.differs_outside());

        // A scale of 1 is the same inside and outside of the window.
        assert!(!of_ten_steps(1.0, [0.0, 0.5]).0.differs_outside());
    }
}
