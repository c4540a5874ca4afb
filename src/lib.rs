//! Stable Diffusion that is steered with images and feedback: FABRIC, IP-Adapter, ControlNet and LoRA.
//!
//! This crate re-exports the parts: [`backends`] (devices and kernels), [`core`] (attention processors, FABRIC,
//! guidance, samplers, sessions, the pipeline), [`models`] (networks, tokenizers, model files) and [`ipadapter`]
//! (image prompts).
//!
//! ```no_run
//! use fabric::prelude::*;
//!
//! let device = fabric::default_device()?;
//! let pipeline = Pipeline::open("stable-diffusion-v1-5", &device)?;
//! let first = pipeline.generate(&Request::new("a small red star on blue").with_seeds([1, 2, 3, 4]))?;
//! // Make images more like the third one and less like the first one.
//! let request = Request::new("a small red star on blue")
//!     .with_liked(first.images[2].clone())
//!     .with_disliked(first.images[0].clone());
//! pipeline.generate(&request)?.images[0].save("better.png")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! These are the places where a method changes the U-Net's evaluation:
//!
//! | place | type | method |
//! |---|---|---|
//! | self-attention | [`JointTokens`](core::attention::JointTokens): weighted, in the layer's softmax | FABRIC |
//! | cross-attention | [`DecoupledTokens`](core::attention::DecoupledTokens): separate attention, added | IP-Adapter |
//! | branches | [`Guidance`](core::guidance::Guidance): `base + sum of scale * (to - from)` | guidance |
//! | skip connections | [`Residuals`](core::models::Residuals) | ControlNet |
//! | weights, before the run | [`lora`](models::lora) | LoRA |

#![forbid(unsafe_code)]

pub use burn;
pub use fabric_backends as backends;
pub use fabric_core as core;
pub use fabric_ipadapter as ipadapter;
pub use fabric_models as models;

pub use fabric_backends::{DeviceError, DeviceKind, default_device, describe, device};

/// Compiles the examples of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The types that most programs need.
pub mod prelude {
    pub use fabric_core::fabric::FabricSettings;
    pub use fabric_core::image::Image;
    pub use fabric_core::pipeline::{Generation, Observer, Pipeline, Request, Settings, StepEvent, Window};
    pub use fabric_core::schedule::SamplerKind;
    pub use fabric_core::session::{FeedbackSession, FeedbackSource, Vote};
    pub use fabric_core::{Aspect, ImageCondition};
    pub use fabric_ipadapter::IpAdapter;
    pub use fabric_models::clip::ClipVision;
    pub use fabric_models::{LoadPipeline, ModelOptions, load_model};
}
