//! The `Rerank-Status` header.

use rerankd_core::{ErrorKind, Judgment, Ranking, RerankError, SkipReason, Status};
use rerankd_wire::status::{error_status_header, status_header};

use crate::support::{filtered, reranked, scored};

fn text(value: http::HeaderValue) -> String {
    value.to_str().unwrap().to_owned()
}

#[test]
fn a_partial_ranking_gives_the_commonest_reason() {
    let judgments = ["late", "empty", "failed", "empty", "late"].map(Judgment::unscored);
    let header = text(status_header(&[reranked(judgments.into())]));
    assert_eq!(
        header,
        r#"rerankd;status=partial;reason=empty;policy="semantic-blend";version="3f2a91c0";window=5;unscored=5;time=23.4"#
    );
}

#[test]
fn words_that_are_no_tokens_and_names_that_are_not_ascii_do_not_break_the_field() {
    let mut result = reranked(vec![scored(1.0), Judgment::unscored("too old, \r\nreally")]);
    result.policy = "mêlée".into();
    result.version = "a\"b".into();
    assert_eq!(
        text(status_header(&[result])),
        r#"rerankd;status=partial;reason=other;version="a\"b";window=2;unscored=1;time=23.4"#
    );
}

#[test]
fn filtered_documents_are_no_lack() {
    let header = text(status_header(&[reranked(vec![filtered(), scored(1.0)])]));
    assert!(
        header.starts_with("rerankd;status=applied;policy="),
        "{header}"
    );
}

#[test]
fn several_results_are_several_members_and_none_is_skipped() {
    let mut skipped = reranked(vec![]);
    skipped.ranking = Ranking::first_stage(1, "empty");
    skipped.status = Status::Skipped(SkipReason::NoText);
    let both = text(status_header(&[reranked(vec![scored(1.0)]), skipped]));
    assert_eq!(both.split(", ").count(), 2);
    assert!(
        both.contains(", rerankd;status=skipped;reason=no-text;"),
        "{both}"
    );
    assert_eq!(
        text(status_header(&[])),
        "rerankd;status=skipped;reason=no-documents"
    );
}

#[test]
fn an_error_has_its_kind_as_reason() {
    let error = RerankError::new(ErrorKind::DeadlineExceeded, "too late");
    let header = text(error_status_header(&error));
    assert_eq!(header, "rerankd;status=error;reason=deadline-exceeded");
}
