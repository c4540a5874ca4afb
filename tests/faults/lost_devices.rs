//! A pool of devices of which some are lost at random points. Single losses, silence and limits are tested in
//! `tests/pool.rs`.

use std::sync::Arc;

use fabric::core::Error;
use fabric::core::pipeline::{DevicePool, Pipeline, Pooled};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::images::{assert_same, request};
use crate::models::{Failure, Fault, FaultyUNet, FaultyVae, Stage, pipeline, with_networks};

const RUNS: u64 = 50;

/// Returns a device that is lost at a random call of one of its networks, if that many are made.
fn mortal(draws: &mut ChaCha12Rng) -> Pipeline {
    let stages = [Stage::Encoding, Stage::Recording, Stage::Evaluation, Stage::Evaluation, Stage::Decoding];
    lost_at(stages[draws.random_range(0..stages.len())], draws.random_range(0..6))
}

fn lost_at(stage: Stage, call: usize) -> Pipeline {
    let fault = Fault::default();
    fault.set(stage, call, Failure::Panic);
    let vae = FaultyVae { fault: fault.clone(), half: false };
    with_networks(Arc::new(FaultyUNet(fault)), Arc::new(vae))
}

#[test]
fn a_pool_that_loses_devices_at_random_points_makes_the_same_images() {
    let request = request().with_seeds([1, 2, 3, 4]);
    let expected = pipeline().generate(&request).expect("images");
    let (mut lost_devices, mut lost_pools) = (0, 0);
    for run in 0..RUNS {
        let mut draws = ChaCha12Rng::seed_from_u64(run);
        // In every fifth run all devices may be lost, and in every tenth run they surely are.
        let last = if run % 5 == 4 { mortal(&mut draws) } else { pipeline() };
        let members = match run % 10 {
            9 => [(); 3].map(|()| lost_at(Stage::Evaluation, 0)),
            _ => [mortal(&mut draws), mortal(&mut draws), last],
        };
        let named = members.into_iter().enumerate().map(|(at, member)| (format!("device {at}"), member));
        match DevicePool::new(named).expect("a pool").generate(&request) {
            Ok(Pooled { made, lost, .. }) => {
                assert_same(&made, &expected, &format!("run {run} without {lost:?}"));
                assert!(lost.len() < 3 && lost.iter().all(|(_, said)| said.contains("out of memory")), "{lost:?}");
                lost_devices += lost.len();
            }
            Err(error) => {
                assert!(run % 5 == 4, "run {run}: {error}");
                assert!(matches!(error, Error::Backend { .. }), "{error:?}");
                assert_eq!(error.to_string().matches("out of memory").count(), 3, "{error}");
                lost_pools += 1;
            }
        }
    }
    // How many of the others are lost depends on which device is how fast.
    assert!(lost_devices >= 1 && lost_pools >= 5, "{lost_devices} lost devices, {lost_pools} lost pools");
}
