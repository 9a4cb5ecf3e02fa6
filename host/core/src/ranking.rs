//! What comes back: a verdict on each document, the order that follows from them, and what a ranking
//! says about itself.

use std::time::Duration;

use crate::request::FirstStage;

/// What became of one document.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its score, finite; higher is better.
    Scored(f64),
    /// It could not be scored. The reason is one word: `empty`, `unread`, `late`, `not-finite`,
    /// `failed`, or the policy's own.
    Unscored(String),
    /// It must not be shown.
    Filtered,
}

/// The verdict on one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgment {
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the model saw only a part of its text.
    pub truncated: bool,
    /// Why, for people.
    pub explanation: Option<String>,
}

impl Judgment {
    /// An unscored document with a reason and nothing else.
    pub fn unscored(reason: &str) -> Self {
        Self {
            outcome: Outcome::Unscored(reason.to_owned()),
            truncated: false,
            explanation: None,
        }
    }
}

/// Checked judgments, one a document, and the order that follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    judgments: Vec<Judgment>,
    order: Vec<usize>,
    scored: usize,
}

impl Ranking {
    /// Sorts documents by their judgments, which stand in the request's order: scored ones by score,
    /// best first, ties in the request's order; then the unscored in the request's order. Filtered
    /// ones are in no order.
    pub fn new(judgments: Vec<Judgment>) -> Self {
        let score_of = |index: usize| match judgments[index].outcome {
            Outcome::Scored(score) => score,
            Outcome::Unscored(_) | Outcome::Filtered => f64::NEG_INFINITY,
        };
        let with = |wanted: fn(&Outcome) -> bool| {
            let judgments = &judgments;
            (0..judgments.len()).filter(move |&index| wanted(&judgments[index].outcome))
        };
        let mut order: Vec<usize> = with(|outcome| matches!(outcome, Outcome::Scored(_))).collect();
        // A stable sort keeps ties in the request's order; -0.0 and 0.0 are a tie.
        order.sort_by(|&a, &b| {
            score_of(b)
                .partial_cmp(&score_of(a))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let scored = order.len();
        order.extend(with(|outcome| matches!(outcome, Outcome::Unscored(_))));
        Self {
            judgments,
            order,
            scored,
        }
    }

    /// The engine's own order of `documents` documents: none scored, each for `reason`.
    pub fn first_stage(documents: usize, reason: &str) -> Self {
        Self::new(vec![Judgment::unscored(reason); documents])
    }

    /// Documents by rank, as positions in the request. Filtered documents are left out.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The verdict on the document at position `index` of the request.
    pub fn judgment(&self, index: usize) -> &Judgment {
        &self.judgments[index]
    }

    /// The verdicts, in the request's order.
    pub fn judgments(&self) -> &[Judgment] {
        &self.judgments
    }

    /// The score of the document at position `index`, if it has one.
    pub fn score(&self, index: usize) -> Option<f64> {
        match self.judgments[index].outcome {
            Outcome::Scored(score) => Some(score),
            Outcome::Unscored(_) | Outcome::Filtered => None,
        }
    }

    /// How many documents were scored. They lead [`order`](Self::order).
    pub fn scored(&self) -> usize {
        self.scored
    }

    /// How many documents could not be scored.
    pub fn unscored(&self) -> usize {
        self.order.len() - self.scored
    }

    /// How many documents could not be scored for this reason.
    pub fn unscored_for(&self, reason: &str) -> usize {
        let judgments = self.judgments.iter();
        judgments
            .filter(|judgment| matches!(&judgment.outcome, Outcome::Unscored(own) if own == reason))
            .count()
    }

    /// How many documents the request had.
    pub fn documents(&self) -> usize {
        self.judgments.len()
    }
}

/// What a score is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScoreKind {
    /// An unbounded model output; the sigmoid of it is a probability.
    Logit,
    /// In `[0, 1]`.
    Probability,
    /// In `[-1, 1]`.
    Cosine,
    /// A mixture that the policy describes.
    Blend,
}

impl ScoreKind {
    /// The name used in manifests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logit => "logit",
            Self::Probability => "probability",
            Self::Cosine => "cosine",
            Self::Blend => "blend",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Logit, Self::Probability, Self::Cosine, Self::Blend]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl ScoreKind {
    /// How a score of this kind gets into `[0, 1]`. A blend that does not say otherwise is there.
    pub fn unit_map(self) -> UnitMap {
        match self {
            Self::Logit => UnitMap::Sigmoid,
            Self::Cosine => UnitMap::Cosine,
            Self::Probability | Self::Blend => UnitMap::Identity,
        }
    }
}

/// How a score gets into `[0, 1]`, where clients expect all scores. Every map keeps the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitMap {
    /// It is there.
    Identity,
    /// `1 / (1 + exp(-score))`, of a score without bounds.
    Sigmoid,
    /// `(1 + score) / 2`, of a score in `[-1, 1]`.
    Cosine,
}

impl UnitMap {
    /// How far rounding may lead out of a score's range.
    const SLACK: f64 = 1e-6;

    /// The map with this name in a policy's manifest.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "identity" => Some(Self::Identity),
            "sigmoid" => Some(Self::Sigmoid),
            "cosine" => Some(Self::Cosine),
            _ => None,
        }
    }

    /// The score's place in `[0, 1]`; `None` for one that is not in the map's range.
    pub fn apply(self, score: f64) -> Option<f64> {
        let mapped = match self {
            Self::Identity => score,
            Self::Sigmoid => 1.0 / (1.0 + (-score).exp()),
            Self::Cosine => f64::midpoint(1.0, score),
        };
        let range = -Self::SLACK..=1.0 + Self::SLACK;
        range.contains(&mapped).then(|| mapped.clamp(0.0, 1.0))
    }
}

/// Why there was nothing to rerank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The request had no documents.
    NoDocuments,
    /// No document had any text in the fields that count.
    NoText,
    /// The model cannot read the query, or none of the documents.
    Unread,
    /// A search of an index for which nothing is configured.
    NoRule,
    /// A search of several indices for which not the same is configured.
    RulesDiffer,
    /// A search for a policy that is expected, and was not released yet.
    NoPolicy,
    /// Reranking is switched off, for the index or by the search.
    Disabled,
    /// A search whose order is not that of `_score`.
    Sort,
    /// A search that wants no hits.
    SizeZero,
    /// A search without a text that can be found.
    NoQuery,
    /// A search with several texts that differ.
    AmbiguousQuery,
    /// A search whose body is not understood; the engine says what is wrong.
    Unparsable,
    /// A search that is not JSON, or wants an answer that is not.
    ContentType,
    /// A search that starts a scroll.
    Scroll,
    /// A search that goes on behind a hit.
    SearchAfter,
    /// A search of one slice of many.
    Slice,
    /// A search that the engine rescores.
    Rescore,
    /// A page that lies behind the window.
    WindowExceeded,
    /// An index that gives fewer hits than the window has.
    ResultWindow,
    /// A search that wants only parts of the answer.
    FilterPath,
    /// A search that rules out the fields that the policy reads.
    StoredFields,
    /// A search through a pipeline of the engine, which may rerank.
    SearchPipeline,
    /// A search that the engine itself reranks or fuses in its own way.
    RerankedAlready,
    /// One search of too many in one request.
    Limit,
    /// A search whose body is signed: another body would be refused.
    Signed,
    /// A search that the engine logs together with the hits that it gives (User Behavior Insights).
    Ubi,
    /// A search whose hits depend on how many are asked for.
    SizeDependent,
    /// A search template that cannot be rendered, or not exactly.
    Template,
}

impl SkipReason {
    /// The name used in `Rerank-Status`, answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoDocuments => "no-documents",
            Self::NoText => "no-text",
            Self::Unread => "unread",
            Self::NoRule => "no-rule",
            Self::RulesDiffer => "rules-differ",
            Self::NoPolicy => "no-policy",
            Self::Disabled => "disabled",
            Self::Sort => "sort",
            Self::SizeZero => "size-zero",
            Self::NoQuery => "no-query",
            Self::AmbiguousQuery => "ambiguous-query",
            Self::Unparsable => "unparsable",
            Self::ContentType => "content-type",
            Self::Scroll => "scroll",
            Self::SearchAfter => "search-after",
            Self::Slice => "slice",
            Self::Rescore => "rescore",
            Self::WindowExceeded => "window-exceeded",
            Self::ResultWindow => "result-window",
            Self::FilterPath => "filter-path",
            Self::StoredFields => "stored-fields",
            Self::SearchPipeline => "search-pipeline",
            Self::RerankedAlready => "reranked-already",
            Self::Limit => "limit",
            Self::Signed => "signed",
            Self::Ubi => "ubi",
            Self::SizeDependent => "size-dependent",
            Self::Template => "template",
        }
    }
}

/// Why an answer has the engine's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// The time was up before any document was scored.
    Deadline,
    /// The policy broke its contract or a limit.
    PolicyFault,
    /// There was no room for the request.
    Overloaded,
    /// The host itself failed.
    Internal,
    /// The answer of the search engine was too large, or not understood.
    UpstreamResponse,
    /// The search engine refused the search for the whole window.
    UpstreamStatus,
    /// Some shards failed, or ran out of time, in the search for the whole window alone.
    UpstreamShards,
    /// What the operator's rule says does not fit the policy.
    Rule,
}

impl FailReason {
    /// The name used in `Rerank-Status`, answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::PolicyFault => "policy-fault",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::UpstreamResponse => "upstream-response",
            Self::UpstreamStatus => "upstream-status",
            Self::UpstreamShards => "upstream-shards",
            Self::Rule => "rule",
        }
    }
}

/// What a ranking says about itself, from the closed set of `Rerank-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Every document was scored or filtered.
    Applied,
    /// Some documents could not be scored.
    Partial,
    /// There was nothing to do.
    Skipped(SkipReason),
    /// The engine's own order, exactly.
    Failed(FailReason),
}

impl Status {
    /// The status word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason, for `skipped` and `failed`.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Applied | Self::Partial => None,
            Self::Skipped(reason) => Some(reason.name()),
            Self::Failed(reason) => Some(reason.name()),
        }
    }
}

/// Where the time of a request went. The parts need not add up to the total: they overlap, and what
/// lies between them is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// Rows waiting until the first of them ran.
    pub queue: Duration,
    /// Tokenizing, as the policy waited for it.
    pub tokenize: Duration,
    /// Rows running, as the policy waited for them, after `queue`.
    pub inference: Duration,
    /// The policy's own computing.
    pub guest: Duration,
    /// From the arrival of the whole request to the ranking.
    pub total: Duration,
    /// What workers spent on its rows, all of them together, and the policy's own computing: the part
    /// of the machine that it took.
    pub worked: Duration,
}

/// What the host's tokenizers made of a request's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCount {
    /// Tokens of all rows, as models saw them: special tokens included, cut texts as cut.
    pub total: u64,
    /// Tokens of the longest row, as its model saw it.
    pub longest: u64,
    /// Tokens of the longest query, as its model saw it, without special tokens; `None` where no text is
    /// known to be the query.
    pub longest_query: Option<u64>,
    /// Tokens of the longest other text, as its model saw it, without special tokens.
    pub longest_document: u64,
    /// Tokens of the longest row that was cut, before the cut; at least, where the text is many
    /// times longer than the model's window.
    pub longest_cut: Option<u64>,
    /// Tokens that a row of the model that cut it may have, at most.
    pub window: u64,
}

impl TokenCount {
    /// The count of both.
    pub fn add(&mut self, other: Self) {
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
        self.longest_query = self.longest_query.max(other.longest_query);
        self.longest_document = self.longest_document.max(other.longest_document);
        if other.longest_cut > self.longest_cut {
            self.longest_cut = other.longest_cut;
            self.window = other.window;
        }
    }
}

/// The reason of documents of which the tokenizer leaves nothing, or that have no text.
pub const EMPTY: &str = "empty";

/// The reason of documents that the model cannot read.
pub const UNREAD: &str = "unread";

/// What a caller should know of how a ranking came about, beside the verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// Whether a model could not read the query. No row of it was run then; a policy that asked how much was
    /// read, or that needs no model, may have scored documents all the same.
    pub query_unread: bool,
    /// Documents of which the model saw only a part; at least, where a policy has several texts of each.
    pub truncated: usize,
    /// The model that stands in for a trained one, if there is one: its scores mean nothing.
    pub stand_in: Option<String>,
}

/// A finished request: what every wire protocol turns into its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reranked {
    /// The policy's name.
    pub policy: String,
    /// The first 8 hex digits of the digest of the version that ranked.
    pub version: String,
    /// What the ranking says about itself.
    pub status: Status,
    /// What the scores are.
    pub score_kind: ScoreKind,
    /// How the scores get into `[0, 1]`.
    pub unit_map: UnitMap,
    /// The first stage that the policy was told of.
    pub first_stage: FirstStage,
    /// The verdicts and the order.
    pub ranking: Ranking,
    /// Whether the query itself was cut to fit the model.
    pub query_truncated: bool,
    /// What a caller should know of how the scores came about.
    pub notes: Notes,
    /// What was tokenized.
    pub tokens: TokenCount,
    /// Where the time went.
    pub timings: Timings,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(score: f64) -> Judgment {
        Judgment {
            outcome: Outcome::Scored(score),
            truncated: false,
            explanation: None,
        }
    }

    #[test]
    fn ties_keep_the_requests_order_and_unscored_documents_follow() {
        let ranking = Ranking::new(vec![
            Judgment::unscored("empty"),
            scored(0.5),
            scored(0.9),
            Judgment {
                outcome: Outcome::Filtered,
                truncated: false,
                explanation: None,
            },
            scored(0.5),
            Judgment::unscored("late"),
        ]);
        assert_eq!(ranking.order(), [2, 1, 4, 0, 5]);
        assert_eq!(
            (ranking.scored(), ranking.unscored(), ranking.documents()),
            (3, 2, 6)
        );
    }

    #[test]
    fn scores_of_each_kind_have_a_place_between_0_and_1() {
        let map = |kind: ScoreKind, score| kind.unit_map().apply(score);
        assert_eq!(map(ScoreKind::Logit, 0.0), Some(0.5));
        assert_eq!(map(ScoreKind::Logit, -1e9), Some(0.0));
        assert_eq!(map(ScoreKind::Cosine, -1.0), Some(0.0));
        assert_eq!(map(ScoreKind::Cosine, 0.5), Some(0.75));
        assert_eq!(map(ScoreKind::Probability, 0.25), Some(0.25));
        assert_eq!(map(ScoreKind::Blend, 1.5), None);
        // Rounding.
        assert_eq!(map(ScoreKind::Cosine, 1.000_000_1), Some(1.0));
    }

    #[test]
    fn token_counts_add_up_and_keep_the_longest_text_that_was_cut() {
        let count = |total, longest, longest_cut, window| TokenCount {
            total,
            longest,
            longest_cut,
            window,
            ..TokenCount::default()
        };
        let mut sum = TokenCount::default();
        for next in [
            count(7, 7, None, 256),
            count(512, 512, Some(600), 512),
            count(256, 256, Some(300), 256),
        ] {
            sum.add(next);
        }
        assert_eq!(sum, count(775, 512, Some(600), 512));
    }

    #[test]
    fn a_negative_zero_ties_with_zero() {
        assert_eq!(
            Ranking::new(vec![scored(-0.0), scored(0.0)]).order(),
            [0, 1]
        );
    }
}
