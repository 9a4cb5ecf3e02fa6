//! Descriptors: as many as the system gives this process, and no more connections than they suffice for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::RESERVE;
use crate::config::Config;

/// What the process needs beside connections: store, models, sockets, children.
const OWN: usize = 128;

/// A plane with fewer connections is of no use.
const FEWEST: usize = 16;

/// Where there is no hard limit, this many are asked for.
const PLENTY: u64 = 1 << 20;

/// What macOS gives at most, whatever its limit says.
const OPEN_MAX: u64 = 10_240;

/// Raises the soft limit of open files to the hard one, and lowers the bounds on connections to what
/// that suffices for, which the log then says.
///
/// # Errors
/// A sentence, where it suffices for no server.
pub fn fit(config: &mut Config) -> Result<(), String> {
    fit_into(config, raise())
}

/// The limit that holds.
fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(PLENTY).min(PLENTY);
    for wanted in [hard, hard.min(OPEN_MAX)] {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if wanted > current && setrlimit(Resource::Nofile, raised).is_ok() {
            return wanted;
        }
    }
    current
}

fn fit_into(config: &mut Config, limit: u64) -> Result<(), String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // A connection to the proxy has one to the engine.
    let proxied = config
        .proxy
        .as_ref()
        .map_or(0, |proxy| proxy.max_connections);
    let settings = &config.connections;
    let wanted = [
        settings.max_connections,
        settings.admin_max_connections,
        2 * proxied,
    ];
    let planes = if proxied > 0 { 3 } else { 2 };
    let own = OWN + planes * RESERVE;
    let sum: usize = wanted.iter().sum();
    if own + sum <= limit {
        return Ok(());
    }
    let needed = own + FEWEST * if proxied > 0 { 4 } else { 2 };
    if limit < needed {
        return Err(format!(
            "this process may open {limit} files at a time (`ulimit -n`), and needs at least {needed}: raise its hard limit, such as with `LimitNOFILE=` of systemd or `--ulimit nofile=` of a container"
        ));
    }
    // Everybody has the fewest, and the same part of what it wanted beyond that.
    let spare = limit - needed;
    let beyond = |wanted: usize, fewest: usize| {
        let over = wanted.saturating_sub(fewest) as u128;
        let part = over * spare as u128 / sum as u128;
        wanted.min(fewest + usize::try_from(part).unwrap_or(spare))
    };
    let data = beyond(wanted[0], FEWEST);
    let admin = beyond(wanted[1], FEWEST);
    let proxy = beyond(wanted[2], 2 * FEWEST) / 2;
    tracing::warn!(
        limit,
        needed = own + sum,
        data,
        admin,
        proxy,
        "the limit of open files does not suffice for the connections that the configuration allows: fewer are taken (ulimit -n)"
    );
    config.connections.max_connections = data;
    config.connections.admin_max_connections = admin;
    if let Some(settings) = &mut config.proxy {
        settings.max_connections = proxy.max(1);
    }
    Ok(())
}
