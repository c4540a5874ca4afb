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
//! The [`guides`] show how to build an [application](guides::app_developer), a [method](guides::researcher) or a
//! [tool](guides::tool_builder) on it.
//!
//! Votes that say why: three likes, one for a colour, one for a background and one for a composition. Below the images
//! that were voted on are the images after the same likes without reasons, and then with them:
//!
#![doc = include_str!("../docs/front-page/votes.md")]
//!
//! An image as a prompt, with an instruction that says what to take of it: here its style, then its composition.
//!
#![doc = include_str!("../docs/front-page/instruct.md")]
//!
//! These are the places where a method changes the U-Net's evaluation:
//!
//! | place | type | method |
//! |---|---|---|
//! | self-attention | [`JointTokens`]: more keys and values in the layer's own softmax, weighted | FABRIC |
//! | cross-attention | [`DecoupledTokens`]: a separate softmax, added with a scale and a mask | IP-Adapter, Instruct |
//! | rows of the batch, and their mix | [`Guidance`]: `base + sum of scale * (to - from)` | guidance, Instruct |
//! | skip connections, middle block | [`Residuals`] | ControlNet, T2I-Adapter |
//! | weights, before the run | [`lora`](models::lora) | LoRA |
//!
//! A [`Conditioning`] brings the first four into a run. With the feature `tracing`, runs and loading have
//! [`spans`](core::spans).
//!
//! [`JointTokens`]: core::attention::JointTokens
//! [`DecoupledTokens`]: core::attention::DecoupledTokens
//! [`Guidance`]: core::guidance::Guidance
//! [`Residuals`]: core::models::Residuals
//! [`Conditioning`]: core::pipeline::Conditioning

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

/// Guides for three kinds of readers. Their code is compiled and run as doc tests.
pub mod guides {
    // The doc tests of the first two run in the packages that have what their code uses: `fabric-studio` (an async
    // runtime) and `fabric-experiments`.
    #[cfg(not(doctest))]
    #[doc = include_str!("../docs/guides/app-developer.md")]
    pub mod app_developer {}

    #[cfg(not(doctest))]
    #[doc = include_str!("../docs/guides/researcher.md")]
    pub mod researcher {}

    #[doc = include_str!("../docs/guides/tool-builder.md")]
    pub mod tool_builder {}
}

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
