//! All that commands print, to standard output and standard error. What they print comes from
//! components, servers and files of others, so nothing of it may steer the terminal: control characters
//! and what turns text round are shown as `\\u001b`, which is JSON's way, too.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Result, Write};

use rerankd_inference::name::is_unseen;

/// `text` with all that is not to be seen escaped, but line feeds and tabs. JSON stays what it was:
/// such characters stand in its strings alone.
pub fn shown(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_unseen(c) && c != '\n' && c != '\t')
}

/// The same on one line: for what somebody else says in a line of our own.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, is_unseen)
}

fn escape(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if wanted(c) {
            // All of them are of the first plane.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// Prints to standard output, as it is.
///
/// # Errors
/// Nobody reads any more.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(shown(text).as_bytes())?;
    stdout.flush()
}

/// Prints a message to standard error, which nobody need read. All but its first line are indented: what
/// stands in a message, such as a path, cannot look like another one.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", one_message(text));
}

fn one_message(text: &str) -> String {
    shown(text).trim_end().replace('\n', "\n  ")
}

/// Whether somebody watches standard error.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Writes a line over the last one, on standard error, for who watches.
pub fn progress(text: &str) {
    if is_watched() {
        let mut stderr = std::io::stderr();
        let _ = write!(stderr, "\r{}", one_line(text));
        let _ = stderr.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        for (text, expected) in [
            ("plain ä 字 😀\n\tx", "plain ä 字 😀\n\tx"),
            ("\u{1b}[31mred", "\\u001b[31mred"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("a\rb\u{8}c\u{7f}", "a\\u000db\\u0008c\\u007f"),
            ("\u{9b}31m\u{9d}0;x\u{9c}", "\\u009b31m\\u009d0;x\\u009c"),
            (
                "\u{202e}evil\u{2066}x\u{200f}",
                "\\u202eevil\\u2066x\\u200f",
            ),
            ("line\u{2028}sep\u{85}", "line\\u2028sep\\u0085"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(one_line("a\nb\tc"), "a\\u000ab\\u0009c");
        let path = "rerankd: `/a\nrerankd: all is well`: not there\n";
        let said = "rerankd: `/a\n  rerankd: all is well`: not there";
        assert_eq!(one_message(path), said);
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({"a\u{9b}": "x\u{1b}[0m\u{7f}\u{202e}\n", "b": ["\u{2028}"]});
        for text in [value.to_string(), format!("{value:#}")] {
            let shown = shown(&text);
            assert!(!shown.contains(|c| is_unseen(c) && c != '\n'), "{shown}");
            let read: serde_json::Value = serde_json::from_str(&shown).expect("it is JSON");
            assert_eq!(read, value);
        }
    }
}
