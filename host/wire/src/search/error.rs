//! The proxy's own errors in the engines' shape, and the one error of theirs that it must know.

use rerankd_core::RerankError;
use serde::Serialize;

use crate::Answer;
use crate::answer;

const TYPE: &str = "rerankd_exception";

#[derive(Serialize)]
struct Body<'a> {
    error: Outer<'a>,
    status: u16,
}

#[derive(Serialize)]
struct Outer<'a> {
    root_cause: [Cause<'a>; 1],
    #[serde(flatten)]
    cause: Cause<'a>,
    request_id: &'a str,
}

#[derive(Serialize, Clone, Copy)]
struct Cause<'a> {
    r#type: &'static str,
    reason: &'a str,
}

/// An error of the proxy's own, as the engines write theirs.
pub fn encode_engine_error(error: &RerankError, request_id: &str) -> Answer {
    let cause = Cause {
        r#type: TYPE,
        reason: &error.message,
    };
    let body = Body {
        error: Outer {
            root_cause: [cause],
            cause,
            request_id,
        },
        status: error.kind.http_status(),
    };
    answer::failure(error, error.kind.http_status(), &body)
}

/// Whether an engine's answer says that a search asked for more hits than
/// `index.max_result_window`.
pub fn names_result_window(answer: &[u8]) -> bool {
    const SENTENCE: &[u8] = b"Result window is too large";
    answer
        .windows(SENTENCE.len())
        .any(|window| window == SENTENCE)
}
