//! Tables.

use std::fmt;

use maud::{Markup, html};

use super::ReportError;

/// A table of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Text above the table.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// The rows, one cell per column. The first cell names the row.
    pub rows: Vec<Vec<String>>,
}

/// Formats the table as text, with `|` between the cells.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caption, head, rows } = self;
        writeln!(f, "{caption}\n\n| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()))?;
        rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// Renders a table, which scrolls sideways where the page is narrower.
pub(super) fn table(table: &Table) -> Result<Markup, ReportError> {
    for (row, cells) in table.rows.iter().enumerate() {
        check_cells(&table.caption, row, cells.len(), table.head.len())?;
    }
    Ok(html! {
        figure {
            figcaption { (table.caption) }
            (cells(&table.head, &table.rows))
        }
    })
}

/// Renders the cells of a table, without its caption.
pub(super) fn cells(head: &[String], rows: &[Vec<String>]) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table {
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (column, cell) in row.iter().enumerate() {
                                @if column == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Checks that a row has one cell per column.
pub(super) fn check_cells(caption: &str, row: usize, got: usize, expected: usize) -> Result<(), ReportError> {
    if got == expected { Ok(()) } else { Err(ReportError::Cells { caption: caption.to_owned(), row, expected, got }) }
}
