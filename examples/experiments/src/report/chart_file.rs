//! Charts as files of their own, for papers and other pages.

use std::fs;
use std::path::{Path, PathBuf};

use maud::{Markup, PreEscaped, html};
use plotters::style::RGBColor;

use super::chart::{Marker, SIZE, colour, svg};
use super::{Chart, ReportError};
use crate::files::write_beside;

/// Height of a line of the caption or the legend, in the units of the drawing.
const LINE: u32 = 48;

/// Writes each chart as an SVG file with its caption and its legend into a folder, which is created if there are charts,
/// and returns the paths. A file has the caption as its name, with a number if several charts have the same; older files of
/// these names are replaced.
///
/// # Errors
///
/// Returns an error if a chart cannot be drawn, or a file cannot be written.
pub fn write_charts(charts: &[Chart], folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, ReportError> {
    let folder = folder.as_ref();
    if charts.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(folder).map_err(|source| ReportError::Write { path: folder.to_owned(), source })?;
    let mut paths: Vec<PathBuf> = Vec::with_capacity(charts.len());
    for chart in charts {
        let name = file_name(&chart.caption);
        let numbered = |number: usize| if number == 1 { name.clone() } else { format!("{name}-{number}") };
        let free = (1..).map(|number| folder.join(numbered(number) + ".svg")).find(|path| !paths.contains(path));
        let path = free.expect("there are endless numbers");
        write_beside(&path, alone(chart)?.into_string().as_bytes())
            .map_err(|source| ReportError::Write { path: path.clone(), source })?;
        paths.push(path);
    }
    Ok(paths)
}

/// Returns a caption as the name of a file without its ending: letters, digits and dashes, up to the note on its intervals.
fn file_name(caption: &str) -> String {
    let caption = caption.split(['(', ';']).next().unwrap_or_default();
    let words = caption.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    if name.is_empty() { "chart".to_owned() } else { name }
}

/// Draws a chart between its caption and its legend. Grey texts are readable on white and on black.
fn alone(chart: &Chart) -> Result<Markup, ReportError> {
    let drawing = svg(chart).map_err(|source| ReportError::Chart { caption: chart.caption.clone(), source })?;
    let (width, height) = SIZE;
    let below = LINE + height;
    let whole = below + LINE * (chart.series.len() as u32 + 1);
    Ok(html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {width} {whole}")) font-family="sans-serif" font-size="34"
            fill="rgb(128,128,128)" {
            title { (chart.caption) }
            text x=(width / 2) y=(LINE) text-anchor="middle" { (chart.caption) }
            g transform=(format!("translate(0 {LINE})")) { (PreEscaped(drawing)) }
            @for (index, series) in chart.series.iter().enumerate() {
                @let RGBColor(red, green, blue) = colour(index);
                text x="160" y=(below + LINE * (index as u32 + 1)) {
                    tspan fill=(format!("rgb({red},{green},{blue})")) { (Marker::of(index).sign()) }
                    "  " (series.name)
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Point, Series};

    #[test]
    fn a_file_has_the_caption_the_lines_and_their_names_escaped() {
        let point = |x: f64| Point { x, mean: x * 2.0, low: x, high: x * 3.0 };
        let series = |name: &str| Series { name: name.to_owned(), points: vec![point(1.0), point(2.0)] };
        let chart = Chart {
            caption: "mean score per round; 95 % intervals".to_owned(),
            x_label: "round".to_owned(),
            y_label: "score".to_owned(),
            series: vec![series("no feedback"), series("<likes> & dislikes")],
        };
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("charts");
        let charts = [chart.clone(), Chart::default(), chart.clone()];
        let paths = write_charts(&charts, &folder).expect("files");
        let names = ["mean-score-per-round.svg", "chart.svg", "mean-score-per-round-2.svg"];
        assert_eq!(paths, names.map(|name| folder.join(name)));
        let text = fs::read_to_string(&paths[0]).expect("a file");
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>"), "{text:.80}");
        assert_eq!(text.matches("<svg").count(), 2, "the drawing lies within the file's own");
        assert!(text.contains("&lt;likes&gt; &amp; dislikes") && text.contains("no feedback"), "{text}");
        assert_eq!(write_charts(&[chart], &folder).expect("replaced"), paths[..1]);
        let none = place.path().join("none");
        assert!(write_charts(&[], &none).expect("nothing to write").is_empty() && !none.exists());
        let file = write_charts(&[Chart::default()], &paths[0]).expect_err("a file in place of the folder");
        assert!(file.to_string().contains("mean-score-per-round.svg"), "{file}");
    }
}
