//! One search between client and engine: its body, what the engine is sent, and the two kinds of
//! answers: one that is streamed through, and one that is read to be reranked.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request;
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, response};
use hyper::body::Incoming;
use rerankd_core::{ErrorKind, FailReason, RerankError, SkipReason, Status};
use rerankd_wire::search::{self, Forward, Rewritten, SearchCall};
use rerankd_wire::status::{
    MappingNote, RERANK_STATUS, SearchStatus, multi_search_status_header, search_status_header,
};

use super::body::{Activity, Collected, Cut, collect};
use super::cache::{PagesId, SearchId};
use super::lookup;
use super::ranking::{Asker, Known};
use super::upstream::{Asked, Payload, body_broke_off, root_cause};
use super::{Kind, Proxy, headers, pass};
use crate::admission::Permit;
use crate::body::Pace;
use crate::connections::AwaitedBody;
use crate::data_plane::SPLIT_KEY;
use crate::gzip::{self, Encoding, Packed};
use crate::rerank::off_the_runtime;

/// What only OpenSearch says of itself.
static OPENSEARCH_VERSION: HeaderName = HeaderName::from_static("x-opensearch-version");

/// Smaller answers are not worth packing, bytes.
const LEAST_PACKED: usize = 1024;

/// Headers that are options of ours start like this.
const OPTION_HEADERS: &str = "rerankd-";

/// One `_search` or `_msearch`.
pub(super) struct Exchange<'p> {
    pub(super) proxy: &'p Proxy,
    pub(super) kind: Kind,
    /// The index expression of the path.
    pub(super) index: Option<String>,
    pub(super) head: request::Parts,
    /// Whether the path is that of a template, or of several.
    pub(super) is_template: bool,
    /// Names the call in logs.
    pub(super) id: &'p str,
    /// What the mappings had to do with each search, for `Rerank-Status`.
    pub(super) notes: Notes,
}

/// What the mappings had to do with each search of a request.
#[derive(Default)]
pub(super) struct Notes(Mutex<Vec<MappingNote>>);

impl Notes {
    /// Notes something of the search at this position.
    pub(super) fn note(&self, item: usize, note: impl FnOnce(&mut MappingNote)) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() <= item {
            notes.resize_with(item + 1, MappingNote::default);
        }
        note(&mut notes[item]);
    }

    /// `Rerank-Status` of the only search.
    pub(super) fn header(&self, status: SearchStatus<'_>) -> HeaderValue {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let none = MappingNote::default();
        search_status_header(status, notes.first().unwrap_or(&none))
    }

    /// `Rerank-Status` of several searches.
    pub(super) fn header_of_all(&self, statuses: &[SearchStatus<'_>]) -> HeaderValue {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        multi_search_status_header(statuses, &notes)
    }
}

/// The body of a search.
pub(super) struct Sent {
    /// As it came.
    pub(super) raw: Bytes,
    /// Unpacked; the same where it was not packed.
    pub(super) plain: Bytes,
    /// The search that a template was rendered to.
    pub(super) rendered: Option<Rendered>,
    /// Holds the room that it takes.
    pub(super) _room: Permit,
}

/// The search that a template stands for.
pub(super) struct Rendered {
    /// Its path.
    pub(super) path: String,
    pub(super) body: Bytes,
    /// Whether there are options of ours in it, which the engine does not know.
    pub(super) has_options: bool,
    /// Holds the room of the body.
    pub(super) _room: Permit,
}

/// What the engine said to a search that was rewritten.
pub(super) enum Said {
    /// Success, and all of it was read.
    Found(Found),
    /// The search as the client meant it must be sent, for this reason.
    Again(SearchStatus<'static>),
    /// An answer that has nothing to do with what was rewritten: it is the client's.
    Final(Response<Body>),
}

/// An answer that was read.
pub(super) struct Found {
    pub(super) head: response::Parts,
    /// Unpacked.
    pub(super) body: Bytes,
    _room: Permit,
}

impl AsRef<[u8]> for Found {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Why a body is not read.
enum Unread {
    /// It is compressed in another way, or broken.
    Encoding,
    TooLarge,
    NoRoom,
}

impl Exchange<'_> {
    /// Reads the search and answers it.
    ///
    /// # Errors
    /// Options of ours that are wrong; the engine's trouble; and ours, where the search wants that.
    pub(super) async fn answer(self, mut body: Incoming) -> Result<Response<Body>, RerankError> {
        let limits = &self.proxy.app.config.limits;
        let admission = &self.proxy.app.admission;
        let limit = self.proxy.settings.max_rewrite_bytes;
        let mut room = Permit::default();
        let awaited = AwaitedBody::of(&self.head.extensions);
        let pace = Pace::new(&self.proxy.app);
        let reading = collect(&mut body, limit, Some(pace), |bytes| {
            admission.admit_bytes(&mut room, bytes).is_ok()
        });
        let read = tokio::time::timeout(limits.body_timeout, reading).await;
        drop(awaited);
        let read = read.map_err(|_| {
            let within = limits.body_timeout;
            let problem = format!("the body did not arrive within {within:?}");
            RerankError::new(ErrorKind::RequestTimeout, problem)
        })?;
        let raw = match read {
            Ok(Collected::Whole(raw)) => raw,
            Ok(Collected::TooLarge(read)) => {
                let status = SearchStatus::Skipped(SkipReason::Limit);
                return self.pass_unread(read, body, status).await;
            }
            Ok(Collected::NoRoom(read)) => {
                let status = SearchStatus::Failed(FailReason::Overloaded);
                return self.pass_unread(read, body, status).await;
            }
            Err(Cut::Slow(problem)) => {
                return Err(RerankError::new(ErrorKind::RequestTimeout, problem));
            }
            Err(Cut::Broken(error)) => return Err(body_broke_off(&root_cause(&error))),
        };
        let plain = match self.plain(&self.head.headers, &raw, &mut room) {
            Ok(plain) => plain,
            Err(unread) => {
                let status = match unread {
                    Unread::Encoding => SearchStatus::Skipped(SkipReason::ContentType),
                    Unread::TooLarge => SearchStatus::Skipped(SkipReason::Limit),
                    Unread::NoRoom => SearchStatus::Failed(FailReason::Overloaded),
                };
                return self.pass_raw(raw, status).await;
            }
        };
        let mut sent = Sent {
            raw,
            plain,
            rendered: None,
            _room: room,
        };
        if self.is_template
            && let Err(status) = self.render(&mut sent).await
        {
            self.count(&[status]);
            let as_sent = search::template_as_sent(&self.call_as_sent(&sent));
            return self
                .through(&as_sent, &sent, self.notes.header(status))
                .await;
        }
        match self.kind {
            Kind::MultiSearch => self.multi(&sent).await,
            Kind::Search | Kind::Passed => self.single(&sent).await,
        }
    }

    /// Plans a search. Where the plan hangs on a mapping that the engine was not asked for yet, it is
    /// asked, waited for a little, and the search is planned again.
    ///
    /// # Errors
    /// Those of `plan`.
    pub(super) async fn planned<P>(
        &self,
        sent: &Sent,
        plan: impl Fn(&Known<'_>) -> Result<P, RerankError>,
        hangs: impl Fn(&P) -> bool,
    ) -> Result<P, RerankError> {
        let lookups = &self.proxy.lookups;
        let caller = lookups.caller(&self.head.headers);
        let one = |is_last| {
            off_the_runtime(sent.plain.len(), || {
                let known = Known {
                    app: &self.proxy.app,
                    view: lookups.view(&caller, is_last),
                };
                (plan(&known), known.view.into_wanted())
            })
        };
        let (planned, wanted) = one(false);
        if !wanted.old.is_empty() {
            // In the background: what is known serves.
            drop(lookups.begin(&caller, wanted.old));
        }
        // Options that are wrong by one rule may be right by another.
        if wanted.cold.is_empty() || !planned.as_ref().map_or(true, hangs) {
            return planned;
        }
        let looking = lookups.begin(&caller, wanted.cold);
        let _ = tokio::time::timeout(lookup::HOLD, looking).await;
        one(true).0
    }

    /// A body as it was before it was compressed for the way. What it is packed has room; unpacked it
    /// needs its own.
    fn plain(
        &self,
        headers: &http::HeaderMap,
        raw: &Bytes,
        room: &mut Permit,
    ) -> Result<Bytes, Unread> {
        match gzip::encoding(headers) {
            Encoding::Identity => Ok(raw.clone()),
            Encoding::Other => Err(Unread::Encoding),
            Encoding::Gzip => {
                let limit = self.proxy.settings.max_rewrite_bytes;
                let admission = &self.proxy.app.admission;
                let room = |size| admission.admit_bytes(room, size);
                match off_the_runtime(raw.len(), || gzip::unpack(raw, limit, room)) {
                    Ok(plain) => Ok(plain),
                    Err(Packed::Broken(_)) => Err(Unread::Encoding),
                    Err(Packed::TooLarge) => Err(Unread::TooLarge),
                    Err(Packed::NoRoom(_)) => Err(Unread::NoRoom),
                }
            }
        }
    }

    /// The search, for planning.
    pub(super) fn call<'a>(&'a self, sent: &'a Sent) -> SearchCall<'a> {
        let call = self.call_as_sent(sent);
        match &sent.rendered {
            None => call,
            Some(rendered) => SearchCall {
                path: &rendered.path,
                body: &rendered.body,
                ..call
            },
        }
    }

    /// The request as it came.
    pub(super) fn call_as_sent<'a>(&'a self, sent: &'a Sent) -> SearchCall<'a> {
        SearchCall {
            index: self.index.as_deref(),
            method: &self.head.method,
            path: self.head.uri.path(),
            query: self.head.uri.query(),
            headers: &self.head.headers,
            body: &sent.plain,
        }
    }

    /// What goes out where nothing is reranked: `planned`, or the template that it was made of.
    pub(super) fn original<'f>(&'f self, planned: &Forward<'f>, sent: &'f Sent) -> Forward<'f> {
        match &sent.rendered {
            Some(rendered) if !rendered.has_options => {
                search::template_as_sent(&self.call_as_sent(sent))
            }
            _ => planned.clone(),
        }
    }

    /// Who asks.
    pub(super) fn asker(&self) -> Asker<'_> {
        let key = self.head.headers.get(&SPLIT_KEY);
        Asker {
            protocol: self.kind.name(),
            key: key.map(|key| String::from_utf8_lossy(key.as_bytes())),
            request_id: self.id,
        }
    }

    /// Who sends a search, and which: a kept ranking holds for no other.
    pub(super) fn search_id(&self, search: &Rewritten<'_>) -> SearchId {
        let mut headers = headers::for_engine(self.head.headers.clone());
        drop_options(&mut headers);
        let (target, body) = search.identity();
        SearchId::new(&headers, target, body)
    }

    /// All pages of a search, as they are asked of the same policy.
    pub(super) fn pages_id(&self, search: &Rewritten<'_>) -> PagesId {
        let mut asked = search.asked();
        if let Some(key) = self.head.headers.get(&SPLIT_KEY) {
            asked.extend_from_slice(key.as_bytes());
        }
        self.search_id(search).pages(&asked)
    }

    /// Passes a search that was read in part.
    async fn pass_unread(
        self,
        read: Vec<Bytes>,
        rest: Incoming,
        status: SearchStatus<'static>,
    ) -> Result<Response<Body>, RerankError> {
        self.count(&[status]);
        let header = self.notes.header(status);
        let mut head = self.head;
        drop_options(&mut head.headers);
        let response = pass::resumed(self.proxy, self.kind, head, read, rest).await?;
        Ok(with_status(response, header))
    }

    /// Passes a search that cannot be read.
    async fn pass_raw(
        &self,
        raw: Bytes,
        status: SearchStatus<'static>,
    ) -> Result<Response<Body>, RerankError> {
        let mut headers = headers::for_engine(self.head.headers.clone());
        drop_options(&mut headers);
        let asked = Asked {
            method: self.head.method.clone(),
            target: pass::target(&self.head),
            headers,
            body: Payload::Whole(raw),
            extensions: self.head.extensions.clone(),
            repeatable: self.head.method == Method::GET,
        };
        self.count(&[status]);
        self.stream(&asked, self.notes.header(status)).await
    }

    /// Sends a search and streams the answer through.
    ///
    /// # Errors
    /// The engine's trouble.
    pub(super) async fn through(
        &self,
        forward: &Forward<'_>,
        sent: &Sent,
        status: HeaderValue,
    ) -> Result<Response<Body>, RerankError> {
        let asked = self.asked(forward, sent, self.head.method == Method::GET)?;
        self.stream(&asked, status).await
    }

    async fn stream(
        &self,
        asked: &Asked,
        status: HeaderValue,
    ) -> Result<Response<Body>, RerankError> {
        let started = Instant::now();
        let idle = self.proxy.settings.upstream.idle_timeout;
        let response = self
            .proxy
            .upstream
            .send(asked, &Activity::new(), idle)
            .await?;
        let telemetry = &self.proxy.app.telemetry;
        telemetry.upstream_answered(self.kind, started.elapsed());
        Ok(with_status(pass::answer(self.proxy, response), status))
    }

    /// Sends a rewritten search and reads the answer.
    ///
    /// # Errors
    /// The engine's trouble.
    pub(super) async fn ask(
        &self,
        forward: &Forward<'_>,
        sent: &Sent,
    ) -> Result<Said, RerankError> {
        let mut asked = self.asked(forward, sent, true)?;
        // What is read here need not be packed, and no client sees it as it is.
        let identity = HeaderValue::from_static("identity");
        asked.headers.insert(header::ACCEPT_ENCODING, identity);
        let started = Instant::now();
        let timeout = self.proxy.settings.upstream.timeout;
        let said = tokio::time::timeout(timeout, async {
            let activity = Activity::new();
            let response = self.proxy.upstream.send(&asked, &activity, timeout).await?;
            self.read(response).await
        });
        let said = said.await.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(timeout);
            let problem = format!("the search engine did not answer within {timeout}");
            Err(RerankError::new(ErrorKind::UpstreamTimeout, problem))
        });
        let telemetry = &self.proxy.app.telemetry;
        telemetry.upstream_answered(self.kind, started.elapsed());
        said
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Said, RerankError> {
        let status = response.status();
        if is_final(status) {
            return Ok(Said::Final(pass::answer(self.proxy, response)));
        }
        let limit = self.proxy.settings.max_rewrite_bytes;
        let admission = &self.proxy.app.admission;
        let mut room = Permit::default();
        let (head, mut body) = response.into_parts();
        let read = collect(&mut body, limit, None, |bytes| {
            admission.admit_bytes(&mut room, bytes).is_ok()
        });
        let failed = |reason| Ok(Said::Again(SearchStatus::Failed(reason)));
        let raw = match read.await {
            Ok(Collected::Whole(raw)) => raw,
            Ok(Collected::TooLarge(_)) => return failed(FailReason::UpstreamResponse),
            Ok(Collected::NoRoom(_)) => return failed(FailReason::Overloaded),
            Err(error) => {
                let why = root_cause(&error);
                return Err(RerankError::new(
                    ErrorKind::UpstreamFailed,
                    format!("the search engine broke off its answer: {why}"),
                ));
            }
        };
        let body = match self.plain(&head.headers, &raw, &mut room) {
            Ok(body) => body,
            Err(Unread::NoRoom) => return failed(FailReason::Overloaded),
            Err(Unread::Encoding | Unread::TooLarge) => {
                return failed(FailReason::UpstreamResponse);
            }
        };
        if status != StatusCode::OK {
            // Where the window alone is too large for an index, that is no failure.
            if search::names_result_window(&body) {
                let reason = SkipReason::ResultWindow;
                return Ok(Said::Again(SearchStatus::Skipped(reason)));
            }
            return failed(FailReason::UpstreamStatus);
        }
        Ok(Said::Found(Found {
            head,
            body,
            _room: room,
        }))
    }

    /// The request that says this.
    fn asked(
        &self,
        forward: &Forward<'_>,
        sent: &Sent,
        repeatable: bool,
    ) -> Result<Asked, RerankError> {
        let mut headers = headers::for_engine(self.head.headers.clone());
        for name in &forward.drop_headers {
            headers.remove(name);
        }
        let body = if forward.is_untouched() {
            sent.raw.clone()
        } else {
            headers.remove(header::CONTENT_ENCODING);
            Bytes::copy_from_slice(&forward.body)
        };
        if let Some(content_type) = &forward.content_type {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        let target: PathAndQuery = forward.path_and_query.parse().map_err(|error| {
            let problem = format!("the path cannot be sent on: {error}");
            RerankError::new(ErrorKind::BadRequest, problem)
        })?;
        Ok(Asked {
            method: self.head.method.clone(),
            target,
            headers,
            body: Payload::Whole(body),
            extensions: self.head.extensions.clone(),
            repeatable,
        })
    }

    /// The engine's answer with another body, which was made of the one that it had: compressed, if the
    /// client takes that.
    pub(super) fn rewritten(
        &self,
        head: response::Parts,
        mut page: Vec<u8>,
        status: HeaderValue,
    ) -> Response<Body> {
        let is_opensearch = head.headers.contains_key(&OPENSEARCH_VERSION);
        if self.is_template && self.kind == Kind::Search && is_opensearch {
            page = off_the_runtime(page.len(), || search::with_status(page));
        }
        let mut response = Response::from_parts(head, Body::empty());
        let headers = response.headers_mut();
        headers::for_client(headers);
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
            headers.remove(name);
        }
        let is_packed = page.len() >= LEAST_PACKED && gzip::is_accepted(&self.head.headers);
        let page = match is_packed {
            true => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                off_the_runtime(page.len(), || gzip::pack(&page))
            }
            false => page,
        };
        *response.body_mut() = Body::from(page);
        with_status(response, status)
    }

    /// Counts what became of each search.
    pub(super) fn count(&self, searches: &[SearchStatus<'_>]) {
        let telemetry = &self.proxy.app.telemetry;
        for search in searches {
            match *search {
                SearchStatus::Ranked(reranked) => {
                    telemetry.answered(self.kind.name(), std::slice::from_ref(reranked), self.id);
                }
                SearchStatus::Skipped(reason) => {
                    if reason == SkipReason::Signed {
                        warn_of_signatures();
                    }
                    telemetry.not_ranked(self.kind, "skipped", reason.name(), self.id);
                }
                SearchStatus::Failed(reason) => {
                    telemetry.not_ranked(self.kind, "failed", reason.name(), self.id);
                }
                SearchStatus::Error(kind) => {
                    telemetry.not_ranked(self.kind, "error", kind.name(), self.id);
                }
            }
        }
    }
}

/// What `Rerank-Status` says of a status that is no ranking's.
pub(super) fn of(status: Status) -> SearchStatus<'static> {
    match status {
        Status::Skipped(reason) => SearchStatus::Skipped(reason),
        Status::Failed(reason) => SearchStatus::Failed(reason),
        Status::Applied | Status::Partial => SearchStatus::Failed(FailReason::Internal),
    }
}

/// Answers to those who may not ask: the same search, asked with a smaller window, would get the same.
/// Everything else may be the window's fault, from a circuit breaker to a gateway's timeout.
fn is_final(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403)
}

/// Says once in the life of the process that signed searches are not reranked.
fn warn_of_signatures() {
    static WARNED: std::sync::Once = std::sync::Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "a client signs its searches (AWS Signature Version 4 or a digest of the body): they pass without reranking, since the engine would refuse another body; inside OpenSearch the plugin reranks them (docs/search-proxy.md)"
        );
    });
}

fn with_status(mut response: Response<Body>, status: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(&RERANK_STATUS, status);
    response
}

/// Takes out all headers of ours.
fn drop_options(headers: &mut http::HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OPTION_HEADERS))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}
