//! The reranking sidecar: configuration, listener, and the line of one request.
//!
//! Start reading at [`rerank`]: it calls the steps of a request in their order. [`app`] builds the
//! object graph and is the only place that knows every type; [`data_plane`] maps routes to
//! protocols; [`config`] resolves flags, environment and file into one configuration.

pub mod admission;
pub mod app;
mod body;
pub mod checkout;
pub mod cli;
pub mod config;
pub mod data_plane;
pub mod listener;
pub mod rerank;
pub mod telemetry;
