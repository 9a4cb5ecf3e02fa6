//! What a server's process uses, as Linux says it.

use std::time::Duration;

use crate::Rerankd;

/// CPU time of the server so far, in hundredths of a second; not that of its children.
///
/// # Panics
/// If the system does not say.
pub fn cpu_time(server: &Rerankd) -> Duration {
    let stat = read(server, "stat");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Forgets what [`peak_memory_mib`] was, where the system lets it: from now on it counts anew.
pub fn reset_peak_memory(server: &Rerankd) {
    // Else the peak is that of all that came before, which is no less than that of what follows.
    let _ = std::fs::write(format!("/proc/{}/clear_refs", server.id()), "5");
}

/// The most memory that the server had resident so far, MiB.
///
/// # Panics
/// As [`cpu_time`].
pub fn peak_memory_mib(server: &Rerankd) -> usize {
    peak_memory_bytes(server) >> 20
}

/// The same in bytes.
///
/// # Panics
/// As [`cpu_time`].
pub fn peak_memory_bytes(server: &Rerankd) -> usize {
    bytes(server, "VmHWM:")
}

/// The memory that the server has resident, MiB.
///
/// # Panics
/// As [`cpu_time`].
pub fn memory_mib(server: &Rerankd) -> usize {
    memory_bytes(server) >> 20
}

/// The same in bytes.
///
/// # Panics
/// As [`cpu_time`].
pub fn memory_bytes(server: &Rerankd) -> usize {
    bytes(server, "VmRSS:")
}

fn bytes(server: &Rerankd, name: &str) -> usize {
    let status = read(server, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kibibytes.expect("it says how much memory a process has") << 10
}

fn read(server: &Rerankd, file: &str) -> String {
    let path = format!("/proc/{}/{file}", server.id());
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
