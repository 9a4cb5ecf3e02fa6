//! What requests and changes of roles share state by. In this crate's own tests it is shuttle's, which
//! tries the orders in which they may run (`release/interleaving.rs`): outside of such a run these
//! types cannot be used there.

pub(crate) use threads::*;

#[cfg(not(test))]
mod threads {
    pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
    pub(crate) use tokio::spawn;

    /// Whether a task ended because the runtime does, not by a panic.
    pub(crate) fn is_cancelled(error: &tokio::task::JoinError) -> bool {
        error.is_cancelled()
    }
}

#[cfg(test)]
mod threads {
    pub(crate) use shuttle::future::spawn;
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

    pub(crate) fn is_cancelled(error: &shuttle::future::JoinError) -> bool {
        matches!(error, shuttle::future::JoinError::Cancelled)
    }
}
