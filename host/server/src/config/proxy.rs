//! The part of the configuration that is about the search proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Uri;
use rerankd_core::{OnFailure, PolicySelector};
use rerankd_inference::files;
use rerankd_wire::search::{IndexRule, Rules};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto};
use serde::{Deserialize, Serialize};

use super::{File, Listen, tls_files};
use crate::pinned::Pinned;
use crate::tls::TlsFiles;

/// Hits that are reranked where nobody says how many.
const DEFAULT_WINDOW: usize = 100;

/// The largest window that a search may ask for where the rule does not say. Engines give 10,000 hits
/// at most (`index.max_result_window`).
const DEFAULT_MAX_WINDOW: usize = 1000;

/// Engines give no more hits at a time (`index.max_result_window`).
const MOST_HITS: usize = 10_000;

/// Flags about the search proxy.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Search proxy")]
pub struct ProxyFlags {
    /// Address of the search engine, such as `http://127.0.0.1:9200`; may be repeated for more of its
    /// nodes. Opens the search proxy
    #[arg(
        long,
        value_name = "URL",
        env = "RERANKD_UPSTREAM",
        value_delimiter = ','
    )]
    pub upstream: Vec<String>,

    /// Certificates that the search engine's are checked against, PEM [default: those of the system]
    #[arg(long, value_name = "FILE", env = "RERANKD_UPSTREAM_CA")]
    pub upstream_ca: Option<PathBuf>,

    /// Whether the search engine is asked what searched names stand for and which of their fields are full
    /// text; without, names are taken as they are written and every clause counts [default: true]
    #[arg(long, value_name = "BOOL", env = "RERANKD_UPSTREAM_LOOKUPS")]
    pub upstream_lookups: Option<bool>,

    /// File with credentials for these look-ups alone, mode 0600 or 0640: `USER:PASSWORD`, or a value of
    /// `Authorization` such as `ApiKey ..` [default: those of the client that searches]
    #[arg(long, value_name = "FILE", env = "RERANKD_UPSTREAM_LOOKUP_AUTH")]
    pub upstream_lookup_auth: Option<PathBuf>,

    /// Longest time to connect to the search engine, milliseconds [default: 3000]
    #[arg(long, value_name = "MS", env = "RERANKD_UPSTREAM_CONNECT_TIMEOUT_MS")]
    pub upstream_connect_timeout_ms: Option<u64>,

    /// Longest time for the search engine to answer a search, milliseconds [default: 60000]
    #[arg(long, value_name = "MS", env = "RERANKD_UPSTREAM_TIMEOUT_MS")]
    pub upstream_timeout_ms: Option<u64>,

    /// Longest standstill of any other request to the search engine, milliseconds: some of its
    /// answers take long [default: 3600000]
    #[arg(long, value_name = "MS", env = "RERANKD_UPSTREAM_IDLE_TIMEOUT_MS")]
    pub upstream_idle_timeout_ms: Option<u64>,

    /// Address of the search proxy; port 0 picks one [default: 127.0.0.1:9700]
    #[arg(long, value_name = "ADDRESS", env = "RERANKD_PROXY_LISTEN")]
    pub proxy_listen: Option<Listen>,

    /// Another name, with or without a port, under which the search proxy may be called; may be
    /// repeated. On loopback, `localhost` and addresses are good without; elsewhere any name is, unless
    /// one is given here
    #[arg(
        long,
        value_name = "HOST",
        env = "RERANKD_PROXY_ALLOW_HOST",
        value_delimiter = ','
    )]
    pub proxy_allow_host: Vec<String>,

    /// Certificate of the search proxy and those that lead to its root, PEM; HTTPS only, then
    #[arg(long, value_name = "FILE", env = "RERANKD_PROXY_TLS_CERT")]
    pub proxy_tls_cert: Option<PathBuf>,

    /// Private key of --proxy-tls-cert, PEM, mode 0600 or 0640
    #[arg(long, value_name = "FILE", env = "RERANKD_PROXY_TLS_KEY")]
    pub proxy_tls_key: Option<PathBuf>,

    /// Most connections of clients to the search proxy at one time; beyond it who keeps the proxy
    /// waiting makes room, else there is 429 [default: 4096]
    #[arg(long, value_name = "N", env = "RERANKD_PROXY_MAX_CONNECTIONS")]
    pub proxy_max_connections: Option<usize>,

    /// Largest search, and answer to one, that is read to be reranked, bytes; larger ones go through
    /// as they are [default: 33554432]
    #[arg(long, value_name = "BYTES", env = "RERANKD_MAX_REWRITE_BYTES")]
    pub max_rewrite_bytes: Option<usize>,
}

/// `[[index]]` in the file: what holds for some indices.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileIndex {
    pattern: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_scores: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    search_pipelines: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rescore: Option<String>,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    parameters: serde_json::Map<String, serde_json::Value>,
}

/// The search proxy, where there is one.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// More names under which it may be called, each with or without a port.
    pub allow_hosts: Vec<String>,
    /// TLS of the listener.
    pub tls: Option<TlsFiles>,
    /// Connections of clients at one time.
    pub max_connections: usize,
    /// Largest search or answer that is read, bytes.
    pub max_rewrite_bytes: usize,
    /// The engine.
    pub upstream: UpstreamSettings,
    /// What holds for which index.
    pub rules: Rules,
    written_rules: Vec<FileIndex>,
}

/// The search engine behind the proxy.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Its addresses: scheme and authority; at least one.
    pub addresses: Vec<Uri>,
    /// What its certificates are checked against, as it was given.
    pub ca: Option<PathBuf>,
    /// How to speak TLS with it.
    pub tls: ClientConfig,
    /// Whether it is asked for names and mappings.
    pub lookups: bool,
    /// The file with credentials for that, in place of the clients'.
    pub lookup_auth: Option<PathBuf>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time for the answer to a search.
    pub timeout: Duration,
    /// Longest standstill of any other request.
    pub idle_timeout: Duration,
}

impl ProxySettings {
    /// `None` without an upstream.
    pub(super) fn resolve(
        flags: &ProxyFlags,
        file: &File,
        faults: &mut Vec<String>,
    ) -> Option<Self> {
        let addresses = super::first_given(&flags.upstream, file.upstream.clone(), Vec::new);
        let tls = tls_files(
            (
                "--proxy-tls-cert",
                flags
                    .proxy_tls_cert
                    .clone()
                    .or_else(|| file.proxy_tls_cert.clone()),
            ),
            (
                "--proxy-tls-key",
                flags
                    .proxy_tls_key
                    .clone()
                    .or_else(|| file.proxy_tls_key.clone()),
            ),
            faults,
        );
        let allow_hosts = super::hosts::allowed(
            "--proxy-allow-host",
            &flags.proxy_allow_host,
            file.proxy_allow_hosts.clone(),
            faults,
        );
        if addresses.is_empty() {
            let asked_for = flags.proxy_listen.or(file.proxy_listen).is_some();
            if asked_for || tls.is_some() || !file.index.is_empty() {
                faults.push(
                    "the search proxy (--proxy-listen, --proxy-tls-cert, [[index]]) needs the search engine's address: --upstream http://127.0.0.1:9200".to_owned(),
                );
            }
            return None;
        }
        let addresses: Vec<Uri> = addresses
            .iter()
            .filter_map(|text| match address(text) {
                Ok(uri) => Some(uri),
                Err(fault) => {
                    faults.push(fault);
                    None
                }
            })
            .collect();
        let is_https = |uri: &Uri| uri.scheme_str() == Some("https");
        let ca = flags
            .upstream_ca
            .clone()
            .or_else(|| file.upstream_ca.clone());
        let client = client_config(ca.as_ref(), addresses.iter().any(is_https), faults)?;
        let mut millis = |name: &str, flag: Option<u64>, file: Option<u64>, default: u64| {
            let value = flag.or(file).unwrap_or(default);
            if value == 0 {
                faults.push(format!("--{name} must be at least 1"));
            }
            Duration::from_millis(value)
        };
        let upstream = UpstreamSettings {
            addresses,
            ca,
            tls: client,
            lookups: flags
                .upstream_lookups
                .or(file.upstream_lookups)
                .unwrap_or(true),
            lookup_auth: flags
                .upstream_lookup_auth
                .clone()
                .or_else(|| file.upstream_lookup_auth.clone()),
            connect_timeout: millis(
                "upstream-connect-timeout-ms",
                flags.upstream_connect_timeout_ms,
                file.upstream_connect_timeout_ms,
                3_000,
            ),
            timeout: millis(
                "upstream-timeout-ms",
                flags.upstream_timeout_ms,
                file.upstream_timeout_ms,
                60_000,
            ),
            idle_timeout: millis(
                "upstream-idle-timeout-ms",
                flags.upstream_idle_timeout_ms,
                file.upstream_idle_timeout_ms,
                3_600_000,
            ),
        };
        let mut number = |name: &str, flag: Option<usize>, file: Option<usize>, default: usize| {
            let value = flag.or(file).unwrap_or(default);
            if value == 0 {
                faults.push(format!("--{name} must be at least 1"));
            }
            value
        };
        let max_connections = number(
            "proxy-max-connections",
            flags.proxy_max_connections,
            file.proxy_max_connections,
            4096,
        );
        let max_rewrite_bytes = number(
            "max-rewrite-bytes",
            flags.max_rewrite_bytes,
            file.max_rewrite_bytes,
            32 << 20,
        );
        Some(Self {
            listen: flags.proxy_listen.or(file.proxy_listen).map_or_else(
                || SocketAddr::from(([127, 0, 0, 1], 9700)),
                SocketAddr::from,
            ),
            allow_hosts,
            tls,
            max_connections,
            max_rewrite_bytes,
            upstream,
            rules: rules(&file.index, faults),
            written_rules: file.index.clone(),
        })
    }

    /// Says all of it in the file.
    pub(super) fn write_to(&self, file: &mut File) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).ok();
        let shown = |uri: &Uri| uri.to_string().trim_end_matches('/').to_owned();
        let upstream = &self.upstream;
        file.upstream = Some(upstream.addresses.iter().map(shown).collect());
        file.upstream_ca.clone_from(&upstream.ca);
        file.upstream_lookups = Some(upstream.lookups);
        file.upstream_lookup_auth.clone_from(&upstream.lookup_auth);
        file.upstream_connect_timeout_ms = millis(upstream.connect_timeout);
        file.upstream_timeout_ms = millis(upstream.timeout);
        file.upstream_idle_timeout_ms = millis(upstream.idle_timeout);
        file.proxy_listen = Some(self.listen.into());
        file.proxy_allow_hosts = Some(self.allow_hosts.clone());
        file.proxy_tls_cert = self.tls.as_ref().map(|tls| tls.certificate.clone());
        file.proxy_tls_key = self.tls.as_ref().map(|tls| tls.key.clone());
        file.proxy_max_connections = Some(self.max_connections);
        file.max_rewrite_bytes = Some(self.max_rewrite_bytes);
        file.index.clone_from(&self.written_rules);
    }
}

/// Reads `http://host:port`.
fn address(text: &str) -> Result<Uri, String> {
    let wrong = |problem: &str| {
        format!("`{text}` (--upstream) {problem}; it must be such as http://127.0.0.1:9200")
    };
    let uri: Uri = text.parse().map_err(|_| wrong("is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("begins neither with http:// nor with https://"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path"));
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(wrong(
            "has a password in it, but the proxy passes on what its clients say",
        )),
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        _ => Err(wrong("has no host")),
    }
}

/// What certificates of the engine are checked against: a file's, or those that the system trusts.
fn client_config(
    ca: Option<&PathBuf>,
    is_needed: bool,
    faults: &mut Vec<String>,
) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    if let Some(path) = ca {
        let pem = files::read(path).map_err(|error| error.to_string());
        let read = pem.and_then(|pem| {
            CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| error.to_string())
        });
        let added = read.and_then(|certificates| {
            for certificate in certificates {
                given.push(certificate.clone());
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            if roots.is_empty() {
                return Err("there is no certificate in it; PEM is expected".to_owned());
            }
            Ok(())
        });
        if let Err(problem) = added {
            faults.push(format!("`{}` (--upstream-ca): {problem}", path.display()));
            return None;
        }
    } else if is_needed {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            faults.push(
                "the system has no list of trusted certificates: name the one of the search engine with --upstream-ca".to_owned(),
            );
            return None;
        }
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let config = if given.is_empty() {
        config.with_root_certificates(roots)
    } else {
        let verifier = Pinned::new(given, roots, provider);
        let verifier = verifier.expect("there are roots, and no lists of revoked certificates");
        config
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    };
    Some(config.with_no_client_auth())
}

/// What the file says of indices. A rule that names no policy has none yet: the default policy is known
/// when policies are.
fn rules(indices: &[FileIndex], faults: &mut Vec<String>) -> Rules {
    Rules {
        indices: indices.iter().map(|index| rule(index, faults)).collect(),
        default_rule: None,
    }
}

fn rule(index: &FileIndex, faults: &mut Vec<String>) -> IndexRule {
    let pattern = &index.pattern;
    let mut wrong = |problem: String| faults.push(format!("[[index]] `{pattern}`: {problem}"));
    if pattern.is_empty() {
        wrong("`pattern` must not be empty; `*` is every index".to_owned());
    }
    let policies = match index.policies.as_deref() {
        None => Vec::new(),
        Some([]) => {
            wrong(
                "`policies` must name at least one; `enabled = false` reranks nothing".to_owned(),
            );
            Vec::new()
        }
        Some(names) => names
            .iter()
            .map(|name| PolicySelector::parse(name))
            .collect(),
    };
    if index.fields.as_ref().is_some_and(Vec::is_empty) {
        wrong("`fields` must name at least one".to_owned());
    }
    let window = index.window.unwrap_or(DEFAULT_WINDOW);
    let max_window = index.max_window.unwrap_or(DEFAULT_MAX_WINDOW.max(window));
    if !(1..=MOST_HITS).contains(&window) || !(1..=MOST_HITS).contains(&max_window) {
        wrong(format!(
            "`window` and `max_window` must be 1 to {MOST_HITS}, got {window} and {max_window}"
        ));
    } else if window > max_window {
        wrong(format!(
            "`window` ({window}) must not be larger than `max_window` ({max_window})"
        ));
    }
    if index.min_score.is_some_and(|score| !score.is_finite()) {
        wrong("`min_score` must be a finite number".to_owned());
    }
    if index.timeout_ms == Some(0) {
        wrong("`timeout_ms` must be at least 1".to_owned());
    }
    let on_failure = match index.on_failure.as_deref() {
        None | Some("first-stage") => OnFailure::FirstStage,
        Some("error") => OnFailure::Error,
        Some(other) => {
            wrong(format!(
                "`on_failure` must be `first-stage` or `error`, got `{other}`"
            ));
            OnFailure::FirstStage
        }
    };
    let keep_rescore = match index.rescore.as_deref() {
        None | Some("pass") => false,
        Some("keep") => true,
        Some(other) => {
            wrong(format!("`rescore` must be `pass` or `keep`, got `{other}`"));
            false
        }
    };
    let parameters = (!index.parameters.is_empty())
        .then(|| serde_json::to_string(&index.parameters))
        .transpose()
        .expect("a map of JSON always serializes");
    IndexRule {
        pattern: pattern.clone(),
        enabled: index.enabled.unwrap_or(true),
        policies,
        fields: index.fields.clone(),
        window,
        max_window,
        query_path: index.query_path.clone(),
        min_score: index.min_score,
        keep_scores: index.keep_scores.unwrap_or(false),
        timeout: index.timeout_ms.map(Duration::from_millis),
        on_failure,
        parameters,
        search_pipelines: index.search_pipelines.unwrap_or(false),
        keep_rescore,
    }
}
