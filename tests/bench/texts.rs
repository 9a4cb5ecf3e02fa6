//! The requests that are timed: `texts/README.md` says where they come from.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;

/// One search: a query, and what the engine found for it.
pub(crate) struct Search {
    pub(crate) query: String,
    pub(crate) documents: Vec<Document>,
}

#[derive(Clone)]
pub(crate) struct Document {
    id: String,
    pub(crate) score: f64,
    field: &'static str,
    pub(crate) text: String,
}

/// Searches over texts of one kind.
pub(crate) struct Texts {
    /// For tables.
    pub(crate) name: &'static str,
    pub(crate) searches: Vec<Search>,
}

/// Titles, then passages.
pub(crate) fn load(folder: &Path) -> Result<Vec<Texts>> {
    let kinds = [
        ("titles", "titles-chorus.json", "title"),
        ("passages", "passages-scifact.json", "text"),
    ];
    kinds
        .into_iter()
        .map(|(name, file, field)| {
            let path = folder.join(file);
            let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let searches: Vec<Value> = serde_json::from_slice(&bytes)?;
            let searches = searches
                .iter()
                .map(|search| Search::read(search, field))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| format!("{}: not as expected", path.display()))?;
            Ok(Texts { name, searches })
        })
        .collect()
}

impl Search {
    fn read(search: &Value, field: &'static str) -> Option<Self> {
        let documents = search["documents"].as_array()?.iter().map(|document| {
            Some(Document {
                id: document["id"].as_str()?.to_owned(),
                score: document["score"].as_f64()?,
                field,
                text: document[field].as_str()?.to_owned(),
            })
        });
        Some(Self {
            query: search["query"].as_str()?.to_owned(),
            documents: documents.collect::<Option<Vec<_>>>()?,
        })
    }

    /// The native request for the first `documents` documents, with the engine's scores.
    pub(crate) fn body(&self, documents: usize) -> Vec<u8> {
        let documents: Vec<Value> = self.documents[..documents]
            .iter()
            .map(|d| json!({"id": d.id, "score": d.score, "fields": {d.field: d.text}}))
            .collect();
        json!({"query": self.query, "documents": documents})
            .to_string()
            .into_bytes()
    }
}
