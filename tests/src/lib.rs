//! Support for the tests that start the real binary: they know it and HTTP, and no host crate.
//!
//! [`rerankd`] starts and stops a server; [`http`] talks to it, down to single bytes; [`answer`] reads
//! what came back; [`require`] finds what a test needs, or says which make target builds it;
//! [`documents`] are texts to rank, [`guests`] policies that break the rules; [`admin`] releases policies
//! on a server, [`components`] makes variants of them; [`folder`] is a place for files that a test makes
//! up; [`engine`] is a real search engine, [`scenario`] what is asked of it, and [`search_page`] compares its
//! pages, [`comparison`] whole answers, with those that a policy had a hand in; [`upstream`] is a search engine that misbehaves on
//! demand.

pub mod admin;
pub mod answer;
pub mod comparison;
pub mod components;
pub mod documents;
pub mod engine;
pub mod folder;
pub mod guests;
pub mod http;
pub mod require;
pub mod rerankd;
pub mod scenario;
pub mod search_page;
pub mod upstream;
pub mod usage;

use std::time::{Duration, Instant};

pub use crate::admin::Deployment;
pub use crate::answer::Answer;
pub use crate::engine::{Engine, Setup};
pub use crate::folder::Folder;
pub use crate::http::Connection;
pub use crate::rerankd::Rerankd;
pub use crate::upstream::Upstream;

/// Far more than anything here takes on a busy machine: only what hangs meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`]; `what` says what did not happen.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        // The one who is asked needs the core, too.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether tests of more than a minute shall run; says by name which one does not.
pub fn long_tests(name: &str) -> bool {
    let wanted = std::env::var_os("RERANKD_LONG_TESTS").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: {name} (set RERANKD_LONG_TESTS=1 to run it)");
    }
    wanted
}
