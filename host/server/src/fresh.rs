//! What is read from files that may be replaced while the server runs: certificates, keys.
//!
//! Nothing watches the files. Whoever asks looks at them first, once a second at most: that works for
//! symbolic links that are switched (as Kubernetes does) and for network file systems alike.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The files are looked at no more often than this.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often it was asked that everything be read anew.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Has every value read its files anew when it is asked for next, changed or not.
pub(crate) fn read_all_anew() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// A value out of files, made anew when one of them has changed.
pub(crate) struct Fresh<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    load: Load<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
    asked: u64,
}

/// Differs when a file was written to or replaced: device, inode, size, modification time.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl<T> Fresh<T> {
    /// Reads the files. `what` names the value in the log.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = stamps(&files);
        let value = Arc::new(load()?);
        Ok(Self {
            what,
            files,
            load: Box::new(load),
            state: Mutex::new(State {
                value,
                stamps,
                looked: Instant::now(),
                asked: ASKED.load(Ordering::Relaxed),
            }),
        })
    }

    /// The value of the files as they are, or as they last were when they were good: what cannot be
    /// read replaces nothing and is said in the log, once.
    pub(crate) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = ASKED.load(Ordering::Relaxed);
        let is_asked = asked != state.asked;
        if is_asked || state.looked.elapsed() >= INTERVAL {
            state.looked = Instant::now();
            state.asked = asked;
            let stamps = stamps(&self.files);
            if is_asked || stamps != state.stamps {
                state.stamps = stamps;
                match (self.load)() {
                    Ok(value) => {
                        state.value = Arc::new(value);
                        tracing::info!(what = self.what, "read anew");
                    }
                    Err(problem) => {
                        tracing::error!(
                            what = self.what,
                            problem,
                            "not read anew: what was there before goes on"
                        );
                    }
                }
            }
        }
        Arc::clone(&state.value)
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

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |meta: Metadata| {
        (
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
        )
    };
    let stamps = files.iter().map(|file| std::fs::metadata(file).ok());
    stamps.map(|meta| meta.map(stamp)).collect()
}
