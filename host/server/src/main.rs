//! `rerankd`: parse, build, serve, drain.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use rerankd::app::App;
use rerankd::cli::{Cli, Command};
use rerankd::config::Config;
use rerankd::listener::StopSignals;
use rerankd::{data_plane, listener, telemetry};

fn main() -> ExitCode {
    let Command::Serve(flags) = Cli::parse().command;
    let print_config = flags.print_config;
    let config = match Config::resolve(flags) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("rerankd: {fault}");
            }
            return ExitCode::from(2);
        }
    };
    if print_config {
        let _ = write!(std::io::stdout(), "{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    telemetry::start_logging(&config);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rerankd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let app = App::build(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("http")
        .enable_all()
        .build()
        .context("no threads for HTTP")?;
    runtime.block_on(async {
        let listen = app.config.listen;
        let socket = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} (--listen)"))?;
        let stop = StopSignals::catch().context("cannot catch SIGTERM and SIGINT")?;
        // Nobody need read it.
        let _ = writeln!(std::io::stdout(), "{}", app.greeting(socket.local_addr()?));
        listener::serve(socket, data_plane::routes(&app), &app, stop).await;
        Ok(())
    })
}
