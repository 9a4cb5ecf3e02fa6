#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use rerankd_core::{
    Judgment, Notes, Outcome, Ranking, Refused, ScoreKind, SkipReason, Timings, TokenCount, UnitMap,
};
use serde_json::json;

use super::*;
use crate::error::Fault;

/// A ranking with these scores; a document without one is filtered.
fn ranked(status: Status, scores: &[Option<f64>]) -> Result<Invoked, PolicyError> {
    let judge = |score: &Option<f64>| Judgment {
        outcome: score.map_or(Outcome::Filtered, Outcome::Scored),
        truncated: false,
        explanation: None,
    };
    Ok(Invoked {
        reranked: Reranked {
            policy: "p".into(),
            version: "12345678".into(),
            status,
            score_kind: ScoreKind::Blend,
            unit_map: UnitMap::Identity,
            first_stage: FirstStage::Scored,
            ranking: Ranking::new(scores.iter().map(judge).collect()),
            query_truncated: false,
            notes: Notes::default(),
            tokens: TokenCount::default(),
            timings: Timings {
                guest: Duration::from_millis(2),
                inference: Duration::from_millis(10),
                ..Timings::default()
            },
        },
        peak_memory_bytes: 1 << 20,
        late_rows: 0,
        log: Vec::new(),
        held: None,
    })
}

fn fault(fault: Fault, log: Vec<String>) -> Result<Invoked, PolicyError> {
    Err(PolicyError::Fault {
        policy: "p@12345678".into(),
        fault,
        log,
        peak_memory_bytes: 3 << 20,
    })
}

fn panicked(message: &str) -> Result<Invoked, PolicyError> {
    let panic = Fault::Panic {
        message: message.into(),
        file: "src/lib.rs".into(),
        line: 14,
    };
    fault(panic, vec![format!("info before {message}")])
}

#[test]
fn every_call_is_counted_in_one_place() {
    let traffic = VersionTraffic::default();
    let policy = || "p@12345678".to_owned();
    let message = || "no".to_owned();
    let results = [
        ranked(Status::Applied, &[Some(1.0), Some(2.0)]),
        ranked(Status::Partial, &[Some(1.0), Some(2.0)]),
        ranked(Status::Skipped(SkipReason::NoText), &[]),
        panicked("no price"),
        fault(Fault::StackOverflow, Vec::new()),
        Err(PolicyError::Deadline { policy: policy() }),
        Err(PolicyError::NoInstance),
        Err(PolicyError::NoRoom {
            policy: policy(),
            refused: Refused::Pool { pool_mib: 1024 },
        }),
        Err(PolicyError::ShuttingDown),
        Err(PolicyError::Host {
            policy: policy(),
            message: message(),
        }),
        Err(PolicyError::InvalidRequest {
            at: None,
            message: message(),
        }),
    ];
    for (index, result) in results.iter().enumerate() {
        traffic.record(FirstStage::Scored, result, &format!("r{index}"));
    }
    let snapshot = traffic.snapshot(Words::Shown);
    let (since, last) = (snapshot.since_ms, snapshot.last_call_ms.unwrap());
    assert!(since > 1_700_000_000_000 && last >= since);
    let at: Vec<u64> = snapshot.last_faults.iter().map(|f| f.at_ms).collect();
    assert_eq!(
        serde_json::to_value(&snapshot).unwrap(),
        json!({
            "since_ms": since, "last_call_ms": last, "calls": 11,
            "statuses": {"applied": 1, "partial": 1, "skipped": 1},
            "faults": 2, "faults_by_kind": {"panic": 1, "stack-overflow": 1},
            "deadline": 1,
            "errors": {
                "host": 1, "invalid-request": 1, "no-instance": 1, "no-room": 1, "shutting-down": 1,
            },
            "last_faults": [
                {"at_ms": at[0], "kind": "panic", "request_id": "r3",
                 "message": "it panicked at src/lib.rs:14: no price"},
                {"at_ms": at[1], "kind": "stack-overflow", "request_id": "r4",
                 "message": "its stack overflowed"},
            ],
            "log": [{"at_ms": at[0], "request_id": "r3", "line": "info before no price"}],
            "peak_memory_bytes": 3 << 20,
            "guest_ms": {"total": 6.0, "mean": 2.0, "max": 2.0},
            "model_ms": {"total": 30.0, "mean": 10.0, "max": 10.0},
            "compared": 2, "top_10_moved": 1.0, "kendall_tau": -1.0,
        })
    );
}

#[test]
fn without_the_right_to_push_no_word_of_the_policy_is_shown() {
    let traffic = VersionTraffic::default();
    traffic.record(FirstStage::None, &panicked("secret"), "r1");
    assert!(
        serde_json::to_string(&traffic.snapshot(Words::Shown))
            .unwrap()
            .contains("secret")
    );
    let withheld = serde_json::to_value(traffic.snapshot(Words::Withheld)).unwrap();
    assert!(!withheld.to_string().contains("secret"), "{withheld}");
    assert_eq!(withheld.get("log"), None);
    assert_eq!(withheld["last_faults"][0]["kind"], "panic");
    assert_eq!(withheld["last_faults"][0].get("message"), None);
}

#[test]
fn what_is_kept_is_bounded_and_the_newest_stays() {
    let traffic = VersionTraffic::default();
    // Three bytes a character, so that the cut falls into one.
    let long = "☃".repeat(1000);
    for call in 0..50 {
        let lines = (0..150).map(|line| format!("info {call}.{line} {long}"));
        let result = fault(
            Fault::Internal {
                message: long.clone(),
            },
            lines.collect(),
        );
        traffic.record(FirstStage::None, &result, &format!("{call}{long}"));
    }
    let snapshot = traffic.snapshot(Words::Shown);
    let log = snapshot.log.unwrap();
    assert_eq!((snapshot.last_faults.len(), log.len()), (20, 100));
    assert!(log[0].line.starts_with("info 49.50 "));
    assert!(log[99].line.starts_with("info 49.149 "));
    assert!(snapshot.last_faults[19].request_id.starts_with("49"));
    assert!(snapshot.last_faults[0].request_id.starts_with("30"));
    let texts = log.iter().map(|record| &record.line);
    let messages = snapshot
        .last_faults
        .iter()
        .filter_map(|f| f.message.as_ref());
    for text in texts.chain(messages) {
        assert!(
            (1000..=KEPT_TEXT_BYTES).contains(&text.len()),
            "{}",
            text.len()
        );
    }
    assert!(snapshot.last_faults[0].request_id.len() <= 128);
    assert_eq!(snapshot.faults, 50);
}

#[test]
fn what_a_policy_changes_is_measured_against_the_engines_order() {
    let check = |first_stage, status, scores: &[Option<f64>], expected| {
        let traffic = VersionTraffic::default();
        traffic.record(first_stage, &ranked(status, scores), "r");
        let snapshot = traffic.snapshot(Words::Withheld);
        let seen = (
            snapshot.compared,
            snapshot.top_10_moved,
            snapshot.kendall_tau,
        );
        assert_eq!(seen, expected, "{first_stage:?} {status:?} {scores:?}");
    };
    let kept = [Some(3.0), Some(2.0), Some(1.0), Some(0.0)];
    let swapped = [Some(3.0), Some(1.0), Some(2.0), Some(0.0)];
    let filtered = [Some(3.0), None, None, None];
    use FirstStage::{Ranked, Scored};
    use Status::{Applied, Partial, Skipped};
    check(Scored, Applied, &kept, (1, Some(0.0), Some(1.0)));
    let tau = Some(1.0 - 2.0 / 6.0);
    check(Ranked, Partial, &swapped, (1, Some(0.5), tau));
    check(Scored, Applied, &filtered, (1, Some(0.75), None));
    let nothing = (0, None, None);
    check(FirstStage::None, Applied, &swapped, nothing);
    check(Scored, Skipped(SkipReason::NoText), &swapped, nothing);
    check(Scored, Applied, &swapped[..1], nothing);
}

#[test]
fn a_shadow_run_leaves_words_but_counts_as_no_call() {
    let traffic = VersionTraffic::default();
    traffic.record_shadow(&panicked("no price"), "r1");
    let snapshot = traffic.snapshot(Words::Shown);
    assert_eq!(
        (snapshot.calls, snapshot.faults, snapshot.last_call_ms),
        (0, 0, None)
    );
    assert!(snapshot.last_faults[0].shadow);
    assert_eq!(snapshot.log.unwrap().len(), 1);
    assert_eq!(snapshot.peak_memory_bytes, 3 << 20);
}

#[test]
fn numbers_survive_a_version_that_is_unloaded_and_loaded_again() {
    let book = TrafficBook::default();
    let result = ranked(Status::Applied, &[Some(1.0)]);
    book.of("p", "aa").record(FirstStage::Scored, &result, "r");
    book.of("p", "bb");
    assert_eq!(book.of("p", "aa").snapshot(Words::Withheld).calls, 1);
    assert_eq!(book.of("p", "bb").snapshot(Words::Withheld).calls, 0);
    book.forget("aa");
    assert_eq!(book.of("p", "aa").snapshot(Words::Withheld).calls, 0);
}

#[test]
fn a_book_forgets_the_oldest_that_nobody_holds() {
    let book = TrafficBook::default();
    let result = ranked(Status::Applied, &[Some(1.0)]);
    let held = book.of("p", "held");
    for digest in ["held", "old", "young"] {
        book.of("p", digest)
            .record(FirstStage::Scored, &result, "r");
    }
    for number in 0..REMEMBERED_VERSIONS - 2 {
        book.of("p", "young");
        book.of("p", &number.to_string());
    }
    let calls = |digest: &str| book.of("p", digest).snapshot(Words::Withheld).calls;
    assert_eq!(calls("held"), 1);
    assert_eq!(calls("young"), 1);
    assert_eq!(calls("old"), 0);
    assert!(book.lock().by_digest.len() <= REMEMBERED_VERSIONS);
    assert!(Arc::ptr_eq(&held, &book.of("p", "held")));
}

#[test]
fn no_call_is_lost_between_threads() {
    let traffic = VersionTraffic::default();
    let result = ranked(Status::Applied, &[Some(1.0), Some(2.0)]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    traffic.record(FirstStage::Ranked, &result, "r");
                }
            });
        }
    });
    let snapshot = traffic.snapshot(Words::Withheld);
    assert_eq!((snapshot.calls, snapshot.compared), (8000, 8000));
    assert_eq!(snapshot.guest_ms.total, 16000.0);
}
