//! Mapping of module paths to published tensor names.

use super::{ControlNet, T2IAdapter};
use crate::load::PublishedNames;
use crate::unet::UNet;

impl PublishedNames for ControlNet {
    fn published_name(path: &str) -> String {
        let own = [
            ("hint.", "controlnet_cond_embedding."),
            ("down_outputs.", "controlnet_down_blocks."),
            ("mid_output.", "controlnet_mid_block."),
        ];
        match own.iter().find_map(|(from, to)| Some((to, path.strip_prefix(from)?))) {
            Some((to, rest)) => format!("{to}{rest}"),
            None => UNet::published_name(path),
        }
    }
}

impl PublishedNames for T2IAdapter {
    fn published_name(path: &str) -> String {
        format!("adapter.{path}")
    }
}
