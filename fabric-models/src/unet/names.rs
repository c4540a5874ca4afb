//! Mapping of module paths to published tensor names.

use super::UNet;
use crate::load::PublishedNames;

impl PublishedNames for UNet {
    /// Most names are equal. The others are single modules here and lists in the files, or the reverse.
    fn published_name(path: &str) -> String {
        let parts: Vec<&str> = path.split('.').collect();
        let mut name: Vec<&str> = Vec::with_capacity(parts.len() + 2);
        for (index, &part) in parts.iter().enumerate() {
            let parent = index.checked_sub(1).map_or("", |index| parts[index]);
            match (parent, part) {
                // The part shared with control networks is not a module in the files.
                ("", "trunk") => {}
                (_, "downsampler") => name.extend(["downsamplers", "0"]),
                (_, "upsampler") => name.extend(["upsamplers", "0"]),
                (_, "to_out") => name.extend(["to_out", "0"]),
                ("ff", "proj") => name.extend(["net", "0", "proj"]),
                ("ff", "out") => name.extend(["net", "2"]),
                // Both kinds of projection have the same name.
                ("proj_in" | "proj_out", "Conv" | "Linear") => {}
                (_, part) => name.push(part),
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
            ("trunk.conv_in.weight", "conv_in.weight"),
            ("down_blocks.0.downsampler.conv.bias", "down_blocks.0.downsamplers.0.conv.bias"),
            ("up_blocks.1.upsampler.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
            ("mid_block.attentions.0.proj_in.Conv.weight", "mid_block.attentions.0.proj_in.weight"),
            ("a.attentions.0.proj_out.Linear.bias", "a.attentions.0.proj_out.bias"),
            ("a.transformer_blocks.3.attn1.to_out.bias", "a.transformer_blocks.3.attn1.to_out.0.bias"),
            ("a.transformer_blocks.3.attn2.to_q.weight", "a.transformer_blocks.3.attn2.to_q.weight"),
            ("a.transformer_blocks.3.ff.proj.weight", "a.transformer_blocks.3.ff.net.0.proj.weight"),
            ("a.transformer_blocks.3.ff.out.weight", "a.transformer_blocks.3.ff.net.2.weight"),
        ];
        for (path, name) in names {
            assert_eq!(UNet::published_name(path), name);
        }
    }
}
