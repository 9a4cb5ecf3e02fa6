//! What a client is told when a request fails.

use std::time::Duration;

/// The closed set of failures. Each protocol maps a kind to its status and body, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: the client must change it.
    BadRequest,
    /// The call has no key that is known, where one is asked for.
    Unauthorized,
    /// The name in `Host` is none under which this may be called.
    HostNotAllowed,
    /// There is nothing to rank: no query, or no documents.
    Empty,
    /// A text does not fit the model, and the caller does not want it cut.
    TooLong,
    /// No such route.
    UnknownRoute,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The policy does not exist.
    UnknownPolicy,
    /// The model does not exist.
    UnknownModel,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body or the number of documents is over a limit.
    TooLarge,
    /// The body is declared to be something other than JSON.
    UnsupportedMediaType,
    /// No room now; the client may try again.
    Overloaded,
    /// The policy broke its contract or a limit.
    PolicyFault,
    /// The model cannot read the query, or none of the documents, and the answer has no other order.
    Unread,
    /// The time was up.
    DeadlineExceeded,
    /// The server is going down.
    ShuttingDown,
    /// The search engine could not be reached, or broke off in its answer.
    UpstreamFailed,
    /// No address of the search engine is healthy, or all its connections are taken.
    UpstreamUnavailable,
    /// The search engine did not answer in time.
    UpstreamTimeout,
    /// The host itself failed; the cause is in its log.
    Internal,
}

impl ErrorKind {
    /// The name used in error bodies and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::HostNotAllowed => "host_not_allowed",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::UnknownRoute => "unknown_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownPolicy => "unknown_policy",
            Self::UnknownModel => "unknown_model",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Overloaded => "overloaded",
            Self::PolicyFault => "policy_fault",
            Self::Unread => "unread",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status, where a protocol has no own. Policy faults, deadlines and text that nobody
    /// reads are 424, which no common client retries; see the protocols' notes in `host/wire`.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Empty | Self::TooLong => 400,
            Self::Unauthorized => 401,
            Self::HostNotAllowed => 403,
            Self::UnknownRoute | Self::UnknownPolicy | Self::UnknownModel => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::PolicyFault | Self::Unread | Self::DeadlineExceeded => 424,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::UpstreamFailed => 502,
            Self::ShuttingDown | Self::UpstreamUnavailable => 503,
            Self::UpstreamTimeout => 504,
        }
    }
}

/// A failure with the sentence for the client.
///
/// The message is lower case, without a full stop, with backticks round what the user typed: where,
/// what was wrong, what would be right.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct RerankError {
    /// Which failure.
    pub kind: ErrorKind,
    /// The whole sentence, with the place in front if there is one.
    pub message: String,
    /// The place in the request, as a path (`documents[3].fields.price`).
    pub at: Option<String>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
}

impl RerankError {
    /// A failure of no particular place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            at: None,
            retry_after: None,
        }
    }

    /// A bad request at `at` (a path); `problem` says what was wrong and what would be right.
    pub fn bad_request(at: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let at = at.into();
        Self {
            kind: ErrorKind::BadRequest,
            message: format!("`{at}`: {problem}"),
            at: Some(at),
            retry_after: None,
        }
    }

    /// The same failure, worth another try after `retry_after`.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}
