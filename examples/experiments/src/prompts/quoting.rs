//! Quoted fields of tables.

/// Checks the quotes of one row, as it stands in the file.
///
/// The `csv` crate accepts every row. A quote that is not closed makes the following rows part of its field, up to the
/// next quote or the end of the file, so such rows are found here.
pub(super) fn check(row: &str) -> Result<(), String> {
    let mut rest = row.trim_end_matches(['\r', '\n']);
    loop {
        let field_end = match rest.strip_prefix('"') {
            Some(quoted) => after_quote(quoted)?,
            None => rest.find(',').map_or("", |comma| &rest[comma..]),
        };
        match field_end.strip_prefix(',') {
            Some(next) => rest = next,
            None if field_end.is_empty() => return Ok(()),
            None => {
                return Err("expected a comma after a closing quote, got other text: double the quotes inside a \
                            quoted field, and check that each quote is closed"
                    .to_owned());
            }
        }
    }
}

/// Returns what follows the quote that closes a field, without spaces.
fn after_quote(mut quoted: &str) -> Result<&str, String> {
    loop {
        let Some((_, after)) = quoted.split_once('"') else {
            return Err("a quote is not closed, so the rows up to the end of the file belong to its field".to_owned());
        };
        match after.strip_prefix('"') {
            Some(rest) => quoted = rest,
            None => return Ok(after.trim_start_matches(' ')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn well_quoted_rows_pass() {
        for row in ["", "a,b", "a,\"b, \"\"c\"\"\"\r\n", "\"\",\"x\ny\" ,", "5\" disc,a \"b\" c", "\"a\",,\n"] {
            assert_eq!(check(row), Ok(()), "{row:?}");
        }
    }

    #[test]
    fn open_quotes_and_text_after_quotes_are_faults() {
        for row in ["a,\"b", "\"", "a,\"b\"\"", "a,\"b\nc,\"d\"", "\"a\"b,c", "\"a\"\nb"] {
            assert!(check(row).is_err(), "{row:?}");
        }
    }
}
