//! Policies: WebAssembly components, run by wasmtime behind the contract in `wit/`.
//!
//! A policy's life: [`engine`] compiles and links it once, [`version`] holds it with its models,
//! parameters and digest, immutable; [`catalog`] maps names to versions; [`mod@invoke`] runs one request
//! in a fresh store with limits and a deadline, where the guest calls [`imports`]; [`check`] turns
//! what it says into a ranking, or into a fault; [`traffic`] keeps what became of a version's calls, and
//! says when it must go. [`split`] puts a request on one side of a canary, [`compare`] tells two
//! rankings apart.
//!
//! No HTTP and no wire formats here.

pub mod artifact;
pub mod bindings;
pub mod catalog;
pub mod check;
pub mod chores;
pub mod compare;
pub mod compiler;
mod cpu;
pub mod engine;
pub mod error;
pub mod imports;
pub mod invoke;
mod limiter;
pub mod manifest;
mod overlay;
pub mod parameters;
pub mod release;
mod schema;
pub mod selector;
pub mod split;
pub mod store;
mod sync;
mod texts;
pub mod traffic;
pub mod version;
mod wasi;

pub use catalog::Catalog;
pub use engine::PolicyEngine;
pub use error::{Fault, PolicyError, ReleaseError};
pub use invoke::{Invoked, invoke, invoke_in_background, invoke_measured};
pub use manifest::PolicyManifest;
pub use selector::{VersionDigest, VersionSelector};
pub use traffic::{Probation, ProbationRules, ShadowComparison, TrafficBook, VersionTraffic};
pub use version::{PolicyOptions, PolicyVersion};
