//! What the caches of the inference say of themselves, as metrics.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rerankd_inference::{CacheUsage, Inference};

/// Reads the caches when the metrics are asked for.
pub(super) struct Caches(pub(super) Arc<Inference>);

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caches")
    }
}

type Gauge = (&'static str, &'static str, fn(&CacheUsage) -> u64);
type Asked = (String, u64, u64);
type Counter = (&'static str, &'static str, fn(&Asked) -> u64);

const GAUGES: [Gauge; 3] = [
    ("cache_entries", "Entries of a cache", |usage| {
        usage.entries as u64
    }),
    ("cache_bytes", "What the entries of a cache take", |usage| {
        usage.bytes
    }),
    (
        "cache_max_bytes",
        "The most that the entries of a cache may take",
        |usage| usage.max_bytes,
    ),
];

const COUNTERS: [Counter; 2] = [
    (
        "cache_hits",
        "Rows and texts that were known, by cache and model",
        |(_, hits, _)| *hits,
    ),
    (
        "cache_misses",
        "Rows and texts that were not known, by cache and model",
        |(_, _, misses)| *misses,
    ),
];

impl Collector for Caches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let caches = self.0.caches();
        if caches.is_empty() {
            return Ok(());
        }
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (cache, usage) in &caches {
                let gauge = ConstGauge::new(i64::try_from(value(usage)).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&[("cache", *cache)])?)?;
            }
        }
        for (name, help, value) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (cache, usage) in &caches {
                for asked in &usage.asked {
                    let labels = [("cache", *cache), ("model", asked.0.as_str())];
                    ConstCounter::new(value(asked)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
