//! Runs what is left of an experiment, on all cores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use fabric::core::image::Image;
use rayon::ThreadPoolBuilder;

use crate::files::make_folder_of;
use crate::round_attention::RoundAttention;
use crate::session::{self, Plan, Session};
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

/// Sessions that a run consists of, and the share of them that this process runs. `A` is the type of the arms.
#[derive(Debug, Clone)]
pub struct Work<'a, A = Arm> {
    /// The arms.
    pub arms: &'a [A],
    /// Number of prompts. Of a subject that has fewer, all are run.
    pub cases: usize,
    /// The share of the sessions that this process runs.
    pub shard: Shard,
    /// Number of prompts, from the first, whose images are written to the run's folder.
    pub keep_images: usize,
}

/// A finished session, or the error that ended it.
type Finished = Result<Session, ExperimentError>;

/// Sessions of any kind of experiment: one for each arm and case.
pub(crate) struct Sessions<'a> {
    /// Names of the arms.
    pub(crate) arms: Vec<&'a str>,
    /// Number of cases.
    pub(crate) cases: usize,
    /// Number of cases, from the first, whose images are kept.
    pub(crate) keep_images: usize,
    /// The share of the sessions that this process runs.
    pub(crate) shard: Shard,
    /// Whether one session does not keep several cores busy ([`Subject::is_small`]).
    pub(crate) is_small: bool,
    /// Runs the session of an arm, given by its index, and a case. The flag says whether its images are kept.
    pub(crate) run: &'a (dyn Fn(usize, usize, bool) -> Finished + Sync),
}

/// Runs all sessions that the folder has no records of.
///
/// Sessions of small networks run side by side ([`Subject::is_small`]). Sessions are recorded in a fixed order,
/// whichever thread finishes first, so a resumed run writes the same file to the byte as one that was never stopped.
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
    let one = |arm: usize, case: usize, is_kept: bool| {
        session::run(subject, plan, &work.arms[arm], &subject.case(case, plan.feedback)?, is_kept)
    };
    let sessions = Sessions {
        arms: work.arms.iter().map(|arm| arm.name.as_str()).collect(),
        cases: subject.cases().map_or(work.cases, |cases| cases.min(work.cases)),
        keep_images: work.keep_images,
        shard: work.shard,
        is_small: subject.is_small(),
        run: &one,
    };
    run_sessions(&sessions, folder, progress)
}

/// Runs all sessions that the folder has no records of, in the order of their cases.
pub(crate) fn run_sessions(
    sessions: &Sessions<'_>,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ExperimentError> {
    let Sessions { arms, shard, .. } = sessions;
    let all = (0..sessions.cases).flat_map(|case| (0..arms.len()).map(move |arm| (case, arm)));
    let mine: Vec<(usize, usize)> = all.filter(|(case, _)| shard.contains(*case)).collect();
    let left: Vec<(usize, usize)> =
        mine.iter().copied().filter(|(case, arm)| !folder.is_done(arms[*arm], *case)).collect();
    let mut shown = Progress { done: mine.len() - left.len(), total: mine.len() };
    progress(shown);

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // A session of small networks always has one thread: the number of threads changes the order of sums, and with it
    // the records.
    let (parallel, threads) = if sessions.is_small { (cores.min(left.len().max(1)), 1) } else { (1, cores) };
    let pools = (0..parallel).map(|_| ThreadPoolBuilder::new().num_threads(threads).build());
    let pools = pools.collect::<Result<Vec<_>, _>>().map_err(|error| ExperimentError::Other(error.into()))?;
    let (next, is_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The channel is short, so that few sessions wait to be recorded.
        let (sender, finished) = mpsc::sync_channel::<(usize, Finished)>(parallel);
        for pool in &pools {
            let (sender, next, is_stopped, left) = (sender.clone(), &next, &is_stopped, &left);
            scope.spawn(move || {
                while !is_stopped.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(case, arm)) = left.get(at) else { return };
                    let made = pool.install(|| (sessions.run)(arm, case, case < sessions.keep_images));
                    if sender.send((at, made)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let recorded = record(&finished, sessions.keep_images, folder, &mut |count| {
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
    keep_images: usize,
    folder: &mut RunFolder,
    progress: &mut dyn FnMut(usize),
) -> Result<(), ExperimentError> {
    let mut waiting: BTreeMap<usize, Session> = BTreeMap::new();
    let mut next = 0;
    for (at, made) in finished {
        waiting.insert(at, made?);
        while let Some(Session { mut images, attention, condition }) = waiting.remove(&next) {
            if let Some((first, _)) = images.first().filter(|(record, _)| record.case < keep_images) {
                if !attention.is_empty() {
                    RoundAttention::save(&attention, folder.path(), &first.arm, first.case)?;
                }
                save_images(folder.path(), &mut images)?;
                if let Some(condition) = condition {
                    save_condition(folder.path(), &condition, &mut images)?;
                }
            }
            let records: Vec<ImageRecord> = images.into_iter().map(|(record, _)| record).collect();
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
        make_folder_of(&path).map_err(ExperimentError::io(&path, "make the folder of the file"))?;
        image.save(&path).map_err(fabric::core::Error::from)?;
        record.file = Some(name);
    }
    Ok(())
}

/// Writes the condition image of a session, which all arms share, and notes its file in the records.
fn save_condition(
    folder: &Path,
    condition: &Image,
    session: &mut [(ImageRecord, Image)],
) -> Result<(), ExperimentError> {
    let Some((first, _)) = session.first() else { return Ok(()) };
    let name = format!("images/condition/{:04}.png", first.case);
    let path = folder.join(&name);
    make_folder_of(&path).map_err(ExperimentError::io(&path, "make the folder of the file"))?;
    condition.save(&path).map_err(fabric::core::Error::from)?;
    for adapter in session.iter_mut().filter_map(|(record, _)| record.adapter.as_mut()) {
        adapter.condition = Some(name.clone());
    }
    Ok(())
}
