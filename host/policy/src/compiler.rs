//! Native code for a component, made by a process of its own.
//!
//! Cranelift cannot be interrupted, and hostile code can make it work for long: so it runs in a child
//! (this executable, called with [`SUBCOMMAND`]) that has a memory limit, a CPU limit, an empty
//! environment, runs when a core is idle, and is killed when its time is up. The parent loads only what its own child
//! wrote.
//!
//! 1. The parent writes the component to the child's standard input.
//! 2. The child takes its limits, compiles, and writes the code to standard output; or it writes why
//!    not, in one line, to standard error, and exits with 1.

use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rerankd_core::Limits;
use rustix::process::{Resource, Rlimit};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::{PolicyEngine, config};
use crate::error::ReleaseError;
use crate::version::one_line;

/// The hidden subcommand that runs [`child`].
pub const SUBCOMMAND: &str = "compile";

/// Has Cranelift run on one core and leave the others to searches. It does not take much longer: most of
/// a large component's time goes into few functions (docs/benchmarks.md).
const ONE_THREAD: (&str, &str) = ("RAYON_NUM_THREADS", "1");

/// Longest message that is taken over from a child, bytes.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// What one compilation may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileLimits {
    /// From the start of the child to its end.
    pub time: Duration,
    /// CPU time of all its threads together.
    pub cpu: Duration,
    /// Memory that it may write to, bytes.
    pub memory_bytes: u64,
    /// How many run at a time; more wait.
    pub at_a_time: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            // A child that runs on idle cores only may wait long on a busy machine: five times what it
            // may compute.
            time: Duration::from_secs(300),
            cpu: Duration::from_secs(60),
            memory_bytes: 2 << 30,
            at_a_time: 2,
        }
    }
}

/// How much a compilation matters beside what else runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Nothing is served yet: as fast as can be.
    Start,
    /// Searches come first.
    Background,
}

/// Compiles components.
pub struct Compiler {
    executable: PathBuf,
    limits: CompileLimits,
    guest_memory_bytes: usize,
    places: Semaphore,
}

impl Compiler {
    /// A compiler for the engine of these limits. `executable` must call [`child`] when it is run
    /// with [`SUBCOMMAND`].
    pub fn new(executable: PathBuf, limits: CompileLimits, engine: &Limits) -> Self {
        Self {
            executable,
            places: Semaphore::new(limits.at_a_time.max(1)),
            limits,
            guest_memory_bytes: engine.guest_memory_bytes,
        }
    }

    /// The running executable: the very file, also after it was replaced by a newer one.
    pub fn this_executable() -> std::io::Result<PathBuf> {
        let itself = PathBuf::from("/proc/self/exe");
        if itself.exists() {
            Ok(itself)
        } else {
            std::env::current_exe()
        }
    }

    /// Compiles a component. To be called in a runtime with I/O and time. Dropping the future kills
    /// the child.
    ///
    /// # Errors
    /// [`ReleaseError::Compile`]: the component's fault or a limit; [`ReleaseError::Host`]: no child.
    pub async fn compile(
        &self,
        component: &[u8],
        priority: Priority,
    ) -> Result<Vec<u8>, ReleaseError> {
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|_| ReleaseError::ShuttingDown)?;
        let host = |what: &str, error: std::io::Error| {
            ReleaseError::Host(format!("the compiling process {what}: {error}"))
        };
        let mut command = tokio::process::Command::new(&self.executable);
        command
            .arg(SUBCOMMAND)
            .arg(self.guest_memory_bytes.to_string())
            .arg(self.limits.memory_bytes.to_string())
            .arg(self.limits.cpu.as_secs().max(1).to_string())
            .arg(if priority == Priority::Background {
                "19"
            } else {
                "0"
            })
            .env_clear()
            .envs((priority == Priority::Background).then_some(ONE_THREAD))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| host("cannot be started", error))?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let mut stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let (mut code, mut message) = (Vec::new(), String::new());
        let talk = async {
            let (written, read, _, status) = tokio::join!(
                async {
                    let written = stdin.write_all(component).await;
                    drop(stdin);
                    written
                },
                stdout.read_to_end(&mut code),
                async {
                    let mut taken = stderr.take(MAX_MESSAGE_BYTES);
                    let said = taken.read_to_string(&mut message).await;
                    // What is said beyond that must not block the child.
                    let mut rest = taken.into_inner();
                    tokio::io::copy(&mut rest, &mut tokio::io::sink())
                        .await
                        .and(said.map(|n| n as u64))
                },
                child.wait(),
            );
            // A child that gives up early closes its input: its status says more than that.
            (written.and(read.map(|_| ())), status)
        };
        let (talked, status) =
            tokio::time::timeout(self.limits.time, talk)
                .await
                .map_err(|_| {
                    ReleaseError::Compile(format!(
                        "it took more than {:?} (--compile-timeout-ms)",
                        self.limits.time
                    ))
                })?;
        let status = status.map_err(|error| host("was lost", error))?;
        if !status.success() {
            return Err(self.failure(status, &message));
        }
        talked.map_err(|error| host("broke off", error))?;
        Ok(code)
    }

    fn failure(&self, status: ExitStatus, message: &str) -> ReleaseError {
        let message = message.trim();
        let mib = self.limits.memory_bytes >> 20;
        if message.contains("memory allocation of") {
            return ReleaseError::Compile(format!("it needs more than {mib} MiB of memory"));
        }
        match status.signal() {
            None if status.code() == Some(1) && !message.is_empty() => {
                ReleaseError::Compile(message.replace('\n', " "))
            }
            // The soft limit ends it by a signal of its own, a second before the hard one would.
            Some(libc::SIGXCPU) => ReleaseError::Compile(format!(
                "it needs more than {:?} of CPU time",
                self.limits.cpu
            )),
            Some(libc::SIGKILL) => ReleaseError::Compile(format!(
                "the compiling process was killed from outside, as the system does when it is out of \
                 memory (a compilation may take {mib} MiB, --compile-memory-mib): try again when there \
                 is more"
            )),
            Some(signal) => ReleaseError::Compile(format!(
                "the compiling process was ended by signal {signal}, which is no limit of its own {message}"
            )),
            None => ReleaseError::Compile(format!(
                "the compiling process ended with {status} {message}"
            )),
        }
    }
}

/// What the child does; `arguments` are those after [`SUBCOMMAND`].
///
/// # Errors
/// Why there is no code, in one line.
pub fn child(arguments: &[String]) -> Result<(), String> {
    let number = |index: usize| -> Result<u64, String> {
        let text = arguments
            .get(index)
            .ok_or("it is called by rerankd itself only")?;
        text.parse().map_err(|_| format!("`{text}` is no number"))
    };
    let (guest_memory_bytes, memory, cpu, nice) = (number(0)?, number(1)?, number(2)?, number(3)?);
    // The pool's size is no part of the code; its reservation must not count against the limits.
    let limits = Limits {
        max_instances: 1,
        guest_memory_bytes: usize::try_from(guest_memory_bytes).map_err(|e| e.to_string())?,
        ..Limits::default()
    };
    let engine = Engine::new(&config(&limits)).map_err(|error| one_line(&error))?;
    take_limits(memory, cpu, nice)?;
    let mut component = Vec::new();
    std::io::stdin()
        .read_to_end(&mut component)
        .map_err(|error| format!("standard input: {error}"))?;
    // A component that the pool has no room for is refused here, by its limits and its numbers.
    let code = Component::new(&engine, &component)
        .and_then(|component| component.serialize())
        .map_err(|error| one_line(&error))?;
    std::io::stdout()
        .write_all(&code)
        .map_err(|error| format!("standard output: {error}"))
}

fn take_limits(memory_bytes: u64, cpu_seconds: u64, nice: u64) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| format!("death signal: {error}"))?;
    let limit = |resource: Resource, current: u64, maximum: u64| {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        };
        rustix::process::setrlimit(resource, limit)
            .map_err(|error| format!("cannot set limit {resource:?}: {error}"))
    };
    limit(Resource::Data, memory_bytes, memory_bytes)?;
    limit(Resource::Cpu, cpu_seconds, cpu_seconds + 1)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    let nice = i32::try_from(nice).unwrap_or(19);
    rustix::process::nice(nice).map_err(|error| format!("cannot set the priority: {error}"))?;
    #[cfg(target_os = "linux")]
    if nice > 0 {
        only_when_idle()?;
    }
    Ok(())
}

/// Has this process run when no other wants the core. A search that wakes up takes the core at once; from
/// a process with the lowest niceness alone it would have to wait for the end of a slice of time.
#[cfg(target_os = "linux")]
fn only_when_idle() -> Result<(), String> {
    // SAFETY: the call reads one `sched_param`, which lives until it returns, and concerns nothing but
    // this process (0), in which no other thread runs yet.
    let done = unsafe {
        let priority = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority)
    };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!("cannot set the scheduling class: {error}"))
}

/// Names the code that this engine can load: wasmtime's version and all settings that decide the code.
pub fn engine_key(engine: &PolicyEngine) -> String {
    let mut hash = Sha256Hasher(Sha256::new());
    engine
        .engine()
        .precompile_compatibility_hash()
        .hash(&mut hash);
    hex::encode(hash.0.finalize())[..32].to_owned()
}

struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("only the whole digest is asked for")
    }
}

/// Code that [`Compiler::compile`] made, loaded.
///
/// # Errors
/// [`ReleaseError::Host`] if it is for another engine, or damaged in a way that shows.
pub(crate) fn load(engine: &PolicyEngine, code: &Code<'_>) -> Result<Component, ReleaseError> {
    // SAFETY: the bytes are what wasmtime itself compiled in a child of this process. Either they were just
    // received from it; or they are a file of the data folder, which belongs to this user or root and
    // cannot be written by others (checked at start), and were compared with the digest beside it since
    // this process started. wasmtime checks version and settings.
    let loaded = unsafe {
        match code {
            Code::Bytes(bytes) => Component::deserialize(engine.engine(), bytes),
            Code::File(path) => Component::deserialize_file(engine.engine(), path),
        }
    };
    loaded.map_err(|error| ReleaseError::Host(format!("compiled code: {}", one_line(&error))))
}

/// Where compiled code is.
pub(crate) enum Code<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In the store.
    File(&'a std::path::Path),
}
