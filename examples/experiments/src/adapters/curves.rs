//! Charts of an adapter's scale: images made without a text and with one.

use super::tables::find;
use super::{AdapterCases, AdapterExperiment};
use crate::estimate::caption_end;
use crate::report::{Chart, Point, Series};
use crate::{Group, Measure, SummaryRow};

/// Measures that have a chart.
const DRAWN: [Measure; 5] =
    [Measure::ToCondition, Measure::ToCaption, Measure::ToText, Measure::AskedShown, Measure::TextShown];

/// Returns a chart per measure, with a curve over the scales for the arms without a text and one for those with it. An
/// arm without an adapter is one of scale 0. Empty for the experiment with instructions, which has one scale.
pub(super) fn scale_curves(experiment: &AdapterExperiment, rows: &[SummaryRow]) -> Vec<Chart> {
    if experiment.cases != AdapterCases::Scenes {
        return Vec::new();
    }
    let of = |measure: Measure| {
        let series = |(name, uses_text): (&str, bool)| {
            let arms = experiment.arms.iter().filter(|arm| arm.uses_text == uses_text);
            let mut points: Vec<Point> = arms
                .filter_map(|arm| {
                    let value = find(rows, Group::default(), &arm.name, measure)?.value;
                    let (x, [low, high]) = (f64::from(arm.scale.unwrap_or(0.0)), value.drawn_interval());
                    Some(Point { x, mean: value.mean, low, high })
                })
                .collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series { name: name.to_owned(), points }
        };
        let name = measure.name();
        let drawn = rows.iter().filter(|row| row.measure == measure && row.group == Group::default());
        let end = caption_end(drawn.map(|row| row.value), ", with 95 % intervals");
        let series = [("without text", false), ("with text", true)].map(series).into_iter();
        Chart {
            caption: format!("{name} by scale{end}"),
            x_label: "scale".to_owned(),
            y_label: "percent".to_owned(),
            series: series.filter(|series| !series.points.is_empty()).collect(),
        }
    };
    DRAWN.map(of).into_iter().filter(|chart| !chart.series.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Estimate;

    fn row(arm: &str, measure: Measure, mean: f64) -> SummaryRow {
        let value = Estimate { mean, interval: Some([mean - 1.0, mean + 1.0]) };
        SummaryRow {
            group: Group::default(),
            arm: arm.to_owned(),
            round: 0,
            measure,
            cases: 20,
            value,
            difference: None,
        }
    }

    #[test]
    fn arms_are_points_at_their_scales_and_the_control_is_at_0() {
        let experiment = AdapterExperiment::named("image-prompt").expect("an experiment");
        let rows: Vec<SummaryRow> = [
            ("scale 1", 90.0),
            ("scale 0.25", 60.0),
            ("scale 1 with text", 80.0),
            ("text only", 40.0),
            ("scale 0.5 with text", 70.0),
        ]
        .map(|(arm, mean)| row(arm, Measure::ToCondition, mean))
        .into();
        let charts = scale_curves(&experiment, &rows);
        assert_eq!(charts.len(), 1, "measures without values have no chart");
        let points = |at: usize| -> Vec<(f64, f64)> {
            charts[0].series[at].points.iter().map(|point| (point.x, point.mean)).collect()
        };
        assert_eq!(points(0), [(0.25, 60.0), (1.0, 90.0)]);
        assert_eq!(points(1), [(0.0, 40.0), (0.5, 70.0), (1.0, 80.0)]);
        let instruct = AdapterExperiment::named("instruct").expect("an experiment");
        assert!(scale_curves(&instruct, &[row("instruct", Measure::ToCondition, 1.0)]).is_empty());
    }
}
