//! What Elasticsearch and OpenSearch answer to a `_search`, as bytes: where the hits are, what a
//! policy sees of them, and how to put them into another order without touching anything else.
//!
//! The hits form and the search proxy are made of it: `page`, `document`, `order`, `strip`.

pub(crate) mod document;
pub(crate) mod order;
pub(crate) mod page;
pub(crate) mod strip;

use rerankd_core::{Document, FirstStage};

use page::Hit;

/// The documents of a window, and what their order means: `scored` if every hit has a number as
/// `_score`, else `ranked`.
pub(crate) fn documents(window: &[Hit<'_>]) -> (FirstStage, Vec<Document>) {
    let scored = window.iter().all(|hit| hit.score().is_some());
    let documents = window.iter().map(|hit| {
        let mut document = document::document(hit);
        document.first_stage_score = hit.score().filter(|_| scored);
        document
    });
    let first_stage = if scored {
        FirstStage::Scored
    } else {
        FirstStage::Ranked
    };
    (first_stage, documents.collect())
}
