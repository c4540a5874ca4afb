//! Mapping of module paths to published tensor names.

use super::Vae;
use crate::load::PublishedNames;

impl PublishedNames for Vae {
    /// Maps names like [`crate::unet::UNet`]. In the files, the middle block's attention is a list of one.
    fn published_name(path: &str) -> String {
        let mut name: Vec<&str> = Vec::new();
        for part in path.split('.') {
            match part {
                "downsampler" => name.extend(["downsamplers", "0"]),
                "upsampler" => name.extend(["upsamplers", "0"]),
                "attention" => name.extend(["attentions", "0"]),
                "to_out" => name.extend(["to_out", "0"]),
                part => name.push(part),
            }
        }
        name.join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_published_names() {
        let names = [
            ("encoder.down_blocks.0.downsampler.conv.weight", "encoder.down_blocks.0.downsamplers.0.conv.weight"),
            ("decoder.up_blocks.2.upsampler.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"),
            ("decoder.mid_block.attention.group_norm.bias", "decoder.mid_block.attentions.0.group_norm.bias"),
            ("encoder.mid_block.attention.to_out.weight", "encoder.mid_block.attentions.0.to_out.0.weight"),
            ("post_quant_conv.weight", "post_quant_conv.weight"),
        ];
        for (path, name) in names {
            assert_eq!(Vae::published_name(path), name);
        }
    }
}
