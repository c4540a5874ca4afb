//! Steer Stable Diffusion with images and feedback.
//!
//! This crate joins the parts: [`backends`] (devices), [`core`] (attention seams, FABRIC, guidance, samplers, sessions,
//! the pipeline), [`models`] (networks, tokenizer, files) and [`ipadapter`].
//!
//! ```no_run
//! use fabric::prelude::*;
//!
//! let device = fabric::default_device()?;
//! let pipeline = Pipeline::from_folder("stable-diffusion-v1-5", &device)?;
//! let first = pipeline.generate(&Request::new("a small red star on blue").with_seeds([1, 2, 3, 4]))?;
//! // More like the third, less like the first.
//! let request = Request::new("a small red star on blue")
//!     .with_liked(first.images[2].clone())
//!     .with_disliked(first.images[0].clone());
//! pipeline.generate(&request)?.images[0].save("better.png")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where images touch the network:
//!
//! | seam | value | who |
//! |---|---|---|
//! | self-attention | [`JointTokens`](core::attention::JointTokens): in the layer's own softmax, weighted | FABRIC |
//! | cross-attention | [`DecoupledTokens`](core::attention::DecoupledTokens): a softmax of their own, added | adapters |
//! | rows of the batch | [`Guidance`](core::guidance::Guidance): `base + sum of scale * (to - from)` | guidance |
//! | skip connections | [`Residuals`](core::models::Residuals) | ControlNet |
//! | weights before the run | [`lora`](models::lora) | LoRA |

#![forbid(unsafe_code)]

pub use burn;
pub use fabric_backends as backends;
pub use fabric_core as core;
pub use fabric_ipadapter as ipadapter;
pub use fabric_models as models;

pub use fabric_backends::{DeviceError, DeviceKind, default_device, describe, device};

/// The examples of the README, which are compiled like all others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What most programs need.
pub mod prelude {
    pub use fabric_core::fabric::FabricSettings;
    pub use fabric_core::image::Image;
    pub use fabric_core::pipeline::{Generation, Pipeline, Request, Settings, StepEvent};
    pub use fabric_core::schedule::SamplerKind;
    pub use fabric_core::session::{FeedbackSession, FeedbackSource, Vote};
    pub use fabric_models::{LoadPipeline, ModelOptions, load_model};
}
