//! Interface of adapters (IP-Adapter, Instruct) and ControlNets.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::Error;
use crate::attention::{AttnProcessor, NoProcessor};
use crate::denoise::ModelCall;
use crate::guidance::{Branch, Guidance};
use crate::models::{Residuals, UNetInput, UNetModel};

/// An additional condition of a run, such as an image prompt with its adapter or a control image with its ControlNet.
///
/// It acts on the U-Net only through attention and skip connections. Its methods are called at every evaluation; the
/// default implementations change nothing.
pub trait Steering: fmt::Debug + Send + Sync {
    /// Checks that it fits this U-Net; called before a run begins.
    ///
    /// # Errors
    ///
    /// Returns an error if it was made for another U-Net.
    fn check(&self, unet: &dyn UNetModel) -> Result<(), Error> {
        let _ = unet;
        Ok(())
    }

    /// Whether it also acts on the rows of reference images. Liked references then count as rows of the
    /// conditional branch, disliked ones as rows of the unconditional branch. Their keys and values become
    /// specific to this run and are not cached.
    fn steers_references(&self) -> bool {
        false
    }

    /// Returns a copy that acts at every evaluation of a run, or `None` if it already does. Used by
    /// [`Pipeline::warm_up`](super::Pipeline::warm_up), which runs as few steps as possible and must cover the
    /// work of all steps.
    fn at_every_evaluation(&self) -> Option<Arc<dyn Steering>> {
        None
    }

    /// Returns the attention processor of one evaluation. `rows` lists the rows of the batch by branch. If
    /// [`Self::steers_references`] is true, `rows` includes reference rows, and the method is also called for
    /// the pass that records references.
    fn processor<'a>(&'a self, call: &ModelCall, rows: &[(Branch, Range<usize>)]) -> Box<dyn AttnProcessor + 'a> {
        let _ = (call, rows);
        Box::new(NoProcessor)
    }

    /// Returns the residuals to add to the skip connections, if any. `input` has the rows of all branches with their
    /// text, without references.
    ///
    /// # Errors
    ///
    /// Returns an error if its image cannot be resized to the size of the run.
    fn residuals(
        &self,
        call: &ModelCall,
        input: &UNetInput<'_>,
        rows: &[(Branch, Range<usize>)],
    ) -> Result<Option<Residuals>, Error> {
        let _ = (call, input, rows);
        Ok(None)
    }

    /// Returns the guidance it requires instead of classifier-free guidance at this scale, if any.
    fn guidance(&self, scale: f64) -> Option<Guidance> {
        let _ = scale;
        None
    }
}
