//! The page of a report.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{ReportError, ReportInput, chart, heat_map, session, table};

const STYLE: &str = include_str!("report.css");

/// Forbids browsers to load anything: a second guard beside the fact that the page names nothing to load.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// Renders the whole page: judgement first, then numbers, images, and how to reproduce them.
pub(super) fn page(input: &ReportInput<'_>) -> Result<Markup, ReportError> {
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (input.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (input.title) }
                @if !input.summary.is_empty() {
                    ul.summary { @for sentence in input.summary { li { (sentence) } } }
                }
                (section("Results", input.tables, table::table)?)
                (section("Differences, factor by factor", input.matrices, heat_map::heat_map)?)
                (section("Curves", input.curves, chart::chart)?)
                (section("Sessions", input.sessions, session::session)?)
                (section("Where references acted: grey where they got least attention", input.attention, session::session)?)
                (section("When references and votes acted, and in which layers", input.heat_maps, heat_map::heat_map)?)
                @if !input.settings.is_empty() {
                    section {
                        h2 { "Settings" }
                        dl { @for (name, value) in input.settings { dt { (name) } dd { (value) } } }
                    }
                }
                @if !input.command.is_empty() {
                    section { h2 { "How to reproduce this run" } pre { (input.command) } }
                }
            }
        }
    })
}

/// Renders all parts of one kind under a heading, or nothing if there are none.
fn section<T>(
    heading: &str,
    parts: &[T],
    render: impl Fn(&T) -> Result<Markup, ReportError>,
) -> Result<Markup, ReportError> {
    let parts: Vec<Markup> = parts.iter().map(render).collect::<Result<_, _>>()?;
    Ok(html! {
        @if !parts.is_empty() {
            section { h2 { (heading) } @for part in &parts { (part) } }
        }
    })
}
