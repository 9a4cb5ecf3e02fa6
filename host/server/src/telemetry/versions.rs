//! What is known of each version's calls, as metrics. The numbers are those of `GET /v1/policies/{name}`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rerankd_policy::release::Releases;
use rerankd_policy::traffic::{ShadowSnapshot, TrafficSnapshot, Words};

/// Reads the traffic of all versions when metrics are asked for.
pub(super) struct Versions(pub(super) Arc<Releases>);

impl std::fmt::Debug for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Versions")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    policy: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    fault: &'static str,
}

struct Version {
    labels: VersionLabels,
    calls: TrafficSnapshot,
    cpu_time: Duration,
    shadow: Option<ShadowSnapshot>,
}

type Read = fn(&Version) -> Option<f64>;

const COUNTERS: [(&str, &str, Read); 7] = [
    ("policy_calls", "Policy calls by version", |v| {
        Some(v.calls.calls as f64)
    }),
    (
        "policy_guest_seconds",
        "Time in which policies computed, without models and tokenizer",
        |v| Some(v.calls.guest_ms.total / 1e3),
    ),
    (
        "policy_cpu_seconds",
        "CPU time of policies and of the host's own work for them, without models and tokenizer: what --guest-cpu-ms bounds for one call",
        |v| Some(v.cpu_time.as_secs_f64()),
    ),
    (
        "policy_model_seconds",
        "Time in which rows of policies ran on models",
        |v| Some(v.calls.model_ms.total / 1e3),
    ),
    (
        "shadow_compared",
        "Answers that a shadow version was compared with",
        |v| v.shadow.as_ref().map(|shadow| shadow.compared as f64),
    ),
    (
        "shadow_dropped",
        "Answers that a shadow version was not run for, for want of spare capacity",
        |v| v.shadow.as_ref().map(|shadow| shadow.dropped as f64),
    ),
    (
        "shadow_failed",
        "Runs of a shadow version that failed",
        |v| v.shadow.as_ref().map(|shadow| shadow.failed as f64),
    ),
];

const GAUGES: [(&str, &str, Read); 6] = [
    (
        "policy_peak_memory_bytes",
        "Most memory that one call of a version had",
        |v| Some(v.calls.peak_memory_bytes as f64),
    ),
    (
        "policy_top_10_moved",
        "Mean share of the first 10 places that a version gives to another document than the engine; 0 is no change at all",
        |v| v.calls.top_10_moved,
    ),
    (
        "policy_kendall_tau",
        "Mean Kendall's tau between a version's order and the engine's; 1 is the same order",
        |v| v.calls.kendall_tau,
    ),
    (
        "shadow_kendall_tau",
        "Mean Kendall's tau between a shadow version's order and the answer's",
        |v| v.shadow.as_ref().and_then(|shadow| shadow.kendall_tau),
    ),
    (
        "shadow_overlap_at_10",
        "Mean share of the first 10 documents that a shadow version and the answer have in common",
        |v| v.shadow.as_ref().and_then(|shadow| shadow.overlap_at_10),
    ),
    (
        "shadow_score_shift",
        "Mean difference of a document's score between a shadow version and the answer, absolute",
        |v| v.shadow.as_ref().and_then(|shadow| shadow.score_shift),
    ),
];

impl Collector for Versions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let versions: Vec<Version> = self
            .0
            .traffic()
            .all()
            .into_iter()
            .map(|(policy, digest, traffic)| Version {
                labels: VersionLabels {
                    policy,
                    version: digest[..8].to_owned(),
                },
                calls: traffic.snapshot(Words::Withheld),
                cpu_time: traffic.cpu_time(),
                shadow: traffic.shadow.snapshot(),
            })
            .collect();
        for (name, help, read) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            each(&versions, read, &mut metric, |value, encoder| {
                ConstCounter::new(value).encode(encoder)
            })?;
        }
        for (name, help, read) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            each(&versions, read, &mut metric, |value, encoder| {
                ConstGauge::new(value).encode(encoder)
            })?;
        }
        let help = "Policy faults by version and kind";
        let mut metric =
            encoder.encode_descriptor("policy_faults", help, None, MetricType::Counter)?;
        for version in &versions {
            for (&fault, &count) in &version.calls.faults_by_kind {
                let labels = (version.labels.clone(), FaultLabels { fault });
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Versions that lost their role by themselves, for too many faults";
        let metric =
            encoder.encode_descriptor("policies_taken_back", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.taken_back()).encode(metric)
    }
}

fn each(
    versions: &[Version],
    read: Read,
    metric: &mut MetricEncoder<'_>,
    encode: impl Fn(f64, MetricEncoder<'_>) -> Result<(), std::fmt::Error>,
) -> Result<(), std::fmt::Error> {
    for version in versions {
        if let Some(value) = read(version) {
            encode(value, metric.encode_family(&version.labels)?)?;
        }
    }
    Ok(())
}
