//! The protocols through their public face: recorded requests, the answers made of invented
//! rankings, the text of every error. Snapshots and recorded messages lie in `fixtures/<protocol>/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fuzz;
mod hits;
mod metarank;
mod native;
mod properties;
mod rerank_apis;
mod rerank_bad_input;
mod rerank_requests;
mod search;
mod status;
mod support;

use rerankd_wire::PROTOCOLS;

#[test]
fn every_protocol_has_recorded_messages() {
    for protocol in PROTOCOLS {
        let folder = support::fixture_folder(protocol.name());
        let mut names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert!(
            names.any(|name| name.to_str().unwrap().ends_with(".request.json")),
            "no recorded request of {}",
            protocol.name()
        );
    }
}

#[test]
fn no_two_protocols_share_a_name() {
    let mut names: Vec<&str> = PROTOCOLS.iter().map(|protocol| protocol.name()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
