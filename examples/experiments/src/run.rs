//! Runs what is left of an experiment, on all cores.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use fabric::core::image::Image;
use rayon::ThreadPoolBuilder;

use crate::session::{self, Plan};
use crate::store::RunFolder;
use crate::{Arm, ExperimentError, ImageRecord, Shard, Subject};

/// Progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Sessions that are recorded, those of earlier processes included.
    pub done: usize,
    /// Sessions in all.
    pub total: usize,
}

/// Sessions that a run consists of, and the share of them that this process runs.
#[derive(Debug, Clone)]
pub struct Work<'a> {
    /// The arms.
    pub arms: &'a [Arm],
    /// Number of prompts.
    pub cases: usize,
    /// The share of the sessions that this process runs.
    pub shard: Shard,
    /// Number of prompts, from the first, whose images are written to the run's folder.
    pub keep_images: usize,
}

/// A finished session, or the error that ended it.
type Finished = Result<Vec<(ImageRecord, Image)>, ExperimentError>;

/// Runs all sessions that the folder has no records of.
///
/// Each thread computes whole sessions, because networks as small as the shipped one's do not keep several cores busy.
/// Sessions are recorded in a fixed order, whichever thread finishes first, so a resumed run writes the same file to the
/// byte as one that was never stopped.
///
/// # Errors
///
/// Returns the first error of a session, or of writing. Sessions recorded before are kept.
pub fn run(
    subject: &dyn Subject,
    plan: &Plan,
    work: &Work<'_>,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ExperimentError> {
    let all = (0..work.cases).flat_map(|case| work.arms.iter().map(move |arm| (case, arm)));
    let mine: Vec<(usize, &Arm)> = all.filter(|(case, _)| work.shard.contains(*case)).collect();
    let left: Vec<(usize, &Arm)> =
        mine.iter().copied().filter(|(case, arm)| !folder.is_done(&arm.name, *case)).collect();
    let mut shown = Progress { done: mine.len() - left.len(), total: mine.len() };
    progress(shown);

    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(left.len().max(1));
    let pools = (0..threads).map(|_| ThreadPoolBuilder::new().num_threads(1).build());
    let pools = pools.collect::<Result<Vec<_>, _>>().map_err(|error| ExperimentError::Other(error.into()))?;
    let (next, is_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The channel is short, so that few sessions wait to be recorded.
        let (sender, finished) = mpsc::sync_channel::<(usize, Finished)>(threads);
        for pool in &pools {
            let (sender, next, is_stopped, left) = (sender.clone(), &next, &is_stopped, &left);
            scope.spawn(move || {
                while !is_stopped.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((case, arm)) = left.get(at) else { return };
                    let made = pool.install(|| session::run(subject, plan, arm, &subject.case(*case, plan.feedback)?));
                    if sender.send((at, made)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let recorded = record(&finished, plan, work, folder, &mut |count| {
            shown.done += count;
            progress(shown);
        });
        is_stopped.store(true, Ordering::Relaxed);
        // Lets threads that wait to send go on to their end.
        drop(finished);
        recorded
    })
}

/// Records finished sessions in the order of their indices.
fn record(
    finished: &mpsc::Receiver<(usize, Finished)>,
    plan: &Plan,
    work: &Work<'_>,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(usize),
) -> Result<(), ExperimentError> {
    let mut waiting: BTreeMap<usize, Vec<(ImageRecord, Image)>> = BTreeMap::new();
    let mut next = 0;
    for (at, made) in finished {
        waiting.insert(at, made?);
        while let Some(mut session) = waiting.remove(&next) {
            debug_assert_eq!(session.len(), plan.rounds * plan.images);
            if session.first().is_some_and(|(record, _)| record.case < work.keep_images) {
                save_images(folder.path(), &mut session)?;
            }
            let records: Vec<ImageRecord> = session.into_iter().map(|(record, _)| record).collect();
            folder.append(&records)?;
            progress(1);
            next += 1;
        }
    }
    Ok(())
}

/// Writes the images of a session and notes their files in the records.
fn save_images(folder: &Path, session: &mut [(ImageRecord, Image)]) -> Result<(), ExperimentError> {
    for (record, image) in session {
        let ImageRecord { arm, case, round, image: at, .. } = record;
        let name = format!("images/{}/{case:04}-{round}-{at}.png", arm.replace(' ', "-"));
        let path = folder.join(&name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(ExperimentError::io(parent, "make the folder"))?;
        image.save(&path).map_err(fabric::core::Error::from)?;
        record.file = Some(name);
    }
    Ok(())
}
