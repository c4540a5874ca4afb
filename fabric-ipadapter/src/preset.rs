//! Known ways to spread an adapter's strength over the layers of a U-Net.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use fabric_core::attention::{AttnSite, Block};
use fabric_core::models::CrossAttention;

use crate::{AdapterError, LayerScales};

/// A published way to spread an adapter's strength over the layers.
///
/// Those without another source are ComfyUI_IPAdapter_plus' weight types, whose layers count in the order in which they
/// run: all layers of one transformer together. Where they name layers, they know two U-Nets: Stable Diffusion 1 and 2's
/// with 16 transformers, and XL's with 11.
///
/// ```
/// use fabric_ipadapter::Preset;
/// assert_eq!("style transfer".parse::<Preset>()?, Preset::StyleTransfer);
/// # Ok::<(), fabric_ipadapter::AdapterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The same everywhere.
    Linear,
    /// From full strength down to a twentieth.
    EaseIn,
    /// From a twentieth up to full strength.
    EaseOut,
    /// Strongest in the middle.
    EaseInOut,
    /// Weakest in the middle.
    ReverseInOut,
    /// A fifth on the way down.
    WeakInput,
    /// A fifth in the middle.
    WeakMiddle,
    /// A fifth on the way up.
    WeakOutput,
    /// A fifth everywhere else.
    StrongMiddle,
    /// The layers that carry style.
    StyleTransfer,
    /// The layers that carry composition.
    Composition,
    /// All but those that carry composition.
    StrongStyleTransfer,
    /// Style, and composition with a strength of its own.
    StyleAndComposition,
    /// Everything, and composition with a strength of its own.
    StrongStyleAndComposition,
    /// Style, and away from the image's composition.
    StyleTransferPrecise,
    /// Composition, and away from everything else.
    CompositionPrecise,
    /// InstantStyle's layers of style (2404.02733).
    InstantStyle,
    /// InstantStyle's layers of style and layout.
    InstantStyleAndLayout,
}

/// How strongly each layer acts, and in which layers the image is something to lead away from: there the branch under
/// the prompt sees nothing of it, and the other one sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// For each layer.
    pub scales: LayerScales,
    /// The layers that are turned round.
    pub away: BTreeSet<AttnSite>,
}

/// Which of the two strengths a layer takes, and how much of it.
#[derive(Debug, Clone, Copy)]
enum Share {
    Main(f32),
    Other(f32),
}

use Share::{Main, Other};

/// Transformers with their share, from the first to the last; a later line wins, and what no line names is 0.
type Lines = &'static [(usize, usize, Share)];

/// What a preset says of the U-Nets of Stable Diffusion 1 and 2, and of XL.
struct Entry {
    preset: Preset,
    name: &'static str,
    sd: Lines,
    xl: Lines,
    /// Transformers that lead away, in either U-Net.
    away: [&'static [usize]; 2],
}

const PLAIN: [&[usize]; 2] = [&[], &[]];

const fn entry(preset: Preset, name: &'static str, sd: Lines, xl: Lines) -> Entry {
    Entry { preset, name, sd, xl, away: PLAIN }
}

/// Those that name layers. On the way down SD has transformers 0 to 5, then 6 in the middle, 7 to 15 on the way up; XL has
/// 0 to 3, 4, and 5 to 10.
const NAMED: [Entry; 13] = [
    entry(
        Preset::WeakInput,
        "weak input",
        &[(0, 15, Main(1.0)), (0, 5, Main(0.2))],
        &[(0, 10, Main(1.0)), (0, 3, Main(0.2))],
    ),
    entry(
        Preset::WeakMiddle,
        "weak middle",
        &[(0, 15, Main(1.0)), (6, 6, Main(0.2))],
        &[(0, 10, Main(1.0)), (4, 4, Main(0.2))],
    ),
    entry(
        Preset::WeakOutput,
        "weak output",
        &[(0, 15, Main(1.0)), (7, 15, Main(0.2))],
        &[(0, 10, Main(1.0)), (5, 10, Main(0.2))],
    ),
    entry(
        Preset::StrongMiddle,
        "strong middle",
        &[(0, 15, Main(0.2)), (6, 6, Main(1.0))],
        &[(0, 10, Main(0.2)), (4, 4, Main(1.0))],
    ),
    entry(Preset::StyleTransfer, "style transfer", &[(0, 3, Main(1.0)), (9, 15, Main(1.0))], &[(6, 6, Main(1.0))]),
    entry(Preset::Composition, "composition", &[(4, 4, Main(0.25)), (5, 5, Main(1.0))], &[(3, 3, Main(1.0))]),
    entry(
        Preset::StrongStyleTransfer,
        "strong style transfer",
        &[(0, 3, Main(1.0)), (6, 15, Main(1.0))],
        &[(0, 2, Main(1.0)), (4, 10, Main(1.0))],
    ),
    entry(
        Preset::StyleAndComposition,
        "style and composition",
        &[(0, 3, Main(1.0)), (4, 4, Other(0.25)), (5, 5, Other(1.0)), (9, 15, Main(1.0))],
        &[(3, 3, Other(1.0)), (6, 6, Main(1.0))],
    ),
    entry(
        Preset::StrongStyleAndComposition,
        "strong style and composition",
        &[(0, 15, Main(1.0)), (4, 5, Other(1.0))],
        &[(0, 10, Main(1.0)), (3, 3, Other(1.0))],
    ),
    Entry {
        preset: Preset::StyleTransferPrecise,
        name: "style transfer precise",
        sd: &[(0, 3, Main(1.0)), (4, 4, Other(0.25)), (5, 5, Other(1.0)), (9, 15, Main(1.0))],
        xl: &[(3, 3, Other(1.0)), (6, 6, Main(1.0))],
        away: [&[4, 5], &[3]],
    },
    Entry {
        preset: Preset::CompositionPrecise,
        name: "composition precise",
        sd: &[(0, 3, Other(1.0)), (4, 4, Main(0.25)), (5, 5, Main(1.0)), (6, 8, Other(0.1)), (9, 15, Other(1.0))],
        xl: &[(0, 10, Other(0.1)), (3, 3, Main(1.0)), (6, 6, Other(1.0))],
        away: [&[0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], &[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]],
    },
    entry(Preset::InstantStyle, "instant style", &[(7, 9, Main(1.0))], &[(6, 6, Main(1.0))]),
    entry(
        Preset::InstantStyleAndLayout,
        "instant style and layout",
        &[(4, 9, Main(1.0))],
        &[(3, 3, Main(1.0)), (6, 6, Main(1.0))],
    ),
];

/// The share of transformer `t` of `count`.
type Curve = fn(f32, f32) -> f32;

/// Those that are curves over the depth.
const CURVES: [(Preset, &str, Curve); 5] = [
    (Preset::Linear, "linear", |_, _| 1.0),
    (Preset::EaseIn, "ease in", |t, count| 0.05 + 0.95 * (1.0 - t / count)),
    (Preset::EaseOut, "ease out", |t, count| 0.05 + 0.95 * (t / count)),
    (Preset::EaseInOut, "ease in-out", |t, count| 0.05 + 0.95 * (1.0 - (t - count / 2.0).abs() / (count / 2.0))),
    (Preset::ReverseInOut, "reverse in-out", |t, count| 0.05 + 0.95 * ((t - count / 2.0).abs() / (count / 2.0))),
];

impl Preset {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        CURVES.iter().map(|(preset, ..)| *preset).chain(NAMED.iter().map(|entry| entry.preset))
    }

    /// What it means for a U-Net with these cross-attentions, in the order in which they run.
    ///
    /// `other` is the strength of what the preset names second (composition; of the precise ones what is led away from);
    /// without one it is `strength`.
    ///
    /// # Errors
    ///
    /// When it names layers and the U-Net is neither Stable Diffusion 1 or 2's nor XL's.
    pub fn spread(self, layers: &[CrossAttention], strength: f32, other: Option<f32>) -> Result<Spread, AdapterError> {
        let transformers = transformers(layers);
        let count = transformers.len();
        let mut shares = vec![0.0; count];
        let mut turned: &[usize] = &[];
        if let Some((_, _, curve)) = CURVES.iter().find(|(preset, ..)| *preset == self) {
            for (t, share) in shares.iter_mut().enumerate() {
                *share = strength * curve(t as f32, count as f32);
            }
        } else if let Some(entry) = NAMED.iter().find(|entry| entry.preset == self) {
            let (lines, away) = match count {
                16 => (entry.sd, entry.away[0]),
                11 => (entry.xl, entry.away[1]),
                _ => return Err(self.unknown_layers(count)),
            };
            turned = away;
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
        let away = layers
            .iter()
            .map(|layer| layer.site)
            .filter(|site| turned.iter().any(|&t| transformers[t] == (site.block, site.attention)));
        Ok(Spread { scales, away: away.collect() })
    }

    fn unknown_layers(self, count: usize) -> AdapterError {
        AdapterError::Setting {
            what: format!("preset `{self}`"),
            got: format!("a U-Net with {count} transformers"),
            expected: "one with 16 (Stable Diffusion 1 and 2) or 11 (XL), whose layers it names".to_owned(),
            next: "take a curve such as `ease in`, or scales for each layer".to_owned(),
        }
    }
}

/// The transformers that layers belong to, in the order in which they run.
fn transformers(layers: &[CrossAttention]) -> Vec<(Block, usize)> {
    let mut transformers: Vec<(Block, usize)> =
        layers.iter().map(|layer| (layer.site.block, layer.site.attention)).collect();
    transformers.dedup();
    transformers
}

/// As ComfyUI writes it.
impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMED.iter().map(|entry| (entry.preset, entry.name));
        let mut all = CURVES.iter().map(|(preset, name, _)| (*preset, *name)).chain(named);
        let name = all.find(|(preset, _)| preset == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Preset {
    type Err = AdapterError;

    fn from_str(name: &str) -> Result<Self, AdapterError> {
        Self::all().find(|preset| preset.to_string() == name).ok_or_else(|| AdapterError::Setting {
            what: "preset of an adapter".to_owned(),
            got: format!("`{}`", name.chars().take(40).collect::<String>()),
            expected: Self::all().map(|preset| preset.to_string()).collect::<Vec<_>>().join(", "),
            next: "choose one of them".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use fabric_core::attention::AttnKind;

    use super::*;

    /// Layers of blocks with so many transformers, in the order in which they run.
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

    /// The scales of all layers, in the order in which they run.
    fn scales(preset: Preset, layers: &[CrossAttention]) -> Vec<f32> {
        let spread = preset.spread(layers, 1.0, Some(0.5)).expect("a known U-Net");
        layers.iter().map(|layer| spread.scales.of(&layer.site)).collect()
    }

    #[test]
    fn named_layers_are_those_that_their_authors_name() {
        let style = Preset::InstantStyle.spread(&xl(), 1.0, None).expect("XL");
        let on = |layers: &[CrossAttention], spread: &Spread| -> Vec<String> {
            let on = layers.iter().filter(|layer| spread.scales.of(&layer.site) != 0.0);
            on.map(|layer| layer.site.to_string().split(".transformer").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(on(&xl(), &style), ["up_blocks.0.attentions.1"]);
        let layout = Preset::Composition.spread(&xl(), 1.0, None).expect("XL");
        assert_eq!(on(&xl(), &layout), ["down_blocks.2.attentions.1"]);
        let style = Preset::InstantStyle.spread(&sd(), 1.0, None).expect("SD");
        assert_eq!(on(&sd(), &style), [0, 1, 2].map(|at| format!("up_blocks.1.attentions.{at}")));
        let both = Preset::InstantStyleAndLayout.spread(&sd(), 1.0, None).expect("SD");
        assert_eq!(on(&sd(), &both).len(), 6);
    }

    #[test]
    fn strengths_are_those_of_the_table() {
        let mut expected = vec![0.0; 16];
        expected[..4].fill(1.0);
        (expected[4], expected[5]) = (0.125, 0.5);
        expected[9..].fill(1.0);
        assert_eq!(scales(Preset::StyleAndComposition, &sd()), expected);
        assert_eq!(scales(Preset::StrongMiddle, &xl()), [0.2, 0.2, 0.2, 0.2, 1.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]);
        let mut expected = vec![0.05; 16];
        expected[..4].fill(0.5);
        (expected[4], expected[5]) = (0.25, 1.0);
        expected[9..].fill(0.5);
        assert_eq!(scales(Preset::CompositionPrecise, &sd()), expected);
        assert_eq!(scales(Preset::WeakInput, &xl())[..5], [0.2, 0.2, 0.2, 0.2, 1.0]);
        assert_eq!(scales(Preset::WeakOutput, &sd())[5..8], [1.0, 1.0, 0.2]);
        let away = |preset: Preset| preset.spread(&xl(), 1.0, None).expect("XL").away.len();
        assert_eq!(
            [away(Preset::CompositionPrecise), away(Preset::StyleTransferPrecise), away(Preset::Linear)],
            [10, 1, 0]
        );
        let ease = scales(Preset::EaseIn, &sd());
        assert!((ease[0] - 1.0).abs() < 1e-6 && (ease[8] - 0.525).abs() < 1e-6, "{ease:?}");
        let precise = Preset::StyleTransferPrecise.spread(&sd(), 1.0, None).expect("SD");
        assert_eq!(precise.away, [0, 1].map(|at| sd()[4 + at].site).into());
    }

    #[test]
    fn every_preset_has_a_name_and_other_u_nets_are_refused() {
        assert_eq!(Preset::all().count(), 18);
        for preset in Preset::all() {
            assert_eq!(preset.to_string().parse::<Preset>().expect("its own name"), preset);
            let small = preset.spread(&layers(&[(Block::Mid, 1)]), 1.0, None);
            let curve = CURVES.iter().any(|(curve, ..)| *curve == preset);
            assert_eq!(small.is_ok(), curve, "{preset}");
        }
        assert!("stile".parse::<Preset>().is_err());
    }
}
