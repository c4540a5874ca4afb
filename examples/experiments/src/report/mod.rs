//! The report of a run: one HTML file with tables, charts and images, which loads nothing from elsewhere.
//!
//! | part | file |
//! |---|---|
//! | the page and its order | `page.rs` |
//! | tables and heat maps, as HTML tables | `table.rs`, `heat_map.rs` |
//! | charts, as SVG, within the page and as files | `chart.rs`, `chart_file.rs` |
//! | images of sessions, as PNG in base64 | `session.rs` |

mod chart;
mod chart_file;
mod error;
mod heat_map;
mod number;
mod page;
mod session;
mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use chart::{Chart, Point, Series};
pub use chart_file::write_charts;
pub use error::ReportError;
pub use heat_map::HeatMap;
pub use session::{SessionImage, SessionRows};
pub use table::Table;

use crate::files::write_beside;

/// Content of a report. All texts are plain text, not HTML. Empty parts are left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReportInput<'a> {
    /// Title: "FABRIC 5.1: feedback from a preference model".
    pub title: &'a str,
    /// Sentences that judge the results, printed first.
    pub summary: &'a [String],
    /// Command line that reproduces the run.
    pub command: &'a str,
    /// Names and values of the settings.
    pub settings: &'a [(String, String)],
    /// The tables.
    pub tables: &'a [Table],
    /// Tables of numbers that are coloured as heat maps, shown with the results.
    pub matrices: &'a [HeatMap],
    /// The charts.
    pub curves: &'a [Chart],
    /// The heat maps.
    pub heat_maps: &'a [HeatMap],
    /// Images that show where references acted.
    pub attention: &'a [SessionRows<'a>],
    /// Sessions, with their images.
    pub sessions: &'a [SessionRows<'a>],
}

/// Returns the report as HTML.
///
/// Numbers that are not finite are printed as "-" and left out of charts. The memory needed is about that of all
/// images as PNG files, times four thirds.
///
/// # Errors
///
/// Returns an error if a row of a table or heat map does not have one cell per column, or an image or chart cannot be
/// encoded.
pub fn render(input: &ReportInput<'_>) -> Result<String, ReportError> {
    Ok(page::page(input)?.into_string())
}

/// Writes the report to `path`. An older file is replaced atomically: after an error, it has its old content.
///
/// # Errors
///
/// Returns the errors of [`render`], and an error if the file cannot be written.
pub fn write(input: &ReportInput<'_>, path: impl AsRef<Path>) -> Result<(), ReportError> {
    let path = path.as_ref();
    let html = render(input)?;
    write_beside(path, html.as_bytes()).map_err(|source| ReportError::Write { path: path.to_owned(), source })
}
