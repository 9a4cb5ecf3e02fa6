//! `GET /v1/events`: the journal, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use rerankd_policy::store::JournalEntry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::{IntoParams, ToSchema};

use super::views::rfc3339;
use super::{AdminError, Identity, Right};
use crate::app::App;

/// Entries read at a time.
const CHUNK: usize = 256;

/// How often it is looked whether the token of a silent stream is good still.
const LOOK: Duration = Duration::from_secs(1);

/// Silence after which a comment shows that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What of the journal is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only entries after this one; the header `Last-Event-ID` says the same, and goes before it.
    after: Option<u64>,
    /// `false` ends the stream after what there is.
    #[param(default = true)]
    follow: Option<bool>,
}

/// One event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    /// Its place in the journal.
    seq: u64,
    /// RFC 3339.
    at: String,
    /// `staged`, `activated`, `rolled-back`, `canary`, `shadow`, `deleted`, `refused`, `taken-back` or
    /// `fault`.
    kind: String,
    /// The policy's name.
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whose token did it.
    who: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Releases, changes of roles and faults, as they come; those that were there before first. The stream
/// ends when its token is revoked or changed.
#[utoipa::path(get, path = "/v1/events", tag = "policies", params(Wanted),
    responses((status = 200, content_type = "text/event-stream", body = EventView),
        (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, AdminError> {
    let Query(wanted) = wanted.map_err(|error| AdminError::bad_request(error.body_text()))?;
    let resumed = match headers.get("last-event-id") {
        None => None,
        Some(id) => Some(
            id.to_str()
                .ok()
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| {
                    AdminError::bad_request("`Last-Event-ID` must be the `id` of an event")
                })?,
        ),
    };
    let reader = Reader {
        moved: app.releases.journal_moved(),
        after: resumed.or(wanted.after).unwrap_or(0),
        follow: wanted.follow.unwrap_or(true),
        read: VecDeque::new(),
        identity,
        app,
    };
    let stream = futures_util::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    Ok(Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

struct Reader {
    app: Arc<App>,
    identity: Identity,
    moved: watch::Receiver<u64>,
    after: u64,
    follow: bool,
    read: VecDeque<JournalEntry>,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(entry) = self.read.pop_front() {
                self.after = entry.seq;
                if !self.app.tokens.still_has(&self.identity) {
                    return None;
                }
                if self.identity.may(Right::Read, &entry.policy) {
                    return Some(self.event(entry));
                }
            }
            self.moved.mark_unchanged();
            match self.app.releases.journal(self.after, CHUNK).await {
                Ok(entries) => self.read = entries.into(),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be read");
                    return None;
                }
            }
            if !self.read.is_empty() {
                continue;
            }
            if !self.follow {
                return None;
            }
            loop {
                tokio::select! {
                    moved = self.moved.changed() => {
                        moved.ok()?;
                        break;
                    }
                    () = self.app.draining.begun() => return None,
                    () = tokio::time::sleep(LOOK) => {
                        if !self.app.tokens.still_has(&self.identity) {
                            return None;
                        }
                    }
                }
            }
        }
    }

    fn event(&self, entry: JournalEntry) -> Event {
        let (seq, kind) = (entry.seq, entry.kind.clone());
        // A refusal may repeat what the policy said.
        let words = self.identity.may(Right::Texts, &entry.policy);
        let view = EventView {
            seq,
            at: rfc3339(entry.at_ms),
            kind: entry.kind,
            policy: entry.policy,
            digest: entry.digest,
            version: entry.version,
            who: entry.who,
            message: entry.message.filter(|_| words),
        };
        let event = Event::default().id(seq.to_string()).event(kind);
        // A view is plain strings and numbers: it can always be written.
        event.json_data(&view).unwrap_or_default()
    }
}
