//! Folders of policies: what is put there is released.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use rerankd_policy::compiler::Priority;
use rerankd_policy::release::Deployed;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::app::App;
use crate::checkout;
use crate::terminal;

/// A file that was not touched for this long is whole. One that is written more slowly is refused, and
/// tried again at the next touch.
const QUIET: Duration = Duration::from_millis(300);

/// Watches the folders for as long as the process lives.
///
/// # Errors
/// A sentence, if the system does not watch one of them.
pub fn start(app: &Arc<App>) -> Result<(), String> {
    let (sender, touched) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        match event {
            Ok(event) if !matches!(event.kind, EventKind::Access(_) | EventKind::Remove(_)) => {
                for path in event.paths.iter().filter_map(|path| component_of(path)) {
                    // Nobody listens any more when the process goes down.
                    let _ = sender.send(path);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a watched folder of policies was lost"),
        }
    })
    .map_err(|error| format!("folders of policies cannot be watched: {error}"))?;
    for folder in &app.config.policy_folders {
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(|error| format!("`{}` cannot be watched: {error}", folder.display()))?;
    }
    let app = Arc::clone(app);
    tokio::spawn(async move {
        deploy_what_is_touched(&app, touched).await;
        drop(watcher);
    });
    Ok(())
}

/// The component that a file is, or belongs to.
fn component_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    if name.ends_with(".wasm") {
        return Some(path.to_owned());
    }
    let stem = name.strip_suffix(".cases.json")?;
    Some(path.with_file_name(format!("{stem}.wasm")))
}

async fn deploy_what_is_touched(app: &Arc<App>, mut touched: mpsc::UnboundedReceiver<PathBuf>) {
    let mut waiting: HashMap<PathBuf, Instant> = HashMap::new();
    loop {
        let next = waiting.values().min().copied();
        tokio::select! {
            path = touched.recv() => match path {
                Some(path) => {
                    waiting.insert(path, Instant::now() + QUIET);
                }
                None => return,
            },
            () = sleep_until(next) => {
                let now = Instant::now();
                let due = waiting.extract_if(|_, at| *at <= now);
                for (path, _) in due.collect::<Vec<_>>() {
                    deploy(app, &path).await;
                }
            }
            () = app.draining.begun() => return,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn deploy(app: &Arc<App>, path: &Path) {
    if !path.exists() {
        return;
    }
    // A file's name is its maker's: it must not write lines of the log.
    let file = path.display().to_string();
    let file = terminal::one_line(&file);
    if let Err(problem) = checkout::check_component(path) {
        tracing::error!(problem, "a file of a policy folder is not loaded");
        return;
    }
    match app.releases.deploy_file(path, Priority::Background).await {
        Ok(Deployed::Unchanged) => {}
        Ok(Deployed::Activated(changed)) => {
            let name = &changed.name;
            let version = name.active.as_deref().unwrap_or_default();
            tracing::info!(policy = name.name, version, %file, "policy activated");
        }
        Err(error) => {
            let (step, error) = (error.step().name(), error.for_log());
            tracing::error!(%file, step, error, "a file of a policy folder was refused");
        }
    }
}
