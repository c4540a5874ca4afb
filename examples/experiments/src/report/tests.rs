use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fabric::core::image::{Image, Mark};

use super::{Chart, HeatMap, Point, ReportError, ReportInput, Series, SessionImage, SessionRows, Table, render, write};

const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"x\" &amp; </style>";

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn point(x: f64, mean: f64, low: f64, high: f64) -> Point {
    Point { x, mean, low, high }
}

fn chart(points: Vec<Point>) -> Chart {
    let series = vec![Series { name: "FABRIC".to_owned(), points }];
    Chart { caption: "Score".to_owned(), x_label: "round".to_owned(), y_label: "score".to_owned(), series }
}

fn heat_map(values: Vec<Vec<f64>>) -> HeatMap {
    let rows = (0..values.len()).map(|row| format!("row {row}")).collect();
    let columns = (0..values.first().map_or(0, Vec::len)).map(|column| format!("column {column}")).collect();
    HeatMap { caption: "Similarity".to_owned(), rows, columns, values }
}

fn filled(colour: [u8; 3]) -> Image {
    Image::filled(8, 8, colour).expect("an image")
}

fn with_chart(points: Vec<Point>) -> String {
    render(&ReportInput { curves: &[chart(points)], ..ReportInput::default() }).expect("a report")
}

fn with_heat_map(values: Vec<Vec<f64>>) -> String {
    render(&ReportInput { heat_maps: &[heat_map(values)], ..ReportInput::default() }).expect("a report")
}

/// Returns the report that has `text` wherever a text is printed.
fn with_text_everywhere(text: &str) -> String {
    let owned = || text.to_owned();
    let map = || HeatMap { caption: owned(), rows: vec![owned()], columns: vec![owned()], values: vec![vec![1.0]] };
    let image = filled([200, 30, 30]);
    let shown = SessionImage { image: &image, mark: Mark::Liked, caption: owned() };
    render(&ReportInput {
        title: text,
        summary: &[owned()],
        command: text,
        settings: &[(owned(), owned())],
        tables: &[Table { caption: owned(), head: vec![owned()], rows: vec![vec![owned()]] }],
        matrices: &[map()],
        curves: &[Chart {
            caption: owned(),
            x_label: owned(),
            y_label: owned(),
            series: vec![Series { name: owned(), points: vec![point(0.0, 1.0, 0.5, 1.5)] }],
        }],
        heat_maps: &[map()],
        attention: &[SessionRows { caption: owned(), rows: vec![(owned(), vec![shown.clone()])] }],
        sessions: &[SessionRows { caption: owned(), rows: vec![(owned(), vec![shown])] }],
    })
    .expect("a report")
}

#[test]
fn texts_are_escaped_everywhere() {
    let html = with_text_everywhere(HOSTILE);
    assert!(!html.contains("<script"), "a script element");
    assert!(!html.contains("\" onload"), "an attribute of its own");
    assert_eq!(html.matches("</style>").count(), 1);
    // Title in head and page, sentence, command, setting with its value; caption, head and cell of the table; of the
    // chart, the caption (also read aloud), and axes and name (also in the table of its values); caption, row and
    // column of the matrix and of the heat map; of each of the two kinds of sessions, the captions of session and
    // image, and the heading (also read aloud with the image).
    assert_eq!(html.matches("&lt;script&gt;").count(), (2 + 1 + 1 + 2) + 3 + (2 + 2 + 2 + 2) + 2 * 3 + 2 * (2 + 2));
}

#[test]
fn a_report_loads_nothing_from_elsewhere() {
    let html = with_text_everywhere("text").replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "//", "url(", "@import", "<link", "<script", "<iframe", "href"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.matches("src=\"").count(), html.matches("src=\"data:image/png;base64,").count());
}

#[test]
fn an_empty_report_has_a_title_and_no_sections() {
    let html = render(&ReportInput { title: "Nothing", ..ReportInput::default() }).expect("a report");
    assert!(html.starts_with("<!DOCTYPE html>"));
    assert!(html.contains("<h1>Nothing</h1>"));
    assert!(!html.contains("<section"));
}

#[test]
fn parts_without_content_are_rendered() {
    render(&ReportInput {
        tables: &[Table::default()],
        curves: &[Chart::default(), chart(Vec::new())],
        heat_maps: &[HeatMap::default()],
        sessions: &[
            SessionRows::default(),
            SessionRows { caption: String::new(), rows: vec![(String::new(), Vec::new())] },
        ],
        ..ReportInput::default()
    })
    .expect("a report");
}

#[test]
fn numbers_that_are_not_finite_are_dashes() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for html in [
            with_heat_map(vec![vec![odd, 2.0], vec![-1.0, odd]]),
            with_heat_map(vec![vec![odd]]),
            with_chart(vec![point(1.0, odd, odd, odd), point(2.0, 20.5, odd, 21.0), point(3.0, 21.0, 20.0, 22.0)]),
            with_chart(vec![point(odd, odd, odd, odd)]),
            with_chart(vec![point(odd, 1.0, 0.0, 2.0)]),
        ] {
            assert!(html.contains(">-</td>"));
            let drawn = html.split("<body>").nth(1).expect("a body");
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}

#[test]
fn extreme_numbers_are_drawn() {
    for values in [
        vec![0.0],
        vec![-0.0],
        vec![20.5],
        vec![0.0, f64::MIN_POSITIVE],
        vec![-f64::MAX, f64::MAX],
        vec![-9e99, 9e99],
        vec![1e12, 1e12 + 1.0],
        vec![-1e-9, 1e-9],
        vec![1.0, 1.0 + f64::EPSILON],
    ] {
        with_heat_map(vec![values.clone()]);
        for &x in &values {
            with_chart(values.iter().map(|&y| point(x, y, y, y)).collect());
        }
        with_chart(values.iter().map(|&y| point(y, y, y, y)).collect());
    }
}

#[test]
fn a_missing_mean_interrupts_the_line_and_a_missing_limit_the_band() {
    // Shapes of the colour of the first line: others are ticks.
    let shapes = |points| {
        let html = with_chart(points);
        let lines = html.lines().filter(|line| line.contains("#2A78C4"));
        ["<polyline", "<polygon", "<circle"].map(|shape| lines.clone().filter(|line| line.starts_with(shape)).count())
    };
    let whole = |x: f64| point(x, 1.0, 0.0, 2.0);
    let (no_mean, no_limit) = (point(3.0, f64::NAN, 0.0, 2.0), point(3.0, 1.0, 0.0, f64::NAN));
    assert_eq!(shapes([1.0, 2.0, 3.0, 4.0, 5.0].map(whole).to_vec()), [1, 1, 5]);
    assert_eq!(shapes(vec![whole(1.0), whole(2.0), no_mean, whole(4.0), whole(5.0)]), [2, 2, 4]);
    assert_eq!(shapes(vec![whole(1.0), whole(2.0), no_limit, whole(4.0), whole(5.0)]), [1, 2, 5]);
}

#[test]
fn whole_positions_have_whole_ticks() {
    let html = with_chart([1.0, 2.0, 3.0].map(|x| point(x, 20.0 + x / 10.0, 20.0, 21.0)).to_vec());
    let tick = |text: &str| html.contains(&format!(">\n{text}\n</text>"));
    assert!(tick("1") && tick("2") && tick("3"));
    assert!(!tick("1.5") && !tick("4"));
}

#[test]
fn heat_maps_show_the_sign_only_if_there_are_both() {
    assert!(with_heat_map(vec![vec![-1.0, 2.0]]).contains("orange: below"));
    assert!(!with_heat_map(vec![vec![-2.0, -1.0]]).contains("orange: below"));
}

#[test]
fn rows_of_the_wrong_length_are_errors() {
    let table = Table { caption: "T".to_owned(), head: texts(&["a", "b"]), rows: vec![texts(&["1"])] };
    let error = render(&ReportInput { tables: &[table], ..ReportInput::default() }).expect_err("a short row");
    assert!(matches!(error, ReportError::Cells { row: 0, expected: 2, got: 1, .. }), "{error}");

    let short_row = heat_map(vec![vec![1.0, 2.0], vec![1.0]]);
    let error = render(&ReportInput { heat_maps: &[short_row], ..ReportInput::default() }).expect_err("a short row");
    assert!(matches!(error, ReportError::Cells { row: 1, expected: 2, got: 1, .. }), "{error}");

    let no_rows = HeatMap { values: Vec::new(), ..heat_map(vec![vec![1.0]]) };
    let error = render(&ReportInput { heat_maps: &[no_rows], ..ReportInput::default() }).expect_err("no row");
    assert!(matches!(error, ReportError::Rows { expected: 1, got: 0, .. }), "{error}");
}

#[test]
fn images_are_embedded_once_per_use_with_their_marks_in_words() {
    let (red, blue) = (filled([255, 0, 0]), filled([0, 0, 255]));
    let shown = |image, mark| SessionImage { image, mark, caption: "20.5".to_owned() };
    let rows = vec![
        ("Round 1".to_owned(), vec![shown(&red, Mark::Liked), shown(&blue, Mark::Disliked)]),
        ("Round 2".to_owned(), vec![shown(&red, Mark::None)]),
    ];
    let session = SessionRows { caption: "a house".to_owned(), rows };
    let html = render(&ReportInput { sessions: &[session], ..ReportInput::default() }).expect("a report");

    for (image, uses) in [(&red, 2), (&blue, 1)] {
        let encoded = STANDARD.encode(image.to_png_bytes().expect("a PNG file"));
        assert_eq!(html.matches(&format!("\"data:image/png;base64,{encoded}\"")).count(), uses);
    }
    assert_eq!(html.matches("<img").count(), 3);
    for mark in ["liked", "disliked"] {
        assert_eq!(html.matches(&format!("<figure class=\"{mark}\">")).count(), 1);
        assert_eq!(html.matches(&format!("<strong>{mark}</strong> 20.5")).count(), 1);
    }
}

#[test]
fn writing_replaces_an_older_file_and_leaves_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.html");
    fs::write(&path, "old").expect("an older file");
    let input = ReportInput { title: "New", ..ReportInput::default() };
    write(&input, &path).expect("a written report");
    assert_eq!(fs::read_to_string(&path).expect("the report"), render(&input).expect("a report"));
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
}

#[test]
fn a_failed_write_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = ReportInput::default();

    // A folder is in the way.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).expect("a folder");
    assert!(matches!(write(&input, &taken), Err(ReportError::Write { .. })));
    assert!(matches!(write(&input, folder.path().join("absent").join("report.html")), Err(ReportError::Write { .. })));

    // The report cannot be rendered.
    let path = folder.path().join("report.html");
    fs::write(&path, "old").expect("an older file");
    let table = Table { caption: String::new(), head: Vec::new(), rows: vec![texts(&["1"])] };
    assert!(write(&ReportInput { tables: &[table], ..input }, &path).is_err());
    assert_eq!(fs::read_to_string(&path).expect("the older file"), "old");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 2);
}
