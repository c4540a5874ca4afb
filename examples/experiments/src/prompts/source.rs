//! Reading the file of a prompt set as text.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::PromptSetError;

/// Largest file that is read, in bytes (256 MB).
const MAX_FILE_BYTES: u64 = 256_000_000;

/// Returns the file to read for `path`: `prompts.csv` of a folder, or the file itself.
pub(super) fn file_of(path: &Path) -> Result<PathBuf, PromptSetError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let table = path.join("prompts.csv");
    if table.is_file() { Ok(table) } else { Err(PromptSetError::NoTable { folder: path.to_owned() }) }
}

/// Reads a file as UTF-8 text and removes byte-order marks at its start.
pub(super) fn read_text(path: &Path) -> Result<String, PromptSetError> {
    read_limited(path, MAX_FILE_BYTES)
}

fn read_limited(path: &Path, limit: u64) -> Result<String, PromptSetError> {
    let unreadable = |source| PromptSetError::Unreadable { path: path.to_owned(), source };
    let too_large = || PromptSetError::TooLarge { path: path.to_owned(), limit };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() > limit {
        return Err(too_large());
    }
    // Pipes and devices do not tell their size.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    into_text(bytes).map_err(|(offset, byte)| PromptSetError::NotUtf8 { path: path.to_owned(), offset, byte })
}

/// Converts bytes to text, or returns the offset and the value of the first byte that is not text.
///
/// Zero bytes are not text either: UTF-16 without a byte-order mark has them, and is often valid UTF-8.
fn into_text(bytes: Vec<u8>) -> Result<String, (usize, u8)> {
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0)
        && std::str::from_utf8(&bytes[..offset]).is_ok()
    {
        return Err((offset, 0));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        (offset, error.as_bytes()[offset])
    })?;
    let start = text.trim_start_matches('\u{feff}');
    Ok(if start.len() == text.len() { text } else { start.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn fault(bytes: &[u8]) -> (usize, u8) {
        match read_text(file(bytes).path()) {
            Err(PromptSetError::NotUtf8 { offset, byte, .. }) => (offset, byte),
            other => panic!("expected an error about UTF-8, got {other:?}"),
        }
    }

    #[test]
    fn byte_order_marks_are_removed() {
        assert_eq!(read_text(file("\u{feff}a cat".as_bytes()).path()).unwrap(), "a cat");
    }

    #[test]
    fn the_offset_of_the_first_byte_that_is_not_utf8_is_named() {
        assert_eq!(fault(b"caf\xe9\n"), (3, 0xe9));
        assert_eq!(fault("\u{feff}caf\u{e9}, cut \u{e9}".as_bytes().split_last().unwrap().1), (14, 0xc3));
        assert_eq!(fault(b"\xff\xfea\0"), (0, 0xff), "UTF-16 with a byte-order mark");
        assert_eq!(fault(b"a\0b\0"), (1, 0), "UTF-16 without one");
    }

    #[test]
    fn the_size_limit_is_inclusive() {
        let file = file(b"12345");
        assert_eq!(read_limited(file.path(), 5).unwrap(), "12345");
        assert!(matches!(read_limited(file.path(), 4), Err(PromptSetError::TooLarge { limit: 4, .. })));
    }

    #[test]
    fn a_file_above_the_limit_is_refused_unread() {
        let file = file(b"a cat");
        file.as_file().set_len(MAX_FILE_BYTES + 1).unwrap(); // sparse: takes no space
        assert!(matches!(read_text(file.path()), Err(PromptSetError::TooLarge { .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read_text(Path::new("no/such.txt")).unwrap_err().to_string();
        assert!(message.contains("`no/such.txt`"), "{message}");
    }
}
