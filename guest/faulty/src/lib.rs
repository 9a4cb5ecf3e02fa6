//! What the faulty guests share. Each is one file of `examples/` that breaks one rule (a few break none
//! and show something); its first lines say which, and what the host must do.

use rerank_policy::{Judgment, Request, text_of};

/// A manifest with all that is required. `model` adds the slot `bi-encoder`; a last literal is put at
/// the end, so it begins with a comma.
#[macro_export]
macro_rules! manifest {
    ($name:literal $(, $more:literal)?) => {
        concat!(
            r#"{"manifest_version": 1, "name": ""#,
            $name,
            r#"", "version": "0.1.0", "description": "A guest for tests.", "#,
            r#""score_kind": "blend", "fields": ["title", "text"]"#,
            $($more,)?
            "}"
        )
    };
    ($name:literal, model $(, $more:literal)?) => {
        concat!(
            r#"{"manifest_version": 1, "name": ""#,
            $name,
            r#"", "version": "0.1.0", "description": "A guest for tests.", "#,
            r#""score_kind": "blend", "fields": ["title", "text"], "models": "#,
            r#"[{"name": "bi-encoder", "kind": "bi-encoder", "default": "all-minilm-l6-v2"}]"#,
            $($more,)?
            "}"
        )
    };
}

/// A valid ranking in the order of the request: the scores are 1, 1/2, 1/3 ..
pub fn in_order(request: &Request) -> Vec<Judgment> {
    let judge = |index: u32| Judgment::scored(index, 1.0 / (1.0 + f64::from(index)));
    (0..request.documents.len() as u32).map(judge).collect()
}

/// One text a document; its number stands in for the text that a document does not have.
pub fn texts(request: &Request) -> Vec<String> {
    let text = |(position, document)| {
        text_of(document, &["title", "text"]).unwrap_or_else(|| format!("document {position}"))
    };
    request.documents.iter().enumerate().map(text).collect()
}
