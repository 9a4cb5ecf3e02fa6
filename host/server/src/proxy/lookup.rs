//! Look-ups: what the engine is asked of the indices that searches are asked of, beside the searches.
//!
//! A look-up has of a client's request what it is asked of, and its credentials, or those of
//! `--upstream-lookup-auth`. It runs on when the search that wanted it has gone, for the next one.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Response, StatusCode};
use rerankd_core::{ErrorKind, RerankError};
use rerankd_wire::search::{self, Mapping, Rules, Seen, Target};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::body::{Activity, Collected, collect};
use super::cache::PagesId;
use super::mapping_cache::{Answer, Key, MOST_AT_ONCE, MappingCache, Turn};
use super::pages::FirstPages;
use super::upstream::{Asked, Payload, Upstream};
use crate::admission::Permit;
use crate::app::App;
use crate::fresh::Fresh;
use crate::gzip::{self, Encoding};
use crate::rerank::off_the_runtime;

/// How long a search that would be reranked waits for a look-up.
pub(super) const HOLD: Duration = Duration::from_millis(50);

/// How long a look-up may take.
const LONGEST: Duration = Duration::from_secs(5);

/// How long the names and settings may take, without which a mapping is good for something, too.
const LONGEST_OF_OTHERS: Duration = Duration::from_secs(1);

/// Largest answer to a look-up, bytes.
const MOST_BYTES: usize = 8 << 20;

/// Look-ups of one caller that run at one time; what more is wanted is not known yet.
const MOST_OF_CALLER: usize = MOST_AT_ONCE / 2;

/// Points in time whose indices are kept.
const MOST_PITS: usize = 8192;

/// Longest index expression that is kept of one, bytes.
const MOST_PIT_INDICES_BYTES: usize = 512;

/// Largest answer to the opening of a point in time that is read, bytes.
const MOST_PIT_BYTES: usize = 64 << 10;

/// Headers by which the engines know a caller.
const CREDENTIALS: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("es-client-authentication"),
    HeaderName::from_static("es-secondary-authorization"),
    HeaderName::from_static("es-security-runas-user"),
    HeaderName::from_static("opendistro_security_impersonate_as"),
    HeaderName::from_static("opensearch_security_impersonate_as"),
];

/// Schemes of `Authorization` that are good for one request only.
const FOR_ONE_REQUEST: [&str; 4] = [
    "AWS4-HMAC-SHA256",
    "AWS4-ECDSA-P256-SHA256",
    "Digest",
    "Negotiate",
];

/// Who asks.
pub(super) struct Caller {
    /// For whom answers are kept.
    digest: [u8; 32],
    /// Who it is, also where answers are kept for all.
    who: [u8; 32],
    /// The credentials; `None` where they are good for one request only.
    credentials: Option<HeaderMap>,
}

/// What is looked up, and what is known.
pub(super) struct Lookups {
    app: Arc<App>,
    upstream: Arc<Upstream>,
    rules: Arc<Rules>,
    /// For all look-ups, in place of the callers' own.
    auth: Option<Fresh<HeaderValue>>,
    is_on: bool,
    cache: Arc<MappingCache>,
    pits: Mutex<Pits>,
    /// First pages that were planned without a mapping.
    unknown: FirstPages<()>,
}

/// Points in time by a digest of their ids, the oldest first.
#[derive(Default)]
struct Pits {
    indices: HashMap<[u8; 32], String>,
    ages: VecDeque<[u8; 32]>,
}

/// What one plan saw, and what it lacked.
pub(super) struct View<'l> {
    lookups: &'l Lookups,
    caller: &'l Caller,
    /// Whether what is not there yet is waited for no longer.
    is_last: bool,
    wanted: RefCell<Wanted>,
}

/// What the engine is to be asked.
#[derive(Default)]
pub(super) struct Wanted {
    /// What is not known, and may change a decision.
    pub(super) cold: Vec<(Key, Target)>,
    /// What is known, but may have changed.
    pub(super) old: Vec<(Key, Target)>,
}

impl View<'_> {
    pub(super) fn mapping(&self, target: &Target) -> Seen {
        if !self.lookups.is_on {
            return Seen::Off;
        }
        let opened = self.opened(target);
        let target = opened.as_ref().unwrap_or(target);
        if self.caller.credentials.is_none() || !target.can_be_looked_up() {
            return Seen::Unknown;
        }
        let key = Key::new(self.caller.digest, target);
        let (seen, wanted) = self.lookups.cache.get(&key, Instant::now());
        match seen {
            Seen::Known(_) if wanted => {
                let old = (key, target.clone());
                self.wanted.borrow_mut().old.push(old);
                seen
            }
            Seen::Cold if self.is_last => Seen::Unknown,
            seen => seen,
        }
    }

    /// Notes that a decision hangs on a mapping that was cold.
    pub(super) fn want(&self, target: &Target) {
        let target = self.opened(target).unwrap_or_else(|| target.clone());
        let key = Key::new(self.caller.digest, &target);
        self.wanted.borrow_mut().cold.push((key, target));
    }

    /// Whether a mapping was not known when the first page of a search was planned.
    pub(super) fn first_page_was_unknown(&self, search: &dyn Fn() -> Vec<u8>) -> bool {
        let unknown = &self.lookups.unknown;
        !unknown.is_empty() && unknown.of(&self.pages(search)).is_some()
    }

    /// Notes what later pages of a search are planned by.
    pub(super) fn note_first_page(&self, search: &dyn Fn() -> Vec<u8>, is_unknown: bool) {
        let unknown = &self.lookups.unknown;
        if self.caller.credentials.is_some() && (is_unknown || !unknown.is_empty()) {
            unknown.note(self.pages(search), is_unknown.then_some(()));
        }
    }

    fn pages(&self, search: &dyn Fn() -> Vec<u8>) -> PagesId {
        PagesId::new(&self.caller.who, &search())
    }

    /// What a point in time was opened for, if the proxy saw that.
    fn opened(&self, target: &Target) -> Option<Target> {
        self.lookups.pit(target.pit()?)
    }

    /// What the engine is to be asked.
    pub(super) fn into_wanted(self) -> Wanted {
        self.wanted.into_inner()
    }
}

impl Lookups {
    pub(super) fn new(
        app: &Arc<App>,
        upstream: &Arc<Upstream>,
        rules: &Arc<Rules>,
        is_on: bool,
        auth: Option<Fresh<HeaderValue>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            app: Arc::clone(app),
            upstream: Arc::clone(upstream),
            rules: Arc::clone(rules),
            auth,
            is_on,
            cache: Arc::default(),
            pits: Mutex::default(),
            unknown: FirstPages::default(),
        })
    }

    /// Who sends a request with these headers.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Caller {
        let mut credentials = HeaderMap::new();
        let mut digest = Sha256::new();
        let mut is_for_one = false;
        for name in &CREDENTIALS {
            for value in headers.get_all(name) {
                for part in [name.as_str().as_bytes(), value.as_bytes()] {
                    digest.update((part.len() as u64).to_le_bytes());
                    digest.update(part);
                }
                is_for_one |= *name == header::AUTHORIZATION && is_for_one_request(value);
                credentials.append(name.clone(), value.clone());
            }
        }
        let who = digest.finalize().into();
        let Some(auth) = &self.auth else {
            return Caller {
                digest: who,
                who,
                credentials: (!is_for_one).then_some(credentials),
            };
        };
        let of_operator = |auth: Arc<HeaderValue>| {
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::clone(&auth))])
        };
        Caller {
            digest: [0; 32],
            who,
            credentials: auth.get().map(of_operator),
        }
    }

    /// What a plan sees. `is_last`: nothing is waited for any more.
    pub(super) fn view<'l>(&'l self, caller: &'l Caller, is_last: bool) -> View<'l> {
        View {
            lookups: self,
            caller,
            is_last,
            wanted: RefCell::default(),
        }
    }

    /// Starts look-ups, or joins those that run. What is returned ends when all have ended.
    pub(super) fn begin(
        self: &Arc<Self>,
        caller: &Caller,
        wanted: Vec<(Key, Target)>,
    ) -> impl Future<Output = ()> + use<> {
        let mut running: Vec<watch::Receiver<()>> = Vec::new();
        // Under the operator's credentials all callers are one.
        let most = match self.auth {
            Some(_) => MOST_AT_ONCE,
            None => MOST_OF_CALLER,
        };
        for (key, target) in wanted {
            let (turn, ended) = self.cache.begin(&key, Instant::now(), most);
            running.extend(ended);
            if let (Some(turn), Some(credentials)) = (turn, &caller.credentials) {
                let (lookups, credentials) = (Arc::clone(self), credentials.clone());
                tokio::spawn(async move { lookups.run(turn, &target, credentials).await });
            }
        }
        async move {
            for mut ended in running {
                // Nothing is ever sent: an error is the end.
                let _ = ended.changed().await;
            }
        }
    }

    async fn run(&self, turn: Turn, target: &Target, credentials: HeaderMap) {
        let asked = tokio::time::timeout(LONGEST, self.ask(target, &credentials)).await;
        let answer = match asked {
            Ok(Ok(mapping)) => Answer::Mapping(Box::new(mapping)),
            Ok(Err(Failure::Status(status))) => {
                tracing::debug!(%status, "the search engine does not say what a mapping is");
                match status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                    true => Answer::Refused,
                    false => Answer::Failed,
                }
            }
            Ok(Err(Failure::Other(why))) => {
                tracing::debug!(error = why, "no answer to what a mapping is");
                Answer::Failed
            }
            Err(_) => Answer::Failed,
        };
        self.app.telemetry.looked_up(match answer {
            Answer::Mapping(_) => "known",
            Answer::Refused => "refused",
            Answer::Failed => "failed",
        });
        turn.end(answer);
    }

    async fn ask(&self, target: &Target, credentials: &HeaderMap) -> Result<Mapping, Failure> {
        let opened;
        let target = match target.pit() {
            None => target,
            Some(id) => {
                let body = Bytes::from(search::pit_body(id));
                let found = self
                    .fetch(Method::POST, search::PIT_PATH, body, credentials)
                    .await?;
                let indices = search::pit_indices(&found.body);
                let indices = indices.ok_or(Failure::other("the point in time has no index"))?;
                opened = Target::of_indices(&indices);
                &opened
            }
        };
        let paths = target
            .paths()
            .ok_or(Failure::other("the name is too long"))?;
        let get = |path: String| async move {
            self.fetch(Method::GET, &path, Bytes::new(), credentials)
                .await
        };
        let soon = |path| tokio::time::timeout(LONGEST_OF_OTHERS, get(path));
        let (fields, names, defaults) =
            tokio::join!(get(paths.fields), soon(paths.names), soon(paths.defaults));
        let fields = fields?;
        let (names, defaults) = (
            names.ok().and_then(Result::ok),
            defaults.ok().and_then(Result::ok),
        );
        off_the_runtime(fields.body.len(), || {
            let bytes =
                |answer: &Option<Fetched>| answer.as_ref().map(|answer| answer.body.clone());
            let (names, defaults) = (bytes(&names), bytes(&defaults));
            let (names, defaults) = (names.as_deref(), defaults.as_deref());
            Mapping::read(target, &self.rules, &fields.body, names, defaults)
        })
        .map_err(Failure::other)
    }

    /// An answer with 200, whole.
    async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        credentials: &HeaderMap,
    ) -> Result<Fetched, Failure> {
        let mut headers = credentials.clone();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, json.clone());
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, json);
        }
        let own = HeaderValue::from_static("identity");
        headers.insert(header::ACCEPT_ENCODING, own);
        // By it the engine's own logs tell these requests from the clients'.
        let own = HeaderValue::from_static("rerankd-lookup");
        headers.insert(HeaderName::from_static("x-opaque-id"), own);
        let asked = Asked {
            method,
            target: path.parse().map_err(Failure::other)?,
            headers,
            body: Payload::Whole(body),
            extensions: Extensions::new(),
            repeatable: true,
        };
        let activity = Activity::new();
        let response = self.upstream.send(&asked, &activity, LONGEST).await;
        let response = response.map_err(|error| Failure::Other(error.message))?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status()));
        }
        if gzip::encoding(response.headers()) != Encoding::Identity {
            return Err(Failure::other("the answer is compressed, unasked"));
        }
        let mut room = Permit::default();
        let admission = &self.app.admission;
        let mut body = response.into_body();
        let collected = collect(&mut body, MOST_BYTES, None, |bytes| {
            admission.admit_bytes(&mut room, bytes).is_ok()
        });
        match collected.await {
            Ok(Collected::Whole(body)) => Ok(Fetched { body, _room: room }),
            Ok(Collected::TooLarge(_)) => Err(Failure::other("the answer is too large")),
            Ok(Collected::NoRoom(_)) => Err(Failure::other("there is no room for the answer")),
            Err(error) => Err(Failure::other(error)),
        }
    }

    fn pit(&self, id: &str) -> Option<Target> {
        let pits = self.pits.lock().unwrap_or_else(PoisonError::into_inner);
        let indices = pits.indices.get(&digest(id))?;
        Some(Target::of_indices(indices))
    }

    /// Keeps for which indices a point in time was opened, by the engine's answer to that, which goes on
    /// as it came.
    ///
    /// # Errors
    /// The engine broke off its answer.
    pub(super) async fn opened(
        &self,
        indices: String,
        response: Response<Body>,
    ) -> Result<Response<Body>, RerankError> {
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let is_small = length.is_some_and(|length: usize| length <= MOST_PIT_BYTES);
        if !self.is_on || response.status() != StatusCode::OK || !is_small {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, MOST_PIT_BYTES).await;
        let body = body.map_err(|error| {
            let why = super::upstream::root_cause(&error);
            RerankError::new(
                ErrorKind::UpstreamFailed,
                format!("the search engine broke off its answer: {why}"),
            )
        })?;
        let plain = match gzip::encoding(&head.headers) {
            Encoding::Identity => Some(body.clone()),
            Encoding::Gzip => gzip::unpack(&body, MOST_PIT_BYTES, |_| Ok(())).ok(),
            Encoding::Other => None,
        };
        if let Some(id) = plain.and_then(|plain| search::pit_opened(&plain)) {
            let mut pits = self.pits.lock().unwrap_or_else(PoisonError::into_inner);
            pits.note(digest(&id), indices);
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }
}

impl Pits {
    fn note(&mut self, id: [u8; 32], indices: String) {
        if indices.len() > MOST_PIT_INDICES_BYTES {
            return;
        }
        if self.ages.len() == MOST_PITS
            && let Some(oldest) = self.ages.pop_front()
        {
            self.indices.remove(&oldest);
        }
        if self.indices.insert(id, indices).is_none() {
            self.ages.push_back(id);
        }
    }
}

/// An answer that was read, and its room.
struct Fetched {
    body: Bytes,
    _room: Permit,
}

/// Why a look-up gave nothing.
enum Failure {
    Status(StatusCode),
    Other(String),
}

impl Failure {
    fn other(why: impl ToString) -> Self {
        Self::Other(why.to_string())
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn is_for_one_request(authorization: &HeaderValue) -> bool {
    let scheme = authorization.as_bytes().split(|&byte| byte == b' ').next();
    let scheme = scheme.unwrap_or_default();
    FOR_ONE_REQUEST
        .iter()
        .any(|one| scheme.eq_ignore_ascii_case(one.as_bytes()))
}
