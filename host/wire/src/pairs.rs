//! Protocols that carry a score for each pair of a query and a text, in the order of the pairs: each
//! distinct query is one request. They cannot say that a pair has no score: that is an error of the
//! whole call.

use std::collections::HashMap;

use rerankd_core::ranking::{EMPTY, UNREAD};
use rerankd_core::{
    Document, ErrorKind, FailReason, Outcome, RerankError, RerankRequest, Reranked, SkipReason,
    Status,
};

use crate::answer;
use crate::json::quoted;

/// What the options of all requests may take together, as a multiple of the body: half of what
/// ARCHITECTURE.md grants a body.
const MOST_TIMES: usize = 8;

/// Pairs on their way to requests.
pub(crate) struct Pairs {
    template: RerankRequest,
    requests: Vec<RerankRequest>,
    by_query: HashMap<String, usize>,
    places: PairPlaces,
}

/// For each pair, the position of its request and of its document therein.
#[derive(Default)]
pub(crate) struct PairPlaces(Vec<(usize, usize)>);

impl Pairs {
    /// None yet. Each request will have the options of `template`.
    pub(crate) fn new(template: RerankRequest) -> Self {
        Self {
            template,
            requests: Vec::new(),
            by_query: HashMap::new(),
            places: PairPlaces::default(),
        }
    }

    /// Adds a pair with the query of the one before.
    pub(crate) fn push_text(&mut self, text: String) {
        if let Some(&(request, _)) = self.places.0.last() {
            let documents = &mut self.requests[request].documents;
            self.places.0.push((request, documents.len()));
            documents.push(Document::from_text(text));
        }
    }

    /// Adds a pair; `query` is not empty.
    pub(crate) fn push(&mut self, query: String, text: String) {
        let Self {
            requests,
            by_query,
            places,
            ..
        } = self;
        let request = *by_query.entry(query).or_insert_with_key(|query| {
            requests.push(RerankRequest::new(query.clone(), Vec::new()));
            requests.len() - 1
        });
        let documents = &mut requests[request].documents;
        places.0.push((request, documents.len()));
        documents.push(Document::from_text(text));
    }

    /// The requests, and where each pair is in them.
    ///
    /// # Errors
    /// `TooLarge` where the options, of which each request has its own copy, would take many times the
    /// bytes of `body`.
    pub(crate) fn finish(
        self,
        body: &[u8],
    ) -> Result<(Vec<RerankRequest>, PairPlaces), RerankError> {
        let signals = self.template.signals.iter();
        let signals: usize = signals
            .map(|one| one.name.len() + one.value.size_bytes())
            .sum();
        let parameters = self.template.parameters.as_ref().map_or(0, String::len);
        let key = self.template.key.as_ref().map_or(0, String::len);
        let (queries, each) = (self.requests.len(), signals + parameters + key);
        let most = MOST_TIMES * body.len();
        if queries * each > most {
            return Err(RerankError::new(
                ErrorKind::TooLarge,
                format!(
                    "{queries} queries with {each} bytes of `parameters`, `signals` and `key` each \
                     are more than the limit of {most}, {MOST_TIMES} times the body: send fewer \
                     queries at a time"
                ),
            ));
        }
        let requests = self.requests.into_iter().map(|request| RerankRequest {
            query: request.query,
            documents: request.documents,
            ..self.template.clone()
        });
        Ok((requests.collect(), self.places))
    }
}

impl PairPlaces {
    /// The score of each pair, with the result that it is of. `place` says where in the body the text
    /// of a pair stands.
    ///
    /// # Errors
    /// The first pair that has no score; `Internal` where the results are not those of the requests.
    pub(crate) fn scores<'r>(
        &self,
        results: &'r [Reranked],
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<(f64, &'r Reranked)>, RerankError> {
        let pairs = self.0.iter().enumerate();
        let scores = pairs.map(|(index, &(request, document))| {
            let result = results.get(request).ok_or_else(answer::misfit)?;
            let judgments = result.ranking.judgments();
            let judgment = judgments.get(document).ok_or_else(answer::misfit)?;
            match &judgment.outcome {
                Outcome::Scored(score) => Ok((*score, result)),
                outcome => Err(no_score(&place(index), outcome, result.status)),
            }
        });
        scores.collect()
    }
}

/// Why the call has no answer: what became of the text at `place`.
fn no_score(place: &str, outcome: &Outcome, status: Status) -> RerankError {
    let (kind, problem) = match (status, outcome) {
        (Status::Failed(FailReason::Deadline), _) => (
            ErrorKind::DeadlineExceeded,
            "was not scored before the deadline".to_owned(),
        ),
        (Status::Failed(FailReason::Overloaded), _) => (
            ErrorKind::Overloaded,
            "was not scored: the server is overloaded".to_owned(),
        ),
        (Status::Failed(FailReason::Internal), _) => (
            ErrorKind::Internal,
            "was not scored: the server failed".to_owned(),
        ),
        (Status::Skipped(SkipReason::NoText), _) => (ErrorKind::BadRequest, NO_TEXT.to_owned()),
        (_, Outcome::Unscored(reason)) => match reason.as_str() {
            EMPTY => (ErrorKind::BadRequest, NO_TEXT.to_owned()),
            UNREAD => (
                ErrorKind::Unread,
                "was not scored: the model cannot read most of it".to_owned(),
            ),
            "late" => (
                ErrorKind::DeadlineExceeded,
                "was not scored before the deadline".to_owned(),
            ),
            reason => (
                ErrorKind::PolicyFault,
                format!(
                    "was not scored ({}), which this route cannot say",
                    quoted(reason)
                ),
            ),
        },
        _ => (
            ErrorKind::PolicyFault,
            "was filtered by the policy, which this route cannot say".to_owned(),
        ),
    };
    RerankError {
        kind,
        ..RerankError::bad_request(place, problem)
    }
}

const NO_TEXT: &str = "has no text to score";
