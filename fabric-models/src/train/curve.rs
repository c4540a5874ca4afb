//! Loss curves as CSV and SVG.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::TrainError;
use crate::load::{LoadError, write_text};

/// Losses of a run, which can be written as CSV and SVG.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossCurve {
    /// Pairs of step (counted from 1) and loss.
    pub points: Vec<(u64, f64)>,
}

/// File of the losses in the folder of a run.
const CSV: &str = "loss.csv";
/// Maximum length of a line of that file: a step of up to 10 digits, and a loss of up to 24 characters.
const LINE_BYTES: u64 = 40;

/// Size of the SVG in pixels, and the margin for labels.
const SIZE: [f64; 2] = [720.0, 360.0];
const MARGIN: f64 = 48.0;
/// Approximate number of points of the smoothed line.
const SMOOTHING: usize = 50;

impl LossCurve {
    /// Formats the losses as CSV with a header.
    pub fn csv(&self) -> String {
        let mut text = "step,loss\n".to_owned();
        for (step, loss) in &self.points {
            // `{:?}` of a float round-trips.
            let _ = writeln!(text, "{step},{loss:?}");
        }
        text
    }

    /// Parses the format of [`Self::csv`]; skips lines that are not a step and a loss.
    pub fn from_csv(text: &str) -> Self {
        let point = |line: &str| {
            let (step, loss) = line.split_once(',')?;
            Some((step.parse().ok()?, loss.parse().ok()?))
        };
        Self { points: text.lines().filter_map(point).collect() }
    }

    /// Reads the losses that a run of so many steps has saved in its folder; without a file, there are none.
    pub(super) fn read(folder: &Path, steps: u64) -> Result<Self, TrainError> {
        let path = folder.join(CSV);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(LoadError::io(&path, "open", error).into()),
        };
        // The header is no longer than a line.
        let most = LINE_BYTES.saturating_mul(steps.saturating_add(1));
        let mut text = Vec::new();
        file.take(most.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(|error| LoadError::io(&path, "read", error))?;
        if text.len() as u64 > most {
            let expected = format!("at most {most} bytes for {steps} steps");
            let next = "move the file away, and the run goes on without its earlier losses";
            return Err(LoadError::malformed(&path, "losses of the run", "more", expected, next).into());
        }
        Ok(Self::from_csv(&String::from_utf8_lossy(&text)))
    }

    /// Draws the losses as dots and their mean over consecutive windows as a line, on a logarithmic axis.
    pub fn svg(&self, title: &str) -> String {
        let [width, height] = SIZE;
        let drawn: Vec<(u64, f64)> = self.points.iter().copied().filter(|(_, loss)| *loss > 0.0).collect();
        let low = drawn.iter().fold(f64::INFINITY, |m, p| m.min(p.1)).ln();
        let high = drawn.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.1)).ln();
        let last = drawn.last().map_or(1, |p| p.0).max(1) as f64;
        let x = |step: u64| MARGIN + step as f64 / last * (width - 2.0 * MARGIN);
        let y = |loss: f64| height - MARGIN - (loss.ln() - low) / (high - low).max(1e-9) * (height - 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{title}</text>\n"
        );
        if drawn.is_empty() {
            svg.push_str("</svg>\n");
            return svg;
        }
        for (loss, at) in [(low.exp(), height - MARGIN), (high.exp(), MARGIN)] {
            let _ = writeln!(svg, "<text x=\"4\" y=\"{at:.0}\">{loss:.3}</text>");
        }
        let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\">step {last}</text>", width - 2.0 * MARGIN, height - 16.0);
        // At most one dot per horizontal pixel keeps the file small.
        let every = drawn.len().div_ceil(SIZE[0] as usize);
        for (step, loss) in drawn.iter().step_by(every) {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1\" fill=\"#9bd\"/>", x(*step), y(*loss));
        }
        let window = drawn.len().div_ceil(SMOOTHING);
        let mean = drawn.chunks(window).map(|part| {
            let loss = part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64;
            format!("{:.1},{:.1}", x(part[part.len() / 2].0), y(loss))
        });
        let line = mean.collect::<Vec<_>>().join(" ");
        let _ = writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"#136\" stroke-width=\"2\"/>\n</svg>");
        svg
    }

    /// Writes `loss.csv` and `loss.svg`, each atomically.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written.
    pub fn save(&self, folder: &Path, title: &str) -> Result<(), TrainError> {
        write_text(&folder.join(CSV), &self.csv())?;
        write_text(&folder.join("loss.svg"), &self.svg(title))?;
        Ok(())
    }
}
