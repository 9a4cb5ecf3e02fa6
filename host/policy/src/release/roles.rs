//! Who is active, canary and shadow: each change is one transaction of the store and one swap in the
//! catalog, in this order, so that what was acknowledged is what a restart finds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{HOST, Releases, blocking, draft, now_ms};
use crate::catalog::{Canary, Placed, Route};
use crate::compiler::Priority;
use crate::error::{PolicyError, ReleaseError};
use crate::invoke::Invoked;
use crate::selector::{VersionDigest, VersionSelector, short};
use crate::store::{self, ChangeError, JournalDraft, NameRecord, VersionRecord};
use crate::traffic::{Probation, ProbationRules};
use crate::version::PolicyVersion;

/// When a version is loaded again for which there was no room.
const LOAD_AGAIN: Duration = Duration::from_millis(200);

/// What a change of roles did.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The name's roles now.
    pub name: NameRecord,
    /// The version that was active before, if it was another one.
    pub previous: Option<String>,
    /// Whether there was nothing to change.
    pub is_as_it_was: bool,
}

impl Releases {
    /// Makes a version the active one. It ends being the canary or the shadow. Nothing happens if it is active already.
    ///
    /// # Errors
    /// Unknown or ambiguous, cannot be loaded, does not take what the configuration gives it, the store
    /// failed, or shutting down; nothing was changed.
    pub async fn activate(
        self: &Arc<Self>,
        name: &str,
        wanted: &VersionSelector,
        who: &str,
    ) -> Result<Changed, ReleaseError> {
        let record = self.find(name, wanted).await?;
        // Held, so that it is not unloaded before it has its role.
        let version = self.load(&record, Priority::Background).await?;
        self.check_given(&version).await?;
        let digest = record.digest.clone();
        let draft = about(&record, "activated", who);
        self.change(name, Some(draft), move |roles| {
            if roles.active.as_ref() == Some(&digest) {
                return Ok(None);
            }
            if let Some(before) = roles.active.replace(digest.clone()) {
                roles.history.push(before);
                let surplus = roles.history.len().saturating_sub(store::MAX_HISTORY);
                roles.history.drain(..surplus);
            }
            roles.active_since_ms = Some(now_ms());
            end_other_roles(roles, &digest);
            Ok(Some(Told::Draft))
        })
        .await
    }

    /// Makes the previous active version the active one again, whatever the configuration gives it.
    ///
    /// # Errors
    /// There is none, it cannot be loaded any more, or as with [`activate`](Self::activate); nothing
    /// was changed.
    pub async fn rollback(
        self: &Arc<Self>,
        name: &str,
        who: &str,
    ) -> Result<Changed, ReleaseError> {
        let nothing = || {
            ReleaseError::Refused(format!(
                "`{name}` has no earlier active version to go back to"
            ))
        };
        let roles = self.name(name).await?.unwrap_or_default();
        let target = roles.history.last().cloned().ok_or_else(nothing)?;
        let record = self.stored(name, &VersionDigest::known(&*target)).await?;
        // What cannot be loaded must not take over. Held, so that it is not unloaded meanwhile.
        let _version = self.load(&record, Priority::Background).await?;
        let who = who.to_owned();
        self.change(name, None, move |roles| {
            // Somebody else may have acted meanwhile.
            if roles.history.last() != Some(&target) {
                return Err(ReleaseError::Refused(format!(
                    "`{}` has just been changed by somebody else; look again",
                    roles.name
                )));
            }
            roles.history.pop();
            let from = roles.active.replace(target.clone());
            roles.active_since_ms = Some(now_ms());
            end_other_roles(roles, &target);
            Ok(Some(Told::This(JournalDraft {
                digest: Some(target),
                message: from.map(|from| format!("from {}", short(&from))),
                ..draft("rolled-back", &roles.name, &who)
            })))
        })
        .await
    }

    /// Gives a version a share of the requests, 0 to 100 percent; 0 ends it.
    ///
    /// # Errors
    /// As with [`activate`](Self::activate); the share is none; the version is the active one.
    pub async fn canary(
        self: &Arc<Self>,
        name: &str,
        wanted: &VersionSelector,
        percent: f64,
        who: &str,
    ) -> Result<Changed, ReleaseError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(ReleaseError::Refused(format!(
                "`percent` must be 0 to 100, got {percent}"
            )));
        }
        let record = self.find(name, wanted).await?;
        let version = self.load(&record, Priority::Background).await?;
        if percent > 0.0 {
            self.check_given(&version).await?;
        }
        let draft = JournalDraft {
            message: Some(format!("{percent} %")),
            ..about(&record, "canary", who)
        };
        self.change(name, Some(draft), move |roles| {
            if percent == 0.0 {
                let ended = roles
                    .canary
                    .as_ref()
                    .is_some_and(|c| c.digest == record.digest);
                if ended {
                    roles.canary = None;
                }
                return Ok(ended.then_some(Told::Draft));
            }
            if roles.active.is_none() {
                return Err(ReleaseError::Refused(format!(
                    "`{}` has no active version for the rest of the requests: activate one first",
                    roles.name
                )));
            }
            if roles.active.as_ref() == Some(&record.digest) {
                return Err(ReleaseError::Refused(format!(
                    "`{}` is the active version already",
                    short(&record.digest)
                )));
            }
            let before = roles
                .canary
                .take()
                .filter(|canary| canary.digest == record.digest);
            roles.canary = Some(store::Canary {
                since_ms: before.map_or_else(now_ms, |canary| canary.since_ms),
                digest: record.digest.clone(),
                percent,
            });
            Ok(Some(Told::Draft))
        })
        .await
    }

    /// Has a version run beside the answers, and compared; `None` ends it.
    ///
    /// # Errors
    /// As with [`activate`](Self::activate).
    pub async fn shadow(
        self: &Arc<Self>,
        name: &str,
        wanted: Option<&VersionSelector>,
        who: &str,
    ) -> Result<Changed, ReleaseError> {
        let found = match wanted {
            Some(wanted) => {
                let record = self.find(name, wanted).await?;
                let version = self.load(&record, Priority::Background).await?;
                Some((record, version))
            }
            None => None,
        };
        let record = found.as_ref().map(|(record, _)| record.clone());
        let draft = match &record {
            Some(record) => about(record, "shadow", who),
            None => draft("shadow", name, who),
        };
        self.change(name, Some(draft), move |roles| {
            let digest = record.map(|record| record.digest);
            if roles.shadow == digest {
                return Ok(None);
            }
            if digest.is_some() && roles.active == digest {
                return Err(ReleaseError::Refused(
                    "the active version cannot be its own shadow".to_owned(),
                ));
            }
            roles.shadow = digest;
            Ok(Some(Told::Draft))
        })
        .await
    }

    /// Deletes a version that has no role, and the files that no other version needs.
    ///
    /// # Errors
    /// Unknown, in a role, the store failed, or shutting down; nothing was changed.
    pub async fn delete(
        self: &Arc<Self>,
        name: &str,
        wanted: &VersionSelector,
        who: &str,
    ) -> Result<(), ReleaseError> {
        let record = self.find(name, wanted).await?;
        let draft = about(&record, "deleted", who);
        let releases = Arc::clone(self);
        let deletion = async move { releases.delete_alone(record, draft).await };
        self.changing.take(deletion).await?
    }

    async fn delete_alone(
        &self,
        record: VersionRecord,
        draft: JournalDraft,
    ) -> Result<(), ReleaseError> {
        self.check_open()?;
        let store = Arc::clone(&self.store);
        let digest = record.digest.clone();
        blocking(move || store.delete_version(&record.name, &record.digest, draft)).await??;
        let is_it = |version: &PolicyVersion| version.digest() == digest;
        self.loaded().pins.deleted(is_it);
        self.traffic.forget(&digest);
        self.moved();
        Ok(())
    }

    /// Notes what came of a call. A version on probation of which too many end in its own fault loses
    /// its role, in a task of its own.
    pub fn observe(self: &Arc<Self>, placed: &Placed, result: &Result<Invoked, PolicyError>) {
        let Some(probation) = &placed.probation else {
            return;
        };
        if probation.observe_result(result, Instant::now()) {
            let (releases, placed) = (Arc::clone(self), placed.clone());
            tokio::spawn(async move { releases.take_back(&placed).await });
        }
    }

    async fn take_back(self: &Arc<Self>, placed: &Placed) {
        let version = &placed.version;
        let (name, digest) = (version.name().to_owned(), version.digest().to_owned());
        let (calls, faults) = placed.probation.as_ref().map_or((0, 0), |it| it.seen());
        let message = format!("{faults} of its {calls} calls ended in its own faults");
        let manifest_version = version.manifest().version.clone();
        // Held, so that it is there when it has its role.
        let _successor = self.successor(&name, &digest).await;
        let changed = self
            .change(&name, None, move |roles| {
                let told = |to: &str| {
                    Some(Told::This(JournalDraft {
                        digest: Some(digest.clone()),
                        version: Some(manifest_version.clone()),
                        message: Some(format!("{message}; {to}")),
                        ..draft("taken-back", &roles.name, HOST)
                    }))
                };
                if roles
                    .canary
                    .as_ref()
                    .is_some_and(|canary| canary.digest == digest)
                {
                    let told = told("its share is 0 % now");
                    roles.canary = None;
                    return Ok(told);
                }
                // Somebody else may have acted meanwhile.
                if roles.active.as_ref() != Some(&digest) {
                    return Ok(None);
                }
                let Some(target) = roles.history.pop() else {
                    return Ok(None);
                };
                let told = told(&format!("{} answers again", short(&target)));
                roles.active = Some(target);
                roles.active_since_ms = Some(now_ms());
                Ok(told)
            })
            .await;
        match changed {
            // Somebody else was faster.
            Ok(changed) if changed.is_as_it_was => {}
            Ok(_) => {
                self.taken_back.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    policy = name,
                    version = version.short_digest(),
                    "version taken back"
                );
            }
            Err(error) => {
                let error = error.for_log();
                tracing::error!(policy = name, error, "a version could not be taken back");
            }
        }
    }

    /// The version that follows an active one that is taken back, loaded; waits for room. `None` if there
    /// is none, or none that can be loaded.
    async fn successor(&self, name: &str, active: &str) -> Option<Arc<PolicyVersion>> {
        loop {
            let roles = self.name(name).await.ok()??;
            if roles.active.as_deref() != Some(active) {
                return None;
            }
            let target = VersionDigest::known(roles.history.last()?.as_str());
            let loaded = match self.stored(name, &target).await {
                Ok(record) => self.load(&record, Priority::Background).await,
                Err(error) => Err(error),
            };
            match loaded {
                Err(ReleaseError::Busy(_)) if self.check_open().is_ok() => {
                    tokio::time::sleep(LOAD_AGAIN).await;
                }
                loaded => return loaded.ok(),
            }
        }
    }

    /// One change: store, then catalog. `change` says what to write to the journal, or `None` for no
    /// change at all.
    async fn change(
        self: &Arc<Self>,
        name: &str,
        draft: Option<JournalDraft>,
        change: impl FnOnce(&mut NameRecord) -> Result<Option<Told>, ReleaseError> + Send + 'static,
    ) -> Result<Changed, ReleaseError> {
        let (releases, name) = (Arc::clone(self), name.to_owned());
        let change = async move { releases.change_alone(&name, draft, change).await };
        self.changing.take(change).await?
    }

    async fn change_alone(
        &self,
        name: &str,
        draft: Option<JournalDraft>,
        change: impl FnOnce(&mut NameRecord) -> Result<Option<Told>, ReleaseError> + Send + 'static,
    ) -> Result<Changed, ReleaseError> {
        self.check_open()?;
        let before = self.name(name).await?.unwrap_or_default();
        let (store, key) = (Arc::clone(&self.store), name.to_owned());
        let changed = blocking(move || {
            store.change(&key, |roles| match change(roles) {
                Ok(Some(Told::Draft)) => Ok(draft.expect("it was given")),
                Ok(Some(Told::This(draft))) => Ok(draft),
                Ok(None) => Err(Unchanged::AsItWas),
                Err(error) => Err(Unchanged::Refused(error)),
            })
        })
        .await?;
        let roles = match changed {
            Ok(roles) => roles,
            Err(ChangeError::Refused(Unchanged::AsItWas)) => {
                return Ok(Changed {
                    name: before,
                    previous: None,
                    is_as_it_was: true,
                });
            }
            Err(ChangeError::Refused(Unchanged::Refused(error))) => return Err(error),
            Err(ChangeError::Store(error)) => return Err(error.into()),
        };
        self.route(&roles, Priority::Background).await;
        self.moved();
        Ok(Changed {
            previous: before
                .active
                .filter(|before| Some(before) != roles.active.as_ref()),
            name: roles,
            is_as_it_was: false,
        })
    }

    /// Swaps a name's route for what its record says. To be called with `changing` held.
    pub(super) async fn route(&self, roles: &NameRecord, priority: Priority) {
        let before = self.catalog.route(&roles.name).unwrap_or_default();
        let mut route = Route::default();
        let mut candidates = roles.active.iter().chain(roles.history.iter().rev());
        while route.active.is_none()
            && let Some(digest) = candidates.next()
        {
            let version = self.restored(&roles.name, digest, priority).await;
            let since = roles.active_since_ms.filter(|_| !roles.history.is_empty());
            route.active =
                version.map(|version| self.placed(version, before.active.as_ref(), since));
        }
        if route.active.is_none() && roles.active.is_some() {
            // None can be loaded: whatever served goes on.
            route.active = before.active.clone();
        }
        if let Some(canary) = &roles.canary {
            let version = self.restored(&roles.name, &canary.digest, priority).await;
            let held = before.canary.as_ref().map(|canary| &canary.placed);
            route.canary = version.map(|version| Canary {
                placed: self.placed(version, held, Some(canary.since_ms)),
                percent: canary.percent,
            });
        }
        if let Some(digest) = &roles.shadow {
            route.shadow = self.restored(&roles.name, digest, priority).await;
            if let (Some(shadow), Some(active)) = (&route.shadow, &route.active) {
                let (shadow, against) = (&shadow.traffic().shadow, active.version.digest());
                if !shadow.is_against(against) {
                    shadow.begin(against);
                }
            }
        }
        self.catalog.set(&roles.name, route);
    }

    /// A version that has a role, if it can be loaded.
    async fn restored(
        &self,
        name: &str,
        digest: &str,
        priority: Priority,
    ) -> Option<Arc<PolicyVersion>> {
        let loaded = async {
            let record = self.stored(name, &VersionDigest::known(digest)).await?;
            self.load(&record, priority).await
        };
        loaded
            .await
            .inspect_err(|error| {
                let (version, error) = (short(digest), error.for_log());
                tracing::error!(policy = name, version, error, "a version cannot be loaded");
            })
            .ok()
    }

    /// A version in a role since some time; one that had it before keeps what is known of its faults.
    fn placed(
        &self,
        version: Arc<PolicyVersion>,
        before: Option<&Placed>,
        since_ms: Option<u64>,
    ) -> Placed {
        if let Some(before) = before.filter(|placed| placed.version.digest() == version.digest()) {
            return Placed {
                version,
                probation: before.probation.clone(),
            };
        }
        let rules = &self.rules.probation;
        let left = since_ms.and_then(|since| {
            let age = Duration::from_millis(now_ms().saturating_sub(since));
            rules.window.checked_sub(age)
        });
        let probation = left.map(|window| {
            let rules = ProbationRules {
                window,
                ..rules.clone()
            };
            Arc::new(Probation::new(rules, Instant::now()))
        });
        Placed { version, probation }
    }
}

/// A version that answers for all is nobody's canary and nobody's shadow any more.
fn end_other_roles(roles: &mut NameRecord, active: &str) {
    roles.canary.take_if(|canary| canary.digest == active);
    roles.shadow.take_if(|shadow| shadow == active);
}

/// What to write to the journal.
enum Told {
    /// What was prepared.
    Draft,
    /// This.
    This(JournalDraft),
}

/// Why a name's record was left alone.
enum Unchanged {
    AsItWas,
    Refused(ReleaseError),
}

fn about(record: &VersionRecord, kind: &str, who: &str) -> JournalDraft {
    JournalDraft {
        digest: Some(record.digest.clone()),
        version: Some(record.version.clone()),
        ..draft(kind, &record.name, who)
    }
}
