//! The part of the configuration that is about releases.

use std::time::Duration;

use clap::Args;
use rerankd_policy::ProbationRules;
use rerankd_policy::compiler::CompileLimits;
use serde::{Deserialize, Serialize};

/// Flags about releases.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Releases")]
pub struct ReleaseFlags {
    /// Largest component that is accepted, MiB [default: 128]
    #[arg(long, value_name = "MIB", env = "RERANKD_MAX_COMPONENT_MIB")]
    pub max_component_mib: Option<usize>,

    /// Longest time to compile a component, milliseconds [default: 300000]
    #[arg(long, value_name = "MS", env = "RERANKD_COMPILE_TIMEOUT_MS")]
    pub compile_timeout_ms: Option<u64>,

    /// Memory of the process that compiles a component, MiB [default: 2048]
    #[arg(long, value_name = "MIB", env = "RERANKD_COMPILE_MEMORY_MIB")]
    pub compile_memory_mib: Option<u64>,

    /// How long a version that took a role is watched, and taken back if it fails too often, seconds;
    /// 0 watches none [default: 3600]
    #[arg(long, value_name = "S", env = "RERANKD_PROBATION_S")]
    pub probation_s: Option<u64>,

    /// Calls of a version before it can be taken back [default: 50]
    #[arg(long, value_name = "N", env = "RERANKD_PROBATION_MIN_CALLS")]
    pub probation_min_calls: Option<u64>,

    /// Share of its own faults above which a watched version is taken back, percent [default: 5]
    #[arg(long, value_name = "PERCENT", env = "RERANKD_PROBATION_MAX_FAULTS")]
    pub probation_max_faults: Option<f64>,
}

/// The same as keys of the file.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileReleases {
    max_component_mib: Option<usize>,
    compile_timeout_ms: Option<u64>,
    compile_memory_mib: Option<u64>,
    probation_s: Option<u64>,
    probation_min_calls: Option<u64>,
    probation_max_faults: Option<f64>,
}

/// How releases are checked and watched.
#[derive(Debug, Clone)]
pub struct ReleaseSettings {
    /// Largest component, bytes.
    pub max_component_bytes: usize,
    /// What a compilation may use.
    pub compile: CompileLimits,
    /// When a version is taken back by itself.
    pub probation: ProbationRules,
}

impl ReleaseSettings {
    pub(super) fn resolve(
        flags: &ReleaseFlags,
        file: &FileReleases,
        faults: &mut Vec<String>,
    ) -> Self {
        let compile = CompileLimits::default();
        let probation = ProbationRules::default();
        let component_mib = flags.max_component_mib.or(file.max_component_mib);
        let timeout_ms = flags.compile_timeout_ms.or(file.compile_timeout_ms);
        let memory_mib = flags.compile_memory_mib.or(file.compile_memory_mib);
        let max_faults = flags.probation_max_faults.or(file.probation_max_faults);
        if component_mib.is_some_and(|mib| !(1..=1024).contains(&mib)) {
            faults.push("--max-component-mib must be 1 to 1024".to_owned());
        }
        if timeout_ms == Some(0) {
            faults.push("--compile-timeout-ms must be at least 1".to_owned());
        }
        if memory_mib.is_some_and(|mib| !(64..=65_536).contains(&mib)) {
            faults.push("--compile-memory-mib must be 64 to 65536".to_owned());
        }
        if max_faults.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            faults.push("--probation-max-faults must be 0 to 100".to_owned());
        }
        Self {
            max_component_bytes: component_mib.unwrap_or(128) << 20,
            compile: CompileLimits {
                time: timeout_ms.map_or(compile.time, Duration::from_millis),
                memory_bytes: memory_mib.map_or(compile.memory_bytes, |mib| mib << 20),
                ..compile
            },
            probation: ProbationRules {
                window: flags
                    .probation_s
                    .or(file.probation_s)
                    .map_or(probation.window, Duration::from_secs),
                min_calls: flags
                    .probation_min_calls
                    .or(file.probation_min_calls)
                    .unwrap_or(probation.min_calls),
                max_fault_percent: max_faults.unwrap_or(probation.max_fault_percent),
            },
        }
    }

    pub(super) fn to_file(&self) -> FileReleases {
        FileReleases {
            max_component_mib: Some(self.max_component_bytes >> 20),
            compile_timeout_ms: u64::try_from(self.compile.time.as_millis()).ok(),
            compile_memory_mib: Some(self.compile.memory_bytes >> 20),
            probation_s: Some(self.probation.window.as_secs()),
            probation_min_calls: Some(self.probation.min_calls),
            probation_max_faults: Some(self.probation.max_fault_percent),
        }
    }
}
