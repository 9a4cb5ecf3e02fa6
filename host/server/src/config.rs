//! One resolved configuration out of flags, environment, file and defaults.

mod caches;
mod connections;
mod cors;
mod hosts;
mod listen;
mod proxy;
mod releases;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rerankd_core::{Limits, PolicySelector};
use rerankd_inference::name::check_model_name;
use rerankd_inference::{CacheSettings, files};
use rerankd_policy::PolicyOptions;
use rerankd_policy::manifest::check_name;
use serde::{Deserialize, Serialize};

pub use self::caches::CacheFlags;
use self::caches::FileCaches;
use self::connections::FileConnections;
pub use self::connections::{ConnectionFlags, ConnectionSettings};
pub use self::cors::CorsSettings;
use self::cors::FileCors;
pub use self::listen::Listen;
use self::proxy::FileIndex;
pub use self::proxy::{ProxyFlags, ProxySettings, UpstreamSettings};
use self::releases::FileReleases;
pub use self::releases::{ReleaseFlags, ReleaseSettings};
pub(crate) use self::wire::CATCH_ALL;
use self::wire::FileWire;
pub use self::wire::WireSettings;
use crate::checkout;
use crate::cli::{DataFlags, ServeFlags};
use crate::data_folder;
use crate::tls::TlsFiles;

/// What `rerankd serve` runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the data plane.
    pub listen: SocketAddr,
    /// TLS of the data plane.
    pub tls: Option<TlsFiles>,
    /// Keys of the data plane, of which callers must send one.
    pub api_key_file: Option<PathBuf>,
    /// More names under which the data plane may be called, each with or without a port.
    pub allow_hosts: Vec<String>,
    /// Address of the admin plane.
    pub admin_listen: SocketAddr,
    /// More names under which the admin plane may be called, each with or without a port.
    pub admin_allow_hosts: Vec<String>,
    /// TLS of the admin plane.
    pub admin_tls: Option<TlsFiles>,
    /// Folder of what outlives the process.
    pub data_dir: PathBuf,
    /// Folders of policy components.
    pub policy_folders: Vec<PathBuf>,
    /// Folders that hold one folder a model.
    pub model_folders: Vec<PathBuf>,
    /// Models to load beside those that policies ask for.
    pub load_models: Vec<String>,
    /// What the operator decided about policies, by name.
    pub policies: BTreeMap<String, PolicyOptions>,
    /// Candidates for ONNX Runtime's library; the first that exists is taken.
    pub onnxruntime: Vec<PathBuf>,
    /// OpenVINO's plugin for ONNX Runtime.
    pub openvino: Option<PathBuf>,
    /// Threads that run models; `None` is the CPU quota.
    pub workers: Option<usize>,
    /// How much of what was computed is kept.
    pub caches: CacheSettings,
    /// Limits of the data plane.
    pub limits: Limits,
    /// How many connections there may be, and how long clients are waited for.
    pub connections: ConnectionSettings,
    /// How releases are checked and watched.
    pub releases: ReleaseSettings,
    /// Policies that may be missing at start, and are waited for.
    pub expect: Vec<String>,
    /// Who answers a request that names no policy, where the operator said so.
    pub default_policy: Option<PolicySelector>,
    /// How rerank APIs are served.
    pub wire: WireSettings,
    /// Which web pages may call the data plane.
    pub cors: CorsSettings,
    /// The search proxy, where there is one.
    pub proxy: Option<ProxySettings>,
    /// How long running requests may take to finish at shutdown.
    pub drain: Duration,
    /// `tracing` filters.
    pub log: String,
    /// Whether logs are JSON.
    pub log_json: bool,
}

/// The file, and what `--print-config` prints.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Listen>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    api_key_file: Option<PathBuf>,
    allow_hosts: Option<Vec<String>>,
    admin_listen: Option<Listen>,
    admin_allow_hosts: Option<Vec<String>>,
    admin_tls_cert: Option<PathBuf>,
    admin_tls_key: Option<PathBuf>,
    insecure: Option<bool>,
    upstream: Option<Vec<String>>,
    upstream_ca: Option<PathBuf>,
    upstream_lookups: Option<bool>,
    upstream_lookup_auth: Option<PathBuf>,
    upstream_connect_timeout_ms: Option<u64>,
    upstream_timeout_ms: Option<u64>,
    upstream_idle_timeout_ms: Option<u64>,
    proxy_listen: Option<Listen>,
    proxy_allow_hosts: Option<Vec<String>>,
    proxy_tls_cert: Option<PathBuf>,
    proxy_tls_key: Option<PathBuf>,
    proxy_max_connections: Option<usize>,
    max_rewrite_bytes: Option<usize>,
    data_dir: Option<PathBuf>,
    policy_folders: Option<Vec<PathBuf>>,
    model_folders: Option<Vec<PathBuf>>,
    load_models: Option<Vec<String>>,
    onnxruntime: Option<PathBuf>,
    openvino: Option<PathBuf>,
    workers: Option<usize>,
    default_policy: Option<String>,
    expect: Option<Vec<String>>,
    drain_ms: Option<u64>,
    log: Option<String>,
    log_format: Option<String>,
    #[serde(default)]
    limits: FileLimits,
    #[serde(default)]
    connections: FileConnections,
    #[serde(default)]
    caches: FileCaches,
    #[serde(default)]
    wire: FileWire,
    #[serde(default)]
    cors: FileCors,
    #[serde(default)]
    releases: FileReleases,
    #[serde(default)]
    policies: BTreeMap<String, FilePolicy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    index: Vec<FileIndex>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    max_body_bytes: Option<usize>,
    max_documents: Option<usize>,
    timeout_ms: Option<u64>,
    max_timeout_ms: Option<u64>,
    body_timeout_ms: Option<u64>,
    idle_timeout_ms: Option<u64>,
    max_queued_tokens: Option<usize>,
    max_bytes_in_flight: Option<usize>,
    max_instances: Option<usize>,
    guest_memory_mib: Option<usize>,
    guest_cpu_ms: Option<u64>,
    guest_host_calls: Option<usize>,
    guest_tensor_mib: Option<usize>,
    guest_host_mib: Option<usize>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FilePolicy {
    #[serde(default)]
    parameters: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    models: BTreeMap<String, String>,
    #[serde(default)]
    allow_wasi: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grants: Option<Vec<String>>,
}

impl Config {
    /// Resolves flags (and the environment, which clap has put among them), the file and the
    /// defaults.
    ///
    /// # Errors
    /// Every fault that was found, each a sentence.
    pub fn resolve(flags: Box<ServeFlags>) -> Result<Self, Vec<String>> {
        let file = match &flags.config {
            Some(path) => read_file(path).map_err(|fault| vec![fault])?,
            None => File::default(),
        };
        let mut faults = Vec::new();
        let proxy = ProxySettings::resolve(&flags.proxy, &file, &mut faults);
        let listen = flags.listen.or(file.listen);
        let listen = listen.map_or_else(
            || SocketAddr::from(([127, 0, 0, 1], 9500)),
            SocketAddr::from,
        );
        let insecure = flags.insecure || file.insecure == Some(true);
        let api_key_file = flags.api_key_file.clone().or(file.api_key_file);
        if !listen.ip().is_loopback() && api_key_file.is_none() && !insecure {
            faults.push(format!(
                "`{listen}` (--listen) can be reached from other machines, and nothing asks them for a key: listen on 127.0.0.1, give it --api-key-file, or say --insecure"
            ));
        }
        let tls = tls_files(
            ("--tls-cert", flags.tls_cert.clone().or(file.tls_cert)),
            ("--tls-key", flags.tls_key.clone().or(file.tls_key)),
            &mut faults,
        );
        let admin_listen = flags.admin_listen.or(file.admin_listen);
        let admin_listen = admin_listen.map_or_else(
            || SocketAddr::from(([127, 0, 0, 1], 9600)),
            SocketAddr::from,
        );
        let admin_tls = tls_files(
            (
                "--admin-tls-cert",
                flags.admin_tls_cert.clone().or(file.admin_tls_cert),
            ),
            (
                "--admin-tls-key",
                flags.admin_tls_key.clone().or(file.admin_tls_key),
            ),
            &mut faults,
        );
        if !admin_listen.ip().is_loopback() && admin_tls.is_none() && !insecure {
            faults.push(format!(
                "`{admin_listen}` (--admin-listen) can be reached from other machines, and tokens would come in clear: listen on 127.0.0.1, give it --admin-tls-cert and --admin-tls-key, or say --insecure"
            ));
        }
        let allow_hosts = hosts::allowed(
            "--allow-host",
            &flags.allow_host,
            file.allow_hosts,
            &mut faults,
        );
        let admin_allow_hosts = hosts::allowed(
            "--admin-allow-host",
            &flags.admin_allow_host,
            file.admin_allow_hosts,
            &mut faults,
        );
        let mut policies: BTreeMap<String, PolicyOptions> = file
            .policies
            .into_iter()
            .map(|(name, policy)| {
                let options = PolicyOptions {
                    parameters: policy.parameters,
                    models: policy.models,
                    allow_wasi: policy.allow_wasi,
                    grants: policy.grants,
                };
                (name, options)
            })
            .collect();
        for binding in &flags.bind_model {
            match parse_binding(binding) {
                Some((policy, slot, model)) => {
                    policies.entry(policy).or_default().models.insert(slot, model);
                }
                None => faults.push(format!(
                    "`{binding}` (--bind-model) must be POLICY.SLOT=MODEL, such as cross-encoder.cross-encoder=my-model"
                )),
            }
        }
        let load_models = first_given(&flags.load_model, file.load_models, Vec::new);
        for name in &load_models {
            if let Err(fault) = check_model_name("--load-model", name) {
                faults.push(fault);
            }
        }
        for (policy, options) in &policies {
            for (slot, name) in &options.models {
                let what = format!("the model for `{policy}.{slot}` (--bind-model, `models`)");
                if let Err(fault) = check_model_name(&what, name) {
                    faults.push(fault);
                }
            }
        }
        let log_format = flags.log_format.clone().or(file.log_format);
        if let Some(format) = log_format
            .as_deref()
            .filter(|f| !matches!(*f, "text" | "json"))
        {
            faults.push(format!(
                "`{format}` (--log-format) must be `text` or `json`"
            ));
        }
        let log = flags
            .log
            .clone()
            .or(file.log)
            .unwrap_or_else(|| "info".to_owned());
        if let Err(error) = log.parse::<tracing_subscriber::filter::EnvFilter>() {
            faults.push(format!("`{log}` (--log): {error}"));
        }
        let workers = flags.workers.or(file.workers);
        if workers.is_some_and(|workers| !(1..=256).contains(&workers)) {
            faults.push("the number of workers (--workers) must be 1 to 256".to_owned());
        }
        let limits = resolve_limits(&flags, &file.limits, &mut faults);
        let idle = limits.idle_timeout;
        let connections =
            connections::resolve(&flags.connections, file.connections, idle, &mut faults);
        let caches = caches::resolve(&flags.caches, &file.caches, &mut faults);
        let expect = first_given(&flags.expect, file.expect, Vec::new);
        for name in &expect {
            if let Err(fault) = check_name("--expect", name) {
                faults.push(fault);
            }
        }
        let default_policy = flags.default_policy.clone().or(file.default_policy);
        let default_policy =
            default_policy.and_then(|text| wire::selector("--default-policy", &text, &mut faults));
        let wire = WireSettings::resolve(&flags, file.wire, &mut faults);
        let cors = CorsSettings::resolve(file.cors, &mut faults);
        let releases = ReleaseSettings::resolve(&flags.releases, &file.releases, &mut faults);
        let own_runtime = flags
            .onnxruntime
            .clone()
            .or_else(|| std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from))
            .or(file.onnxruntime);
        let config = Self {
            listen,
            tls,
            api_key_file,
            allow_hosts,
            admin_listen,
            admin_allow_hosts,
            admin_tls,
            data_dir: flags
                .data_dir
                .clone()
                .or(file.data_dir)
                .unwrap_or_else(data_folder::default_path),
            policy_folders: first_given(&flags.policies, file.policy_folders, checkout::policies),
            model_folders: first_given(&flags.models, file.model_folders, checkout::models),
            load_models,
            policies,
            // A library that somebody named is not replaced by another in silence.
            onnxruntime: own_runtime.map_or_else(checkout::onnxruntime, |path| vec![path]),
            openvino: flags.openvino.clone().or(file.openvino),
            workers,
            caches,
            limits,
            connections,
            releases,
            expect,
            default_policy,
            wire,
            cors,
            proxy,
            drain: Duration::from_millis(flags.drain_ms.or(file.drain_ms).unwrap_or(30_000)),
            log,
            log_json: log_format.as_deref() == Some("json"),
        };
        config.check_folders(&mut faults);
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(faults)
        }
    }

    /// The data folder that a server with these flags has.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn data_dir(flags: &DataFlags) -> Result<PathBuf, String> {
        if let Some(path) = &flags.data_dir {
            return Ok(path.clone());
        }
        let named = match &flags.config {
            Some(path) => read_file(path)?.data_dir,
            None => None,
        };
        Ok(named.unwrap_or_else(data_folder::default_path))
    }

    /// Whether it must be said that this is meant.
    fn needs_insecure(&self) -> bool {
        !self.listen.ip().is_loopback() && self.api_key_file.is_none()
            || !self.admin_listen.ip().is_loopback() && self.admin_tls.is_none()
    }

    fn check_folders(&self, faults: &mut Vec<String>) {
        let places = [&self.policy_folders, &self.model_folders, &self.onnxruntime];
        for place in places.into_iter().flatten().chain(&self.openvino) {
            if let Err(fault) = checkout::check_owner(place) {
                faults.push(fault);
            }
        }
    }

    /// The configuration as a file that resolves to it again.
    pub fn to_toml(&self) -> String {
        let limits = &self.limits;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).ok();
        let mut file = File {
            listen: Some(self.listen.into()),
            tls_cert: self.tls.as_ref().map(|tls| tls.certificate.clone()),
            tls_key: self.tls.as_ref().map(|tls| tls.key.clone()),
            api_key_file: self.api_key_file.clone(),
            allow_hosts: Some(self.allow_hosts.clone()),
            admin_listen: Some(self.admin_listen.into()),
            admin_allow_hosts: Some(self.admin_allow_hosts.clone()),
            admin_tls_cert: self.admin_tls.as_ref().map(|tls| tls.certificate.clone()),
            admin_tls_key: self.admin_tls.as_ref().map(|tls| tls.key.clone()),
            insecure: self.needs_insecure().then_some(true),
            data_dir: Some(self.data_dir.clone()),
            policy_folders: Some(self.policy_folders.clone()),
            model_folders: Some(self.model_folders.clone()),
            load_models: Some(self.load_models.clone()),
            onnxruntime: match self.onnxruntime.as_slice() {
                [named] => Some(named.clone()),
                candidates => candidates.iter().find(|path| path.is_file()).cloned(),
            },
            openvino: self.openvino.clone(),
            workers: self.workers,
            default_policy: self.default_policy.as_ref().map(ToString::to_string),
            expect: Some(self.expect.clone()),
            drain_ms: millis(self.drain),
            log: Some(self.log.clone()),
            log_format: Some(if self.log_json { "json" } else { "text" }.to_owned()),
            limits: FileLimits {
                max_body_bytes: Some(limits.max_body_bytes),
                max_documents: Some(limits.max_documents),
                timeout_ms: millis(limits.default_timeout),
                max_timeout_ms: millis(limits.max_timeout),
                body_timeout_ms: millis(limits.body_timeout),
                idle_timeout_ms: millis(limits.idle_timeout),
                max_queued_tokens: Some(limits.max_queued_tokens),
                max_bytes_in_flight: Some(limits.max_bytes_in_flight),
                max_instances: Some(limits.max_instances),
                guest_memory_mib: Some(limits.guest_memory_bytes >> 20),
                guest_cpu_ms: millis(limits.guest_cpu),
                guest_host_calls: Some(limits.guest_host_calls),
                guest_tensor_mib: Some(limits.guest_tensor_bytes >> 20),
                guest_host_mib: Some(limits.guest_host_bytes >> 20),
            },
            connections: connections::to_file(&self.connections),
            caches: caches::to_file(&self.caches),
            cors: self.cors.to_file(),
            wire: self.wire.to_file(),
            releases: self.releases.to_file(),
            policies: self
                .policies
                .iter()
                .map(|(name, options)| {
                    let policy = FilePolicy {
                        parameters: options.parameters.clone(),
                        models: options.models.clone(),
                        allow_wasi: options.allow_wasi,
                        grants: options.grants.clone(),
                    };
                    (name.clone(), policy)
                })
                .collect(),
            ..File::default()
        };
        if let Some(proxy) = &self.proxy {
            proxy.write_to(&mut file);
        }
        toml::to_string(&file).expect("plain values always serialize")
    }
}

fn read_file(path: &Path) -> Result<File, String> {
    let text = files::read_to_string(path)
        .map_err(|error| format!("`{}` (--config): {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        format!(
            "`{}` (--config): {}",
            path.display(),
            error.to_string().trim_end()
        )
    })
}

fn first_given<T: Clone>(
    flags: &[T],
    file: Option<Vec<T>>,
    default: impl FnOnce() -> Vec<T>,
) -> Vec<T> {
    if flags.is_empty() {
        file.unwrap_or_else(default)
    } else {
        flags.to_vec()
    }
}

/// Both files or none.
fn tls_files(
    (certificate_flag, certificate): (&'static str, Option<PathBuf>),
    (key_flag, key): (&'static str, Option<PathBuf>),
    faults: &mut Vec<String>,
) -> Option<TlsFiles> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate,
            key,
            certificate_flag,
            key_flag,
        }),
        (None, None) => None,
        (Some(_), None) => {
            faults.push(format!("{certificate_flag} needs {key_flag} as well"));
            None
        }
        (None, Some(_)) => {
            faults.push(format!("{key_flag} needs {certificate_flag} as well"));
            None
        }
    }
}

fn parse_binding(text: &str) -> Option<(String, String, String)> {
    let (slot, model) = text.split_once('=')?;
    let (policy, slot) = slot.split_once('.')?;
    let parts = [policy, slot, model];
    parts
        .iter()
        .all(|part| !part.is_empty())
        .then(|| parts.map(str::to_owned).into())
}

fn resolve_limits(flags: &ServeFlags, file: &FileLimits, faults: &mut Vec<String>) -> Limits {
    let default = Limits::default();
    let mut number = |name: &str, flag: Option<usize>, file: Option<usize>, default: usize| {
        let value = flag.or(file).unwrap_or(default);
        if value == 0 {
            faults.push(format!("--{name} must be at least 1"));
        }
        value
    };
    let max_body_bytes = number(
        "max-body-bytes",
        flags.max_body_bytes,
        file.max_body_bytes,
        default.max_body_bytes,
    );
    let max_documents = number(
        "max-documents",
        flags.max_documents,
        file.max_documents,
        default.max_documents,
    );
    let max_queued_tokens = number(
        "max-queued-tokens",
        flags.max_queued_tokens,
        file.max_queued_tokens,
        default.max_queued_tokens,
    );
    let max_bytes_in_flight = number(
        "max-bytes-in-flight",
        flags.max_bytes_in_flight,
        file.max_bytes_in_flight,
        default.max_bytes_in_flight,
    );
    let max_instances = number(
        "max-instances",
        flags.max_instances,
        file.max_instances,
        default.max_instances,
    );
    let guest_memory_mib = number(
        "guest-memory-mib",
        flags.guest.guest_memory_mib,
        file.guest_memory_mib,
        default.guest_memory_bytes >> 20,
    );
    let guest_host_calls = number(
        "guest-host-calls",
        flags.guest.guest_host_calls,
        file.guest_host_calls,
        default.guest_host_calls,
    );
    let guest_tensor_mib = number(
        "guest-tensor-mib",
        flags.guest.guest_tensor_mib,
        file.guest_tensor_mib,
        default.guest_tensor_bytes >> 20,
    );
    let guest_host_mib = number(
        "guest-host-mib",
        flags.guest.guest_host_mib,
        file.guest_host_mib,
        // Who allows larger tensors wants them to be made of something.
        (default.guest_host_bytes >> 20).max(guest_tensor_mib.saturating_mul(2)),
    );
    // wasmtime reserves 4 GiB of addresses for each instance.
    if max_instances > 1000 {
        faults.push(format!(
            "--max-instances must be at most 1000, got {max_instances}"
        ));
    }
    if guest_memory_mib > 4095 {
        faults.push(format!(
            "--guest-memory-mib must be at most 4095, got {guest_memory_mib}"
        ));
    }
    if max_bytes_in_flight < max_body_bytes {
        faults.push(format!(
            "--max-bytes-in-flight ({max_bytes_in_flight}) must be at least --max-body-bytes ({max_body_bytes})"
        ));
    }
    let mut duration = |name: &str, flag: Option<u64>, file: Option<u64>, default: Duration| {
        let value = flag.or(file).map_or(default, Duration::from_millis);
        if value.is_zero() {
            faults.push(format!("--{name} must be at least 1"));
        }
        value
    };
    let default_timeout = duration(
        "timeout-ms",
        flags.timeout_ms,
        file.timeout_ms,
        default.default_timeout,
    );
    let max_timeout = duration(
        "max-timeout-ms",
        flags.max_timeout_ms,
        file.max_timeout_ms,
        default.max_timeout,
    );
    let body_timeout = duration(
        "body-timeout-ms",
        flags.body_timeout_ms,
        file.body_timeout_ms,
        default.body_timeout,
    );
    let idle_timeout = duration(
        "idle-timeout-ms",
        flags.idle_timeout_ms,
        file.idle_timeout_ms,
        default.idle_timeout,
    );
    let guest_cpu = duration(
        "guest-cpu-ms",
        flags.guest.guest_cpu_ms,
        file.guest_cpu_ms,
        default.guest_cpu,
    );
    Limits {
        max_body_bytes,
        max_documents,
        body_timeout,
        idle_timeout,
        default_timeout: default_timeout.min(max_timeout),
        max_timeout,
        max_queued_tokens,
        max_bytes_in_flight,
        max_instances,
        guest_memory_bytes: guest_memory_mib << 20,
        guest_cpu,
        guest_host_calls,
        guest_tensor_bytes: guest_tensor_mib << 20,
        guest_host_bytes: guest_host_mib << 20,
        ..default
    }
}
