//! One request, from its bytes to its answer. Start reading here.
//!
//! [`answer`] is the whole line: decode, admit, resolve, invoke, encode; each step is a function of
//! another module. What goes wrong becomes the engine's own order where the route and the request
//! want that, else the protocol's error; both are counted and logged here and nowhere else.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use rerankd_core::{
    ErrorKind, FailReason, FirstStage, Judgment, OnFailure, Outcome, PolicySelector, Ranking,
    RerankError, RerankRequest, Reranked, ScoreKind, SkipReason, Status, Timings,
};
use rerankd_inference::{Deadline, InferenceError, Model, pairs};
use rerankd_policy::{PolicyVersion, invoke};
use rerankd_wire::{Answer, Call, Decoded, Protocol, Target};

use crate::app::App;

/// Bodies above this are decoded and encoded where they do not hold up other connections, bytes.
const LARGE_BODY_BYTES: usize = 64 << 10;

/// Requests of one call (Metarank's distinct queries) that a model runs at the same time.
const CONCURRENT_REQUESTS: usize = 8;

/// A call as it came.
pub struct Incoming {
    /// Which protocol it speaks.
    pub protocol: &'static dyn Protocol,
    /// The path's parameter.
    pub target: String,
    /// The whole body.
    pub body: axum::body::Bytes,
    /// When the whole body was there.
    pub arrived: Instant,
    /// Names the call in logs and answers.
    pub request_id: String,
}

/// Who reranks a request.
enum Ranker {
    Policy(Arc<PolicyVersion>),
    Model(Arc<Model>),
}

/// Answers a call.
pub async fn answer(app: &Arc<App>, incoming: Incoming) -> Answer {
    let protocol = incoming.protocol;
    let encoded = match run(app, &incoming).await {
        Ok((reply, results)) => off_the_runtime(incoming.body.len(), || reply.encode(&results))
            .map(|answer| (answer, results)),
        Err(error) => Err(error),
    };
    match encoded {
        Ok((answer, results)) => {
            app.telemetry
                .answered(protocol.name(), &results, &incoming.request_id);
            answer
        }
        Err(error) => {
            app.telemetry
                .refused(protocol.name(), &error, &incoming.request_id);
            protocol.encode_error(&error, &incoming.request_id)
        }
    }
}

/// How to write the answer, and of what.
type Finished<'a> = (Box<dyn rerankd_wire::Reply + Send + 'a>, Vec<Reranked>);

async fn run<'a>(app: &'a Arc<App>, incoming: &'a Incoming) -> Result<Finished<'a>, RerankError> {
    let call = Call {
        target: &incoming.target,
        body: &incoming.body,
        limits: &app.config.limits,
    };
    let decoded = off_the_runtime(incoming.body.len(), || incoming.protocol.decode(&call))?;
    let Decoded {
        target,
        requests,
        reply,
    } = decoded;
    let ranker = resolve(app, target)?;
    if requests.is_empty() {
        return Ok((reply, Vec::new()));
    }
    let admitted = app
        .admission
        .admit(&requests, incoming.arrived, &app.inference);
    // The permit is held until the last result.
    let (_permit, admitted) = match admitted {
        Ok((permit, deadline)) => (Some(permit), Ok(deadline)),
        Err(error) => (None, Err(error)),
    };
    let one = |request| rerank(app, incoming, &ranker, request, admitted.clone());
    let running = futures_util::stream::iter(requests.into_iter().map(one));
    let results = running.buffered(ranker.concurrency()).try_collect().await?;
    Ok((reply, results))
}

fn resolve(app: &App, target: Target) -> Result<Ranker, RerankError> {
    match target {
        Target::Policy(selector) => app.catalog.resolve(&selector).map(Ranker::Policy),
        Target::PolicyOrModel(selector) => {
            if let Some(model) = app.inference.model(&selector.to_string()) {
                return Ok(Ranker::Model(Arc::clone(model)));
            }
            match app.catalog.resolve(&selector) {
                Ok(version) => refuse_set_relative(&version).map(|()| Ranker::Policy(version)),
                Err(_) => Err(unknown_model(app, &selector)),
            }
        }
    }
}

/// Routes that carry a score for each pair cannot serve scores that depend on the other pairs.
fn refuse_set_relative(version: &PolicyVersion) -> Result<(), RerankError> {
    if !version.manifest().is_set_relative(FirstStage::None) {
        return Ok(());
    }
    Err(RerankError::new(
        ErrorKind::BadRequest,
        format!(
            "policy `{}` scores a document by its place among the others: it cannot score pairs; use /v1/rerank/{}",
            version.name(),
            version.name()
        ),
    ))
}

fn unknown_model(app: &App, selector: &PolicySelector) -> RerankError {
    let models = app
        .inference
        .models()
        .map(|model| format!("`{}`", model.name()));
    let policies = app.catalog.active();
    let policies = policies
        .iter()
        .map(|version| format!("`{}`", version.name()));
    let known: Vec<String> = models.chain(policies).collect();
    RerankError::new(
        ErrorKind::UnknownModel,
        format!(
            "no model or policy `{selector}`; there are: {}",
            known.join(", ")
        ),
    )
}

/// One request: run, and, where that is wanted, failed into the engine's own order.
async fn rerank(
    app: &Arc<App>,
    incoming: &Incoming,
    ranker: &Ranker,
    request: RerankRequest,
    admitted: Result<Deadline, RerankError>,
) -> Result<Reranked, RerankError> {
    let documents = request.documents.len();
    let first_stage = request.first_stage;
    let asked = request.on_failure;
    let on_failure = asked.unwrap_or_else(|| incoming.protocol.on_failure());
    let result = match (admitted, ranker) {
        (Err(error), _) => Err(error),
        (Ok(deadline), Ranker::Policy(version)) => {
            run_policy(app, incoming, version, request, deadline).await
        }
        (Ok(deadline), Ranker::Model(model)) => {
            run_model(app, incoming, model, request, deadline).await
        }
    };
    let error = match result {
        Ok(reranked) => return Ok(reranked),
        Err(error) => error,
    };
    let reason = match error.kind {
        ErrorKind::PolicyFault => FailReason::PolicyFault,
        ErrorKind::DeadlineExceeded => FailReason::Deadline,
        ErrorKind::Internal => FailReason::Internal,
        // Overload is worth another try, so it is an error unless the request itself says not.
        ErrorKind::Overloaded if asked.is_some() => FailReason::Overloaded,
        _ => return Err(error),
    };
    if on_failure == OnFailure::Error {
        return Err(error);
    }
    app.telemetry
        .fell_back(incoming.protocol.name(), &error, &incoming.request_id);
    let (policy, version, score_kind) = ranker.identity(first_stage);
    let unscored = if reason == FailReason::Deadline {
        "late"
    } else {
        "failed"
    };
    Ok(Reranked {
        policy,
        version,
        score_kind,
        status: Status::Failed(reason),
        first_stage,
        ranking: Ranking::first_stage(documents, unscored),
        query_truncated: false,
        timings: Timings {
            total: incoming.arrived.elapsed(),
            ..Timings::default()
        },
    })
}

impl Ranker {
    /// How many requests of one call run at the same time: a call takes one policy instance.
    fn concurrency(&self) -> usize {
        match self {
            Self::Policy(_) => 1,
            Self::Model(_) => CONCURRENT_REQUESTS,
        }
    }

    /// Name, version, and what the scores would have been.
    fn identity(&self, first_stage: FirstStage) -> (String, String, ScoreKind) {
        match self {
            Self::Policy(version) => (
                version.name().to_owned(),
                version.short_digest().to_owned(),
                version
                    .manifest()
                    .score_kind(first_stage, &serde_json::Value::Null),
            ),
            Self::Model(model) => (
                model.name().to_owned(),
                model.digest()[..8].to_owned(),
                model.manifest().score_kind(),
            ),
        }
    }
}

async fn run_policy(
    app: &Arc<App>,
    incoming: &Incoming,
    version: &Arc<PolicyVersion>,
    request: RerankRequest,
    deadline: Deadline,
) -> Result<Reranked, RerankError> {
    let invoked = invoke(
        &app.engine,
        &app.inference,
        version,
        request,
        incoming.arrived,
        deadline,
    )
    .await;
    app.telemetry.invoked(version, &invoked);
    match invoked {
        Ok(invoked) => Ok(invoked.reranked),
        Err(error) => Err(error.to_rerank_error()),
    }
}

/// A model's raw pair scores, without a policy.
async fn run_model(
    app: &Arc<App>,
    incoming: &Incoming,
    model: &Arc<Model>,
    request: RerankRequest,
    deadline: Deadline,
) -> Result<Reranked, RerankError> {
    let texts: Vec<String> = request.documents.iter().map(text).collect();
    let present: Vec<usize> = (0..texts.len())
        .filter(|&index| !texts[index].trim().is_empty())
        .collect();
    let mut judgments = vec![Judgment::unscored("empty"); texts.len()];
    let mut timings = Timings::default();
    let mut query_truncated = false;
    if !present.is_empty() {
        let lane = app.inference.scheduler().open_lane(deadline);
        let chosen = present.iter().map(|&index| texts[index].clone()).collect();
        let scoring = pairs::score(&lane, model, &request.query, chosen);
        let scores = tokio::time::timeout_at(deadline.give_up_at().into(), scoring)
            .await
            .map_err(|_| late(model))?
            .map_err(failed)?;
        for (&index, score) in present.iter().zip(&scores.scores) {
            let outcome = score.map_or_else(|| Outcome::Unscored("late".into()), Outcome::Scored);
            judgments[index] = Judgment {
                outcome,
                truncated: false,
                explanation: None,
            };
        }
        for row in scores.truncated {
            judgments[present[row]].truncated = true;
        }
        query_truncated = scores.query_truncated;
        timings.tokenize = scores.tokenize;
        timings.queue = scores.queue;
        timings.inference = scores.inference;
    }
    timings.total = incoming.arrived.elapsed();
    let ranking = Ranking::new(judgments);
    let status = match (ranking.scored(), ranking.unscored()) {
        (_, 0) => Status::Applied,
        (0, _) if present.is_empty() => Status::Skipped(SkipReason::NoText),
        (0, _) => return Err(late(model)),
        _ => Status::Partial,
    };
    Ok(Reranked {
        policy: model.name().to_owned(),
        version: model.digest()[..8].to_owned(),
        status,
        score_kind: model.manifest().score_kind(),
        first_stage: request.first_stage,
        ranking,
        query_truncated,
        timings,
    })
}

fn late(model: &Model) -> RerankError {
    let name = model.name();
    RerankError::new(
        ErrorKind::DeadlineExceeded,
        format!("model {name}: the deadline came before any document was scored"),
    )
}

/// A failure of tokenizer or model, in the words of every protocol.
pub(crate) fn failed(error: InferenceError) -> RerankError {
    let kind = match error {
        InferenceError::ShuttingDown => ErrorKind::ShuttingDown,
        InferenceError::UnusableModel { .. } => ErrorKind::BadRequest,
        _ => ErrorKind::Internal,
    };
    RerankError::new(kind, error.to_string())
}

fn text(document: &rerankd_core::Document) -> String {
    let texts = document
        .fields
        .iter()
        .filter_map(|field| match &field.value {
            rerankd_core::Value::Text(text) => Some(text.as_str()),
            _ => None,
        });
    texts.collect::<Vec<_>>().join(" ")
}

/// Runs `work` on this thread, after telling the runtime to move other connections away if the body
/// is large.
pub(crate) fn off_the_runtime<T>(body_bytes: usize, work: impl FnOnce() -> T) -> T {
    if body_bytes > LARGE_BODY_BYTES {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
