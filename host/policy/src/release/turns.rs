//! One change of roles at a time, and each to its end, whether or not its caller waits.

use std::sync::Arc;

use crate::error::ReleaseError;
use crate::sync::{is_cancelled, spawn};

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns(Arc<tokio::sync::Mutex<()>>);

impl Turns {
    /// Makes a change when those before it have ended. It is a task of its own: a caller that hangs up
    /// must not leave what requests see behind the store.
    ///
    /// # Errors
    /// It panicked, or the runtime ends.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ReleaseError> {
        let turns = Arc::clone(&self.0);
        let task = spawn(async move {
            let _turn = turns.lock().await;
            change.await
        });
        task.await.map_err(|error| match is_cancelled(&error) {
            true => ReleaseError::ShuttingDown,
            false => ReleaseError::Host("a change panicked".to_owned()),
        })
    }
}
