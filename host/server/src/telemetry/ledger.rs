//! What policy calls hold on the host, as metrics.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rerankd_core::Ledger;

/// Reads the ledger.
#[derive(Debug)]
pub(super) struct HostBytes(pub(super) Arc<Ledger>);

impl Collector for HostBytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ledger = &self.0;
        for (name, help, bytes) in [
            (
                "guest_host_bytes",
                "Bytes that policy calls hold on the host now: tensors, encodings, texts, errors, answers",
                ledger.held_bytes(),
            ),
            (
                "guest_host_bytes_limit",
                "Most bytes that policy calls may hold on the host, all together",
                ledger.bounds().total_bytes(),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(metric)?;
        }
        let mut family = encoder.encode_descriptor(
            "guest_host_bytes_refused",
            "How often a policy call was refused bytes on the host, by the bound that was reached: call (its own), pool (what is left of it for others)",
            None,
            MetricType::Counter,
        )?;
        for (bound, count) in ledger.refusals() {
            ConstCounter::new(count).encode(family.encode_family(&[("bound", bound)])?)?;
        }
        Ok(())
    }
}
