//! Published presets for the scales of an adapter per layer.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use fabric_core::InvalidValue;
use fabric_core::attention::{AttnSite, Block};
use fabric_core::models::CrossAttention;

use crate::{AdapterError, LayerScales};

/// Published preset for the scales of an adapter per layer.
///
/// Presets without another source are the weight types of `ComfyUI_IPAdapter_plus`, which count the transformers
/// of the U-Net in the order in which they run; all layers of one transformer get the same scale. Presets that
/// name layers support two U-Nets: that of Stable Diffusion 1 and 2, with 16 transformers, and that of SDXL,
/// with 11.
///
/// ```
/// use fabric_ipadapter::LayerPreset;
/// assert_eq!("style transfer".parse::<LayerPreset>()?, LayerPreset::StyleTransfer);
/// # Ok::<(), fabric_ipadapter::AdapterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerPreset {
    /// Equal in all layers.
    Linear,
    /// From 1 at the first transformer down towards 0.05.
    EaseIn,
    /// From 0.05 at the first transformer up towards 1.
    EaseOut,
    /// Highest in the middle of the U-Net.
    EaseInOut,
    /// Lowest in the middle of the U-Net.
    ReverseInOut,
    /// 0.2 on the down path, 1 elsewhere.
    WeakInput,
    /// 0.2 in the middle block, 1 elsewhere.
    WeakMiddle,
    /// 0.2 on the up path, 1 elsewhere.
    WeakOutput,
    /// 1 in the middle block, 0.2 elsewhere.
    StrongMiddle,
    /// Style layers only.
    StyleTransfer,
    /// Composition layers only.
    Composition,
    /// All layers but the composition layers.
    StrongStyleTransfer,
    /// Style layers, and composition layers with a separate strength.
    StyleAndComposition,
    /// All layers; the composition layers have a separate strength.
    StrongStyleAndComposition,
    /// Style layers; the composition layers are inverted.
    StyleTransferPrecise,
    /// Composition layers; all others are inverted.
    CompositionPrecise,
    /// Style layers of InstantStyle (2404.02733).
    InstantStyle,
    /// Style and layout layers of InstantStyle.
    InstantStyleAndLayout,
}

/// Scales of a preset for one U-Net, and its inverted layers. In an inverted layer, the conditional branch does
/// not attend to the image and all other branches do, so guidance leads away from the image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PresetScales {
    /// Scale of each layer.
    pub(crate) scales: LayerScales,
    /// The inverted layers.
    pub(crate) inverted: BTreeSet<AttnSite>,
}

/// Factor of a layer on one of the two strengths.
#[derive(Debug, Clone, Copy)]
enum Share {
    Main(f32),
    Other(f32),
}

use Share::{Main, Other};

/// Ranges of transformers, first to last, with their share. Later ranges override earlier ones; all others are
/// 0.
type Lines = &'static [(usize, usize, Share)];

/// Preset for the U-Nets of Stable Diffusion 1 and 2 (`sd`) and of SDXL (`xl`).
struct Entry {
    preset: LayerPreset,
    name: &'static str,
    sd: Lines,
    xl: Lines,
    /// Inverted transformers of `sd` and of `xl`.
    inverted: [&'static [usize]; 2],
}

const PLAIN: [&[usize]; 2] = [&[], &[]];

const fn entry(preset: LayerPreset, name: &'static str, sd: Lines, xl: Lines) -> Entry {
    Entry { preset, name, sd, xl, inverted: PLAIN }
}

/// Presets that name layers. SD has transformers 0 to 5 on the down path, 6 in the middle block, 7 to 15 on the
/// up path; SDXL has 0 to 3, 4, and 5 to 10.
const NAMED: [Entry; 13] = [
    entry(
        LayerPreset::WeakInput,
        "weak input",
        &[(0, 15, Main(1.0)), (0, 5, Main(0.2))],
        &[(0, 10, Main(1.0)), (0, 3, Main(0.2))],
    ),
    entry(
        LayerPreset::WeakMiddle,
        "weak middle",
        &[(0, 15, Main(1.0)), (6, 6, Main(0.2))],
        &[(0, 10, Main(1.0)), (4, 4, Main(0.2))],
    ),
    entry(
        LayerPreset::WeakOutput,
        "weak output",
        &[(0, 15, Main(1.0)), (7, 15, Main(0.2))],
        &[(0, 10, Main(1.0)), (5, 10, Main(0.2))],
    ),
    entry(
        LayerPreset::StrongMiddle,
        "strong middle",
        &[(0, 15, Main(0.2)), (6, 6, Main(1.0))],
        &[(0, 10, Main(0.2)), (4, 4, Main(1.0))],
    ),
    entry(LayerPreset::StyleTransfer, "style transfer", &[(0, 3, Main(1.0)), (9, 15, Main(1.0))], &[(6, 6, Main(1.0))]),
    entry(LayerPreset::Composition, "composition", &[(4, 4, Main(0.25)), (5, 5, Main(1.0))], &[(3, 3, Main(1.0))]),
    entry(
        LayerPreset::StrongStyleTransfer,
        "strong style transfer",
        &[(0, 3, Main(1.0)), (6, 15, Main(1.0))],
        &[(0, 2, Main(1.0)), (4, 10, Main(1.0))],
    ),
    entry(
        LayerPreset::StyleAndComposition,
        "style and composition",
        &[(0, 3, Main(1.0)), (4, 4, Other(0.25)), (5, 5, Other(1.0)), (9, 15, Main(1.0))],
        &[(3, 3, Other(1.0)), (6, 6, Main(1.0))],
    ),
    entry(
        LayerPreset::StrongStyleAndComposition,
        "strong style and composition",
        &[(0, 15, Main(1.0)), (4, 5, Other(1.0))],
        &[(0, 10, Main(1.0)), (3, 3, Other(1.0))],
    ),
    Entry {
        preset: LayerPreset::StyleTransferPrecise,
        name: "style transfer precise",
        sd: &[(0, 3, Main(1.0)), (4, 4, Other(0.25)), (5, 5, Other(1.0)), (9, 15, Main(1.0))],
        xl: &[(3, 3, Other(1.0)), (6, 6, Main(1.0))],
        inverted: [&[4, 5], &[3]],
    },
    Entry {
        preset: LayerPreset::CompositionPrecise,
        name: "composition precise",
        sd: &[(0, 3, Other(1.0)), (4, 4, Main(0.25)), (5, 5, Main(1.0)), (6, 8, Other(0.1)), (9, 15, Other(1.0))],
        xl: &[(0, 10, Other(0.1)), (3, 3, Main(1.0)), (6, 6, Other(1.0))],
        inverted: [&[0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], &[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]],
    },
    entry(LayerPreset::InstantStyle, "instant style", &[(7, 9, Main(1.0))], &[(6, 6, Main(1.0))]),
    entry(
        LayerPreset::InstantStyleAndLayout,
        "instant style and layout",
        &[(4, 9, Main(1.0))],
        &[(3, 3, Main(1.0)), (6, 6, Main(1.0))],
    ),
];

/// Share of transformer `t` of `count`.
type Curve = fn(f32, f32) -> f32;

/// Presets that are curves over the depth.
const CURVES: [(LayerPreset, &str, Curve); 5] = [
    (LayerPreset::Linear, "linear", |_, _| 1.0),
    (LayerPreset::EaseIn, "ease in", |t, count| 0.05 + 0.95 * (1.0 - t / count)),
    (LayerPreset::EaseOut, "ease out", |t, count| 0.05 + 0.95 * (t / count)),
    (LayerPreset::EaseInOut, "ease in-out", |t, count| 0.05 + 0.95 * (1.0 - (t - count / 2.0).abs() / (count / 2.0))),
    (LayerPreset::ReverseInOut, "reverse in-out", |t, count| 0.05 + 0.95 * ((t - count / 2.0).abs() / (count / 2.0))),
];

impl LayerPreset {
    /// Returns all presets.
    pub fn all() -> impl Iterator<Item = Self> {
        CURVES.iter().map(|(preset, ..)| *preset).chain(NAMED.iter().map(|entry| entry.preset))
    }

    /// Returns the scales and inverted layers for a U-Net with these cross-attention layers, given in the order
    /// in which they run.
    ///
    /// `other` is the strength of the preset's second group of layers (composition; for the precise presets,
    /// the inverted layers). `None` uses `strength`.
    ///
    /// # Errors
    ///
    /// Returns an error if the preset names layers and the U-Net is not that of Stable Diffusion 1, 2 or XL.
    pub(crate) fn scales_for(
        self,
        layers: &[CrossAttention],
        strength: f32,
        other: Option<f32>,
    ) -> Result<PresetScales, AdapterError> {
        let transformers = transformers(layers);
        let count = transformers.len();
        let mut shares = vec![0.0; count];
        let mut turned: &[usize] = &[];
        if let Some((_, _, curve)) = CURVES.iter().find(|(preset, ..)| *preset == self) {
            for (t, share) in shares.iter_mut().enumerate() {
                *share = strength * curve(t as f32, count as f32);
            }
        } else if let Some(entry) = NAMED.iter().find(|entry| entry.preset == self) {
            let (lines, inverted) = match count {
                16 => (entry.sd, entry.inverted[0]),
                11 => (entry.xl, entry.inverted[1]),
                _ => return Err(self.unknown_layers(count)),
            };
            turned = inverted;
            for &(first, last, share) in lines {
                shares[first..=last].fill(match share {
                    Main(share) => share * strength,
                    Other(share) => share * other.unwrap_or(strength),
                });
            }
        }
        let scales =
            transformers.iter().zip(&shares).fold(LayerScales::none(), |scales, (&(block, attention), &share)| {
                scales.with_attention(block, attention, share)
            });
        let inverted = layers
            .iter()
            .map(|layer| layer.site)
            .filter(|site| turned.iter().any(|&t| transformers[t] == (site.block, site.attention)));
        Ok(PresetScales { scales, inverted: inverted.collect() })
    }

    fn unknown_layers(self, count: usize) -> AdapterError {
        AdapterError::Setting(InvalidValue {
            what: format!("preset `{self}`"),
            got: format!("a U-Net with {count} transformers"),
            expected: "one with 16 (Stable Diffusion 1 and 2) or 11 (XL), whose layers it names".to_owned(),
            help: "take a curve such as `ease in`, or scales for each layer".to_owned(),
        })
    }
}

/// Returns the transformers that the layers belong to, in the order in which they run.
fn transformers(layers: &[CrossAttention]) -> Vec<(Block, usize)> {
    let mut transformers: Vec<(Block, usize)> =
        layers.iter().map(|layer| (layer.site.block, layer.site.attention)).collect();
    transformers.dedup();
    transformers
}

/// Formats the name as in ComfyUI.
impl fmt::Display for LayerPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMED.iter().map(|entry| (entry.preset, entry.name));
        let mut all = CURVES.iter().map(|(preset, name, _)| (*preset, *name)).chain(named);
        let name = all.find(|(preset, _)| preset == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for LayerPreset {
    type Err = AdapterError;

    fn from_str(name: &str) -> Result<Self, AdapterError> {
        Self::all().find(|preset| preset.to_string() == name).ok_or_else(|| {
            AdapterError::Setting(InvalidValue {
                what: "preset of an adapter".to_owned(),
                got: format!("`{}`", name.chars().take(40).collect::<String>()),
                expected: Self::all().map(|preset| preset.to_string()).collect::<Vec<_>>().join(", "),
                help: "choose one of them".to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use fabric_core::attention::AttnKind;

    use super::*;

    /// Returns layers of blocks with these numbers of transformers, in the order in which they run.
    fn layers(blocks: &[(Block, usize)]) -> Vec<CrossAttention> {
        let layer = |block, attention| CrossAttention {
            site: AttnSite { block, attention, layer: 0, kind: AttnKind::CrossAttention },
            channels: 8,
            context: 8,
        };
        blocks.iter().flat_map(|&(block, count)| (0..count).map(move |attention| layer(block, attention))).collect()
    }

    fn sd() -> Vec<CrossAttention> {
        let down = [0, 1, 2].map(|index| (Block::Down(index), 2));
        let up = [1, 2, 3].map(|index| (Block::Up(index), 3));
        layers(&[&down[..], &[(Block::Mid, 1)], &up[..]].concat())
    }

    fn xl() -> Vec<CrossAttention> {
        let blocks = [Block::Down(1), Block::Down(2), Block::Mid, Block::Up(0), Block::Up(1)];
        layers(&blocks.into_iter().zip([2, 2, 1, 3, 3]).collect::<Vec<_>>())
    }

    /// Returns the scales of all layers, in the order in which they run.
    fn scales(preset: LayerPreset, layers: &[CrossAttention]) -> Vec<f32> {
        let of = preset.scales_for(layers, 1.0, Some(0.5)).expect("a known U-Net");
        layers.iter().map(|layer| of.scales.of(&layer.site)).collect()
    }

    #[test]
    fn named_layers_are_those_that_their_authors_name() {
        let style = LayerPreset::InstantStyle.scales_for(&xl(), 1.0, None).expect("XL");
        let on = |layers: &[CrossAttention], of: &PresetScales| -> Vec<String> {
            let on = layers.iter().filter(|layer| of.scales.of(&layer.site) != 0.0);
            on.map(|layer| layer.site.to_string().split(".transformer").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(on(&xl(), &style), ["up_blocks.0.attentions.1"]);
        let layout = LayerPreset::Composition.scales_for(&xl(), 1.0, None).expect("XL");
        assert_eq!(on(&xl(), &layout), ["down_blocks.2.attentions.1"]);
        let style = LayerPreset::InstantStyle.scales_for(&sd(), 1.0, None).expect("SD");
        assert_eq!(on(&sd(), &style), [0, 1, 2].map(|at| format!("up_blocks.1.attentions.{at}")));
        let both = LayerPreset::InstantStyleAndLayout.scales_for(&sd(), 1.0, None).expect("SD");
        assert_eq!(on(&sd(), &both).len(), 6);
    }

    #[test]
    fn strengths_are_those_of_the_table() {
        let mut expected = vec![0.0; 16];
        expected[..4].fill(1.0);
        (expected[4], expected[5]) = (0.125, 0.5);
        expected[9..].fill(1.0);
        assert_eq!(scales(LayerPreset::StyleAndComposition, &sd()), expected);
        assert_eq!(scales(LayerPreset::StrongMiddle, &xl()), [0.2, 0.2, 0.2, 0.2, 1.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]);
        let mut expected = vec![0.05; 16];
        expected[..4].fill(0.5);
        (expected[4], expected[5]) = (0.25, 1.0);
        expected[9..].fill(0.5);
        assert_eq!(scales(LayerPreset::CompositionPrecise, &sd()), expected);
        assert_eq!(scales(LayerPreset::WeakInput, &xl())[..5], [0.2, 0.2, 0.2, 0.2, 1.0]);
        assert_eq!(scales(LayerPreset::WeakOutput, &sd())[5..8], [1.0, 1.0, 0.2]);
        let inverted = |preset: LayerPreset| preset.scales_for(&xl(), 1.0, None).expect("XL").inverted.len();
        assert_eq!(
            [
                inverted(LayerPreset::CompositionPrecise),
                inverted(LayerPreset::StyleTransferPrecise),
                inverted(LayerPreset::Linear)
            ],
            [10, 1, 0]
        );
        let ease = scales(LayerPreset::EaseIn, &sd());
        assert!((ease[0] - 1.0).abs() < 1e-6 && (ease[8] - 0.525).abs() < 1e-6, "{ease:?}");
        let precise = LayerPreset::StyleTransferPrecise.scales_for(&sd(), 1.0, None).expect("SD");
        assert_eq!(precise.inverted, [0, 1].map(|at| sd()[4 + at].site).into());
    }

    #[test]
    fn every_preset_has_a_name_and_other_u_nets_are_refused() {
        assert_eq!(LayerPreset::all().count(), 18);
        for preset in LayerPreset::all() {
            assert_eq!(preset.to_string().parse::<LayerPreset>().expect("its own name"), preset);
            let small = preset.scales_for(&layers(&[(Block::Mid, 1)]), 1.0, None);
            let curve = CURVES.iter().any(|(curve, ..)| *curve == preset);
            assert_eq!(small.is_ok(), curve, "{preset}");
        }
        assert!("stile".parse::<LayerPreset>().is_err());
    }
}
