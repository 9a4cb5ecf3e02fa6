//! The machine that the numbers come from, and what else it was doing.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

use crate::Result;

/// A name and a value each.
pub(crate) type Facts = Vec<(&'static str, String)>;

/// What can be said before anything runs.
pub(crate) fn describe(root: &Path) -> Facts {
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = field(&cpu, "flags");
    let features: Vec<&str> = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"]
        .into_iter()
        .filter(|feature| flags.split(' ').any(|flag| flag == *feature))
        .collect();
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let gibibytes = field(&memory, "MemTotal")
        .split(' ')
        .next()
        .and_then(|kilobytes| kilobytes.parse::<f64>().ok())
        .map_or(f64::NAN, |kilobytes| kilobytes / f64::from(1 << 20));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let lock = read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let crates = ["wasmtime", "ort", "tokenizers"]
        .map(|name| format!("{name} {}", locked_version(&lock, name)))
        .join(", ");
    vec![
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "CPU",
            format!("{} ({})", field(&cpu, "model name"), features.join(", ")),
        ),
        ("cores", cores.to_string()),
        ("memory", format!("{gibibytes:.0} GiB")),
        (
            "kernel",
            format!("Linux {}", output("uname", &["-r", "-m"])),
        ),
        ("Rust", output("rustc", &["--version"])),
        ("crates", crates),
        ("load average before", load()),
    ]
}

/// Adds what others took of the cores since `before`.
pub(crate) fn with_others(mut facts: Facts, before: &Processors) -> Result<Facts> {
    let after = Processors::read(&[])?;
    facts.push((
        "cores taken by others during the run",
        format!(
            "{:.0} %, of that {:.0} % by the hypervisor",
            100.0 * after.taken_by_others_since(before),
            100.0 * after.stolen_since(before)
        ),
    ));
    Ok(facts)
}

/// Processor time since the machine started, seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    /// Of all processes, and what the hypervisor took.
    busy: f64,
    stolen: f64,
    all: f64,
    /// Of this process, of its children that have ended, and of those that were named.
    own: f64,
}

/// Seconds in one tick of `/proc`, on every Linux.
const TICK: f64 = 0.01;

impl Processors {
    /// `children` are processes that count as own.
    pub(crate) fn read(children: &[u32]) -> Result<Self> {
        let stat = read_to_string("/proc/stat")?;
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = first
            .split_whitespace()
            .skip(1)
            .filter_map(|number| number.parse().ok())
            .take(8)
            .collect();
        let [user, nice, system, idle, wait, irq, softirq, stolen] = ticks[..] else {
            return Err("/proc/stat: not as expected".into());
        };
        let busy = user + nice + system + irq + softirq + stolen;
        let mut own = process_ticks("self")?;
        for child in children {
            own += process_ticks(&child.to_string())?;
        }
        Ok(Self {
            busy: busy * TICK,
            stolen: stolen * TICK,
            all: (busy + idle + wait) * TICK,
            own: own * TICK,
        })
    }

    /// What took processor time since `before` that is not own, as a share of all cores: other
    /// processes, or other machines on the same hardware. Knows nothing shorter than a tick.
    pub(crate) fn taken_by_others_since(&self, before: &Self) -> f64 {
        let others = (self.busy - before.busy) - (self.own - before.own) - 2.0 * TICK;
        others.max(0.0) / (self.all - before.all).max(TICK)
    }

    /// The hypervisor's part of it.
    pub(crate) fn stolen_since(&self, before: &Self) -> f64 {
        (self.stolen - before.stolen) / (self.all - before.all).max(TICK)
    }
}

/// User and system time of a process and of its children that have ended.
fn process_ticks(process: &str) -> Result<f64> {
    let stat = read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(4);
    Ok(ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum())
}

/// As it was before `run.sh` built anything.
fn load() -> String {
    if let Ok(load) = std::env::var("BENCH_LOAD") {
        return load;
    }
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn field<'t>(text: &'t str, name: &str) -> &'t str {
    text.lines()
        .find(|line| line.starts_with(name))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown", |(_, value)| value.trim())
}

fn locked_version<'t>(lock: &'t str, name: &str) -> &'t str {
    let package = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != package).skip(1);
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = "));
    version.map_or("?", |version| version.trim_matches('"'))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
