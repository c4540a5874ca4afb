//! Tests of timesteps and levels where diffusers' rules are easy to get wrong.

use super::*;

fn field(text: &str, steps: usize) -> String {
    match SchedulerConfig::from_json(text).and_then(|config| Schedule::new(&config, steps)) {
        Err(ScheduleError::Field(value)) => value.what.trim_start_matches("field ").replace('`', ""),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_bad_field_is_named() {
    for (expected, value) in [
        ("_class_name", r#""_class_name": "FlowMatchEulerDiscreteScheduler""#),
        ("_class_name", r#""_class_name": 3"#),
        ("beta_start", r#""beta_start": "small""#),
        ("beta_start", r#""beta_start": NaN"#),
        ("beta_end", r#""beta_end": Infinity"#),
        ("beta_end", r#""beta_end": 2.0"#),
        ("beta_schedule", r#""beta_schedule": "cubic""#),
        ("trained_betas", r#""trained_betas": [0.1, 0.2]"#),
        ("trained_betas", r#""trained_betas": [0.1, 0.0], "num_train_timesteps": 2"#),
        ("num_train_timesteps", r#""num_train_timesteps": 0"#),
        ("num_train_timesteps", r#""num_train_timesteps": 99999999999"#),
        ("prediction_type", r#""prediction_type": "flow_prediction""#),
        ("timestep_spacing", r#""timestep_spacing": "backwards""#),
        ("steps_offset", r#""steps_offset": -1"#),
        ("steps_offset", r#""steps_offset": 999"#),
        ("clip_sample", r#""clip_sample": 1"#),
        ("clip_sample_range", r#""clip_sample_range": -1"#),
        ("clip_sample_range", r#""clip_sample_range": 1e30"#),
        ("thresholding", r#""thresholding": true"#),
        ("algorithm_type", r#""_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver""#),
        ("solver_order", r#""_class_name": "DPMSolverMultistepScheduler", "solver_order": 4"#),
        ("solver_order", r#""_class_name": "UniPCMultistepScheduler", "solver_order": 0"#),
        ("lower_order_final", r#""_class_name": "UniPCMultistepScheduler", "lower_order_final": false"#),
        ("predict_x0", r#""_class_name": "UniPCMultistepScheduler", "predict_x0": false"#),
        ("use_karras_sigmas", r#""_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": "yes""#),
        (
            "use_beta_sigmas",
            r#""_class_name": "LMSDiscreteScheduler", "use_karras_sigmas": true, "use_beta_sigmas": true"#,
        ),
        ("sigma_max", r#""_class_name": "EulerDiscreteScheduler", "sigma_max": 0"#),
        ("sigma_max", r#""_class_name": "EulerDiscreteScheduler", "sigma_max": 1e30"#),
        ("sigma_min", r#""_class_name": "EulerDiscreteScheduler", "sigma_min": 1e-30"#),
        ("sigma_min", r#""_class_name": "EulerDiscreteScheduler", "sigma_min": 3, "sigma_max": 2"#),
        ("timestep_scaling", r#""_class_name": "LCMScheduler", "timestep_scaling": 1e30"#),
        ("variance_type", r#""_class_name": "DDPMScheduler", "variance_type": "learned_range""#),
        ("original_inference_steps", r#""_class_name": "LCMScheduler", "original_inference_steps": 2000"#),
        ("eta", r#""eta": 1.5"#),
    ] {
        let class = if value.contains("_class_name") { "" } else { r#""_class_name": "DDIMScheduler", "# };
        assert_eq!(field(&format!("{{{class}{value}}}"), 2), expected, "{value}");
    }
}

#[test]
fn text_that_is_no_object_is_an_error() {
    for text in ["", "[]", "{", "null", "\"DDIMScheduler\""] {
        let result = SchedulerConfig::from_json(text);
        assert!(matches!(result, Err(ScheduleError::Json { .. })), "{text}: {result:?}");
    }
}

#[test]
fn unknown_fields_nulls_and_pythons_infinity_are_read() {
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "sigma_min": null,
        "variance_type": null, "skip_prk_steps": true, "note": "NaN and -Infinity \" stay", "mu": {"a": [1]}}"#;
    let config = SchedulerConfig::from_json(text).expect("a configuration");
    assert_eq!(config.kind, SamplerKind::DpmPlusPlus2M(SigmaCurve::Table));
    assert_eq!(config.lambda_min_clipped, None);
}

#[test]
fn what_diffusers_writes_for_dpm_solver_is_read() {
    // The file that diffusers 0.35 saves by default, shortened.
    let text = "\u{feff}{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver++\",
        \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085,
        \"lambda_min_clipped\": -Infinity, \"note\": [NaN, Infinity], \"variance_type\": null}";
    let config = SchedulerConfig::from_json(text).expect("a configuration");
    assert_eq!((config.lambda_min_clipped, config.beta_end), (None, Some(0.012)));
    // Through serde alone, as in the `scheduler_config` of a model folder.
    let through_serde: SchedulerConfig = crate::json::from_str(text).expect("serde");
    assert_eq!(through_serde, config);
    let bound = |value: &str| {
        let text = format!(r#"{{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": {value}}}"#);
        SchedulerConfig::from_json(&text).map(|config| config.lambda_min_clipped)
    };
    assert_eq!(bound("-5.1"), Ok(Some(-5.1)));
    for value in ["Infinity", "NaN", "\"low\""] {
        assert!(matches!(bound(value), Err(ScheduleError::Field(value)) if value.what == "field `lambda_min_clipped`"));
    }
}

#[test]
fn a_class_that_we_lack_says_what_to_do_and_gives_way_to_a_named_sampler() {
    // What diffusers 0.35 saves for the class, shortened.
    let deis = r#"{"_class_name": "DEISMultistepScheduler", "algorithm_type": "deis", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000, "solver_order": 2,
        "prediction_type": "v_prediction", "solver_type": "logrho", "steps_offset": 1, "trained_betas": null,
        "timestep_spacing": "trailing", "use_karras_sigmas": true}"#;
    let error = SchedulerConfig::from_json(deis).unwrap_err().to_string();
    for part in ["DEISMultistepScheduler", "EulerDiscreteScheduler", "name a sampler", "--sampler"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    for kind in SamplerKind::ALL {
        let config = SchedulerConfig::from_json_for(deis, kind).expect("a configuration");
        let same = deis.replace("DEISMultistepScheduler", "UniPCMultistepScheduler");
        assert_eq!(config, SchedulerConfig::from_json(&same).expect("a configuration").with_sampler(kind), "{kind}");
        assert_eq!((config.kind, config.prediction), (kind, Prediction::Velocity));
        Schedule::new(&config, 5).expect("a schedule");
    }
    // Invalid values are still errors. An unsupported algorithm is an error only if no sampler is named.
    let bad = deis.replace("0.012", "\"much\"");
    let error = SchedulerConfig::from_json_for(&bad, SamplerKind::Ddim).unwrap_err();
    assert!(matches!(error, ScheduleError::Field(value) if value.what == "field `beta_end`"));
    let old = r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver", "beta_start": 0.00085,
        "beta_end": 0.012, "beta_schedule": "scaled_linear"}"#;
    assert!(SchedulerConfig::from_json(old).is_err());
    assert_eq!(SchedulerConfig::from_json_for(old, SamplerKind::Ddim).map(|config| config.kind), Ok(SamplerKind::Ddim));
}

#[test]
fn a_named_sampler_does_not_make_up_betas() {
    for text in [
        r#"{"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5,
            "prediction_type": "epsilon", "num_train_timesteps": 1000}"#,
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#,
        r#"{"_class_name": "IPNDMScheduler", "num_train_timesteps": 1000, "trained_betas": null}"#,
        "{}",
    ] {
        let error = SchedulerConfig::from_json_for(text, SamplerKind::EulerAncestral).unwrap_err();
        assert!(matches!(&error, ScheduleError::Field(value) if value.what == "field `_class_name`"), "{error}");
        assert!(error.to_string().contains("EDM"), "{error}");
    }
}

#[test]
fn a_configuration_writes_what_it_reads() {
    for kind in SamplerKind::ALL {
        for curve in [SigmaCurve::Table, SigmaCurve::Karras] {
            let config = SchedulerConfig::default().with_sampler(kind.with_curve(curve));
            assert_eq!(SchedulerConfig::from_json(&config.to_json()), Ok(config.clone()));
            let through_serde: SchedulerConfig = serde_json::from_str(&config.to_json()).expect("serde");
            assert_eq!(through_serde, config);
        }
    }
}

#[test]
fn the_default_is_stable_diffusions() {
    let text = r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
        "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
        "clip_sample": false}"#;
    assert_eq!(SchedulerConfig::from_json(text), Ok(SchedulerConfig::default()));
    let schedule = Schedule::new(&SchedulerConfig::default(), 5).expect("a schedule");
    assert_eq!(schedule.timesteps(), [801.0, 601.0, 601.0, 401.0, 201.0, 1.0]);
}

#[test]
fn another_sampler_keeps_betas_prediction_and_what_the_file_says() {
    let file = r#"{"_class_name": "HeunDiscreteScheduler", "prediction_type": "v_prediction", "steps_offset": 1}"#;
    let config = SchedulerConfig::from_json(file).expect("a configuration");
    let other = config.with_sampler(SamplerKind::Ddim);
    assert_eq!(training_levels(&other).map(|l| l[500]), training_levels(&config).map(|l| l[500]));
    assert_eq!((other.prediction, other.steps_offset), (Prediction::Velocity, 1));
    assert_eq!(other.clip(), None, "latents are not clipped");
    assert_eq!(other.spacing(), Spacing::Leading, "the new sampler's default");
}

#[test]
fn numbers_of_steps_that_do_not_fit_are_errors() {
    let steps = |kind: SamplerKind, steps: usize| {
        Schedule::new(&SchedulerConfig::default().with_sampler(kind), steps).map(|schedule| schedule.calls())
    };
    for kind in SamplerKind::ALL {
        assert!(matches!(steps(kind, 0), Err(ScheduleError::Steps(_))), "{kind}");
        assert!(matches!(steps(kind, 1001), Err(ScheduleError::Steps(_))), "{kind}");
    }
    for kind in [SamplerKind::Lcm, SamplerKind::Tcd] {
        assert!(matches!(steps(kind, 51), Err(ScheduleError::Steps(_))), "{kind}");
    }
    let prk = SchedulerConfig { skip_prk_steps: Some(false), ..SchedulerConfig::default() };
    assert!(matches!(Schedule::new(&prk, 3), Err(ScheduleError::Steps(_))));
    assert_eq!(Schedule::new(&prk, 4).map(|schedule| schedule.calls()), Ok(13));
}

#[test]
fn sixty_one_trailing_steps_are_sixty_one() {
    for kind in SamplerKind::ALL.into_iter().filter(|kind| !matches!(kind, SamplerKind::Lcm | SamplerKind::Tcd)) {
        for steps in [61, 103, 998] {
            let config =
                SchedulerConfig { spacing: Some(Spacing::Trailing), ..SchedulerConfig::default().with_sampler(kind) };
            let schedule = Schedule::new(&config, steps).expect("a schedule");
            let firsts = schedule.calls().div_ceil(kind.order()) - usize::from(kind == SamplerKind::Pndm);
            assert_eq!(firsts, steps, "{kind}");
            assert!(schedule.timesteps().iter().all(|timestep| *timestep >= 0.0), "{kind}");
        }
    }
}

#[test]
fn strength_counts_steps_as_diffusers_does() {
    let schedule = Schedule::new(&SchedulerConfig::default().with_sampler(SamplerKind::Ddim), 50).expect("a schedule");
    for (strength, calls) in [(1.0, 50), (0.8, 40), (0.57, 28), (0.29, 14), (0.02, 1)] {
        assert_eq!(schedule.from_strength(strength).map(|s| s.calls()), Ok(calls), "{strength}");
    }
    for strength in [0.0, 0.0199, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(schedule.from_strength(strength), Err(ScheduleError::Strength(_))), "{strength}");
    }
}

#[test]
fn two_evaluations_a_step_are_cut_together() {
    let config = SchedulerConfig::default().with_sampler(SamplerKind::Heun(SigmaCurve::Table));
    let schedule = Schedule::new(&config, 10).and_then(|s| s.from_strength(0.35)).expect("a schedule");
    assert_eq!(schedule.timesteps(), [222.0, 111.0, 111.0, 0.0, 0.0]);
    assert_eq!(schedule.sigmas().len(), 6);
}

#[test]
fn timesteps_that_are_cut_off_follow_numpys_logarithm() {
    // With the true logarithm, rounded to f32, the first timestep would be 999.
    let config = SchedulerConfig::from_json(
        r#"{"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.002,
            "beta_end": 0.012, "use_exponential_sigmas": true}"#,
    )
    .unwrap();
    assert_eq!(Schedule::new(&config, 1).unwrap().timesteps(), [998.0]);
}
