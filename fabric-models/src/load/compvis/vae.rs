//! Names of VAEs. CompVis counts the decoder's levels in the reverse order.

use super::{Pairs, count};

/// Lists the corresponding prefixes of a VAE for the levels and layers in its CompVis names.
pub(in super::super) fn pairs<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Pairs {
    let down = count(names.clone(), "encoder.down.");
    let up = count(names.clone(), "decoder.up.");
    let layers = |side: &str, levels: usize| {
        (0..levels).map(|level| count(names.clone(), &format!("{side}.{level}.block."))).max().unwrap_or(0)
    };
    // Real files have fewer levels; the limit bounds the size of the table for malicious files.
    if down.max(up) > 64 {
        return Pairs::new();
    }
    pairs_for(down, layers("encoder.down", down).min(64), up, layers("decoder.up", up).min(64))
}

/// Lists the corresponding prefixes for given numbers of levels and residual blocks in encoder and decoder.
pub(in super::super) fn pairs_for(down: usize, down_layers: usize, up: usize, up_layers: usize) -> Pairs {
    let mut pairs = Pairs::new();
    for side in ["encoder", "decoder"] {
        pairs.push((format!("{side}.conv_norm_out"), format!("{side}.norm_out")));
        resnet(&mut pairs, &format!("{side}.mid_block.resnets.0"), &format!("{side}.mid.block_1"));
        resnet(&mut pairs, &format!("{side}.mid_block.resnets.1"), &format!("{side}.mid.block_2"));
        let parts = [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];
        pairs.extend(parts.map(|(left, right)| {
            (format!("{side}.mid_block.attentions.0.{left}"), format!("{side}.mid.attn_1.{right}"))
        }));
        for name in ["conv_in", "conv_out"] {
            pairs.push((format!("{side}.{name}"), format!("{side}.{name}")));
        }
    }
    for name in ["quant_conv", "post_quant_conv"] {
        pairs.push((name.to_owned(), name.to_owned()));
    }
    for level in 0..down {
        let (left, right) = (format!("encoder.down_blocks.{level}"), format!("encoder.down.{level}"));
        pairs.push((format!("{left}.downsamplers.0"), format!("{right}.downsample")));
        for layer in 0..down_layers {
            resnet(&mut pairs, &format!("{left}.resnets.{layer}"), &format!("{right}.block.{layer}"));
        }
    }
    for level in 0..up {
        // CompVis counts the decoder's levels from the highest resolution down, diffusers in the order of execution.
        let (left, right) = (format!("decoder.up_blocks.{level}"), format!("decoder.up.{}", up - 1 - level));
        pairs.push((format!("{left}.upsamplers.0"), format!("{right}.upsample")));
        for layer in 0..up_layers {
            resnet(&mut pairs, &format!("{left}.resnets.{layer}"), &format!("{right}.block.{layer}"));
        }
    }
    pairs
}

fn resnet(pairs: &mut Pairs, diffusers: &str, compvis: &str) {
    pairs.push((diffusers.to_owned(), compvis.to_owned()));
    pairs.push((format!("{diffusers}.conv_shortcut"), format!("{compvis}.nin_shortcut")));
}

/// Returns whether a diffusers name is an attention projection, which CompVis stores as a 1x1 convolution.
pub(in super::super) fn is_attention_projection(name: &str) -> bool {
    let projections = ["to_q", "to_k", "to_v", "to_out.0"];
    name.split_once(".attentions.0.")
        .and_then(|(_, rest)| rest.strip_suffix(".weight"))
        .is_some_and(|rest| projections.contains(&rest))
}

/// Returns the current name of an attention projection that has an old diffusers name.
pub(in super::super) fn current_name(name: &str) -> Option<String> {
    let (block, rest) = name.split_once(".attentions.0.")?;
    let (part, kind) = rest.split_once('.')?;
    let current = match part {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        _ => return None,
    };
    Some(format!("{block}.attentions.0.{current}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_of_attention_projections_become_the_present_ones() {
        let old = "encoder.mid_block.attentions.0.proj_attn.bias";
        assert_eq!(current_name(old).as_deref(), Some("encoder.mid_block.attentions.0.to_out.0.bias"));
        assert_eq!(current_name("encoder.mid_block.attentions.0.to_q.bias"), None);
        assert!(is_attention_projection("decoder.mid_block.attentions.0.to_out.0.weight"));
        assert!(!is_attention_projection("decoder.mid_block.attentions.0.to_out.0.bias"));
        assert!(!is_attention_projection("decoder.mid_block.attentions.0.group_norm.weight"));
    }
}
