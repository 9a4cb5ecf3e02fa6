//! A policy's test cases: a request in, and what must come out. The format: docs/cases.md.
//!
//! [`Cases`] reads them, [`run`] calls a version with them as the server would.

mod expect;
mod read;
mod run;

pub use read::{Cases, MAX_BYTES, MAX_CASES};
pub use run::{CaseResult, Report, run};
