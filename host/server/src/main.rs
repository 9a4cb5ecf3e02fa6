//! `rerankd`: parse, build, serve, drain.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use rerankd::app::App;
use rerankd::cli::{Cli, Command, ServeFlags};
use rerankd::config::Config;
use rerankd::listener::{Plane, Routes, Signals};
use rerankd::proxy::Proxy;
use rerankd::{
    admin, connections, data_plane, listener, policy_cli, telemetry, terminal, token, watch,
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
    match Cli::parse().command {
        Command::Serve(flags) => serve_command(flags),
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

fn serve_command(flags: Box<ServeFlags>) -> ExitCode {
    let print_config = flags.print_config;
    let config = match Config::resolve(flags) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                terminal::warn(&format!("rerankd: {fault}"));
            }
            return ExitCode::from(2);
        }
    };
    if print_config {
        let _ = terminal::print(&config.to_toml());
        return ExitCode::SUCCESS;
    }
    telemetry::start_logging(&config);
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
