//! Errors of reports.

use std::io;
use std::path::PathBuf;

use fabric::core::image::ImageError;
use fabric::core::printable_value;

/// Error when rendering or writing a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A heat map has too few or too many rows.
    #[error(
        "`{caption}`: expected {expected} rows of values, got {got}; give one row per name",
        caption = printable_value(.caption)
    )]
    Rows {
        /// Caption of the heat map.
        caption: String,
        /// Number of names of rows.
        expected: usize,
        /// Number of rows of values.
        got: usize,
    },
    /// A row has too few or too many cells.
    #[error(
        "`{caption}`, row {row}: expected {expected} cells, got {got}; give one cell per column",
        caption = printable_value(.caption)
    )]
    Cells {
        /// Caption of the table or heat map.
        caption: String,
        /// Index of the row, from 0.
        row: usize,
        /// Number of columns.
        expected: usize,
        /// Number of cells in the row.
        got: usize,
    },
    /// A chart cannot be drawn.
    #[error(
        "chart `{caption}` cannot be drawn: {source}",
        caption = printable_value(.caption), source = printable_value(.source)
    )]
    Chart {
        /// Caption of the chart.
        caption: String,
        /// Error of the drawing library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image cannot be encoded.
    #[error(
        "`{caption}`, round {round}, image {image} cannot be encoded: {source}",
        caption = printable_value(.caption), source = printable_value(.source)
    )]
    Image {
        /// Caption of the session.
        caption: String,
        /// Round, from 1.
        round: usize,
        /// Image of the round, from 1.
        image: usize,
        /// Error of the encoder.
        source: ImageError,
    },
    /// The file cannot be written.
    #[error(
        "report `{}` cannot be written: {source}; check the folder, its permissions and free space",
        printable_value(path.display()), source = printable_value(.source)
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}
