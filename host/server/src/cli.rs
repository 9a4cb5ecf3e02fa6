//! Flags, as typed. Every flag is also an environment variable, and a key of the configuration file;
//! [`config`](crate::config) resolves the three into one.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

/// A reranking sidecar for Elasticsearch and OpenSearch.
#[derive(Debug, Parser)]
#[command(name = "rerankd", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve policies over HTTP.
    Serve(Box<ServeFlags>),
}

/// Flags of `rerankd serve`. What is not given comes from the file, else from the defaults.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    /// Read a TOML file; flags and environment go before it
    #[arg(long, value_name = "FILE", env = "RERANKD_CONFIG")]
    pub config: Option<PathBuf>,

    /// Print the resolved configuration as TOML and exit
    #[arg(long)]
    pub print_config: bool,

    /// Address of the data plane; port 0 picks one [default: 127.0.0.1:9500]
    #[arg(long, value_name = "ADDRESS", env = "RERANKD_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Listen off loopback although nothing asks callers for a key
    #[arg(long, env = "RERANKD_INSECURE", value_parser = FalseyValueParser::new())]
    pub insecure: bool,

    /// Folder of policy components (*.wasm); may be repeated [default: those of the source checkout]
    #[arg(
        long,
        value_name = "DIR",
        env = "RERANKD_POLICIES",
        value_delimiter = ':'
    )]
    pub policies: Vec<PathBuf>,

    /// Folder that holds one folder a model; may be repeated [default: that of the source checkout]
    #[arg(
        long,
        value_name = "DIR",
        env = "RERANKD_MODELS",
        value_delimiter = ':'
    )]
    pub models: Vec<PathBuf>,

    /// Load a model that no policy asks for, to serve it alone; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        env = "RERANKD_LOAD_MODEL",
        value_delimiter = ','
    )]
    pub load_model: Vec<String>,

    /// Give a policy's model slot another model; may be repeated
    #[arg(
        long,
        value_name = "POLICY.SLOT=MODEL",
        env = "RERANKD_BIND_MODEL",
        value_delimiter = ','
    )]
    pub bind_model: Vec<String>,

    /// ONNX Runtime's library, 1.24 or newer [default: that of the source checkout, else the
    /// system's]; also ORT_DYLIB_PATH
    #[arg(long, value_name = "FILE", env = "RERANKD_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,

    /// Threads that run models [default: the CPU quota of the process]
    #[arg(long, value_name = "N", env = "RERANKD_WORKERS")]
    pub workers: Option<usize>,

    /// Largest request body, bytes
    #[arg(long, value_name = "BYTES", env = "RERANKD_MAX_BODY_BYTES")]
    pub max_body_bytes: Option<usize>,

    /// Most documents in one request
    #[arg(long, value_name = "N", env = "RERANKD_MAX_DOCUMENTS")]
    pub max_documents: Option<usize>,

    /// Deadline of a request that names none, milliseconds
    #[arg(long, value_name = "MS", env = "RERANKD_TIMEOUT_MS")]
    pub timeout_ms: Option<u64>,

    /// Longest deadline that a request may ask for, milliseconds
    #[arg(long, value_name = "MS", env = "RERANKD_MAX_TIMEOUT_MS")]
    pub max_timeout_ms: Option<u64>,

    /// Longest time for a body to arrive, milliseconds
    #[arg(long, value_name = "MS", env = "RERANKD_BODY_TIMEOUT_MS")]
    pub body_timeout_ms: Option<u64>,

    /// Longest time for a request's head to arrive, and for a connection to be idle, milliseconds
    #[arg(long, value_name = "MS", env = "RERANKD_IDLE_TIMEOUT_MS")]
    pub idle_timeout_ms: Option<u64>,

    /// How long running requests may take to finish at shutdown, milliseconds
    #[arg(long, value_name = "MS", env = "RERANKD_DRAIN_MS")]
    pub drain_ms: Option<u64>,

    /// Most tokens of all admitted requests together; more are refused with 429
    #[arg(long, value_name = "N", env = "RERANKD_MAX_QUEUED_TOKENS")]
    pub max_queued_tokens: Option<usize>,

    /// Most bytes of all request bodies together; more are refused with 429
    #[arg(long, value_name = "BYTES", env = "RERANKD_MAX_BYTES_IN_FLIGHT")]
    pub max_bytes_in_flight: Option<usize>,

    /// Most policy instances at one time; more are refused with 429
    #[arg(long, value_name = "N", env = "RERANKD_MAX_INSTANCES")]
    pub max_instances: Option<usize>,

    /// Memory of one policy instance, MiB
    #[arg(long, value_name = "MIB", env = "RERANKD_GUEST_MEMORY_MIB")]
    pub guest_memory_mib: Option<usize>,

    /// CPU time of one policy call, milliseconds, without the time in models
    #[arg(long, value_name = "MS", env = "RERANKD_GUEST_CPU_MS")]
    pub guest_cpu_ms: Option<u64>,

    /// Calls to tokenizer and models in one policy call
    #[arg(long, value_name = "N", env = "RERANKD_GUEST_HOST_CALLS")]
    pub guest_host_calls: Option<usize>,

    /// Tensors that one policy call holds at a time, MiB
    #[arg(long, value_name = "MIB", env = "RERANKD_GUEST_TENSOR_MIB")]
    pub guest_tensor_mib: Option<usize>,

    /// What to log, as `tracing` filters: `info`, `rerankd=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "RERANKD_LOG")]
    pub log: Option<String>,

    /// How to log: `text` or `json` [default: text]
    #[arg(long, value_name = "FORMAT", env = "RERANKD_LOG_FORMAT")]
    pub log_format: Option<String>,
}
