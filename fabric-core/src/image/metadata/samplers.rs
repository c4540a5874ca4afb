//! Names of samplers and noise schedules in other programs.

use super::shown;
use crate::schedule::{SamplerKind, SigmaCurve};

/// A sampler, its name in AUTOMATIC1111's web UI, the curve that is "Automatic" there, and its names in ComfyUI.
type Names = (SamplerKind, &'static str, SigmaCurve, &'static [&'static str]);

const TABLE: SigmaCurve = SigmaCurve::Table;

const SAMPLERS: [Names; 14] = [
    (SamplerKind::Ddpm, "DDPM", TABLE, &["ddpm"]),
    (SamplerKind::Ddim, "DDIM", TABLE, &["ddim"]),
    (SamplerKind::Pndm, "PLMS", TABLE, &[]),
    (SamplerKind::Lms(TABLE), "LMS", TABLE, &["lms"]),
    (SamplerKind::Euler(TABLE), "Euler", TABLE, &["euler"]),
    (SamplerKind::EulerAncestral, "Euler a", TABLE, &["euler_ancestral"]),
    (SamplerKind::Heun(TABLE), "Heun", TABLE, &["heun"]),
    (SamplerKind::Kdpm2(TABLE), "DPM2", SigmaCurve::Karras, &["dpm_2"]),
    (SamplerKind::DpmPlusPlus2M(TABLE), "DPM++ 2M", SigmaCurve::Karras, &["dpmpp_2m"]),
    (
        SamplerKind::DpmPlusPlus2MSde(TABLE),
        "DPM++ 2M SDE",
        SigmaCurve::Exponential,
        &["dpmpp_2m_sde", "dpmpp_2m_sde_gpu"],
    ),
    (SamplerKind::DpmPlusPlusSde(TABLE), "DPM++ SDE", SigmaCurve::Karras, &["dpmpp_sde", "dpmpp_sde_gpu"]),
    (SamplerKind::UniPc(TABLE), "UniPC", TABLE, &["uni_pc", "uni_pc_bh2"]),
    (SamplerKind::Lcm, "LCM", TABLE, &["lcm"]),
    (SamplerKind::Tcd, "TCD", TABLE, &[]),
];

/// Names of curves: in the web UI, as "Schedule type", and in ComfyUI, as "scheduler".
const CURVES: [(SigmaCurve, &str, &str); 4] = [
    (TABLE, "Uniform", "normal"),
    (SigmaCurve::Karras, "Karras", "karras"),
    (SigmaCurve::Exponential, "Exponential", "exponential"),
    (SigmaCurve::Beta, "Beta", "beta"),
];

/// Returns the name of a sampler in the web UI, and that of its schedule if the sampler supports several.
pub(super) fn web_ui_names(kind: SamplerKind) -> Option<(&'static str, Option<&'static str>)> {
    let (_, name, ..) = SAMPLERS.into_iter().find(|(known, ..)| *known == kind.with_curve(TABLE))?;
    let schedule = CURVES.into_iter().find(|(curve, ..)| *curve == kind.curve()).map(|(_, name, _)| name);
    Some((name, schedule.filter(|_| kind.has_curves())))
}

/// Returns the sampler for names of the web UI. What has no counterpart here is added to `unread`.
///
/// Before version 1.9, the name of a sampler ended in that of its schedule, and there was no `schedule`.
pub(super) fn from_web_ui(name: &str, schedule: Option<&str>, unread: &mut Vec<String>) -> Option<SamplerKind> {
    let suffix = CURVES.into_iter().find_map(|(curve, label, _)| {
        let base = name.strip_suffix(label)?.strip_suffix(' ')?;
        Some((base, curve))
    });
    let (base, suffix) = suffix.map_or((name, None), |(base, curve)| (base, Some(curve)));
    let found = SAMPLERS.into_iter().find(|(_, known, ..)| known.eq_ignore_ascii_case(base));
    let Some((kind, _, automatic, _)) = found else {
        unread.push(format!("sampler `{}` has no counterpart here", shown(name)));
        return None;
    };
    let curve = match schedule {
        None => suffix.unwrap_or(TABLE),
        Some("Automatic") => suffix.unwrap_or(automatic),
        // Timesteps at equal distances, as "Uniform".
        Some("Normal") => TABLE,
        Some(label) => {
            let known = CURVES.into_iter().find(|(_, known, _)| known.eq_ignore_ascii_case(label));
            known.map_or_else(|| unknown_schedule(label, unread), |(curve, ..)| curve)
        }
    };
    Some(with_curve(kind, curve, unread))
}

/// Returns the sampler for names of ComfyUI. What has no counterpart here is added to `unread`.
pub(super) fn from_comfy(name: &str, scheduler: Option<&str>, unread: &mut Vec<String>) -> Option<SamplerKind> {
    let Some((kind, ..)) = SAMPLERS.into_iter().find(|(.., names)| names.contains(&name)) else {
        unread.push(format!("sampler `{}` has no counterpart here", shown(name)));
        return None;
    };
    let curve = scheduler.map_or(TABLE, |label| {
        let known = CURVES.into_iter().find(|(.., known)| *known == label);
        known.map_or_else(|| unknown_schedule(label, unread), |(curve, ..)| curve)
    });
    Some(with_curve(kind, curve, unread))
}

fn unknown_schedule(label: &str, unread: &mut Vec<String>) -> SigmaCurve {
    unread.push(format!("noise schedule `{}` has no counterpart here", shown(label)));
    TABLE
}

fn with_curve(kind: SamplerKind, curve: SigmaCurve, unread: &mut Vec<String>) -> SamplerKind {
    if curve != TABLE && !kind.has_curves() {
        unread.push(format!("sampler `{kind}` has one noise schedule here, and the image was made with another"));
    }
    kind.with_curve(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sampler_is_found_by_the_names_that_are_written_for_it() {
        for kind in SamplerKind::ALL {
            for curve in [TABLE, SigmaCurve::Karras, SigmaCurve::Exponential, SigmaCurve::Beta] {
                let (kind, mut unread) = (kind.with_curve(curve), Vec::new());
                let (name, schedule) = web_ui_names(kind).unwrap();
                assert_eq!(from_web_ui(name, schedule, &mut unread), Some(kind));
                assert!(unread.is_empty(), "{unread:?}");
            }
        }
    }

    #[test]
    fn old_and_new_names_of_the_web_ui_are_read() {
        let cases = [
            ("DPM++ 2M Karras", None, "dpmpp_2m_karras"),
            ("DPM++ 2M", None, "dpmpp_2m"),
            ("DPM++ 2M", Some("Automatic"), "dpmpp_2m_karras"),
            ("DPM++ 2M SDE", Some("Automatic"), "dpmpp_2m_sde_exponential"),
            ("DPM++ 2M SDE Karras", None, "dpmpp_2m_sde_karras"),
            ("DPM++ SDE", Some("Normal"), "dpmpp_sde"),
            ("euler A", Some("Automatic"), "euler_a"),
            ("UniPC", Some("beta"), "unipc_beta"),
        ];
        for (name, schedule, expected) in cases {
            let mut unread = Vec::new();
            assert_eq!(from_web_ui(name, schedule, &mut unread), Some(expected.parse().unwrap()), "{name}");
            assert!(unread.is_empty(), "{unread:?}");
        }
    }

    #[test]
    fn what_has_no_counterpart_is_reported() {
        let mut unread = Vec::new();
        assert_eq!(from_web_ui("DPM++ 3M SDE", None, &mut unread), None);
        assert_eq!(from_comfy("dpm_fast", Some("karras"), &mut unread), None);
        assert_eq!(from_comfy("euler", Some("sgm_uniform"), &mut unread), Some(SamplerKind::Euler(TABLE)));
        assert_eq!(from_web_ui("Euler a", Some("Karras"), &mut unread), Some(SamplerKind::EulerAncestral));
        assert_eq!(unread.len(), 4, "{unread:?}");
        let known = from_comfy("dpmpp_2m_sde_gpu", Some("karras"), &mut unread);
        assert_eq!(known, Some(SamplerKind::DpmPlusPlus2MSde(SigmaCurve::Karras)));
        assert_eq!(unread.len(), 4, "{unread:?}");
    }
}
