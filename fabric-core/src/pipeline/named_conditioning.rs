//! Wrapper of a prepared conditioning that gives its panics its name.

use std::panic::resume_unwind;

use fabric_backends::catch_panic;

use super::PreparedConditioning;
use super::callback::{CallersPanic, contained_conditioning};
use crate::Error;
use crate::attention::{AttnCall, AttnExtras, AttnProcessor, AttnSite};
use crate::denoise::ModelCall;
use crate::guidance::Branch;
use crate::layout::BatchLayout;
use crate::models::{Residuals, UNetInput};

/// A prepared conditioning whose panics are [`Error::Conditioning`], wherever in the run it is called.
#[derive(Debug)]
pub(super) struct NamedConditioning {
    pub(super) name: String,
    pub(super) prepared: Box<dyn PreparedConditioning>,
}

/// The attention processor of a [`NamedConditioning`].
#[derive(Debug)]
struct NamedProcessor<'a> {
    name: &'a str,
    processor: Box<dyn AttnProcessor + 'a>,
}

/// Rethrows a panic with a name, from methods that return no error.
fn named<T>(name: &str, call: impl FnOnce() -> T) -> T {
    catch_panic(call).unwrap_or_else(|message| {
        resume_unwind(Box::new(CallersPanic::Conditioning { name: name.to_owned(), message }))
    })
}

impl PreparedConditioning for NamedConditioning {
    fn visible_to_references(&self) -> bool {
        named(&self.name, || self.prepared.visible_to_references())
    }

    fn notes(&self) -> Vec<String> {
        named(&self.name, || self.prepared.notes())
    }

    fn attention<'a>(&'a self, call: &ModelCall, layout: &BatchLayout) -> Box<dyn AttnProcessor + 'a> {
        let processor = named(&self.name, || self.prepared.attention(call, layout));
        Box::new(NamedProcessor { name: &self.name, processor })
    }

    fn attends_to_image(&self, branch: Branch, site: &AttnSite) -> bool {
        named(&self.name, || self.prepared.attends_to_image(branch, site))
    }

    fn residuals(
        &self,
        call: &ModelCall,
        input: &UNetInput<'_>,
        layout: &BatchLayout,
    ) -> Result<Option<Residuals>, Error> {
        contained_conditioning(|| self.name.clone(), || self.prepared.residuals(call, input, layout))
    }
}

impl AttnProcessor for NamedProcessor<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        named(self.name, || self.processor.extras(call))
    }
}
