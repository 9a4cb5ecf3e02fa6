//! The journal of releases: read by those who want to know, written with each change of the store, and
//! here for what changes nothing, such as a fault or a refusal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{HOST, Releases, Upload, blocking, draft};
use crate::error::{Fault, ReleaseError};
use crate::store::{JournalDraft, JournalEntry};
use crate::version::PolicyVersion;

/// How often a version's faults are written to the journal.
const FAULT_EVENTS: Duration = Duration::from_secs(10);

impl Releases {
    /// At most `limit` journal entries after one, oldest first.
    ///
    /// # Errors
    /// [`ReleaseError::Store`].
    pub async fn journal(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, ReleaseError> {
        let store = Arc::clone(&self.store);
        Ok(blocking(move || store.journal(after, limit)).await??)
    }

    /// Changes whenever the journal has grown.
    pub fn journal_moved(&self) -> watch::Receiver<u64> {
        self.journal_moved.subscribe()
    }

    /// Writes an entry to the journal that changes nothing else, such as a fault.
    pub async fn note(&self, entry: JournalDraft) {
        let store = Arc::clone(&self.store);
        match blocking(move || store.record_event(entry)).await {
            Ok(Ok(_)) => self.moved(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "an event could not be written to the journal")
            }
            Err(_) => {}
        }
    }

    /// Writes a fault of a version to the journal, at most one in ten seconds a version.
    pub fn note_fault(self: &Arc<Self>, version: &PolicyVersion, fault: &Fault, request_id: &str) {
        let now = Instant::now();
        {
            let mut noted = self.loaded();
            noted.faults.retain(|_, at| now - *at < FAULT_EVENTS);
            if noted.faults.contains_key(version.digest()) {
                return;
            }
            noted.faults.insert(version.digest().to_owned(), now);
        }
        let entry = JournalDraft {
            digest: Some(version.digest().to_owned()),
            version: Some(version.manifest().version.clone()),
            message: Some(format!("{} in request {request_id}", fault.name())),
            ..draft("fault", version.name(), HOST)
        };
        let releases = Arc::clone(self);
        tokio::spawn(async move { releases.note(entry).await });
    }

    pub(super) async fn note_refusal(&self, upload: &Upload, error: &ReleaseError) {
        let step = error.step().name();
        let (policy, source) = (&upload.name, &upload.source);
        tracing::warn!(policy, source, step, "release refused");
        self.note(JournalDraft {
            message: Some(format!("{step}: {error}")),
            ..draft("refused", &upload.name, &upload.who)
        })
        .await;
    }

    pub(super) fn moved(&self) {
        self.journal_moved.send_modify(|count| *count += 1);
    }
}
