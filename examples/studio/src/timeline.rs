//! Times of a round, which the library reports, and its peak memory, which the worker notes in the report.

use fabric::core::session::Round;
use serde::Serialize;
use serde_json::Value;

/// Name of the entry of the peak memory in a round's report.
const ENTRY: &str = "studio_peak_memory";

/// Times of a round in seconds, named as in the library's report, and its peak memory.
#[derive(Debug, Serialize)]
pub(crate) struct Timeline {
    text_seconds: f64,
    encode_seconds: f64,
    /// Time of each evaluation of the U-Net.
    step_seconds: Vec<f64>,
    decode_seconds: f64,
    /// Largest resident memory of the process in bytes. `None` if the system did not tell it.
    peak_memory: Option<u64>,
}

impl Timeline {
    /// Returns the timeline of a round. Times that the report of another program does not have are 0.
    pub(crate) fn of(round: &Round) -> Self {
        let report = &round.report;
        let seconds = |name: &str| report[name].as_f64().unwrap_or_default();
        let steps = report["step_seconds"].as_array().into_iter().flatten();
        Self {
            text_seconds: seconds("text_seconds"),
            encode_seconds: seconds("encode_seconds"),
            step_seconds: steps.filter_map(Value::as_f64).collect(),
            decode_seconds: seconds("decode_seconds"),
            peak_memory: report[ENTRY].as_u64(),
        }
    }

    /// Sum of all times, to a thousandth.
    pub(crate) fn seconds(&self) -> f64 {
        let steps: f64 = self.step_seconds.iter().sum();
        ((self.text_seconds + self.encode_seconds + steps + self.decode_seconds) * 1e3).round() / 1e3
    }
}

/// Returns a report with the peak memory in bytes as an entry, if it is known.
pub(crate) fn noted_in(mut report: Value, peak_memory: Option<u64>) -> Value {
    if let (Some(entries), Some(bytes)) = (report.as_object_mut(), peak_memory) {
        entries.insert(ENTRY.to_owned(), bytes.into());
    }
    report
}

#[cfg(test)]
mod tests {
    use fabric::core::image::Image;
    use fabric::core::session::FeedbackSession;
    use serde_json::json;

    use super::*;

    fn timeline(report: Value) -> Timeline {
        let image = Image::filled(4, 4, [1, 2, 3]).expect("an image");
        let round = FeedbackSession::new("a star").push_round(vec![(image, 1)], report);
        Timeline::of(&round.expect("a round"))
    }

    #[test]
    fn a_timeline_has_the_times_of_the_report_and_the_noted_peak() {
        let report = json!({"text_seconds": 0.5, "step_seconds": [0.25, 0.125], "decode_seconds": 1.0});
        let noted = timeline(noted_in(report.clone(), Some(1024)));
        assert_eq!((noted.step_seconds.len(), noted.seconds(), noted.peak_memory), (2, 1.875, Some(1024)));
        assert_eq!(noted_in(report.clone(), None), report, "an unknown peak is not noted");
    }

    #[test]
    fn a_report_of_another_program_has_no_times() {
        for report in [Value::Null, json!([]), json!("a folder"), json!({"step_seconds": 3, "text_seconds": "x"})] {
            let other = timeline(noted_in(report, None));
            assert_eq!((other.step_seconds.len(), other.seconds(), other.peak_memory), (0, 0.0, None));
        }
    }
}
