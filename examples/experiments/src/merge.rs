//! Merging the shards of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::files::make_folder_of;
use crate::round_attention::RoundAttention;
use crate::store::{RunFolder, images_of_a_session, read_run};
use crate::{ExperimentError, ImageRecord};

/// Merges the records, kept images and measured attention of shards of one run into a new folder, and returns the
/// number of sessions.
///
/// # Errors
///
/// Returns an error if the shards have different settings, two of them have the same session, a session is unfinished,
/// the new folder holds another run, or a file cannot be copied.
pub fn merge(into: &Path, shards: &[PathBuf]) -> Result<usize, ExperimentError> {
    let mut sessions: BTreeMap<(String, usize), (Vec<ImageRecord>, &Path)> = BTreeMap::new();
    let mut common = None;
    for shard in shards {
        let refused = |problem: String| ExperimentError::Merge { path: shard.clone(), problem };
        let (config, records) = read_run(shard)?;
        match &common {
            None => common = Some(config),
            Some(first) if *first == config => {}
            Some(_) => {
                let first = shards[0].display();
                return Err(refused(format!("expected the settings of {first}, got others; merge shards of one run")));
            }
        }
        for record in records {
            let key = (record.arm.clone(), record.case);
            let (session, from) = sessions.entry(key).or_insert_with(|| (Vec::new(), shard.as_path()));
            if *from != shard.as_path() {
                let problem = format!(
                    "expected sessions that no other shard has, got arm {}, prompt {}, which is in {} too; run each shard once",
                    record.arm,
                    record.case,
                    from.display()
                );
                return Err(refused(problem));
            }
            session.push(record);
        }
    }
    let Some(config) = common else {
        let problem = "expected at least one shard, got none; name their folders".to_owned();
        return Err(ExperimentError::Merge { path: into.to_owned(), problem });
    };
    let each = images_of_a_session(&config);
    if let Some(((arm, case), (session, shard))) = sessions.iter().find(|(_, (session, _))| session.len() != each) {
        let got = session.len();
        let problem = format!(
            "expected {each} images of arm {arm}, prompt {case}, got {got}; resume the shard with the command that began it"
        );
        return Err(ExperimentError::Merge { path: shard.to_path_buf(), problem });
    }
    let mut folder = RunFolder::open(into, &config, each)?;
    let mut merged = 0;
    for ((arm, case), (session, shard)) in sessions {
        if !folder.is_done(&arm, case) {
            copy_images(&session, shard, into)?;
            RoundAttention::copy(shard, into, &arm, case)?;
            folder.append(&session)?;
            merged += 1;
        }
    }
    Ok(merged)
}

/// Copies the kept images of a session, and its condition image if it has one.
fn copy_images(session: &[ImageRecord], from: &Path, into: &Path) -> Result<(), ExperimentError> {
    let condition = |record: &ImageRecord| record.adapter.as_ref().and_then(|adapter| adapter.condition.clone());
    let conditions: BTreeSet<String> = session.iter().filter_map(condition).collect();
    for file in session.iter().filter_map(|record| record.file.as_ref()).chain(&conditions) {
        let (source, copy) = (from.join(file), into.join(file));
        make_folder_of(&copy).map_err(ExperimentError::io(&copy, "make the folder of the file"))?;
        fs::copy(&source, &copy).map_err(ExperimentError::io(&source, "copy the image"))?;
    }
    Ok(())
}
