//! The proxy's own errors, and statuses.

use std::time::Duration;

use rerankd_core::{ErrorKind, FailReason, RerankError, SkipReason};
use rerankd_wire::search::{encode_engine_error, names_result_window};
use rerankd_wire::status::{SearchStatus, multi_search_status_header, search_status_header};

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
    let header = |status| search_status_header(status).to_str().unwrap().to_owned();
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
    let header = multi_search_status_header(&statuses);
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
    assert!(multi_search_status_header(&many).len() < 4096);
}
