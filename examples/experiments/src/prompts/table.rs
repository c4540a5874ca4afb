//! Tables with a header, read row by row.

use std::path::Path;

use csv::{Reader, ReaderBuilder, StringRecord};

use super::line_counter::LineCounter;
use super::{PromptSetError, cut, quoting};

/// Reader of a table.
pub(super) struct Table<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
    header: StringRecord,
    quoted: bool,
    lines: LineCounter<'a>,
}

/// One row of a table.
pub(super) struct Row {
    /// Number of the line on which the row starts, from 1.
    pub(super) line: usize,
    /// The fields, or what is wrong with the row.
    pub(super) fields: Result<StringRecord, String>,
}

impl<'a> Table<'a> {
    /// Creates a reader for fields that commas separate; they may be quoted.
    pub(super) fn with_commas(text: &'a str) -> Self {
        Self::new(text, b',', true)
    }

    /// Creates a reader for fields that tabs separate. Quotes are characters like others.
    pub(super) fn with_tabs(text: &'a str) -> Self {
        Self::new(text, b'\t', false)
    }

    fn new(text: &'a str, delimiter: u8, quoted: bool) -> Self {
        let mut builder = ReaderBuilder::new();
        let mut reader = builder.flexible(true).delimiter(delimiter).quoting(quoted).from_reader(text.as_bytes());
        // Reading from memory does not fail, and the text is UTF-8.
        let header = reader.headers().cloned().unwrap_or_default();
        Self { text, reader, header, quoted, lines: LineCounter::new(text) }
    }

    /// Returns the index of a column, in any case of letters.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column.trim().eq_ignore_ascii_case(name))
    }

    /// Returns the index of a column without which the table is of no use.
    pub(super) fn needed_column(&self, path: &Path, name: &'static str) -> Result<usize, PromptSetError> {
        self.column(name).ok_or_else(|| {
            let header = cut(&self.header.iter().collect::<Vec<_>>().join(", "));
            PromptSetError::MissingColumn { path: path.to_owned(), column: name, header }
        })
    }

    /// Returns the fields of a row, or what is wrong with it.
    fn checked(&self, record: StringRecord, raw: &str) -> Result<StringRecord, String> {
        if self.quoted {
            quoting::check(raw)?;
        }
        let columns = self.header.len();
        if record.iter().skip(columns).any(|field| !field.is_empty()) {
            let got = record.len();
            return Err(format!(
                "expected {columns} fields, got {got}: put fields that contain separators into quotes"
            ));
        }
        Ok(record)
    }

    /// Returns the number of bytes that the reader has used.
    fn offset(&self) -> usize {
        self.reader.position().byte() as usize
    }
}

impl Iterator for Table<'_> {
    type Item = Row;

    /// Returns the next row that is not blank.
    fn next(&mut self) -> Option<Row> {
        loop {
            let start = self.offset();
            let mut record = StringRecord::new();
            let result = self.reader.read_record(&mut record);
            if matches!(result, Ok(false)) {
                return None;
            }
            // The reader counts the rest of the line before, and blank lines, as part of the row.
            let raw = self.text[start..self.offset()].trim_start_matches(['\r', '\n']);
            let line = self.lines.line_at(self.offset() - raw.len());
            let fields = match result {
                Ok(_) => self.checked(record, raw),
                Err(error) => Err(error.to_string()),
            };
            if !fields.as_ref().is_ok_and(|fields| fields.iter().all(str::is_empty)) {
                return Some(Row { line, fields });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(table: Table<'_>) -> Vec<(usize, Result<Vec<String>, String>)> {
        table.map(|row| (row.line, row.fields.map(|fields| fields.iter().map(str::to_owned).collect()))).collect()
    }

    fn fields<const N: usize>(fields: [&str; N]) -> Result<Vec<String>, String> {
        Ok(fields.map(str::to_owned).to_vec())
    }

    #[test]
    fn lines_are_counted_through_blank_lines_quoted_breaks_and_both_line_ends() {
        for end in ["\n", "\r\n"] {
            let text = ["", "a,b", "1,\"x", "", "y\"", "", "2,z", ",", "3,\u{e9}", "4,w"].join(end);
            let quoted = format!("x{end}{end}y");
            let expected = [
                (3, fields(["1", &quoted])),
                (7, fields(["2", "z"])),
                (9, fields(["3", "\u{e9}"])),
                (10, fields(["4", "w"])),
            ];
            assert_eq!(rows(Table::with_commas(&text)), expected, "{end:?}");
        }
    }

    #[test]
    fn more_fields_than_columns_are_a_fault() {
        let rows = rows(Table::with_commas("a,b\n1,a cat, photo\n2,x,,\n3\n"));
        assert!(rows[0].1.as_ref().is_err_and(|fault| fault.starts_with("expected 2 fields, got 3")), "{rows:?}");
        assert_eq!(rows[1], (3, fields(["2", "x", "", ""])), "spreadsheets add empty fields");
        assert_eq!(rows[2], (4, fields(["3"])));
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_swallow_rows_unnoticed() {
        let rows = rows(Table::with_commas("a,b\n1,\"x\n2,\"y\"\n3,z\n4,\"w"));
        assert_eq!(
            rows.iter().map(|(line, row)| (*line, row.is_ok())).collect::<Vec<_>>(),
            [(2, false), (4, true), (5, false)]
        );
    }

    #[test]
    fn columns_are_found_by_name_in_any_case() {
        let table = Table::with_tabs("Category\t Prompt\n");
        assert_eq!((table.column("prompt"), table.column("Category"), table.column("note")), (Some(1), Some(0), None));
        let message = table.needed_column(Path::new("x.tsv"), "image").unwrap_err().to_string();
        assert!(message.contains("`image`") && message.contains("\"Category,  Prompt\""), "{message}");
    }
}
