//! What is known of connections, as metrics.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::connections::{Connections, Usage};

/// All planes.
pub(super) struct Planes(pub(super) Arc<Connections>);

impl fmt::Debug for Planes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Planes")
    }
}

impl Collector for Planes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let usages: Vec<(&'static str, Usage)> = self
            .0
            .gates()
            .map(|gate| (gate.name(), gate.usage()))
            .collect();
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let mut metric = encoder.encode_descriptor(
            "connections",
            "Open connections by plane and state: busy, or the client is waited for: head, idle, body, answer",
            None,
            MetricType::Gauge,
        )?;
        for (plane, usage) in &usages {
            for (state, count) in Usage::STATES.iter().zip(usage.states) {
                let labels = [("plane", *plane), ("state", *state)];
                gauge(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "connections_ended",
            "Connections that the server ended by plane and reason: head, idle, body, answer (waited for too long), room, draining",
            None,
            MetricType::Counter,
        )?;
        for (plane, usage) in &usages {
            for (reason, count) in usage.ended {
                let labels = [("plane", *plane), ("reason", reason)];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "connections_refused",
            "Connections and requests by plane that there was no room for",
            None,
            MetricType::Counter,
        )?;
        for (plane, usage) in &usages {
            let labels = [("plane", *plane)];
            ConstCounter::new(usage.refused).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "answer_bytes",
            "Bytes of answers by plane that clients have not taken yet",
            None,
            MetricType::Gauge,
        )?;
        for (plane, usage) in &usages {
            let labels = [("plane", *plane)];
            gauge(usage.answer_bytes).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
