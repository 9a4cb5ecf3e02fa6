//! Calls, invented rankings, and readable answers.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use rerankd_core::{
    FirstStage, Judgment, Limits, Notes, Outcome, Ranking, RerankError, RerankRequest, Reranked,
    ScoreKind, Status, Timings, TokenCount, UnitMap,
};
use rerankd_wire::{Answer, Call, Decoded, Protocol};

pub(crate) fn fixture_folder(protocol: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", protocol]
        .iter()
        .collect()
}

pub(crate) fn fixture(protocol: &str, file: &str) -> Vec<u8> {
    std::fs::read(fixture_folder(protocol).join(file)).unwrap()
}

/// Runs `check` with snapshots lying in the protocol's folder.
pub(crate) fn with_snapshots_of(protocol: &str, check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(fixture_folder(protocol));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(check);
}

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    max_documents: 8,
    ..Limits::default()
});

pub(crate) fn limits() -> &'static Limits {
    &LIMITS
}

/// Decodes with [`limits`].
pub(crate) fn decode<'a>(
    protocol: &dyn Protocol,
    body: &'a [u8],
) -> Result<Decoded<'a>, RerankError> {
    protocol.decode(&Call {
        path: protocol.paths()[0],
        target: "semantic-blend@1.2",
        body,
        limits: limits(),
        request_id: "6f-1",
        unix_seconds: 1_700_000_000,
    })
}

pub(crate) fn request(protocol: &dyn Protocol, body: &[u8]) -> RerankRequest {
    let mut requests = decode(protocol, body).unwrap().requests;
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

pub(crate) fn scored(score: f64) -> Judgment {
    Judgment {
        outcome: Outcome::Scored(score),
        truncated: false,
        explanation: None,
    }
}

pub(crate) fn filtered() -> Judgment {
    Judgment {
        outcome: Outcome::Filtered,
        truncated: false,
        explanation: None,
    }
}

/// A finished request of a policy that was told the first stage's scores.
pub(crate) fn reranked(judgments: Vec<Judgment>) -> Reranked {
    let truncated = judgments.iter().filter(|one| one.truncated).count();
    let ranking = Ranking::new(judgments);
    Reranked {
        policy: "semantic-blend".into(),
        version: "3f2a91c0".into(),
        status: if ranking.unscored() == 0 {
            Status::Applied
        } else {
            Status::Partial
        },
        score_kind: ScoreKind::Blend,
        unit_map: UnitMap::Identity,
        first_stage: FirstStage::Scored,
        ranking,
        query_truncated: false,
        notes: Notes {
            truncated,
            ..Notes::default()
        },
        tokens: TokenCount::default(),
        timings: Timings {
            queue: Duration::from_micros(100),
            tokenize: Duration::from_nanos(400_499),
            inference: Duration::from_millis(22),
            guest: Duration::ZERO,
            total: Duration::from_micros(23_400),
            worked: Duration::ZERO,
        },
    }
}

pub(crate) fn answer(decoded: Decoded<'_>, results: &[Reranked]) -> Answer {
    decoded.reply.encode(results).unwrap()
}

pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

pub(crate) fn body(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

/// The answer as it goes over the wire; JSON is left as compact as it is.
pub(crate) fn shown(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.status.as_u16());
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    text + "\n" + body(answer)
}

/// One line for what each body is refused with.
pub(crate) fn refusals(protocol: &dyn Protocol, bodies: &[&str]) -> String {
    let mut text = String::new();
    for body in bodies {
        let error = decode(protocol, body.as_bytes()).err().expect(body);
        let cut: String = body.chars().take(100).collect();
        text.push_str(&format!("{cut}\n  {}: {error}\n", error.kind.name()));
    }
    text
}
