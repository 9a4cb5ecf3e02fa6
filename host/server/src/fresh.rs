//! What is read from files that may be replaced while the server runs: certificates, keys.
//!
//! Nothing watches the files. Whoever asks looks at them first, once a second at most: that works for
//! symbolic links that are switched (as Kubernetes does) and for network file systems alike.
//!
//! What becomes of a value whose files cannot be read as they should be is [`Lapse`]'s to say. A key
//! that was revoked by removing its file must not stay good, while a certificate that cannot be renewed
//! is better than none.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::secret_file::Stamp;

/// The files are looked at no more often than this.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same, while they cannot be read.
const INTERVAL_WHILE_WRONG: Duration = Duration::from_millis(100);

/// How long a value outlives its files, counted from the change that spoiled them: a file that is
/// written in place is empty for a moment.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What becomes of a value whose files cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// It goes on.
    Keeps,
    /// It is gone after [`GRACE`].
    Ends,
}

type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// A value out of files, made anew when one of them has changed.
pub(crate) struct Fresh<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    lapse: Lapse,
    load: Load<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<Arc<T>>,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
    /// Since when the files have been wrong, as far as can be told.
    wrong_since: Option<Instant>,
}

impl<T> Fresh<T> {
    /// Reads the files. `what` names the value in the log.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        lapse: Lapse,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = stamps(&files);
        let value = Some(Arc::new(load()?));
        Ok(Self {
            what,
            files,
            lapse,
            load: Box::new(load),
            state: Mutex::new(State {
                value,
                stamps,
                looked: Instant::now(),
                wrong_since: None,
            }),
        })
    }

    /// The value of the files as they are. Where they cannot be read, the one before; `None` where that
    /// has lapsed. The log says so, once for each change.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = match state.wrong_since {
            None => INTERVAL,
            Some(_) => INTERVAL_WHILE_WRONG,
        };
        if state.looked.elapsed() >= interval {
            self.look(&mut state);
        }
        let lapsed = state.wrong_since.is_some_and(|at| at.elapsed() >= GRACE);
        if lapsed && self.lapse == Lapse::Ends && state.value.take().is_some() {
            tracing::error!(what = self.what, "nothing is good until this is mended");
        }
        state.value.clone()
    }

    fn look(&self, state: &mut State<T>) {
        let last = std::mem::replace(&mut state.looked, Instant::now());
        let stamps = stamps(&self.files);
        let changed = stamps != state.stamps;
        // What failed is tried again: not all that mends a file changes it.
        if !changed && state.wrong_since.is_none() {
            return;
        }
        state.stamps = stamps;
        match (self.load)() {
            Ok(value) => {
                state.value = Some(Arc::new(value));
                state.wrong_since = None;
                tracing::info!(what = self.what, "read anew");
            }
            Err(problem) => {
                // When they were last seen to be good is the earliest that they can have changed.
                let at_most = last.elapsed();
                let since = changed_ago(&state.stamps).map_or(at_most, |ago| ago.min(at_most));
                let known = state.wrong_since.is_some();
                state.wrong_since = state
                    .wrong_since
                    .or_else(|| Instant::now().checked_sub(since))
                    .or(Some(last));
                if changed || !known {
                    let then = match self.lapse {
                        Lapse::Keeps => "cannot be read anew: the value before it goes on",
                        Lapse::Ends => "cannot be read anew: the value before it ends",
                    };
                    tracing::error!(what = self.what, problem, "{then}");
                }
            }
        }
    }
}

impl<T> std::fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh")
            .field("what", &self.what)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}

/// How long ago the last of the files changed; `None` where one is not there, which has no time.
fn changed_ago(stamps: &[Option<Stamp>]) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let now = i128::try_from(now.as_nanos()).ok()?;
    let mut last = i128::MIN;
    for stamp in stamps {
        last = last.max(stamp.as_ref()?.changed_ns());
    }
    // A clock that was set back says nothing.
    let ago = u64::try_from(now.saturating_sub(last)).unwrap_or_default();
    Some(Duration::from_nanos(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a number, read anew at each look.
    fn number(test: &str, lapse: Lapse) -> (PathBuf, Fresh<u32>) {
        let name = format!("rerankd-fresh-{test}-{}-{lapse:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "1").expect("it can be written");
        let file = path.clone();
        let load = move || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            text.parse().map_err(|_| "it is no number".to_owned())
        };
        let fresh = Fresh::new("a number", vec![path.clone()], lapse, load);
        (path, fresh.expect("it is a number"))
    }

    /// As if the last look had been this long ago.
    fn wait(fresh: &Fresh<u32>, for_: Duration) {
        let earlier = |at: &mut Instant| {
            *at = at.checked_sub(for_).expect("the machine runs for longer");
        };
        let mut state = fresh.state.lock().expect("nothing panicked");
        earlier(&mut state.looked);
        state.wrong_since.iter_mut().for_each(earlier);
    }

    #[test]
    fn a_value_ends_with_its_file_after_the_grace_or_goes_on() {
        for lapse in [Lapse::Ends, Lapse::Keeps] {
            let (path, fresh) = number("ends", lapse);
            let value = |fresh: &Fresh<u32>| fresh.get().map(|value| *value);
            let after = match lapse {
                Lapse::Ends => None,
                Lapse::Keeps => Some(2),
            };
            std::fs::write(&path, "2").expect("it can be written");
            wait(&fresh, INTERVAL);
            assert_eq!(value(&fresh), Some(2));
            // Empty for a moment, as when it is written in place.
            std::fs::write(&path, "").expect("it can be written");
            wait(&fresh, INTERVAL);
            assert_eq!(value(&fresh), Some(2));
            wait(&fresh, GRACE);
            assert_eq!(value(&fresh), after);
            std::fs::write(&path, "2").expect("it can be written");
            wait(&fresh, INTERVAL_WHILE_WRONG);
            assert_eq!(value(&fresh), Some(2));
            // Nobody asked for a while, so it may have been gone for as long.
            std::fs::remove_file(&path).expect("it can be removed");
            wait(&fresh, GRACE);
            assert_eq!(value(&fresh), after);
        }
    }

    #[test]
    fn what_changes_all_the_time_and_is_wrong_ends_all_the_same() {
        let (path, fresh) = number("changes", Lapse::Ends);
        for turn in 0..3 {
            std::fs::write(&path, "x".repeat(turn + 1)).expect("it can be written");
            wait(&fresh, INTERVAL);
            let value = fresh.get().map(|value| *value);
            assert_eq!(value, (turn < 2).then_some(1), "look {turn}");
        }
        std::fs::remove_file(&path).expect("it can be removed");
    }
}
