//! A real OpenSearch with the plugin in it, and a real rerankd beside it: the scenarios of `tests/scenarios`, the
//! ways to ask for a ranking, and what must go well when the sidecar does not. One engine serves all tests of
//! this target; `RERANKD_TEST_OPENSEARCH=2.19.6` names another version than the usual one.

mod bad_input;
mod mapping;
mod marker;
mod neighbours;
mod pages;
mod pipelines;
mod same_ranking;
mod scenarios;
mod secured;
mod sidecar;
mod texts;
mod trouble;
mod ways;
mod widening;
mod world;

/// A search that all indices have hits for.
const QUERY: &str = "garden shoe";
