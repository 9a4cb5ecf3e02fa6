//! What a command comes to: text for people, JSON for programs, and an exit code.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::terminal;

/// What a command found out.
pub(super) struct Outcome {
    /// Whether the answer is yes.
    pub(super) good: bool,
    /// For people.
    pub(super) text: String,
    /// For programs.
    pub(super) json: Value,
}

impl Outcome {
    pub(super) fn good(text: String, json: Value) -> Self {
        Self {
            good: true,
            text,
            json,
        }
    }
}

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer is no.
    Refused {
        message: String,
        /// What the server said of it, if it was the server.
        error: Option<Value>,
        /// Whether it was that what was named is not there.
        not_found: bool,
    },
    /// The command line, a file that it names, or what is installed.
    Usage(String),
    /// No server, or none that speaks as rerankd does.
    Unreachable(String),
}

impl Failure {
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            error: None,
            not_found: false,
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } | Self::Usage(message) | Self::Unreachable(message) => {
                message
            }
        }
    }

    /// `{"error": {"code", "message", ..}}`, the server's own where there is one.
    pub(super) fn json(&self) -> Value {
        let code = match self {
            Self::Refused {
                error: Some(error), ..
            } => return json!({ "error": error }),
            Self::Refused { .. } => "refused",
            Self::Usage(_) => "usage",
            Self::Unreachable(_) => "unreachable",
        };
        json!({"error": {"code": code, "message": self.message()}})
    }
}

/// Columns as wide as their widest cell, two spaces apart. What a cell says stays in it: only the last
/// one may have several lines, and those begin below the first.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let last = head.len().saturating_sub(1);
    let shown = |row: &Vec<String>| -> Vec<String> {
        let cells = row.iter().enumerate();
        let shown = cells.map(|(column, cell)| match column == last {
            true => terminal::shown(cell).into_owned(),
            false => terminal::one_line(cell).into_owned(),
        });
        shown.collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(&rows).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let before_last: usize = widths.iter().take(last).map(|width| width + 2).sum();
    let next_line = format!("\n{}", " ".repeat(before_last));
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(row, "{cell:width$}  ");
        }
        text.push_str(&row.trim_end().replace('\n', &next_line));
        text.push('\n');
    }
    text
}

/// 24874 → `24.3 KiB`.
pub(super) fn size(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let kib = bytes as f64 / KIB;
    if kib < KIB {
        format!("{kib:.1} KiB")
    } else {
        format!("{:.1} MiB", kib / KIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = [
            vec!["säge".to_owned(), "1".to_owned()],
            vec!["b".to_owned(), String::new()],
        ];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME  N\nsäge  1\nb\n");
        let rows = [vec!["a\nb".to_owned(), "1\nok  2\u{1b}[m".to_owned()]];
        assert_eq!(
            table(&["NAME", "N"], &rows),
            "NAME      N\na\\u000ab  1\n          ok  2\\u001b[m\n"
        );
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(size(24_874), "24.3 KiB");
        assert_eq!(size(40 << 20), "40.0 MiB");
    }
}
