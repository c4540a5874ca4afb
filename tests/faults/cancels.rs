//! Cancels at every event of a run.

use std::ops::ControlFlow;

use fabric::core::Error;
use fabric::core::pipeline::{Observer, PhaseEvent, Request, StepEvent};

use crate::images::{assert_same, image, request};
use crate::models::{adapter, pipeline, vision};

/// Observer that cancels at one event, and notes what it hears afterwards.
struct CancelAt {
    left: usize,
    is_cancelled: bool,
}

impl CancelAt {
    pub(crate) fn event(left: usize) -> Self {
        Self { left, is_cancelled: false }
    }

    fn heard(&mut self) -> ControlFlow<()> {
        assert!(!self.is_cancelled, "the run goes on after a cancel");
        if self.left > 0 {
            self.left -= 1;
            return ControlFlow::Continue(());
        }
        self.is_cancelled = true;
        ControlFlow::Break(())
    }
}

impl Observer for CancelAt {
    fn phase(&mut self, _event: &PhaseEvent) -> ControlFlow<()> {
        self.heard()
    }

    fn step(&mut self, _event: &StepEvent<'_>) -> ControlFlow<()> {
        self.heard()
    }
}

/// Cancels at event `at` of a run; returns the number of finished images, or `None` if the run has fewer events.
pub(crate) fn cancel_at(pipeline: &fabric::core::pipeline::Pipeline, request: &Request, at: usize) -> Option<usize> {
    let mut observer = CancelAt::event(at);
    match pipeline.generate_observed(request, &mut observer) {
        Ok(_) => {
            assert!(!observer.is_cancelled, "a cancelled run made images");
            None
        }
        Err(Error::Cancelled { step, steps, finished, .. }) => {
            assert!(observer.is_cancelled && step <= steps);
            Some(finished.len())
        }
        Err(error) => panic!("event {at}: {error}"),
    }
}

#[test]
fn a_run_that_is_cancelled_at_any_event_ends_there_and_the_next_image_is_the_same() {
    let plus = adapter(vision());
    // One evaluation per step and two, with references, an image prompt and an init image.
    for (sampler, events) in [("ddim", 13), ("dpmpp_sde", 15)] {
        let mut request = request().with(plus.prompt(image(3))).with_init_image(image(4), 1.0);
        request.settings.sampler = Some(sampler.parse().expect("a sampler"));
        let expected = pipeline().generate(&request).expect("images");
        // One pipeline whose caches are empty before each cancel, and one that keeps them.
        let long_lived = pipeline();
        let mut at = 0;
        while let Some(finished) = cancel_at(&pipeline(), &request, at) {
            let with_caches = cancel_at(&long_lived, &request, at).expect("as many events with caches");
            assert_eq!(with_caches, finished);
            let what = format!("{sampler} after a cancel at event {at}");
            assert_same(&long_lived.generate(&request).expect("images"), &expected, &what);
            long_lived.clear_caches();
            cancel_at(&long_lived, &request, at).expect("as many events with empty caches");
            at += 1;
        }
        // A phase for the image prompt, and for each of two batches four phases and the evaluations.
        assert_eq!(at, events, "{sampler}");
    }
}
