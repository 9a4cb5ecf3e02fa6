//! The part of the configuration that is about connections.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::connections::TrustedPeers;

/// Flags about connections.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionFlags {
    /// Most connections to the data plane at one time. Beyond it who keeps the server waiting makes
    /// room, else health alone is answered [default: 2048]
    #[arg(long, value_name = "N", env = "RERANKD_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// Most connections to the admin plane at one time [default: 256]
    #[arg(long, value_name = "N", env = "RERANKD_ADMIN_MAX_CONNECTIONS")]
    pub admin_max_connections: Option<usize>,

    /// Longest time for a request's head to arrive, and for the first byte of a new connection,
    /// milliseconds [default: 10000, or --idle-timeout-ms if that is less]
    #[arg(long, value_name = "MS", env = "RERANKD_HEAD_TIMEOUT_MS")]
    pub head_timeout_ms: Option<u64>,

    /// Longest time in which a client takes nothing of its answer, or sends nothing of a body that goes
    /// through the search proxy, milliseconds [default: 30000]
    #[arg(long, value_name = "MS", env = "RERANKD_STALL_TIMEOUT_MS")]
    pub stall_timeout_ms: Option<u64>,

    /// Most bytes of answers on one plane that clients have not taken yet; who takes nothing is cut off
    /// then, and new requests are refused with 429 [default: 268435456]
    #[arg(long, value_name = "BYTES", env = "RERANKD_MAX_ANSWER_BYTES")]
    pub max_answer_bytes: Option<usize>,

    /// An address, or a network such as 10.0.0.0/8, that may have all connections of a plane: a load
    /// balancer. Others off loopback have a quarter each; may be repeated
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RERANKD_TRUSTED_PEERS",
        value_delimiter = ','
    )]
    pub trusted_peers: Vec<String>,
}

/// The same as keys of the file.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileConnections {
    max_connections: Option<usize>,
    admin_max_connections: Option<usize>,
    head_timeout_ms: Option<u64>,
    stall_timeout_ms: Option<u64>,
    max_answer_bytes: Option<usize>,
    trusted_peers: Option<Vec<String>>,
}

/// How many connections there may be, and how long clients are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Most connections to the data plane.
    pub max_connections: usize,
    /// Most connections to the admin plane.
    pub admin_max_connections: usize,
    /// Longest time for a head.
    pub head_timeout: Duration,
    /// Longest time without a byte of a body, or taken of an answer.
    pub stall_timeout: Duration,
    /// Most bytes of answers on a plane that were not taken yet.
    pub max_answer_bytes: usize,
    /// Peers that may have a whole plane.
    pub trusted_peers: TrustedPeers,
}

/// `idle_timeout` is an upper limit for heads where the operator has set none: they had no other in
/// 0.1.0.
pub(super) fn resolve(
    flags: &ConnectionFlags,
    file: FileConnections,
    idle_timeout: Duration,
    faults: &mut Vec<String>,
) -> ConnectionSettings {
    let mut number = |name: &str, flag: Option<usize>, file: Option<usize>, default: usize| {
        let value = flag.or(file).unwrap_or(default);
        if value == 0 {
            faults.push(format!("--{name} must be at least 1"));
        }
        value
    };
    let max_connections = number(
        "max-connections",
        flags.max_connections,
        file.max_connections,
        2048,
    );
    let admin_max_connections = number(
        "admin-max-connections",
        flags.admin_max_connections,
        file.admin_max_connections,
        256,
    );
    let max_answer_bytes = number(
        "max-answer-bytes",
        flags.max_answer_bytes,
        file.max_answer_bytes,
        256 << 20,
    );
    let mut millis = |name: &str, given: Option<u64>, default: Duration| {
        if given == Some(0) {
            faults.push(format!("--{name} must be at least 1"));
        }
        given.map_or(default, Duration::from_millis)
    };
    let head_timeout = millis(
        "head-timeout-ms",
        flags.head_timeout_ms.or(file.head_timeout_ms),
        Duration::from_secs(10).min(idle_timeout),
    );
    let stall_timeout = millis(
        "stall-timeout-ms",
        flags.stall_timeout_ms.or(file.stall_timeout_ms),
        Duration::from_secs(30),
    );
    let trusted = super::first_given(&flags.trusted_peers, file.trusted_peers, Vec::new);
    let trusted_peers = TrustedPeers::parse(&trusted).unwrap_or_else(|wrong| {
        faults.push(format!(
            "`{wrong}` (--trusted-peers) must be an address or a network, such as 10.0.0.7 or 10.0.0.0/8"
        ));
        TrustedPeers::default()
    });
    ConnectionSettings {
        max_connections,
        admin_max_connections,
        head_timeout,
        stall_timeout,
        max_answer_bytes,
        trusted_peers,
    }
}

pub(super) fn to_file(settings: &ConnectionSettings) -> FileConnections {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).ok();
    FileConnections {
        max_connections: Some(settings.max_connections),
        admin_max_connections: Some(settings.admin_max_connections),
        head_timeout_ms: millis(settings.head_timeout),
        stall_timeout_ms: millis(settings.stall_timeout),
        max_answer_bytes: Some(settings.max_answer_bytes),
        trusted_peers: Some(settings.trusted_peers.to_texts()),
    }
}
