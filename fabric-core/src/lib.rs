//! Core of the library: attention processors, guidance, samplers, noise schedules, FABRIC, pipelines and sessions.
//!
//! It contains no network and loads no checkpoint.

#![forbid(unsafe_code)]

pub mod attention;
pub mod denoise;
pub mod fabric;
pub mod guidance;
pub mod image;
pub mod json;
pub mod metrics;
pub mod models;
pub mod noise;
pub mod pipeline;
pub mod samplers;
pub mod schedule;
pub mod search;
pub mod session;
pub mod spans;

mod aspect;
mod cache;
mod error;
mod image_condition;
mod init_image;
mod invalid_value;
mod layout;
mod printable_text;
mod window;

pub use aspect::{Aspect, AspectKind};
pub use error::Error;
pub use image_condition::ImageCondition;
pub use init_image::InitImage;
pub use invalid_value::InvalidValue;
pub use printable_text::{printable, printable_lines, printable_value};
