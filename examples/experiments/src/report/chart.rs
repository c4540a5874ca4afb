//! Charts of means with their intervals, as SVG.

use std::error::Error;
use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, Cross, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, PathElement, Polygon, RGBColor,
    SVGBackend, ShapeStyle, TRANSPARENT, TriangleMarker,
};
use plotters::style::{Color, TextStyle};

use super::ReportError;
use super::number::{is_whole, number, short_number};
use super::table::cells;

/// A chart of lines with intervals.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// Text above the chart.
    pub caption: String,
    /// Name of the horizontal axis.
    pub x_label: String,
    /// Name of the vertical axis.
    pub y_label: String,
    /// The lines.
    pub series: Vec<Series>,
}

/// A line of a chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// The points, in the order of `x`. A mean that is not finite interrupts the line, a limit that is not finite the
    /// band around it.
    pub points: Vec<Point>,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// Horizontal position.
    pub x: f64,
    /// The value.
    pub mean: f64,
    /// Lower limit of the interval.
    pub low: f64,
    /// Upper limit of the interval.
    pub high: f64,
}

/// Size of the drawing. It is about twice the size on the page, since plotters rounds to whole units.
pub(super) const SIZE: (u32, u32) = (1440, 720);
const TEXT_SIZE: i32 = 34;
const LINE_WIDTH: u32 = 4;
const MARKER_SIZE: i32 = 9;

/// Colour of axes. It and the colours of lines are readable on white and on black; the style sheet colours the text.
const GREY: RGBColor = RGBColor(128, 128, 128);
const COLOURS: [RGBColor; 8] = [
    RGBColor(42, 120, 196),
    RGBColor(217, 95, 2),
    RGBColor(27, 148, 108),
    RGBColor(190, 80, 160),
    RGBColor(150, 115, 30),
    RGBColor(95, 105, 225),
    RGBColor(95, 140, 30),
    RGBColor(215, 65, 80),
];

/// Shape of a line's points, so that lines are told apart without their colours. There are three shapes and eight
/// colours, so the first 24 lines of a chart all differ.
#[derive(Clone, Copy)]
pub(super) enum Marker {
    Circle,
    Triangle,
    Cross,
}

impl Marker {
    pub(super) fn of(index: usize) -> Self {
        [Self::Circle, Self::Triangle, Self::Cross][index % 3]
    }

    /// Returns the sign in the legend.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Circle => "●",
            Self::Triangle => "▲",
            Self::Cross => "✕",
        }
    }
}

pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Renders a chart with its legend and its values as a table that can be unfolded.
pub(super) fn chart(chart: &Chart) -> Result<Markup, ReportError> {
    let svg = svg(chart).map_err(|source| ReportError::Chart { caption: chart.caption.clone(), source })?;
    let head = ["Line", &chart.x_label, &chart.y_label, "Low", "High"].map(str::to_owned);
    let values =
        |name: &str, p: &Point| vec![name.to_owned(), short_number(p.x), number(p.mean), number(p.low), number(p.high)];
    let rows: Vec<_> = chart.series.iter().flat_map(|s| s.points.iter().map(|p| values(&s.name, p))).collect();
    Ok(html! {
        figure {
            figcaption { (chart.caption) }
            div.chart role="img" aria-label=(chart.caption) { (PreEscaped(svg)) }
            ul.legend {
                @for (index, series) in chart.series.iter().enumerate() {
                    @let RGBColor(red, green, blue) = colour(index);
                    li {
                        span style={ "color: rgb(" (red) " " (green) " " (blue) ")" } { (Marker::of(index).sign()) }
                        " " (series.name)
                    }
                }
            }
            @if rows.is_empty() {
                p.note { "There are no values." }
            } @else {
                details { summary { "Values" } (cells(&head, &rows)) }
            }
        }
    })
}

/// Draws a chart. Its texts are escaped by plotters.
pub(super) fn svg(chart: &Chart) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw(chart, &area)?;
    area.present()?;
    drop(area);
    Ok(svg)
}

fn draw(chart: &Chart, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let drawn: Vec<Vec<&[Point]>> = chart.series.iter().map(|series| runs(&series.points, has_mean)).collect();
    let points = || drawn.iter().flatten().copied().flatten();
    let whole = points().all(|point| is_whole(point.x));
    let xs = bounds(points().map(|point| point.x), whole);
    let ys = bounds(points().flat_map(|p| [p.mean, p.low, p.high]).filter(|y| is_drawn(*y)), false);

    let text = TextStyle::from(("sans-serif", TEXT_SIZE).into_font()).color(&GREY);
    let mut context = ChartBuilder::on(area)
        .margin(15)
        .x_label_area_size(100)
        .y_label_area_size(160)
        .build_cartesian_2d(xs.clone(), ys.clone())?;
    context
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GREY.mix(0.35))
        .light_line_style(TRANSPARENT)
        .axis_style(GREY)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(chart.x_label.as_str())
        .y_desc(chart.y_label.as_str())
        .x_labels(10)
        .y_labels(8)
        .x_label_formatter(&|x| if whole { whole_tick(*x) } else { tick(*x, &xs) })
        .y_label_formatter(&|y| tick(*y, &ys))
        .draw()?;

    // Intervals first, so that they cover no line.
    for (index, runs_of_series) in drawn.iter().enumerate() {
        for run in runs_of_series.iter().flat_map(|run| runs(run, has_interval)) {
            let limits = run.iter().map(|p| (p.x, p.high)).chain(run.iter().rev().map(|p| (p.x, p.low)));
            let limits: Vec<_> = limits.collect();
            if run.len() > 1 {
                context.draw_series([Polygon::new(limits, colour(index).mix(0.15))])?;
            } else {
                context.draw_series([PathElement::new(limits, colour(index).stroke_width(LINE_WIDTH))])?;
            }
        }
    }
    for (index, runs_of_series) in drawn.iter().enumerate() {
        let line = colour(index).stroke_width(LINE_WIDTH);
        let filled: ShapeStyle = colour(index).filled();
        for run in runs_of_series {
            context.draw_series(LineSeries::new(run.iter().map(|p| (p.x, p.mean)), line))?;
            let centres = run.iter().map(|p| (p.x, p.mean));
            match Marker::of(index) {
                Marker::Circle => context.draw_series(centres.map(|at| Circle::new(at, MARKER_SIZE, filled)))?,
                Marker::Triangle => {
                    context.draw_series(centres.map(|at| TriangleMarker::new(at, MARKER_SIZE + 3, filled)))?
                }
                Marker::Cross => context.draw_series(centres.map(|at| Cross::new(at, MARKER_SIZE, line)))?,
            };
        }
    }
    Ok(())
}

/// Returns the longest runs of points that satisfy the condition.
fn runs(points: &[Point], condition: fn(&Point) -> bool) -> Vec<&[Point]> {
    points.split(|point| !condition(point)).filter(|run| !run.is_empty()).collect()
}

fn has_mean(point: &Point) -> bool {
    is_drawn(point.x) && is_drawn(point.mean)
}

fn has_interval(point: &Point) -> bool {
    is_drawn(point.low) && is_drawn(point.high)
}

/// Returns whether a number can be drawn: the difference of two such numbers is far from overflow.
fn is_drawn(value: f64) -> bool {
    value.abs() < 1e100
}

/// Returns the range of an axis, with a margin around the values. `whole`: the values are whole numbers.
fn bounds(values: impl Iterator<Item = f64>, whole: bool) -> Range<f64> {
    let range = values.fold(None, |range: Option<(f64, f64)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    });
    let Some((low, high)) = range else { return 0.0..1.0 };
    let size = low.abs().max(high.abs());
    let mut margin = 0.05 * (high - low);
    if high - low <= 1e-6 * size || size == 0.0 {
        // One value, or several that are nearly the same.
        margin = if size == 0.0 { 1.0 } else { 0.1 * size };
    }
    if whole {
        margin = margin.max(0.3);
    }
    low - margin..high + margin
}

/// Returns the text of a tick: as many decimals as tell the ticks of this range apart.
fn tick(value: f64, range: &Range<f64>) -> String {
    let decimals = 1.0 - (range.end - range.start).log10().floor();
    if decimals > 6.0 || range.start.abs().max(range.end.abs()) >= 1e7 {
        format!("{value:.2e}")
    } else {
        // `decimals` is at most 6. Adding 0 turns -0 into 0.
        format!("{:.*}", decimals.max(0.0) as usize, value + 0.0)
    }
}

/// Returns the text of a tick on an axis of whole numbers, such as rounds: nothing between them.
fn whole_tick(value: f64) -> String {
    let whole = value.round();
    if (value - whole).abs() < 1e-6 { format!("{:.0}", whole + 0.0) } else { String::new() }
}
