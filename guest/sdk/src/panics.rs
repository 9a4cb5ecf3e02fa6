//! Tells the host why the instance is about to trap. Without it a panic is a bare `unreachable`.

use crate::bindings::rerank::policy::log;

/// From here on a panic calls `log.panicked` with its message, file and line before it aborts.
pub(crate) fn report_to_host() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic
            .payload_as_str()
            .unwrap_or("a panic whose payload is not text");
        let (file, line) = panic
            .location()
            .map_or(("", 0), |place| (place.file(), place.line()));
        log::panicked(message, file, line);
    }));
}
