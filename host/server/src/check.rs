//! `rerankd check`: what `rerankd serve` would refuse at start, without serving. It builds the very same
//! server on a data folder that is thrown away, so what was only pushed to the real one is not there. Of the
//! real one it looks whether it is safe, and binds no port.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::app::App;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::expected;
use crate::policy_cli::Scratch;
use crate::proxy::Proxy;

/// Builds a server and lets it go; says what it would serve.
///
/// # Errors
/// What is wrong, as `serve` says it; or what it would wait for although nobody expects it.
pub fn run(mut config: Config) -> anyhow::Result<String> {
    DataFolder::check(&config.data_dir).map_err(anyhow::Error::msg)?;
    let scratch = Scratch::new().context("no folder for the check")?;
    config.data_dir = scratch.path().join("data");
    // It is the server's, and locked by one that runs.
    if let Some(file) = config.caches.file.take() {
        check_cache_file(&file)?;
    }
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

/// Whether a file of the row cache may be where it shall be; makes and opens none.
fn check_cache_file(file: &Path) -> anyhow::Result<()> {
    let refuse = |problem: &str| {
        let file = file.display();
        anyhow::bail!("cache file `{file}` (--cache-file): {problem}")
    };
    match std::fs::metadata(file) {
        Ok(meta) if !meta.is_file() => return refuse("it is not a file"),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return refuse(&error.to_string());
        }
        Err(_) => {}
    }
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => refuse(&format!("`{}` is no folder", folder.display())),
        Err(error) => refuse(&format!("the folder `{}`: {error}", folder.display())),
    }
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
