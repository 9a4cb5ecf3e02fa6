//! The part of the configuration that is about what was computed before.

use std::path::PathBuf;

use clap::Args;
use rerankd_inference::CacheSettings;
use serde::{Deserialize, Serialize};

/// Flags about caches.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Caches")]
pub struct CacheFlags {
    /// Memory for outputs of models, so that a row that is known does not run, MiB; 0 keeps none
    /// [default: 64]
    #[arg(long, value_name = "MIB", env = "RERANKD_ROW_CACHE_MIB")]
    pub row_cache_mib: Option<usize>,

    /// Memory for token ids, so that a text that is known is not tokenized, MiB; 0 keeps none
    /// [default: 32]
    #[arg(long, value_name = "MIB", env = "RERANKD_ENCODING_CACHE_MIB")]
    pub encoding_cache_mib: Option<usize>,

    /// Keep the outputs of models in this file as well, so that a restart knows them; made if there is
    /// none
    #[arg(long, value_name = "FILE", env = "RERANKD_CACHE_FILE")]
    pub cache_file: Option<PathBuf>,
}

/// The same as keys of the file.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCaches {
    row_cache_mib: Option<usize>,
    encoding_cache_mib: Option<usize>,
    cache_file: Option<PathBuf>,
}

/// The most that a cache may be told to take, MiB: 1 TiB.
const MAX_MIB: usize = 1 << 20;

pub(super) fn resolve(
    flags: &CacheFlags,
    file: &FileCaches,
    faults: &mut Vec<String>,
) -> CacheSettings {
    let default = CacheSettings::default();
    let mut bytes = |name: &str, flag: Option<usize>, file: Option<usize>, default: usize| {
        let mib = flag.or(file).unwrap_or(default >> 20);
        if mib > MAX_MIB {
            faults.push(format!("--{name} must be at most {MAX_MIB}, got {mib}"));
        }
        mib.min(MAX_MIB) << 20
    };
    let row_bytes = bytes(
        "row-cache-mib",
        flags.row_cache_mib,
        file.row_cache_mib,
        default.row_bytes,
    );
    let settings = CacheSettings {
        row_bytes,
        encoding_bytes: bytes(
            "encoding-cache-mib",
            flags.encoding_cache_mib,
            file.encoding_cache_mib,
            default.encoding_bytes,
        ),
        file: flags.cache_file.clone().or(file.cache_file.clone()),
    };
    if row_bytes == 0 && settings.file.is_some() {
        faults.push(
            "--cache-file keeps what the row cache has: it needs --row-cache-mib of at least 1"
                .to_owned(),
        );
    }
    settings
}

pub(super) fn to_file(settings: &CacheSettings) -> FileCaches {
    FileCaches {
        row_cache_mib: Some(settings.row_bytes >> 20),
        encoding_cache_mib: Some(settings.encoding_bytes >> 20),
        cache_file: settings.file.clone(),
    }
}
