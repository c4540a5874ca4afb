//! The folder of a run: its configuration, its records, and what is left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Seek, Write};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{ExperimentError, ImageRecord};

/// Name of the configuration's file.
const CONFIG: &str = "config.json";
/// Name of the records' file.
const RECORDS: &str = "images.jsonl";

/// Folder of a run, open for writing. Only one process can have it open.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    records: File,
    done: BTreeSet<(String, usize)>,
    /// Held while the folder is open; the operating system releases it with the process.
    _lock: File,
}

/// Returns the hash of a configuration, the same on every machine.
pub fn config_hash(config: &Value) -> String {
    // `Value` keeps the keys of objects sorted.
    let digest = Sha256::digest(config.to_string());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl RunFolder {
    /// Opens a folder for a run with this configuration, or resumes the run that it holds.
    ///
    /// Records of sessions that were not finished are removed: the session is run again. `each` is the number of
    /// images of a session.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder holds a run of another configuration, another process works in it, or a file
    /// cannot be read or written.
    pub fn open(path: &Path, config: &Value, each: usize) -> Result<Self, ExperimentError> {
        fs::create_dir_all(path).map_err(ExperimentError::io(path, "make the folder"))?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(ExperimentError::io(&lock_path, "make the file"))?;
        lock.try_lock().map_err(|error| ExperimentError::Io {
            path: path.to_owned(),
            doing: "start a run here, because another process works in this folder",
            source: error.into(),
        })?;
        check_config(&path.join(CONFIG), config)?;
        let records_path = path.join(RECORDS);
        let (done, end) = finished(&records_path, &config_hash(config), each)?;
        let doing = "write the records";
        let mut records = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&records_path)
            .map_err(ExperimentError::io(&records_path, doing))?;
        records.set_len(end).map_err(ExperimentError::io(&records_path, doing))?;
        records.seek(std::io::SeekFrom::End(0)).map_err(ExperimentError::io(&records_path, doing))?;
        Ok(Self { path: path.to_owned(), records, done, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the session of this arm and case is recorded.
    pub fn is_done(&self, arm: &str, case: usize) -> bool {
        self.done.contains(&(arm.to_owned(), case))
    }

    /// Records a finished session.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written, as on a full disk. What was recorded before is kept, and the
    /// session will be run again.
    pub fn append(&mut self, session: &[ImageRecord]) -> Result<(), ExperimentError> {
        let mut lines = String::new();
        for record in session {
            lines.push_str(&serde_json::to_string(record).expect("a record is plain data"));
            lines.push('\n');
        }
        let path = self.path.join(RECORDS);
        self.records.write_all(lines.as_bytes()).map_err(ExperimentError::io(&path, "write a record"))?;
        self.records.sync_data().map_err(ExperimentError::io(&path, "write a record"))?;
        self.done.extend(session.first().map(|record| (record.arm.clone(), record.case)));
        Ok(())
    }
}

/// Returns the number of images of a session, from a run's configuration.
pub(crate) fn images_of_a_session(config: &Value) -> usize {
    let number = |name: &str| config[name].as_u64().unwrap_or(1) as usize;
    number("rounds") * number("images")
}

/// Reads the configuration and all records of a run.
///
/// # Errors
///
/// Returns an error if a file is missing or damaged.
pub fn read_run(path: &Path) -> Result<(Value, Vec<ImageRecord>), ExperimentError> {
    let config_path = path.join(CONFIG);
    let text = fs::read_to_string(&config_path).map_err(ExperimentError::io(&config_path, "read the configuration"))?;
    let config = serde_json::from_str(&text).map_err(|error| record_error(&config_path, error.line(), &error))?;
    let records_path = path.join(RECORDS);
    let file = File::open(&records_path).map_err(ExperimentError::io(&records_path, "read the records"))?;
    let mut records = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(ExperimentError::io(&records_path, "read the records"))?;
        let record = serde_json::from_str(&line).map_err(|error| record_error(&records_path, number + 1, &error))?;
        check_paths(&record).map_err(|problem| record_error(&records_path, number + 1, &problem))?;
        records.push(record);
    }
    records.sort_by(|a: &ImageRecord, b| a.order().cmp(&b.order()));
    Ok((config, records))
}

/// Checks that the files and folders that a record names lie within the folder of its run: a run can be from somebody
/// else.
fn check_paths(record: &ImageRecord) -> Result<(), String> {
    let condition = record.adapter.as_ref().and_then(|adapter| adapter.condition.as_ref());
    for (what, name) in [("file", record.file.as_ref()), ("condition", condition), ("arm", Some(&record.arm))] {
        let is_within = |name: &String| {
            let mut parts = Path::new(name).components();
            parts.all(|part| matches!(part, Component::Normal(_))) && !name.contains('\\')
        };
        if let Some(name) = name.filter(|name| !is_within(name)) {
            return Err(format!("{what}: expected a name within the folder of the run, got {name:?}"));
        }
    }
    Ok(())
}

/// Writes the configuration of a new run, or compares it with that of the run in the folder.
fn check_config(path: &Path, config: &Value) -> Result<(), ExperimentError> {
    if !path.exists() {
        let text = serde_json::to_string_pretty(config).expect("a configuration is plain data");
        let temporary = path.with_extension("json.new");
        fs::write(&temporary, text).map_err(ExperimentError::io(&temporary, "write the configuration"))?;
        return fs::rename(&temporary, path).map_err(ExperimentError::io(path, "write the configuration"));
    }
    let text = fs::read_to_string(path).map_err(ExperimentError::io(path, "read the configuration"))?;
    let there: Value = serde_json::from_str(&text).map_err(|error| record_error(path, error.line(), &error))?;
    if there == *config {
        return Ok(());
    }
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", &there, &mut old);
    flatten("", config, &mut new);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| format!("{name} was {} and is now {}", shown(old.get(name)), shown(new.get(name))))
        .collect();
    let folder = path.parent().unwrap_or(path).to_owned();
    Err(ExperimentError::OtherSettings { path: folder, differences: differences.join(", ") })
}

/// Lists the values of nested JSON by their paths.
pub(crate) fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let under = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&under(name), value, into)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| flatten(&under(&at.to_string()), value, into));
        }
        _ => {
            into.insert(prefix.to_owned(), value.clone());
        }
    }
}

/// Returns the finished sessions in a file of records, and the length in bytes of their records.
///
/// Sessions are written whole and one after the other, so only the last one can be unfinished.
fn finished(path: &Path, config: &str, each: usize) -> Result<(BTreeSet<(String, usize)>, u64), ExperimentError> {
    let mut done = BTreeSet::new();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((done, 0)),
        // Anything else must not pass for an empty file: the records would be cut off.
        Err(error) => return Err(ExperimentError::io(path, "read the records")(error)),
    };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut end = 0;
    for (number, session) in lines.chunks(each).enumerate() {
        let whole = session.len() == each && session.iter().all(|line| line.ends_with(b"\n"));
        if !whole {
            break;
        }
        let mut first: Option<ImageRecord> = None;
        for (at, line) in session.iter().enumerate() {
            let line_number = number * each + at + 1;
            let record: ImageRecord =
                serde_json::from_slice(line).map_err(|error| record_error(path, line_number, &error))?;
            check_paths(&record).map_err(|problem| record_error(path, line_number, &problem))?;
            let first = first.get_or_insert_with(|| record.clone());
            if (record.config.as_str(), &record.arm, record.case) != (config, &first.arm, first.case) {
                let got = format!("one of configuration {}, arm {}, case {}", record.config, record.arm, record.case);
                return Err(record_error(path, line_number, &got));
            }
        }
        if let Some(first) = first
            && !done.insert((first.arm.clone(), first.case))
        {
            let got = format!("arm {}, case {} for the second time", first.arm, first.case);
            return Err(record_error(path, number * each + 1, &got));
        }
        end += session.iter().map(|line| line.len() as u64).sum::<u64>();
    }
    Ok((done, end))
}

fn record_error(path: &Path, line: usize, got: &dyn std::fmt::Display) -> ExperimentError {
    ExperimentError::Record { path: path.to_owned(), line, got: got.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(config: &Value, arm: &str, case: usize, image: usize) -> ImageRecord {
        ImageRecord {
            config: config_hash(config),
            arm: arm.to_owned(),
            case,
            prompt: "a star".to_owned(),
            round: 0,
            image,
            seed: 1,
            score: Some(0.1 + 0.2),
            liked_similarity: None,
            disliked_similarity: None,
            liked_kept: None,
            liked_copied: None,
            disliked_repeated: None,
            diversity: Some(0.5),
            vote: None,
            file: None,
            origin: None,
            adapter: None,
            reasons: Vec::new(),
            wanted: BTreeMap::new(),
        }
    }

    fn session(config: &Value, arm: &str, case: usize) -> Vec<ImageRecord> {
        (0..2).map(|image| record(config, arm, case, image)).collect()
    }

    #[test]
    fn a_killed_run_loses_and_doubles_nothing() {
        let place = tempfile::tempdir().expect("a folder");
        let config = json!({ "rounds": 1 });
        let mut folder = RunFolder::open(place.path(), &config, 2).expect("a folder");
        folder.append(&session(&config, "a", 0)).expect("a record");
        folder.append(&session(&config, "b", 0)).expect("a record");
        drop(folder);
        let path = place.path().join(RECORDS);
        let whole = fs::read(&path).expect("records");
        // Killed at any byte of the second session.
        let first = whole.len() / 2;
        for cut in first..whole.len() {
            fs::write(&path, &whole[..cut]).expect("a cut file");
            let mut folder = RunFolder::open(place.path(), &config, 2).expect("a folder");
            assert!(folder.is_done("a", 0) && !folder.is_done("b", 0), "{cut}");
            folder.append(&session(&config, "b", 0)).expect("a record");
            drop(folder);
            assert_eq!(fs::read(&path).expect("records"), whole, "{cut}");
        }
        assert_eq!(read_run(place.path()).expect("a run").1.len(), 4);
    }

    #[test]
    fn records_that_lead_out_of_their_folder_are_refused_by_line() {
        let place = tempfile::tempdir().expect("a folder");
        let config = json!({ "rounds": 1 });
        let path = place.path().join(RECORDS);
        for name in ["../a.png", "/etc/passwd", "images/../../a.png", "C:\\a.png"] {
            for in_file in [true, false] {
                let mut lines = session(&config, "a", 0);
                if in_file {
                    lines[1].file = Some(name.to_owned());
                } else {
                    lines[1].arm = name.to_owned();
                }
                drop(RunFolder::open(place.path(), &config, 2).expect("a folder"));
                let lines = lines.iter().map(|line| serde_json::to_string(line).expect("plain data") + "\n");
                fs::write(&path, lines.collect::<String>()).expect("written");
                let messages = [
                    read_run(place.path()).expect_err(name).to_string(),
                    RunFolder::open(place.path(), &config, 2).expect_err(name).to_string(),
                ];
                for message in messages {
                    assert!(message.contains("within the folder of the run"), "{message}");
                }
                fs::write(&path, "").expect("emptied");
            }
        }
    }

    #[test]
    fn a_run_with_other_settings_is_refused_with_the_difference() {
        let place = tempfile::tempdir().expect("a folder");
        drop(RunFolder::open(place.path(), &json!({ "rounds": 1, "arms": [{ "end": 0.5 }] }), 2).expect("a folder"));
        let other = json!({ "rounds": 2, "arms": [{ "end": 0.8 }] });
        let error = RunFolder::open(place.path(), &other, 2).expect_err("other settings").to_string();
        assert!(
            error.contains("rounds was 1 and is now 2") && error.contains("arms.0.end was 0.5 and is now 0.8"),
            "{error}"
        );
    }

    #[test]
    fn records_that_cannot_be_read_are_not_cut_off() {
        let place = tempfile::tempdir().expect("a folder");
        let config = json!({});
        drop(RunFolder::open(place.path(), &config, 2).expect("a folder"));
        let path = place.path().join(RECORDS);
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder in place of the file");
        let error = RunFolder::open(place.path(), &config, 2).expect_err("it cannot be read").to_string();
        assert!(error.contains("cannot read the records"), "{error}");
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let open = || RunFolder::open(place.path(), &json!({}), 2);
        let first = open().expect("a folder");
        assert!(open().expect_err("it is open").to_string().contains("another process"));
        drop(first);
        assert!(open().is_ok());
    }

    #[test]
    fn damaged_and_doubled_records_are_named_by_line() {
        let place = tempfile::tempdir().expect("a folder");
        let config = json!({});
        drop(RunFolder::open(place.path(), &config, 2).expect("a folder"));
        let path = place.path().join(RECORDS);
        let line = |record: &ImageRecord| serde_json::to_string(record).expect("plain data") + "\n";
        let good: String = session(&config, "a", 0).iter().map(line).collect();
        let foreign: String = session(&json!(1), "b", 0).iter().map(line).collect();
        for (text, number, says) in [
            (format!("{good}{{\n{{\n"), 3, "EOF"),
            (format!("{good}{good}"), 3, "second time"),
            (format!("{good}{foreign}"), 3, "configuration"),
        ] {
            fs::write(&path, text).expect("records");
            let error = RunFolder::open(place.path(), &config, 2).expect_err(says).to_string();
            assert!(error.contains(&format!("line {number}")) && error.contains(says), "{error}");
        }
    }
}
