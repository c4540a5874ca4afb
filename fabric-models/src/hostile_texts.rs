//! Texts that a file may contain to harm whoever reads a message, for the tests of all errors.

/// Texts that a file may contain: commands to a terminal, a forged line, reversed text, and far too long ones.
pub(crate) fn hostile_texts() -> [String; 6] {
    [
        "\u{1b}[2J\u{1b}]0;title\u{7}\0".to_owned(),
        "a\r\nerror: all is well\n".to_owned(),
        "safe\u{202e}gpj.exe\u{2066}\u{9b}31m\u{2028}".to_owned(),
        "\u{1b}".repeat(1 << 20),
        "\n".repeat(1 << 20),
        "é".repeat(1 << 20),
    ]
}

/// Asserts that a message is one line without characters that a terminal would execute, of at most about 1000 bytes.
#[track_caller]
pub(crate) fn assert_printable(message: &str) {
    let is_executed = |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}');
    assert!(!message.contains(is_executed), "{message:?}");
    assert!(message.len() < 1100, "{} bytes: {message:.200}", message.len());
}
