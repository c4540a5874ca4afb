//! What adapters and control networks add to a run.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::Error;
use crate::attention::{AttnProcessor, NoProcessor};
use crate::denoise::ModelCall;
use crate::guidance::{Branch, Guidance};
use crate::models::{Residuals, UNetInput, UNetModel};

/// Steers a run besides its text and FABRIC's references: an adapter with its images, a ControlNet with its own.
///
/// It enters the network through attention and through the skip connections alone; each evaluation asks it anew, and
/// what it does not say changes nothing.
pub trait Steering: fmt::Debug + Send + Sync {
    /// Whether it fits this network; asked before a run begins.
    ///
    /// # Errors
    ///
    /// When it was made for another network.
    fn check(&self, unet: &dyn UNetModel) -> Result<(), Error> {
        let _ = unet;
        Ok(())
    }

    /// Whether FABRIC's references are to see it too. Then they are rows of the branch to which they lend: liked ones of the
    /// branch under the prompt, disliked ones of the unconditional one. What they lend then serves this run alone, and is
    /// not kept for others.
    fn steers_references(&self) -> bool {
        false
    }

    /// The same, but acting at every evaluation of a run; none for what does so anyway. A
    /// [warm-up](super::Pipeline::warm_up) makes one step, and all that later steps do must happen in it.
    fn at_every_evaluation(&self) -> Option<Arc<dyn Steering>> {
        None
    }

    /// What one evaluation attends to. `rows` says which rows of the batch belong to which branch; one that
    /// [steers references](Self::steers_references) is also told theirs, and asked for the pass that records them.
    fn processor<'a>(&'a self, call: &ModelCall, rows: &[(Branch, Range<usize>)]) -> Box<dyn AttnProcessor + 'a> {
        let _ = (call, rows);
        Box::new(NoProcessor)
    }

    /// What it adds to the skip connections, if anything. `input` has the rows of all branches with their text, and no
    /// references.
    ///
    /// # Errors
    ///
    /// When its image cannot be brought to the size of the run.
    fn residuals(
        &self,
        call: &ModelCall,
        input: &UNetInput<'_>,
        rows: &[(Branch, Range<usize>)],
    ) -> Result<Option<Residuals>, Error> {
        let _ = (call, input, rows);
        Ok(None)
    }

    /// How branches are to mix, if not by classifier-free guidance of this scale.
    fn guidance(&self, scale: f64) -> Option<Guidance> {
        let _ = scale;
        None
    }
}
