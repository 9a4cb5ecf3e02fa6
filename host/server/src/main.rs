//! `rerankd`: parse, build, serve, drain.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::FromArgMatches;
use rerankd::app::App;
use rerankd::cli::{self, CheckFlags, Cli, Command, ServeFlags};
use rerankd::config::Config;
use rerankd::listener::{Plane, Routes, Signals};
use rerankd::proxy::Proxy;
use rerankd::{
    admin, check, connections, data_plane, environment, listener, policy_cli, telemetry, terminal,
    token, watch,
};
use rerankd_policy::compiler;

/// Allocations from this size on are given back to the system when they are dropped, bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_BYTES: i32 = 4 << 20;

/// Has the allocator give back what was large. glibc would else raise its threshold up to 32 MiB by what is
/// dropped, and keep that much for each of its arenas: a few hostile calls, one after the other, left
/// twice as much memory with the server as any of them had.
fn give_large_allocations_back() {
    // SAFETY: the call changes a number inside the allocator, and no other thread runs yet.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES);
    }
}

fn main() -> ExitCode {
    give_large_allocations_back();
    let command = cli::command();
    let unknown = environment::unknown(&command);
    let parsed = Cli::from_arg_matches(&command.get_matches());
    let parsed = parsed.unwrap_or_else(|error| error.exit());
    let is_serve = matches!(parsed.command, Command::Serve(_));
    for problem in unknown.iter().filter(|_| !is_serve) {
        terminal::warn(&format!("rerankd: warning: {problem}"));
    }
    match parsed.command {
        Command::Serve(flags) => serve_command(flags, &unknown),
        Command::Check(flags) => check_command(*flags),
        Command::Policy(arguments) => policy_cli::run(*arguments),
        Command::Warm(arguments) => policy_cli::warm(&arguments),
        Command::Compile { arguments } => match compiler::child(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                terminal::warn(&error.to_string());
                ExitCode::FAILURE
            }
        },
        Command::Token { command } => match token::run(command) {
            Ok(text) => {
                let _ = terminal::print(&text);
                ExitCode::SUCCESS
            }
            Err(error) => {
                terminal::warn(&format!("rerankd: {error}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// The configuration, or every fault of it, printed.
fn resolve(flags: Box<ServeFlags>) -> Result<Config, ExitCode> {
    Config::resolve(flags).map_err(|faults| {
        for fault in faults {
            terminal::warn(&format!("rerankd: {fault}"));
        }
        ExitCode::from(2)
    })
}

fn check_command(flags: CheckFlags) -> ExitCode {
    let mut serve = flags.serve;
    if serve.print_config {
        terminal::warn(
            "rerankd: --print-config is a flag of `rerankd serve`, which prints and does not serve",
        );
        return ExitCode::from(2);
    }
    serve.config = flags.file.or(serve.config);
    let mut config = match resolve(Box::new(serve)) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.log == "info" {
        // What it did on the way is no news.
        config.log = "warn".to_owned();
    }
    telemetry::start_logging(&config);
    match check::run(config) {
        Ok(text) => {
            let _ = terminal::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            terminal::warn(&format!("rerankd: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve_command(flags: Box<ServeFlags>, unknown: &[String]) -> ExitCode {
    let print_config = flags.print_config;
    let config = match resolve(flags) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if print_config {
        let _ = terminal::print(&config.to_toml());
        return ExitCode::SUCCESS;
    }
    telemetry::start_logging(&config);
    for problem in unknown {
        tracing::warn!("{}", terminal::one_line(problem));
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::warn(&format!("rerankd: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(mut config: Config) -> anyhow::Result<()> {
    connections::descriptors::fit(&mut config).map_err(anyhow::Error::msg)?;
    let acceptor = |files: &Option<rerankd::tls::TlsFiles>| match files {
        Some(files) => files.acceptor().map(Some).map_err(anyhow::Error::msg),
        None => Ok(None),
    };
    let (tls, admin_tls) = (acceptor(&config.tls)?, acceptor(&config.admin_tls)?);
    let proxy_tls = match &config.proxy {
        Some(proxy) => acceptor(&proxy.tls)?,
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("http")
        .enable_all()
        .build()
        .context("no threads for HTTP")?;
    runtime.block_on(async {
        let app = App::build(config).await?;
        let socket = bind(app.config.listen, "--listen").await?;
        let admin_socket = bind(app.config.admin_listen, "--admin-listen").await?;
        let (address, admin_address) = (socket.local_addr()?, admin_socket.local_addr()?);
        let mut proxy = None;
        if let Some(settings) = &app.config.proxy {
            let answers = Proxy::new(&app, settings)?;
            proxy = Some((answers, bind(settings.listen, "--proxy-listen").await?));
        }
        if let Err(problem) = watch::start(&app) {
            // What is there was released; only what comes later is not.
            tracing::error!(problem, "folders of policies are not watched");
        }
        let signals = Signals::catch().context("cannot catch SIGTERM, SIGINT and SIGHUP")?;
        // Nobody need read it.
        let mut greeting = format!("{}\n", app.greeting(address, admin_address));
        if let Some((answers, socket)) = &proxy {
            greeting += &format!("{}\n", answers.greeting(socket.local_addr()?));
        }
        let _ = terminal::print(&greeting);
        let mut planes = vec![
            Plane {
                gate: Arc::clone(&app.connections.data),
                socket,
                tls,
                routes: Routes::Data(data_plane::routes(&app)),
            },
            Plane {
                gate: Arc::clone(&app.connections.admin),
                socket: admin_socket,
                tls: admin_tls,
                routes: Routes::Admin(admin::routes(&app, admin_address)),
            },
        ];
        if let (Some((answers, socket)), Some(gate)) = (proxy, &app.connections.proxy) {
            planes.push(Plane {
                gate: Arc::clone(gate),
                socket,
                tls: proxy_tls,
                routes: Routes::Proxied(answers),
            });
        }
        listener::serve(planes, &app, signals).await;
        Ok(())
    })
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({flag})"))
}
