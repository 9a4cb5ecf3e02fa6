//! `rerankd check`: all that `rerankd serve` would refuse at start, without serving. It builds the very same
//! server on a data folder that is thrown away, so what was only pushed to the real one is not there.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context;

use crate::app::App;
use crate::config::Config;
use crate::expected;
use crate::policy_cli::Scratch;
use crate::proxy::Proxy;

/// Builds a server and lets it go; says what it would serve.
///
/// # Errors
/// What is wrong, as `serve` says it; or what it would wait for although nobody expects it.
pub fn run(mut config: Config) -> anyhow::Result<String> {
    let scratch = Scratch::new().context("no folder for the check")?;
    config.data_dir = scratch.path().join("data");
    // It is the server's, and locked by one that runs.
    config.caches.file = None;
    let planes = [
        config.tls.as_ref(),
        config.admin_tls.as_ref(),
        config.proxy.as_ref().and_then(|proxy| proxy.tls.as_ref()),
    ];
    for files in planes.into_iter().flatten() {
        files.acceptor().map_err(anyhow::Error::msg)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads")?;
    runtime.block_on(async {
        let app = App::build(config).await?;
        if let Some(settings) = &app.config.proxy {
            Proxy::new(&app, settings)?;
        }
        let missing = expected::missing(&app);
        let (expected, unknown): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|missing| missing.is_expected(&app.config));
        if !unknown.is_empty() {
            let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
            anyhow::bail!(
                "{}; what is to be released later can be named in `expect = [..]` (--expect)",
                unknown.join("; ")
            );
        }
        Ok(said(&app, &expected))
    })
}

fn said(app: &Arc<App>, expected: &[expected::Missing]) -> String {
    let active = app.releases.catalog().active();
    let policies: Vec<&str> = active.iter().map(|version| version.label()).collect();
    let policies = match policies.is_empty() {
        true => "none".to_owned(),
        false => policies.join(", "),
    };
    let mut text = format!("good: policies {policies}\n");
    for missing in expected {
        let _ = writeln!(text, "not ready at start: {missing}");
    }
    text
}
