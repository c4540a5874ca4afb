//! Image prompts that are ready for a run.

use std::collections::{BTreeMap, BTreeSet};

use fabric_core::Error;
use fabric_core::InvalidValue;
use fabric_core::attention::{AttnCall, AttnExtras, AttnProcessor, AttnSite};
use fabric_core::denoise::ModelCall;
use fabric_core::guidance::Branch;
use fabric_core::models::CrossAttention;
use fabric_core::pipeline::{BatchLayout, PreparedConditioning, RunContext, Window};

use crate::image_prompt::{Scale, Source};
use crate::preset::PresetScales;
use crate::prompt::{ImagePromptRows, check_masks, check_weights};
use crate::{
    AdapterError, Features, ImagePrompt, ImagePromptKv, InstructTexts, Instruction, LayerScales, ScaleSchedule,
};

/// [`ImagePrompt`] with its keys and values for each guidance branch of one run.
#[derive(Debug)]
pub struct PreparedImagePrompt {
    branches: BTreeMap<Branch, ImagePromptKv>,
    window: Window,
    /// Factor on all scales over the run.
    schedule: ScaleSchedule,
    /// Factor on the weights of branches that attend to "no image".
    none_weight: f32,
    /// Layers in which the conditional branch does not attend to the images and all other branches do.
    inverted: BTreeSet<AttnSite>,
    visible_to_references: bool,
    /// Whether it leads away from its images.
    away: bool,
    /// Whether it leads away from its images and the branch for that does not run.
    leads_nowhere: bool,
}

impl ImagePrompt {
    /// Prepares the prompt for a run.
    ///
    /// # Errors
    ///
    /// Returns an error if adapter, encoder, features, instruction and U-Net do not fit together, or a setting is
    /// invalid. All but the number of the encoder's channels is checked before an image is encoded.
    pub fn prepared(&self, run: &RunContext<'_>) -> Result<PreparedImagePrompt, Error> {
        let layers = run.cross_attentions();
        self.adapter.config().check_layers(&layers)?;
        self.check_source()?;
        let count = self.image_count();
        let PresetScales { scales, inverted } = self.layer_scales(&layers)?;
        scales.check(layers.iter().map(|layer| &layer.site))?;
        if self.away && !inverted.is_empty() {
            let (got, expected) = ("a preset with inverted layers", "one without, to lead away from the images");
            let help = "choose another preset, or scales by layer";
            return Err(AdapterError::from(InvalidValue::new("preset of an image prompt", got, expected, help)).into());
        }
        if let Some(weights) = &self.weights {
            check_weights(weights, count)?;
        }
        if let Some(masks) = &self.masks {
            check_masks(masks, count, layers.iter().map(|layer| &layer.site))?;
        }
        let instruction = self.effective_instruction();
        if let Some(texts) = &self.texts {
            texts.check()?;
        }

        let (window, visible_to_references) = (run.window(self.window), self.visible_to_references);
        let schedule = if run.is_warm_up() { ScaleSchedule::default() } else { self.schedule.clone() };
        let away = self.away;
        let leads_nowhere = away && !run.branches().contains(&Branch::Unconditional);
        let branches = BTreeMap::new();
        let none_weight = self.none_weight;
        let mut prepared = PreparedImagePrompt {
            branches,
            window,
            schedule,
            none_weight,
            inverted,
            visible_to_references,
            away,
            leads_nowhere,
        };
        if leads_nowhere {
            return Ok(prepared);
        }
        let [images, none] = self.features()?;
        for (branch, features) in self.by_branch(run, instruction.as_ref(), images, none)? {
            let mut kv = ImagePromptKv::new(&self.adapter, self.adapter.tokens(&features)?, &layers)?;
            kv = kv.moved_to(&run.device());
            if let Some(masks) = &self.masks {
                kv = kv.with_masks(masks.clone(), &run.grids())?;
            }
            if self.masks.is_none() || self.masks_use_scale {
                kv = kv.with_scales(scales.clone())?;
            }
            if let Some(weights) = &self.weights {
                kv = kv.with_weights(weights.clone())?;
            }
            kv = kv.with_shared_softmax(self.shares_softmax);
            prepared.branches.insert(branch, kv);
        }
        Ok(prepared)
    }

    /// Number of images after combining.
    fn image_count(&self) -> usize {
        let count = match &self.source {
            Source::Images(images) => images.len(),
            Source::Features(features, _) => features.images(),
        };
        if self.combine.is_some() { count.min(1) } else { count }
    }

    fn check_source(&self) -> Result<(), AdapterError> {
        let config = self.adapter.config();
        if self.image_count() == 0 {
            return Err(AdapterError::Setting(InvalidValue {
                what: "images of an image prompt".to_owned(),
                got: "none".to_owned(),
                expected: "at least one".to_owned(),
                help: "leave the image prompt out".to_owned(),
            }));
        }
        if (self.instruction.is_some() || self.texts.is_some()) && !config.is_instruct() {
            return Err(AdapterError::Unfit {
                adapter: config.to_string(),
                value: InvalidValue {
                    what: "instruction of an image prompt".to_owned(),
                    got: self.instruction.as_ref().map_or("texts".to_owned(), |one| format!("`{}`", one.query)),
                    expected: "none, as only Instruct adapters read one".to_owned(),
                    help: "leave it out, or load an IPAdapter-Instruct file".to_owned(),
                },
            });
        }
        if let Source::Features(features, none) = &self.source
            && features.is_instructed()
        {
            let invalid = |what: &str, got: &str, expected: &str, help: &str| AdapterError::Unfit {
                adapter: config.to_string(),
                value: InvalidValue::new(what, got, expected, help),
            };
            if self.instruction.is_some() || self.texts.is_some() {
                let help = "give the image's tokens alone, or leave the instruction out";
                let (got, expected) = ("one beside features that hold their texts", "none");
                return Err(invalid("instruction of an image prompt", got, expected, help));
            }
            if none.is_none() {
                let help = "give them, with the texts of the unconditional branch";
                return Err(invalid(
                    "features of no image",
                    "none",
                    "those with the texts of the other branches",
                    help,
                ));
            }
        }
        match &self.source {
            Source::Images(_) => self.adapter.check_reads_images(),
            Source::Features(features, none) => {
                let none = none.as_deref();
                for features in [Some(&**features), none].into_iter().flatten() {
                    if self.effective_instruction().is_none() {
                        config.check_features(features)?;
                    } else if !matches!(features, Features::Tokens(_)) {
                        return Err(AdapterError::Unfit {
                            adapter: config.to_string(),
                            value: InvalidValue {
                                what: "features of an image prompt".to_owned(),
                                got: features.kind().to_string(),
                                expected: "tokens of the image encoder".to_owned(),
                                help: "give the encoder's penultimate layer; the texts are read in the run".to_owned(),
                            },
                        });
                    }
                }
                let needs_encoder = none.is_none() && !matches!(**features, Features::Pooled(_) | Features::Face(_));
                if needs_encoder { self.adapter.check_encoder() } else { Ok(()) }
            }
        }
    }

    /// Returns the scale of each layer, with the published correction.
    fn layer_scales(&self, layers: &[CrossAttention]) -> Result<PresetScales, AdapterError> {
        let plain = |scales| PresetScales { scales, inverted: BTreeSet::new() };
        Ok(match &self.scale {
            Scale::Uniform(scale) => {
                let instruction = self.effective_instruction().filter(|_| self.corrects_scale);
                let corrected = |one: Instruction| one.corrected_scale(*scale, self.adapter.config());
                plain(LayerScales::same(instruction.map_or(*scale, corrected)))
            }
            Scale::Layers(scales) => plain(scales.clone()),
            Scale::Preset { preset, strength, other } => preset.scales_for(layers, *strength, *other)?,
        })
    }

    /// Returns the features of the images and of "no image", as many of each.
    fn features(&self) -> Result<[Features; 2], Error> {
        let (images, none) = match &self.source {
            Source::Images(images) => (self.adapter.encode(images, self.crop)?, None),
            Source::Features(images, none) => ((**images).clone(), none.as_deref().cloned()),
        };
        images.check_rows()?;
        let images = match self.combine {
            Some(combine) => images.combined(combine)?,
            None => images,
        };
        let none = match none {
            Some(none) => none,
            None => self.adapter.features_of_no_image(&images)?,
        };
        none.check_rows()?;
        let none = none.repeated(images.images())?;
        Ok([images, none])
    }

    /// Returns the features that each branch attends to.
    fn by_branch(
        &self,
        run: &RunContext<'_>,
        instruction: Option<&Instruction>,
        images: Features,
        none: Features,
    ) -> Result<Vec<(Branch, Features)>, Error> {
        let Some(instruction) = instruction else {
            return Ok(if self.away {
                // The branches that Instruct's guidance leads away from, if there are four.
                let away = [Branch::ImageOnly, Branch::Unconditional].map(|branch| (branch, images.clone()));
                let others = [Branch::Conditional, Branch::Everything].map(|branch| (branch, none.clone()));
                others.into_iter().chain(away).collect()
            } else {
                vec![(Branch::Conditional, images), (Branch::Unconditional, none)]
            });
        };
        let (Features::Tokens(images), Features::Tokens(none)) = (images, none) else {
            unreachable!("an Instruct adapter's features were checked to be tokens")
        };
        let config = self.adapter.config();
        let texts = match &self.texts {
            Some(texts) => texts.clone(),
            None => {
                let (prompt, negative, options) = (run.prompt(), run.negative_prompt(), run.text_options());
                InstructTexts::encode(run.text_encoder(), config, prompt, negative, instruction, options)?
            }
        };
        let branches = match instruction.guidance.scales(config) {
            None => vec![Branch::Conditional, Branch::Unconditional],
            Some(_) => vec![Branch::Conditional, Branch::ImageOnly, Branch::Everything, Branch::Unconditional],
        };
        let texts = texts.to_device(&images.device());
        let features = |branch: Branch| {
            let features = match (self.away, branch) {
                (false, Branch::Unconditional) => texts.features(branch, &none),
                (false, _) => texts.features(branch, &images),
                // The branches that guidance leads away from.
                (true, Branch::Unconditional | Branch::ImageOnly) => texts.features_away(branch, &images),
                (true, _) => texts.features_away(branch, &none),
            };
            (branch, features)
        };
        Ok(branches.into_iter().map(features).collect())
    }
}

/// Attention processor that applies each branch's image prompt to its rows.
#[derive(Debug)]
struct PromptedBranches<'a>(Vec<ImagePromptRows<'a>>);

impl AttnProcessor for PromptedBranches<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let mut extras = AttnExtras::default();
        self.0.iter().for_each(|rows| extras.merge(rows.extras(call)));
        extras
    }
}

impl PreparedImagePrompt {
    /// Returns the branch whose keys and values the rows of a branch use. In a run with an Instruct adapter, branches
    /// without keys and values here use the unconditional ones.
    fn used_branch(&self, branch: Branch) -> Branch {
        if self.branches.contains_key(&branch) { branch } else { Branch::Unconditional }
    }

    /// Whether the keys and values of a branch are those of the images, and not of "no image".
    fn shows_image(&self, branch: Branch) -> bool {
        let used = self.used_branch(branch);
        let is_led_away_from = matches!(used, Branch::Unconditional | Branch::ImageOnly);
        if self.away { is_led_away_from } else { used != Branch::Unconditional }
    }
}

impl PreparedConditioning for PreparedImagePrompt {
    fn visible_to_references(&self) -> bool {
        self.visible_to_references
    }

    fn notes(&self) -> Vec<String> {
        let note = "an image prompt that leads away has no effect, as the unconditional branch does not run: set the \
                    guidance scale above 1";
        self.leads_nowhere.then(|| note.to_owned()).into_iter().collect()
    }

    fn attention<'a>(&'a self, call: &ModelCall, layout: &BatchLayout) -> Box<dyn AttnProcessor + 'a> {
        if !self.window.contains(call) {
            return Box::new(PromptedBranches(Vec::new()));
        }
        let of = |branch: Branch| self.branches.get(&self.used_branch(branch));
        let factor = self.schedule.at(call);
        let mut prompted = Vec::new();
        for (branch, rows) in layout.groups() {
            let on = |prompt: &'a ImagePromptKv| prompt.on(rows.clone()).times(factor);
            let weight = if self.shows_image(branch) { 1.0 } else { self.none_weight };
            prompted.extend(of(branch).map(|prompt| on(prompt).weighted(weight).all_but(&self.inverted)));
            // Inverted layers: all branches but the conditional one attend to the images, also with Instruct's
            // four branches and whatever their scales.
            if branch != Branch::Conditional {
                prompted.extend(self.branches.get(&Branch::Conditional).map(|prompt| on(prompt).only(&self.inverted)));
            }
        }
        Box::new(PromptedBranches(prompted))
    }

    fn attends_to_image(&self, branch: Branch, site: &AttnSite) -> bool {
        if self.inverted.contains(site) {
            return branch != Branch::Conditional;
        }
        self.shows_image(branch)
    }
}

#[cfg(test)]
mod tests;
