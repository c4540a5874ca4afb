//! IP-Adapter and IPAdapter-Instruct: pictures as prompts.
//!
//! In the making: this version of the crate holds nothing yet. Adapters will enter the U-Net through
//! [`AttnProcessor`](fabric_core::attention::AttnProcessor), as
//! [`DecoupledTokens`](fabric_core::attention::DecoupledTokens).

#![forbid(unsafe_code)]
