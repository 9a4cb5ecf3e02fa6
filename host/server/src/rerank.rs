//! One request, from its bytes to its answer. Start reading here.
//!
//! [`answer`] is the whole line: decode, admit, resolve, invoke, encode; each step is a function of
//! another module. What goes wrong becomes the engine's own order where the route and the request
//! want that, else the protocol's error; both are counted and logged here and nowhere else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use rerankd_core::ranking::{EMPTY, UNREAD};
use rerankd_core::{
    Charge, ErrorKind, FailReason, FirstStage, Judgment, Notes, OnFailure, Outcome, PolicySelector,
    Ranking, RerankError, RerankRequest, Reranked, ScoreKind, SkipReason, Status, Timings,
    TokenCount,
};
use rerankd_inference::{Deadline, InferenceError, Model, Verdict, pairs};
use rerankd_policy::catalog::Chosen;
use rerankd_policy::{PolicyError, PolicyVersion, invoke, split};
use rerankd_wire::{Answer, Call, Decoded, Protocol, Target};

use crate::admission::estimated_tokens;
use crate::app::App;
use crate::shadow::ShadowJob;

/// Bodies above this are decoded and encoded where they do not hold up other connections, bytes.
const LARGE_BODY_BYTES: usize = 64 << 10;

/// Requests of one call (Metarank's distinct queries) that a model runs at the same time.
const CONCURRENT_REQUESTS: usize = 8;

/// A call as it came.
pub struct Incoming {
    /// Which protocol it speaks.
    pub protocol: &'static dyn Protocol,
    /// The pattern of its path.
    pub path: &'static str,
    /// The path's parameter; empty if it has none.
    pub target: String,
    /// The whole body.
    pub body: axum::body::Bytes,
    /// When the whole body was there.
    pub arrived: Instant,
    /// Names the call in logs and answers.
    pub request_id: String,
    /// Names who asks, so that a canary shows the same side on every page: the header `Rerankd-Key`.
    pub key: Option<String>,
}

/// What a request is part of.
pub(crate) struct Caller<'a> {
    /// The protocol's name in metrics and logs.
    pub(crate) protocol: &'static str,
    /// What to answer when reranking fails and the request does not say.
    pub(crate) on_failure: OnFailure,
    /// What the answer is.
    pub(crate) shape: Shape,
    /// When all of the request was there.
    pub(crate) arrived: Instant,
    /// Names the call in logs.
    pub(crate) request_id: &'a str,
}

/// What an answer is, which decides what it can say where nothing was ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The engine's own page.
    Search,
    /// The request's documents, which have an order without any score.
    Documents,
    /// Scores, and nothing else.
    Scores,
}

/// Who reranks a request.
pub(crate) enum Ranker {
    Policy(Chosen),
    Model(Arc<Model>),
}

/// Answers a call.
pub async fn answer(app: &Arc<App>, incoming: Incoming) -> Answer {
    let protocol = incoming.protocol;
    let shadows = Shadows::default();
    let encoded = match run(app, &incoming, &shadows).await {
        Ok((reply, results)) => off_the_runtime(incoming.body.len(), || reply.encode(&results))
            .map(|answer| (answer, results)),
        Err(error) => Err(error),
    };
    match encoded {
        Ok((answer, results)) => {
            app.telemetry
                .answered(protocol.name(), &results, &incoming.request_id);
            offer(app, shadows);
            answer
        }
        Err(error) => {
            app.telemetry
                .refused(protocol.name(), &error, &incoming.request_id);
            protocol.encode_error(&error, &incoming.request_id)
        }
    }
}

/// What is left of a call's policies until it is answered.
#[derive(Default)]
pub(crate) struct Shadows {
    /// Shadow runs, to be offered then.
    jobs: Mutex<Vec<ShadowJob>>,
    /// What the rankings are charged with.
    held: Mutex<Vec<Charge>>,
}

/// Offers shadow runs, when the call holds nothing any more: what they see is the load of others.
pub(crate) fn offer(app: &App, shadows: Shadows) {
    drop(shadows.held);
    for job in shadows.jobs.into_inner().unwrap_or_default() {
        app.shadow.offer(&app.admission, job);
    }
}

/// How to write the answer, and of what.
type Finished<'a> = (Box<dyn rerankd_wire::Reply + Send + 'a>, Vec<Reranked>);

async fn run<'a>(
    app: &'a Arc<App>,
    incoming: &'a Incoming,
    shadows: &Shadows,
) -> Result<Finished<'a>, RerankError> {
    let call = Call {
        path: incoming.path,
        target: &incoming.target,
        body: &incoming.body,
        limits: &app.config.limits,
        request_id: &incoming.request_id,
        unix_seconds: unix_seconds(),
    };
    let decoded = off_the_runtime(incoming.body.len(), || incoming.protocol.decode(&call))?;
    let Decoded {
        target,
        requests,
        reply,
    } = decoded;
    let ranker = resolve(app, target, split_key(incoming, requests.first())).await?;
    if requests.is_empty() {
        return Ok((reply, Vec::new()));
    }
    let admitted = app
        .admission
        .admit(ranker.digest(), &requests, incoming.arrived, &app.inference)
        .await;
    // The permit is held until the last result.
    let (_permit, admitted) = match admitted {
        Ok((permit, deadline)) => (Some(permit), Ok(deadline)),
        Err(error) => (None, Err(error)),
    };
    let caller = Caller {
        protocol: incoming.protocol.name(),
        on_failure: match incoming.protocol.on_failure() {
            OnFailure::FirstStage => OnFailure::FirstStage,
            OnFailure::Error => app.config.wire.on_failure,
        },
        shape: match incoming.protocol.on_failure() {
            OnFailure::FirstStage => Shape::Documents,
            OnFailure::Error => Shape::Scores,
        },
        arrived: incoming.arrived,
        request_id: &incoming.request_id,
    };
    let one = |request| rerank(app, &caller, &ranker, request, admitted.clone(), shadows);
    let running = futures_util::stream::iter(requests.into_iter().map(one));
    let results = running.buffered(ranker.concurrency()).try_collect().await?;
    Ok((reply, results))
}

/// Now.
fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// What says on which side of a canary a call is.
fn split_key<'a>(incoming: &'a Incoming, request: Option<&'a RerankRequest>) -> &'a str {
    let key = request.and_then(|request| request.key.as_deref());
    let query = request.map_or("", |request| &request.query);
    split::split_key(incoming.key.as_deref(), key, query)
}

async fn resolve(app: &App, target: Target, key: &str) -> Result<Ranker, RerankError> {
    match target {
        Target::Policy(selector) => app
            .releases
            .resolve(&selector, key)
            .await
            .map(Ranker::Policy),
        Target::PolicyOrModel(selector) => {
            if let Some(model) = app.inference.model(&selector.to_string()) {
                return Ok(Ranker::Model(model));
            }
            match app.releases.resolve(&selector, key).await {
                Ok(chosen) => {
                    refuse_set_relative(&chosen.placed.version).map(|()| Ranker::Policy(chosen))
                }
                Err(error) if error.kind == ErrorKind::UnknownPolicy => {
                    Err(unknown_model(app, &selector))
                }
                Err(error) => Err(error),
            }
        }
        Target::Named(name) => resolve_name(app, name.as_deref(), key)
            .await
            .map(Ranker::Policy),
        Target::NamedForPairs(name) => {
            let chosen = resolve_name(app, name.as_deref(), key).await?;
            refuse_set_relative(&chosen.placed.version).map(|()| Ranker::Policy(chosen))
        }
    }
}

/// Who answers to what a body calls a model.
pub(crate) async fn resolve_name(
    app: &App,
    name: Option<&str>,
    key: &str,
) -> Result<Chosen, RerankError> {
    let Some(name) = name else {
        return app.releases.resolve(&default_policy(app)?, key).await;
    };
    if let Some(policy) = app.config.wire.aliases.get(name) {
        return app.releases.resolve(policy, key).await;
    }
    let selector = PolicySelector::parse(name);
    let active = app.releases.catalog().active();
    // One that is expected is no foreign model, however long it takes to come.
    let is_policy = active.iter().any(|version| version.name() == selector.name)
        || app.config.expect.contains(&selector.name);
    if let Some(policy) = app.config.wire.catch_all().filter(|_| !is_policy) {
        return app.releases.resolve(policy, key).await;
    }
    let resolved = app.releases.resolve(&selector, key).await;
    resolved.map_err(|error| match error.kind {
        ErrorKind::UnknownPolicy => {
            let aliases = app.config.wire.aliases.keys();
            let aliases: Vec<String> = aliases.map(|alias| format!("`{alias}`")).collect();
            let aliases = if aliases.is_empty() {
                "none (`[wire.aliases]`)".to_owned()
            } else {
                aliases.join(", ")
            };
            RerankError {
                kind: ErrorKind::UnknownModel,
                message: format!("`model`: {}; aliases: {aliases}", error.message),
                at: Some("model".to_owned()),
                ..error
            }
        }
        _ => error,
    })
}

/// Who answers where nobody is named.
///
/// # Errors
/// `UnknownModel` where nothing says who.
pub(crate) fn default_policy(app: &App) -> Result<PolicySelector, RerankError> {
    let active = app.releases.catalog().active();
    let names: Vec<&str> = active.iter().map(|version| version.name()).collect();
    default_of(
        &names,
        app.config.default_policy.as_ref(),
        &app.config.expect,
    )
}

/// As [`default_policy`], where policies of these names are served, of what the configuration says:
/// `--default-policy` and `--expect`.
///
/// # Errors
/// As [`default_policy`].
pub(crate) fn default_of(
    active: &[&str],
    default: Option<&PolicySelector>,
    expect: &[String],
) -> Result<PolicySelector, RerankError> {
    /// What answers where the operator did not say, if it is served.
    const USUAL: &str = "semantic-blend";
    if let Some(policy) = default {
        return Ok(policy.clone());
    }
    let mut names = active.to_vec();
    // What is expected is as good as there.
    for name in expect.iter().map(String::as_str) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let usual = names.iter().find(|name| **name == USUAL);
    let only = names.first().filter(|_| names.len() == 1);
    match usual.or(only) {
        Some(name) => Ok(PolicySelector::parse(name)),
        None => {
            let names: Vec<String> = active.iter().map(|name| format!("`{name}`")).collect();
            Err(RerankError::new(
                ErrorKind::UnknownModel,
                format!(
                    "the request names no policy, and the server has no default (`--default-policy`); active: {}",
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    }
                ),
            ))
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
    let models = app.inference.models();
    let models = models.iter().map(|model| format!("`{}`", model.name()));
    let policies = app.releases.catalog().active();
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
pub(crate) async fn rerank(
    app: &Arc<App>,
    caller: &Caller<'_>,
    ranker: &Ranker,
    request: RerankRequest,
    admitted: Result<Deadline, RerankError>,
    shadows: &Shadows,
) -> Result<Reranked, RerankError> {
    let documents = request.documents.len();
    let first_stage = request.first_stage;
    let asked = request.on_failure;
    let on_failure = asked.unwrap_or(caller.on_failure);
    let tokens = estimated_tokens(&request);
    let result = match (admitted, ranker) {
        (Err(error), _) => Err(error),
        (Ok(deadline), Ranker::Policy(chosen)) => {
            run_policy(app, caller, chosen, request, deadline, shadows).await
        }
        (Ok(deadline), Ranker::Model(model)) => {
            run_model(app, caller, model, request, deadline).await
        }
    };
    let error = match result {
        Ok(reranked) => {
            app.admission.learn(ranker.digest(), tokens, &reranked);
            return match unranked(caller.shape, on_failure, &reranked) {
                Some(error) => Err(error),
                None => Ok(reranked),
            };
        }
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
        .fell_back(caller.protocol, &error, caller.request_id);
    let (policy, version, score_kind) = ranker.identity(first_stage);
    let unit_map = score_kind.unit_map();
    let unscored = if reason == FailReason::Deadline {
        "late"
    } else {
        "failed"
    };
    Ok(Reranked {
        policy,
        version,
        score_kind,
        unit_map,
        status: Status::Failed(reason),
        first_stage,
        ranking: Ranking::first_stage(documents, unscored),
        query_truncated: false,
        notes: Notes::default(),
        tokens: TokenCount::default(),
        timings: Timings {
            total: caller.arrived.elapsed(),
            ..Timings::default()
        },
    })
}

/// The error for a ranking without a score, where the answer could say only scores; and for a query of
/// which nothing is left, which is the caller's mistake everywhere but in a search.
fn unranked(shape: Shape, on_failure: OnFailure, reranked: &Reranked) -> Option<RerankError> {
    let policy = &reranked.policy;
    match reranked.status {
        Status::Skipped(SkipReason::NoQuery) if shape != Shape::Search => Some(RerankError::new(
            ErrorKind::Empty,
            format!(
                "the query is empty: nothing is left of it for the model of `{policy}`; expected the text that was searched for"
            ),
        )),
        Status::Skipped(SkipReason::Unread)
            if shape == Shape::Scores && on_failure == OnFailure::Error =>
        {
            let what = match reranked.notes.query_unread {
                true => "the query",
                false => "any of the documents",
            };
            Some(RerankError::new(
                ErrorKind::Unread,
                format!(
                    "the model of `{policy}` cannot read {what}: more than half of the letters are of scripts, or of characters, that it does not know; ask a policy whose model reads them"
                ),
            ))
        }
        _ => None,
    }
}

impl Ranker {
    /// How many requests of one call run at the same time: a call takes one policy instance.
    fn concurrency(&self) -> usize {
        match self {
            Self::Policy(_) => 1,
            Self::Model(_) => CONCURRENT_REQUESTS,
        }
    }

    /// Of the version, or of the model.
    pub(crate) fn digest(&self) -> &str {
        match self {
            Self::Policy(chosen) => chosen.placed.version.digest(),
            Self::Model(model) => model.digest(),
        }
    }

    /// Name, version, and what the scores would have been.
    fn identity(&self, first_stage: FirstStage) -> (String, String, ScoreKind) {
        match self {
            Self::Policy(chosen) => {
                let version = &chosen.placed.version;
                let manifest = version.manifest();
                (
                    version.name().to_owned(),
                    version.short_digest().to_owned(),
                    manifest.score_kind(first_stage, &serde_json::Value::Null),
                )
            }
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
    caller: &Caller<'_>,
    chosen: &Chosen,
    request: RerankRequest,
    deadline: Deadline,
    shadows: &Shadows,
) -> Result<Reranked, RerankError> {
    let placed = &chosen.placed;
    let version = &placed.version;
    let first_stage = request.first_stage;
    let shadow = chosen.shadow.as_ref().and_then(|shadow| {
        let copy = app
            .shadow
            .copy(shadow.traffic(), version.digest(), &request)?;
        Some((Arc::clone(shadow), copy))
    });
    let invoked = invoke(
        &app.engine,
        &app.inference,
        version,
        request,
        caller.arrived,
        deadline,
    )
    .await;
    version
        .traffic()
        .record(first_stage, &invoked, caller.request_id);
    app.releases.observe(placed, &invoked);
    if let Err(PolicyError::Fault { fault, .. }) = &invoked {
        // What a guest says may hold document data: the log gets the kind alone.
        tracing::warn!(
            policy = version.label(),
            fault = fault.name(),
            "policy fault"
        );
        app.releases.note_fault(version, fault, caller.request_id);
    }
    match invoked {
        Ok(invoked) => {
            if let Some((version, request)) = shadow {
                let job = ShadowJob {
                    engine: Arc::clone(&app.engine),
                    inference: Arc::clone(&app.inference),
                    traffic: Arc::clone(version.traffic()),
                    against: placed.version.digest().to_owned(),
                    version,
                    request,
                    live: invoked.reranked.clone(),
                    request_id: caller.request_id.to_owned(),
                };
                let mut jobs = shadows.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                jobs.push(job);
            }
            let mut held = shadows.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.extend(invoked.held);
            Ok(invoked.reranked)
        }
        Err(error) => Err(error.to_rerank_error()),
    }
}

/// A model's raw pair scores, without a policy.
async fn run_model(
    app: &Arc<App>,
    caller: &Caller<'_>,
    model: &Arc<Model>,
    request: RerankRequest,
    deadline: Deadline,
) -> Result<Reranked, RerankError> {
    let texts: Vec<String> = request.documents.iter().map(text).collect();
    let present: Vec<usize> = (0..texts.len())
        .filter(|&index| !texts[index].trim().is_empty())
        .collect();
    let mut judgments = vec![Judgment::unscored(EMPTY); texts.len()];
    let mut timings = Timings::default();
    let mut query = Verdict::Read;
    let mut query_truncated = false;
    let mut tokens = TokenCount::default();
    if !present.is_empty() {
        let lane = app.inference.scheduler().open_lane(deadline);
        let chosen = present.iter().map(|&index| texts[index].clone()).collect();
        let scoring = pairs::score(&lane, model, &request.query, chosen);
        let scores = tokio::time::timeout_at(deadline.give_up_at().into(), scoring)
            .await
            .map_err(|_| late(model))?
            .map_err(failed)?;
        for ((&index, score), text) in present.iter().zip(&scores.scores).zip(&scores.texts) {
            let outcome = match (score, scores.query, text) {
                (Some(score), ..) => Outcome::Scored(*score),
                (None, _, Verdict::Empty) => Outcome::Unscored(EMPTY.into()),
                (None, Verdict::Read, Verdict::Read) => Outcome::Unscored("late".into()),
                (None, ..) => Outcome::Unscored(UNREAD.into()),
            };
            judgments[index] = Judgment {
                outcome,
                truncated: false,
                explanation: None,
            };
        }
        for row in scores.truncated {
            let judgment = &mut judgments[present[row]];
            judgment.truncated = matches!(judgment.outcome, Outcome::Scored(_));
        }
        query = scores.query;
        query_truncated = scores.query_truncated;
        tokens = scores.tokens;
        timings.tokenize = scores.tokenize;
        timings.queue = scores.queue;
        timings.inference = scores.inference;
        timings.worked = scores.run_time;
    }
    timings.total = caller.arrived.elapsed();
    let truncated = judgments.iter().filter(|one| one.truncated).count();
    let ranking = Ranking::new(judgments);
    let unscored = ranking.unscored();
    let status = match (ranking.scored(), unscored, query) {
        (_, 0, _) => Status::Applied,
        (1.., ..) => Status::Partial,
        (0, _, Verdict::Empty) => Status::Skipped(SkipReason::NoQuery),
        (0, _, Verdict::Unread) => Status::Skipped(SkipReason::Unread),
        _ if ranking.unscored_for(EMPTY) == unscored => Status::Skipped(SkipReason::NoText),
        _ if ranking.unscored_for("late") > 0 => return Err(late(model)),
        _ => Status::Skipped(SkipReason::Unread),
    };
    let is_stand_in = model.manifest().test_only;
    Ok(Reranked {
        policy: model.name().to_owned(),
        version: model.digest()[..8].to_owned(),
        status,
        score_kind: model.manifest().score_kind(),
        unit_map: model.manifest().score_kind().unit_map(),
        first_stage: request.first_stage,
        ranking,
        query_truncated,
        notes: Notes {
            query_unread: query == Verdict::Unread,
            truncated,
            stand_in: is_stand_in.then(|| model.name().to_owned()),
        },
        tokens,
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
