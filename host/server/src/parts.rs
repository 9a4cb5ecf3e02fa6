//! What a server is made of beside its binary: policies, models, ONNX Runtime. All that is missing is said
//! at once, with the flags that give it.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// Whether each part is somewhere; what is wrong with it, loading it says.
///
/// # Errors
/// One sentence for all that is missing.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let mut missing = Vec::new();
    let mut folders = |what: &str, way_out: &str, folders: &[PathBuf]| {
        let gone = folders.iter().filter_map(|folder| {
            let problem = std::fs::read_dir(folder).err()?;
            Some(match problem.kind() {
                std::io::ErrorKind::NotFound => format!("`{}`", folder.display()),
                _ => format!("`{}` ({problem})", folder.display()),
            })
        });
        let gone: Vec<String> = gone.collect();
        if !gone.is_empty() {
            missing.push(format!("no {what} at {}: {way_out}", gone.join(" and ")));
        }
    };
    folders(
        "policies",
        "build them with `make policies`, or name a folder with --policies",
        &config.policy_folders,
    );
    folders(
        "models",
        "name the folder that has a folder for each with --models",
        &config.model_folders,
    );
    let is_there = |path: &PathBuf| Path::new(path).exists();
    if !config.onnxruntime.iter().any(is_there) {
        let tried: Vec<String> = config
            .onnxruntime
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        missing.push(format!(
            "ONNX Runtime is missing: no library at {}: `make runtime` fetches it, or name one with --onnxruntime or ORT_DYLIB_PATH",
            tried.join(", ")
        ));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(missing.join("; "))
}
