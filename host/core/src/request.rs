//! One rerank request, as every wire protocol hands it over.

use std::time::Duration;

/// A query, the documents that a search engine found for it, and how to rerank them.
#[derive(Debug, Clone, PartialEq)]
pub struct RerankRequest {
    /// The query's text; never empty.
    pub query: String,
    /// The candidates, in the caller's order. A document's position here is its identity.
    pub documents: Vec<Document>,
    /// What the order and the scores of `documents` mean.
    pub first_stage: FirstStage,
    /// Named values of the moment that are not in the index: user, basket, country.
    pub signals: Vec<Field>,
    /// The request's parameters for the policy: the text of a JSON object, not yet checked against
    /// the policy's schema.
    pub parameters: Option<String>,
    /// The document fields that the policy shall read, if the caller named them.
    pub fields: Option<Vec<String>>,
    /// Whether the caller wants the model's raw scores, where the policy can give them.
    pub raw_scores: bool,
    /// How many results the caller wants; `None` is all.
    pub top_n: Option<usize>,
    /// Scored documents below this are left out of the answer.
    pub min_score: Option<f64>,
    /// Whether the caller wants explanations.
    pub explain: bool,
    /// The caller's own deadline, from the arrival of the request; clamped by
    /// [`Limits::max_timeout`](crate::Limits::max_timeout).
    pub timeout: Option<Duration>,
    /// What to answer when reranking fails; `None` is the route's default.
    pub on_failure: Option<OnFailure>,
    /// Names who asks, so that a canary shows the same side on every page.
    pub key: Option<String>,
}

impl RerankRequest {
    /// A request with nothing but a query and documents, and no first stage.
    pub fn new(query: impl Into<String>, documents: Vec<Document>) -> Self {
        Self {
            query: query.into(),
            documents,
            first_stage: FirstStage::None,
            signals: Vec::new(),
            parameters: None,
            fields: None,
            raw_scores: false,
            top_n: None,
            min_score: None,
            explain: false,
            timeout: None,
            on_failure: None,
            key: None,
        }
    }

    /// What it takes in memory, bytes: its texts, and what holds them.
    pub fn held_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let value = |value: &Value| {
            value.size_bytes()
                + match value {
                    Value::Texts(texts) => texts.len() * size_of::<String>(),
                    _ => 0,
                }
        };
        let fields = |fields: &[Field]| -> usize {
            let field = |field: &Field| size_of::<Field>() + field.name.len() + value(&field.value);
            fields.iter().map(field).sum()
        };
        let document = |document: &Document| {
            size_of::<Document>() + text(&document.id) + fields(&document.fields)
        };
        let names = self.fields.iter().flatten();
        self.query.len()
            + text(&self.parameters)
            + text(&self.key)
            + names
                .map(|name| size_of::<String>() + name.len())
                .sum::<usize>()
            + fields(&self.signals)
            + self.documents.iter().map(document).sum::<usize>()
    }
}

/// One candidate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// The caller's name for it: opaque, may be absent, may repeat.
    pub id: Option<String>,
    /// The engine's score, finite. Present on every document when the first stage is
    /// [`FirstStage::Scored`].
    pub first_stage_score: Option<f64>,
    /// What the policy may see of it; names are unique.
    pub fields: Vec<Field>,
}

impl Document {
    /// A document with one field `text`.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self {
            fields: vec![Field {
                name: "text".into(),
                value: Value::Text(text.into()),
            }],
            ..Self::default()
        }
    }
}

/// A named value of a document, or a signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The field's name; nested fields have their path (`brand.name`).
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// A value with the type that it had in the caller's JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// A number that is not an integer, or that 64 signed bits cannot hold; finite.
    Number(f64),
    /// An integer.
    Integer(i64),
    /// An array of numbers; finite.
    Numbers(Vec<f64>),
    /// `true` or `false`.
    Boolean(bool),
    /// An embedding that the host attached.
    Vector(Vec<f32>),
    /// Anything else, as JSON text.
    Json(String),
}

impl Value {
    /// Bytes of text and data in the value, for admission and limits.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Texts(texts) => texts.iter().map(String::len).sum(),
            Self::Number(_) | Self::Integer(_) => 8,
            Self::Numbers(numbers) => numbers.len() * 8,
            Self::Boolean(_) => 1,
            Self::Vector(vector) => vector.len() * 4,
        }
    }
}

/// What the order and the scores of the documents mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FirstStage {
    /// Every document has a score, higher is better; documents come in the engine's order.
    Scored,
    /// The order counts, best first, but there are no scores.
    Ranked,
    /// Neither means anything.
    None,
}

impl FirstStage {
    /// The name used in manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::Ranked => "ranked",
            Self::None => "none",
        }
    }
}

/// What to answer when reranking fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The engine's own order, marked `failed`.
    FirstStage,
    /// An error.
    Error,
}

/// Which policy a request asks for: `name`, or `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicySelector {
    /// The policy's name.
    pub name: String,
    /// A manifest version or at least 8 hex digits of a digest; `None` is the active version.
    pub version: Option<String>,
}

impl PolicySelector {
    /// Reads `name` or `name@version`; any text is one, whether it exists shows later.
    pub fn parse(text: &str) -> Self {
        match text.split_once('@') {
            Some((name, version)) => Self {
                name: name.to_owned(),
                version: Some(version.to_owned()),
            },
            None => Self {
                name: text.to_owned(),
                version: None,
            },
        }
    }
}

impl std::fmt::Display for PolicySelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_takes_counts_texts_and_what_holds_them() {
        let held = |documents| RerankRequest::new("q", documents).held_bytes();
        let one = held(vec![Document::from_text("x".repeat(1000))]);
        assert!((1000..1300).contains(&one), "{one}");
        let empty = Value::Texts(vec![String::new(); 1000]);
        let fields = vec![Field {
            name: "tags".into(),
            value: empty,
        }];
        let many = held(vec![Document {
            fields,
            ..Document::default()
        }]);
        assert!(many >= 24_000, "{many}");
    }
}
