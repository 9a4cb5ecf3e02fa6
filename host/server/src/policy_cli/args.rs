//! Flags of `rerankd policy`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::GuestFlags;

/// What `--help` says of exit codes.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 the answer is no (a check or a case failed, a build failed, the server \
refused); 2 wrong usage or configuration; 3 the server cannot be reached";

/// Write, test and release policies.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,

    /// Print JSON in place of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Make a project that builds, and passes its cases, as it is
    New(NewArgs),
    /// Compile a project into NAME.wasm, with its cases inside
    Build(BuildArgs),
    /// Say what the server would say of a component, without a server
    Check(CheckArgs),
    /// Run a component's cases, with the real models
    Test(TestArgs),
    /// Upload a component
    Push(PushArgs),
    /// List policies, or the versions of one
    List(ListArgs),
    /// Have a version answer from now on
    Activate(VersionArgs),
    /// Go back to the version that was active before
    Rollback(NameArgs),
    /// Give a version a share of the requests; 0 percent ends it
    Canary(CanaryArgs),
    /// Run a version beside the active one, for comparison only
    Shadow(ShadowArgs),
    /// Delete a version that nobody is given
    Delete(DeleteArgs),
    /// Print what happened to policies
    Events(EventsArgs),
}

/// Flags of `policy new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The policy's name: lower-case letters, digits and `-`
    pub name: String,

    /// Language of the project
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub lang: Language,

    /// Folder of the project; must be empty or not there [default: NAME]
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
}

/// Languages of `policy new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// Python 3.11 or newer; `build` gets componentize-py.
    Python,
    /// JavaScript, with Node.js 20.11 or newer; `build` gets componentize-js.
    Javascript,
}

/// Flags of `policy build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Folder of the project
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// How a release shall be configured.
#[derive(Debug, Clone, Default, Args)]
pub struct ReleaseArgs {
    /// Values for parameters, a JSON object; a request's own go over them
    #[arg(long, value_name = "JSON")]
    pub parameters: Option<String>,

    /// Grant the policy a document field; may be repeated
    #[arg(long, value_name = "FIELD")]
    pub grant: Vec<String>,

    /// Give a model slot another model; may be repeated
    #[arg(long, value_name = "SLOT=NAME")]
    pub model: Vec<String>,
}

/// What an offline command has of a server: models, and limits.
#[derive(Debug, Clone, Default, Args)]
pub struct OfflineArgs {
    /// The server's configuration file: its models, limits, and what it says of the policy
    #[arg(long, value_name = "FILE", env = "RERANKD_CONFIG")]
    pub config: Option<PathBuf>,

    /// Folder that holds one folder a model; may be repeated [default: that of the source checkout]
    #[arg(
        long,
        value_name = "DIR",
        env = "RERANKD_MODELS",
        value_delimiter = ':'
    )]
    pub models: Vec<PathBuf>,

    /// ONNX Runtime's library [default: that of the source checkout, else the system's]; also
    /// ORT_DYLIB_PATH
    #[arg(long, value_name = "FILE", env = "RERANKD_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,

    /// OpenVINO's plugin for ONNX Runtime, for models that want it [default: none]
    #[arg(long, value_name = "FILE", env = "RERANKD_OPENVINO")]
    pub openvino: Option<PathBuf>,

    /// Link WASI with fixed clocks
    #[arg(long)]
    pub allow_wasi: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub guest: GuestFlags,
}

/// Flags of `policy check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The component
    pub file: PathBuf,

    /// Under which name [default: the file's]
    #[arg(long)]
    pub name: Option<String>,

    /// A file of cases, or a folder of them, in place of those inside the component
    #[arg(long, value_name = "FILE")]
    pub cases: Option<PathBuf>,

    /// Largest component that is accepted, MiB [default: 128]
    #[arg(long, value_name = "MIB", env = "RERANKD_MAX_COMPONENT_MIB")]
    pub max_component_mib: Option<usize>,

    /// Longest time to compile a component, milliseconds [default: 300000]
    #[arg(long, value_name = "MS", env = "RERANKD_COMPILE_TIMEOUT_MS")]
    pub compile_timeout_ms: Option<u64>,

    /// Memory of the process that compiles a component, MiB [default: 2048]
    #[arg(long, value_name = "MIB", env = "RERANKD_COMPILE_MEMORY_MIB")]
    pub compile_memory_mib: Option<u64>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub release: ReleaseArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub offline: OfflineArgs,
}

/// Flags of `policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The component
    pub file: PathBuf,

    /// A file of cases, or a folder of them [default: those inside the component]
    pub cases: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub release: ReleaseArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub offline: OfflineArgs,
}

/// Which server, and who asks.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server's admin address
    #[arg(
        long,
        value_name = "URL",
        env = "RERANKD_ADMIN",
        default_value = "http://127.0.0.1:9600"
    )]
    pub to: String,

    /// Admin token [default: for a server on this machine, the file `admin-token` in its data folder]
    #[arg(
        long,
        value_name = "TOKEN",
        env = "RERANKD_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,

    /// The server's data folder [default: $XDG_STATE_HOME/rerankd, else ~/.local/state/rerankd]
    #[arg(long, value_name = "DIR", env = "RERANKD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// PEM file with the certificates to trust, for https [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Flags of `rerankd warm`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct WarmArgs {
    /// The policy whose model shall know the documents
    #[arg(long, value_name = "NAME", default_value = "semantic-blend")]
    pub policy: String,

    /// Documents as JSON, one a line: a text, an object of fields, or a hit with `_source`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["upstream", "index"])]
    pub file: Option<PathBuf>,

    /// The search engine that has the documents
    #[arg(long, value_name = "URL", requires = "index")]
    pub upstream: Option<String>,

    /// The index of --upstream
    #[arg(long, value_name = "NAME", requires = "upstream")]
    pub index: Option<String>,

    /// The header `Authorization` for --upstream, such as `ApiKey ..` or `Basic ..`
    #[arg(
        long,
        value_name = "VALUE",
        env = "RERANKD_UPSTREAM_AUTHORIZATION",
        hide_env_values = true
    )]
    pub upstream_authorization: Option<String>,

    /// Certificates that the search engine's are checked against, PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "RERANKD_UPSTREAM_CA")]
    pub upstream_ca: Option<PathBuf>,

    /// The fields that searches name, in their order [default: those of the policy]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub fields: Vec<String>,

    /// Documents sent at a time
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub batch: usize,

    /// Print JSON in place of text
    #[arg(long)]
    pub json: bool,

    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `policy push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The component
    pub file: PathBuf,

    /// Under which name [default: the file's]
    #[arg(long)]
    pub name: Option<String>,

    /// Have it answer from now on
    #[arg(long)]
    pub activate: bool,

    /// A file of cases, or a folder of them, in place of those inside the component
    #[arg(long, value_name = "FILE")]
    pub cases: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub release: ReleaseArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of `policy list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this policy, with its versions
    pub name: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of a command on one policy.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The policy
    pub name: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of a command on one version.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// The policy
    pub name: String,

    /// A version of its manifest, or 8 or more hex digits of a digest
    #[arg(value_name = "VERSION-OR-DIGEST")]
    pub version: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of `policy canary`.
#[derive(Debug, Args)]
pub struct CanaryArgs {
    /// The policy
    pub name: String,

    /// A version of its manifest, or 8 or more hex digits of a digest
    #[arg(value_name = "VERSION-OR-DIGEST")]
    pub version: String,

    /// Its share of the requests
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    pub percent: u8,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of `policy shadow`.
#[derive(Debug, Args)]
pub struct ShadowArgs {
    /// The policy
    pub name: String,

    /// A version of its manifest, or 8 or more hex digits of a digest
    #[arg(
        value_name = "VERSION-OR-DIGEST",
        required_unless_present = "off",
        conflicts_with = "off"
    )]
    pub version: Option<String>,

    /// End it
    #[arg(long)]
    pub off: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of `policy delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The policy
    pub name: String,

    /// A version of its manifest, or 8 or more hex digits of a digest
    #[arg(value_name = "VERSION-OR-DIGEST")]
    pub version: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}

/// Flags of `policy events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Wait for more
    #[arg(long)]
    pub follow: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would be this command's help")]
    pub server: ServerArgs,
}
