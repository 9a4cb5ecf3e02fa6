//! Moves documents up whose title has the words of the query.

use rerank_policy::{
    Document, Error, Judgment, Policy, Request, first_stage_value, min_max, text_of,
};

/// How far a title with all words of the query moves a document up; 1.0 is all the way from the
/// engine's last score to its first.
const TITLE_BOOST: f64 = 0.3; // <- the line to edit

struct TitleBoost;

impl Policy for TitleBoost {
    const MANIFEST: &'static str = include_str!("../manifest.json");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let positions = 0..request.documents.len();
        let engine: Vec<_> = positions
            .map(|at| first_stage_value(&request, at))
            .collect();
        // From 0.0 to 1.0; nothing where the request has no scores and no order.
        let engine = min_max(&engine);
        let judge = |(index, document): (u32, &Document)| {
            let base = engine[index as usize].unwrap_or(0.0);
            let score = base + TITLE_BOOST * share_in_title(&request.query, document);
            Judgment::scored(index, score)
        };
        Ok((0..).zip(&request.documents).map(judge).collect())
    }
}

/// How many of the query's words the title has: from 0.0, none, to 1.0, all.
fn share_in_title(query: &str, document: &Document) -> f64 {
    let title = text_of(document, &["title"]).unwrap_or_default();
    let (wanted, there) = (words(query), words(&title));
    let found = wanted.iter().filter(|word| there.contains(word)).count();
    found as f64 / wanted.len().max(1) as f64
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

rerank_policy::export!(TitleBoost);

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_have_neither_case_nor_punctuation() {
        assert_eq!(words("Smart-Watch, 42 mm"), ["smart", "watch", "42", "mm"]);
        assert!(words(" - ").is_empty());
    }
}
