//! The proxy's own errors, and statuses.

use std::time::Duration;

use rerankd_core::{ErrorKind, FailReason, RerankError, SkipReason, Status};
use rerankd_wire::search::{encode_engine_error, names_result_window};
use rerankd_wire::status::{
    MappingNote, SearchStatus, multi_search_status_header, search_status_header,
};

use super::{json, text};
use crate::support::{reranked, scored};

#[test]
fn errors_have_the_engines_shape() {
    let error = RerankError::bad_request("ext.rerankd.window", "expected a number");
    let answer = encode_engine_error(&error, "r-1");
    assert_eq!(answer.status, 400);
    assert_eq!(
        text(&answer.body),
        r#"{"error":{"root_cause":[{"type":"rerankd_exception","reason":"`ext.rerankd.window`: expected a number"}],"type":"rerankd_exception","reason":"`ext.rerankd.window`: expected a number","request_id":"r-1"},"status":400}"#
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        answer.headers["rerank-status"],
        "rerankd;status=error;reason=bad-request"
    );
    assert!(!answer.headers.contains_key("x-elastic-product"));
    let cases = [
        (ErrorKind::Overloaded, 429),
        (ErrorKind::PolicyFault, 424),
        (ErrorKind::UpstreamFailed, 502),
        (ErrorKind::UpstreamUnavailable, 503),
        (ErrorKind::UpstreamTimeout, 504),
    ];
    for (kind, status) in cases {
        let error = RerankError::new(kind, "x").with_retry_after(Duration::from_millis(1500));
        let answer = encode_engine_error(&error, "r-1");
        assert_eq!(answer.status, status);
        assert_eq!(json(&answer.body)["status"], status);
        assert_eq!(answer.headers["retry-after"], "2");
    }
}

#[test]
fn the_result_windows_error_is_known() {
    assert!(names_result_window(
        br#"{"error":{"root_cause":[{"type":"illegal_argument_exception","reason":"Result window is too large, from + size must be less than or equal to: [10] but was [50]."}]}}"#
    ));
    assert!(!names_result_window(
        br#"{"error":{"reason":"no such index"}}"#
    ));
}

#[test]
fn a_search_says_what_became_of_it() {
    let none = MappingNote::default();
    let header = |status| {
        let header = search_status_header(status, &none);
        header.to_str().unwrap().to_owned()
    };
    assert_eq!(
        header(SearchStatus::Skipped(SkipReason::Sort)),
        "rerankd;status=skipped;reason=sort"
    );
    assert_eq!(
        header(SearchStatus::Failed(FailReason::UpstreamResponse)),
        "rerankd;status=failed;reason=upstream-response"
    );
    assert_eq!(
        header(SearchStatus::Error(ErrorKind::UpstreamTimeout)),
        "rerankd;status=error;reason=upstream-timeout"
    );
    let ranked = reranked(vec![scored(1.0)]);
    let said = header(SearchStatus::Ranked(&ranked));
    assert!(
        said.starts_with(r#"rerankd;status=applied;policy="semantic-blend""#),
        "{said}"
    );
}

#[test]
fn an_msearch_says_it_of_each() {
    let ranked = reranked(vec![scored(1.0)]);
    let limit = SearchStatus::Skipped(SkipReason::Limit);
    let statuses = [
        SearchStatus::Ranked(&ranked),
        SearchStatus::Ranked(&ranked),
        SearchStatus::Skipped(SkipReason::Sort),
        limit,
        limit,
        limit,
    ];
    let header = multi_search_status_header(&statuses, &[]);
    let members: Vec<&str> = header.to_str().unwrap().split(", ").collect();
    assert_eq!(members.len(), 4);
    assert!(
        members[0].ends_with(";item=0") && members[1].ends_with(";item=1"),
        "{header:?}"
    );
    assert_eq!(members[2], "rerankd;status=skipped;reason=sort;item=2");
    assert_eq!(
        members[3],
        "rerankd;status=skipped;reason=limit;item=3;items=3"
    );
    let many = [SearchStatus::Skipped(SkipReason::Sort), limit].repeat(1000);
    assert!(multi_search_status_header(&many, &[]).len() < 4096);
}

fn noted(is_unknown: bool, fields: &[&str]) -> MappingNote {
    MappingNote {
        is_unknown,
        fields: fields.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[test]
fn searches_that_differ_in_what_is_known_of_the_mapping_share_no_member() {
    let no_rule = SearchStatus::Skipped(SkipReason::NoRule);
    let notes = [noted(false, &[]), noted(true, &[]), noted(true, &[])];
    let header = multi_search_status_header(&[no_rule; 5], &notes);
    assert_eq!(
        header.to_str().unwrap(),
        "rerankd;status=skipped;reason=no-rule;item=0, \
         rerankd;status=skipped;reason=no-rule;item=1;items=2;mapping=unknown, \
         rerankd;status=skipped;reason=no-rule;item=3;items=2"
    );
}

#[test]
fn fields_are_said_of_what_a_policy_has_read() {
    let note = noted(false, &["title", "a\"b", "größe"]);
    let header = |status| {
        let header = search_status_header(status, &note);
        header.to_str().unwrap().to_owned()
    };
    let ranked = reranked(vec![scored(1.0)]);
    let said = header(SearchStatus::Ranked(&ranked));
    assert!(said.ends_with(r#";fields="title,a\"b""#), "{said}");
    let mut failed = ranked.clone();
    failed.status = Status::Failed(FailReason::Deadline);
    for status in [
        SearchStatus::Ranked(&failed),
        SearchStatus::Failed(FailReason::Deadline),
    ] {
        let said = header(status);
        assert!(!said.contains("fields"), "{said}");
    }
}

#[test]
fn names_of_fields_do_not_make_a_header_longer_than_gateways_take() {
    let ranked = reranked(vec![scored(1.0)]);
    let name = "n".repeat(60);
    let note = noted(true, &[&name, &name, &name, &name]);
    let of = |searches: usize| {
        let statuses = vec![SearchStatus::Ranked(&ranked); searches];
        multi_search_status_header(&statuses, &vec![note.clone(); searches])
    };
    let header = of(32);
    let members: Vec<&str> = header.to_str().unwrap().split(", ").collect();
    assert_eq!(members.len(), 32);
    assert!(members[0].contains(";fields="), "{}", members[0]);
    assert!(header.len() <= 4 << 10, "{}", header.len());
    for searches in [64, 1000] {
        assert!(of(searches).len() <= 7 << 10, "{}", of(searches).len());
    }
}
