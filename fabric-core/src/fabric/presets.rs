use super::{
    BlockWeights, DislikesWithoutGuidance, FabricExecution, FabricSettings, KeepPolicy, ReferenceNoise,
    ReferencePosterior, TimeCurve, WindowRule,
};

/// Presets with the settings of published implementations.
///
/// | preset | start..end | weight outside, inside | negative scale |
/// |---|---|---|---|
/// | [`official_api`](FabricSettings::official_api) | 0.33..0.66 | 0.1, 1.0 | 0.5 |
/// | [`paper_preference`](FabricSettings::paper_preference) | 0..1 | 0, 0.1 | 0.5 |
/// | [`paper_target`](FabricSettings::paper_target) | 0..1 | 0, 0.8 | 0.5 |
/// | [`official_configs`](FabricSettings::official_configs) | 0..0.8 | 0, 0.3 | 0.5 |
/// | [`official_demo`](FabricSettings::official_demo) | 0..0.8 | 0, 0.8, at most 6 references | 0.5 |
/// | [`diffusers`](FabricSettings::diffusers) | 0.33..0.66 | 0.05, 0.8 | 0.5 |
/// | [`web_ui`](FabricSettings::web_ui) | 0..0.8 | 0, 0.8, by timestep | 0.5 |
/// | [`comfy_ui`](FabricSettings::comfy_ui) | 0..0.8 | 0, 1.0, end excluded | 1.0 |
impl FabricSettings {
    /// The defaults of the official Python interface (`generate`).
    pub fn official_api() -> Self {
        Self {
            start: 0.33,
            end: 0.66,
            window: WindowRule::Official,
            curve: TimeCurve::Constant,
            min_weight: 0.1,
            max_weight: 1.0,
            negative_scale: 0.5,
            liked_bottleneck_scale: 1.0,
            disliked_bottleneck_scale: 1.0,
            dislikes_without_guidance: DislikesWithoutGuidance::NoEffect,
            block_weights: BlockWeights::default(),
            normalise: false,
            keep: KeepPolicy::All,
            liked_per_image: None,
            noise: ReferenceNoise::Fixed,
            posterior: ReferencePosterior::Sample,
            execution: FabricExecution::default(),
        }
    }

    /// The paper's first experiment: feedback from a preference model, weight 0.1 in all steps.
    pub fn paper_preference() -> Self {
        Self { start: 0.0, end: 1.0, min_weight: 0.0, max_weight: 0.1, ..Self::official_api() }
    }

    /// The paper's second experiment: feedback from similarity to a target image, weight 0.8 in all steps.
    pub fn paper_target() -> Self {
        Self { max_weight: 0.8, ..Self::paper_preference() }
    }

    /// The official evaluation scripts since September 2023.
    pub fn official_configs() -> Self {
        Self { end: 0.8, max_weight: 0.3, ..Self::paper_preference() }
    }

    /// The official demo, with at most 6 references.
    pub fn official_demo() -> Self {
        Self { end: 0.8, keep: KeepPolicy::Balanced(6), ..Self::paper_target() }
    }

    /// The diffusers community pipeline.
    pub fn diffusers() -> Self {
        Self { min_weight: 0.05, max_weight: 0.8, ..Self::official_api() }
    }

    /// The extension for AUTOMATIC1111's web UI.
    pub fn web_ui() -> Self {
        Self { window: WindowRule::Timestep, end: 0.8, ..Self::paper_target() }
    }

    /// The ComfyUI node, except for the zero tokens with which it pads the side that has fewer references: they draw
    /// attention away.
    pub fn comfy_ui() -> Self {
        Self { window: WindowRule::HalfOpen, max_weight: 1.0, negative_scale: 1.0, ..Self::web_ui() }
    }
}
