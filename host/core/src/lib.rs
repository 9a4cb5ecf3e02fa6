//! The vocabulary of rerankd: what a request, a ranking, an error and a limit are.
//!
//! Every other crate speaks in these types. There is no I/O, no async and no serde here: no JSON is
//! frozen by accident, because no wire type is a core type. Reading order: [`request`],
//! [`ranking`], [`error`], [`limits`], [`ledger`].

pub mod error;
pub mod ledger;
pub mod limits;
pub mod ranking;
pub mod request;

pub use error::{ErrorKind, RerankError};
pub use ledger::{Account, Charge, Ledger, LedgerBounds, Refused};
pub use limits::Limits;
pub use ranking::{
    FailReason, Judgment, Notes, Outcome, Ranking, Reranked, ScoreKind, SkipReason, Status,
    Timings, TokenCount, UnitMap,
};
pub use request::{Document, Field, FirstStage, OnFailure, PolicySelector, RerankRequest, Value};
