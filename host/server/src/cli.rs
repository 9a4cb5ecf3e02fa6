//! Flags, as typed. Every flag is also an environment variable, and a key of the configuration file;
//! [`config`](crate::config) resolves the three into one.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::admin::tokens::{Glob, Right};
use crate::config::Listen;
use crate::policy_cli::args::{PolicyArgs, WarmArgs};

/// A reranking sidecar for Elasticsearch and OpenSearch.
#[derive(Debug, Parser)]
#[command(name = "rerankd", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a component from standard input to standard output: called by `serve` itself.
    #[command(name = rerankd_policy::compiler::SUBCOMMAND, hide = true)]
    Compile {
        /// What `serve` says.
        arguments: Vec<String>,
    },
    /// Serve policies over HTTP.
    Serve(Box<ServeFlags>),
    /// Check a whole configuration without serving: what `serve` would refuse at start, but for ports that are
    /// taken and for what was only pushed to a server.
    Check(Box<CheckFlags>),
    /// Make, list and revoke tokens of the admin plane.
    Token {
        /// Which of these.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Write, test and release policies.
    Policy(Box<PolicyArgs>),
    /// Show documents to a running server, on its spare capacity, so that searches find them known.
    Warm(Box<WarmArgs>),
}

/// The command line, every subcommand under the program's own name.
pub fn command() -> clap::Command {
    fn named(command: clap::Command) -> clap::Command {
        // `rerankd serve --version` would else say `rerankd-serve`.
        command.display_name("rerankd").mut_subcommands(named)
    }
    // Refused there.
    let check = |command: clap::Command| command.mut_arg("print_config", |arg| arg.hide(true));
    named(Cli::command().mut_subcommand("check", check))
}

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; it is kept nowhere, only its digest
    New {
        /// What the token is called in the journal of releases
        name: String,

        /// Policies that it is good for; `*` stands for any characters
        #[arg(long, value_name = "GLOB")]
        policies: Glob,

        /// What it may do with them; may be repeated, or a list
        #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true)]
        rights: Vec<Right>,

        /// Where the tokens are.
        #[command(flatten)]
        data: DataFlags,
    },
    /// List the tokens that were made
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,

        /// Where the tokens are.
        #[command(flatten)]
        data: DataFlags,
    },
    /// Make a token worthless, at once
    Revoke {
        /// What the token is called
        name: String,

        /// Where the tokens are.
        #[command(flatten)]
        data: DataFlags,
    },
}

/// Flags of commands that work on the data folder.
#[derive(Debug, Clone, Default, Args)]
pub struct DataFlags {
    /// The server's configuration file, which may name the data folder
    #[arg(long, value_name = "FILE", env = "RERANKD_CONFIG")]
    pub config: Option<PathBuf>,

    /// The server's data folder [default: as `rerankd serve` has it]
    #[arg(long, value_name = "DIR", env = "RERANKD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Flags of `rerankd check`: those of `rerankd serve`.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckFlags {
    /// The configuration file; goes before --config
    #[arg(value_name = "CONFIG")]
    pub file: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub serve: ServeFlags,
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
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RERANKD_LISTEN",
        help_heading = "Data plane"
    )]
    pub listen: Option<Listen>,

    /// Another name, with or without a port, under which the data plane may be called; may be
    /// repeated. On loopback, `localhost` and addresses are good without; elsewhere any name is, unless
    /// one is given here
    #[arg(
        long,
        value_name = "HOST",
        env = "RERANKD_ALLOW_HOST",
        value_delimiter = ',',
        help_heading = "Data plane"
    )]
    pub allow_host: Vec<String>,

    /// Certificate of the data plane and those that lead to its root, PEM; HTTPS only, then
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_TLS_CERT",
        help_heading = "Data plane"
    )]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, PEM, mode 0600 or 0640
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_TLS_KEY",
        help_heading = "Data plane"
    )]
    pub tls_key: Option<PathBuf>,

    /// Address of the admin plane; port 0 picks one [default: 127.0.0.1:9600]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RERANKD_ADMIN_LISTEN",
        help_heading = "Admin plane"
    )]
    pub admin_listen: Option<Listen>,

    /// Another name, with or without a port, under which the admin plane may be called; may be
    /// repeated
    #[arg(
        long,
        value_name = "HOST",
        env = "RERANKD_ADMIN_ALLOW_HOST",
        value_delimiter = ',',
        help_heading = "Admin plane"
    )]
    pub admin_allow_host: Vec<String>,

    /// Certificate of the admin plane and those that lead to its root, PEM; HTTPS only, then
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_ADMIN_TLS_CERT",
        help_heading = "Admin plane"
    )]
    pub admin_tls_cert: Option<PathBuf>,

    /// Private key of --admin-tls-cert, PEM, mode 0600 or 0640
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_ADMIN_TLS_KEY",
        help_heading = "Admin plane"
    )]
    pub admin_tls_key: Option<PathBuf>,

    /// File of keys, one a line, of which callers of the data plane must send one as `Authorization:
    /// Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`; read anew when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_API_KEY_FILE",
        help_heading = "Data plane"
    )]
    pub api_key_file: Option<PathBuf>,

    /// Listen off loopback although nothing asks callers of the data plane for a key, or tokens of
    /// the admin plane come in clear
    #[arg(long, env = "RERANKD_INSECURE", value_parser = FalseyValueParser::new())]
    pub insecure: bool,

    /// Folder of what outlives the process, such as tokens; made if there is none [default:
    /// $XDG_STATE_HOME/rerankd, else ~/.local/state/rerankd, else /var/lib/rerankd]
    #[arg(long, value_name = "DIR", env = "RERANKD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Folder of policy components (*.wasm); may be repeated [default: those of the source checkout]
    #[arg(
        long,
        value_name = "DIR",
        env = "RERANKD_POLICIES",
        value_delimiter = ':',
        help_heading = "Policies and models"
    )]
    pub policies: Vec<PathBuf>,

    /// Folder that holds one folder a model; may be repeated [default: that of the source checkout]
    #[arg(
        long,
        value_name = "DIR",
        env = "RERANKD_MODELS",
        value_delimiter = ':',
        help_heading = "Policies and models"
    )]
    pub models: Vec<PathBuf>,

    /// Load a model that no policy asks for, to serve it alone; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        env = "RERANKD_LOAD_MODEL",
        value_delimiter = ',',
        help_heading = "Policies and models"
    )]
    pub load_model: Vec<String>,

    /// Give a policy's model slot another model; may be repeated
    #[arg(
        long,
        value_name = "POLICY.SLOT=MODEL",
        env = "RERANKD_BIND_MODEL",
        value_delimiter = ',',
        help_heading = "Policies and models"
    )]
    pub bind_model: Vec<String>,

    /// Policy, or policy@version, that answers a request for reranking that names no model [default:
    /// semantic-blend if it is served, else the only one]
    #[arg(
        long,
        value_name = "POLICY",
        env = "RERANKD_DEFAULT_POLICY",
        help_heading = "Policies and models"
    )]
    pub default_policy: Option<String>,

    /// A policy that may be missing at start: the server starts, and is ready once it was released; may be
    /// repeated
    #[arg(
        long,
        value_name = "POLICY",
        env = "RERANKD_EXPECT",
        value_delimiter = ',',
        help_heading = "Policies and models"
    )]
    pub expect: Vec<String>,

    /// Serve metrics under the names of text-embeddings-inference at /metrics of the data plane
    #[arg(long, env = "RERANKD_TEI_METRICS", value_parser = FalseyValueParser::new(), help_heading = "Data plane")]
    pub tei_metrics: bool,

    /// ONNX Runtime's library, 1.24 or newer [default: that of the source checkout, else the
    /// system's]; also ORT_DYLIB_PATH
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_ONNXRUNTIME",
        help_heading = "Policies and models"
    )]
    pub onnxruntime: Option<PathBuf>,

    /// OpenVINO's plugin for ONNX Runtime, for models whose manifest has `provider = "openvino"` [default:
    /// none]
    #[arg(
        long,
        value_name = "FILE",
        env = "RERANKD_OPENVINO",
        help_heading = "Policies and models"
    )]
    pub openvino: Option<PathBuf>,

    /// Threads that run models [default: the CPU quota of the process]
    #[arg(
        long,
        value_name = "N",
        env = "RERANKD_WORKERS",
        help_heading = "Policies and models"
    )]
    pub workers: Option<usize>,

    /// What is about caches
    #[command(flatten)]
    pub caches: crate::config::CacheFlags,

    /// Largest request body, bytes
    #[arg(
        long,
        value_name = "BYTES",
        env = "RERANKD_MAX_BODY_BYTES",
        help_heading = "Limits"
    )]
    pub max_body_bytes: Option<usize>,

    /// Most documents in one request
    #[arg(
        long,
        value_name = "N",
        env = "RERANKD_MAX_DOCUMENTS",
        help_heading = "Limits"
    )]
    pub max_documents: Option<usize>,

    /// Deadline of a request that names none, milliseconds
    #[arg(
        long,
        value_name = "MS",
        env = "RERANKD_TIMEOUT_MS",
        help_heading = "Limits"
    )]
    pub timeout_ms: Option<u64>,

    /// Longest deadline that a request may ask for, milliseconds
    #[arg(
        long,
        value_name = "MS",
        env = "RERANKD_MAX_TIMEOUT_MS",
        help_heading = "Limits"
    )]
    pub max_timeout_ms: Option<u64>,

    /// Longest time for a body to arrive, milliseconds
    #[arg(
        long,
        value_name = "MS",
        env = "RERANKD_BODY_TIMEOUT_MS",
        help_heading = "Limits"
    )]
    pub body_timeout_ms: Option<u64>,

    /// Longest time for a connection to be idle between two requests, milliseconds
    #[arg(
        long,
        value_name = "MS",
        env = "RERANKD_IDLE_TIMEOUT_MS",
        help_heading = "Limits"
    )]
    pub idle_timeout_ms: Option<u64>,

    /// How long running requests may take to finish at shutdown, milliseconds
    #[arg(
        long,
        value_name = "MS",
        env = "RERANKD_DRAIN_MS",
        help_heading = "Limits"
    )]
    pub drain_ms: Option<u64>,

    /// Most tokens of all admitted requests together; more are refused with 429
    #[arg(
        long,
        value_name = "N",
        env = "RERANKD_MAX_QUEUED_TOKENS",
        help_heading = "Limits"
    )]
    pub max_queued_tokens: Option<usize>,

    /// Most bytes of all request bodies together; more are refused with 429
    #[arg(
        long,
        value_name = "BYTES",
        env = "RERANKD_MAX_BYTES_IN_FLIGHT",
        help_heading = "Limits"
    )]
    pub max_bytes_in_flight: Option<usize>,

    /// Most policy instances at one time; more wait for one within their deadline, and are refused with 429
    /// then
    #[arg(
        long,
        value_name = "N",
        env = "RERANKD_MAX_INSTANCES",
        help_heading = "Limits"
    )]
    pub max_instances: Option<usize>,

    /// What is about connections
    #[command(flatten)]
    pub connections: crate::config::ConnectionFlags,

    /// What a policy call may use
    #[command(flatten)]
    pub guest: GuestFlags,

    /// What is about the search proxy
    #[command(flatten)]
    pub proxy: crate::config::ProxyFlags,

    /// What is about releases
    #[command(flatten)]
    pub releases: crate::config::ReleaseFlags,

    /// What to log, as `tracing` filters: `info`, `rerankd=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "RERANKD_LOG", help_heading = "Log")]
    pub log: Option<String>,

    /// How to log: `text` or `json` [default: text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "RERANKD_LOG_FORMAT",
        help_heading = "Log"
    )]
    pub log_format: Option<String>,
}

/// What one call of a policy may use.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits of a policy call")]
pub struct GuestFlags {
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

    /// All that one policy call holds on the host at a time beside its own memory, tensors included,
    /// MiB; at least twice --guest-tensor-mib unless it is given
    #[arg(long, value_name = "MIB", env = "RERANKD_GUEST_HOST_MIB")]
    pub guest_host_mib: Option<usize>,
}
