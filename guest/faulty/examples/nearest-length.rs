//! Ranks by a rule that a test can compute: the nearer the length of a document's texts is to the
//! query's, the higher its score, `1 / (1 + distance)`, in characters. Not faulty. All fields that it is
//! given count, so that the order shows which fields those were and what the query was; a document
//! without any text is unscored.

use rerank_policy::{Document, Error, Judgment, Policy, Request, Value};

struct NearestLength;

impl Policy for NearestLength {
    const MANIFEST: &'static str = faulty::manifest!("nearest-length");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let wanted = request.query.chars().count();
        let judge = |(index, document): (u32, &Document)| match length(document) {
            0 => Judgment::unscored(index, "empty"),
            length => Judgment::scored(index, 1.0 / (1.0 + length.abs_diff(wanted) as f64)),
        };
        Ok((0..).zip(&request.documents).map(judge).collect())
    }
}

rerank_policy::export!(NearestLength);

/// Characters of all texts.
fn length(document: &Document) -> usize {
    let of_value = |value: &Value| match value {
        Value::Text(text) => text.chars().count(),
        Value::Texts(texts) => texts.iter().map(|text| text.chars().count()).sum(),
        _ => 0,
    };
    let fields = document.fields.iter();
    fields.map(|field| of_value(&field.value)).sum()
}
