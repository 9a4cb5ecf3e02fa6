//! The reranking sidecar: configuration, listeners, and the line of one request.
//!
//! Start reading at [`rerank`]: it calls the steps of a request in their order. [`app`] builds the
//! object graph and is the only place that knows every type; [`data_plane`] maps routes to
//! protocols, [`proxy`] stands before a search engine, [`admin`] is the plane for those who run the server; [`config`] resolves flags,
//! environment and file into one configuration; [`policy_cli`] is the command `rerankd policy`, and [`cases`] the tests that a policy brings along.

mod about;
pub mod admin;
pub mod admission;
pub mod api_keys;
pub mod app;
mod body;
pub mod cases;
pub mod check;
pub mod checkout;
pub mod cli;
pub mod config;
pub mod connections;
mod cors;
pub mod data_folder;
pub mod data_plane;
pub mod environment;
mod expected;
mod fields;
mod fresh;
mod gzip;
mod host_names;
pub mod listener;
mod parts;
mod pinned;
pub mod policy_cli;
pub mod proxy;
pub mod rerank;
mod secret_file;
mod self_test;
pub mod shadow;
mod sync;
pub mod telemetry;
pub mod terminal;
pub mod tls;
pub mod token;
pub mod watch;
