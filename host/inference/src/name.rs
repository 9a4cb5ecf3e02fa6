//! What a model may be called: its name is a folder's, and comes from flags, uploads and manifests of
//! policies, so it must lead nowhere else.

/// Longest name, bytes.
const MAX_BYTES: usize = 200;

/// Whether `name` can be a model's: one part of a path, without a dot in front and without characters
/// that are not seen.
///
/// # Errors
/// A sentence that names `what`.
pub fn check_model_name(what: &str, name: &str) -> Result<(), String> {
    let wrong = |c: char| matches!(c, '/' | '\\') || is_unseen(c);
    if (1..=MAX_BYTES).contains(&name.len()) && !name.starts_with('.') && !name.contains(wrong) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!(
        "{what} must be one folder's name: 1 to {MAX_BYTES} bytes without `/`, `\\`, control characters, or a dot in front; got `{}`",
        shown.escape_debug()
    ))
}

/// Whether a character moves others about, or is not there to be seen: control characters, and those
/// that change the direction of text or separate lines.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for good in [
            "tiny-cross-encoder",
            "bge_reranker.v2-m3",
            "all-MiniLM-L6-v2",
            "Schuhe für Damen (2)",
            "a..b",
            "x",
        ] {
            assert_eq!(check_model_name("`model`", good), Ok(()), "{good}");
        }
        let long = "x".repeat(MAX_BYTES + 1);
        for wrong in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc",
            "a\\b",
            ".hidden",
            "a\0b",
            "a\nb",
            "a\u{9b}b",
            "a\u{202e}b",
            &long,
        ] {
            let problem = check_model_name("`model`", wrong).expect_err(wrong);
            assert!(
                problem.starts_with("`model` must be one folder's name"),
                "{problem}"
            );
            assert!(!problem.contains(is_unseen), "{problem}");
        }
    }
}
