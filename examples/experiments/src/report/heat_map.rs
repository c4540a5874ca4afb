//! Heat maps: tables whose cells are coloured by value.

use maud::{Markup, html};

use super::ReportError;
use super::number::number;
use super::table::check_cells;

/// A table of numbers, coloured from the lowest to the highest. If there are numbers of both signs, the colour shows
/// the sign, and its strength the distance from 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatMap {
    /// Text above the table.
    pub caption: String,
    /// Names of the rows.
    pub rows: Vec<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values, one row per name in `rows`, with one value per name in `columns`. Values that are not finite are shown
    /// as "-".
    pub values: Vec<Vec<f64>>,
}

/// Highest opacity of a cell's colour: the text over it stays readable in light and dark mode.
const STRONGEST: f64 = 0.6;

/// From values to colours.
struct Scale {
    lowest: f64,
    highest: f64,
}

impl Scale {
    /// Scale of all finite values, or none if there are none.
    fn of(values: &[Vec<f64>]) -> Option<Self> {
        let mut finite = values.iter().flatten().copied().filter(|value| value.is_finite());
        let first = finite.next()?;
        let (lowest, highest) = finite.fold((first, first), |(low, high), value| (low.min(value), high.max(value)));
        Some(Self { lowest, highest })
    }

    fn has_both_signs(&self) -> bool {
        self.lowest < 0.0 && self.highest > 0.0
    }

    /// Returns the largest distance from 0.
    fn reach(&self) -> f64 {
        self.highest.max(-self.lowest)
    }

    /// Returns the style of a cell, or none if the value is not finite.
    fn style(&self, value: f64) -> Option<String> {
        let strength = if self.has_both_signs() {
            value.abs() / self.reach()
        } else if self.lowest == self.highest {
            0.0
        } else {
            // Halves, so that the difference of two finite values is finite.
            (value / 2.0 - self.lowest / 2.0) / (self.highest / 2.0 - self.lowest / 2.0)
        };
        let colour = if self.has_both_signs() && value < 0.0 { "217 95 2" } else { "42 120 196" };
        strength.is_finite().then(|| format!("background: rgb({colour} / {:.2})", strength * STRONGEST))
    }

    /// Returns a sentence that explains the colours.
    fn legend(&self) -> String {
        if self.has_both_signs() {
            format!("Blue: above 0; orange: below 0. The strongest colour is {} away from 0.", number(self.reach()))
        } else {
            format!("The strongest colour is {}, no colour is {}.", number(self.highest), number(self.lowest))
        }
    }
}

/// Renders a heat map as a table, so that its values can be read and copied.
pub(super) fn heat_map(map: &HeatMap) -> Result<Markup, ReportError> {
    let (expected, got) = (map.rows.len(), map.values.len());
    if got != expected {
        return Err(ReportError::Rows { caption: map.caption.clone(), expected, got });
    }
    for (row, values) in map.values.iter().enumerate() {
        check_cells(&map.caption, row, values.len(), map.columns.len())?;
    }
    let scale = Scale::of(&map.values);
    let style = |value: f64| scale.as_ref().and_then(|scale| scale.style(value));
    Ok(html! {
        figure {
            figcaption { (map.caption) }
            div.scroll tabindex="0" {
                table.heat {
                    thead { tr { td {} @for column in &map.columns { th scope="col" { (column) } } } }
                    tbody {
                        @for (name, values) in map.rows.iter().zip(&map.values) {
                            tr {
                                th scope="row" { (name) }
                                @for &value in values { td style=[style(value)] { (number(value)) } }
                            }
                        }
                    }
                }
            }
            @if let Some(scale) = scale.as_ref().filter(|scale| scale.lowest < scale.highest) { p.note { (scale.legend()) } }
        }
    })
}
