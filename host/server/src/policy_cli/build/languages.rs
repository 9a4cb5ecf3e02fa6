//! Projects in other languages than Rust: their toolchain is got the first time, into the project, and their own
//! script makes the component.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::outcome::Failure;
use super::{read, run};
use crate::terminal;

/// What a project is written in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Project {
    Python,
    Javascript,
}

/// Where a script writes its component, in the project.
const UNFINISHED: &str = "policy.wasm.tmp";

impl Project {
    /// That of a folder; `None` where it is one for Cargo, or none at all.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let has = |name: &str| folder.join(name).is_file();
        match () {
            () if has("Cargo.toml") => None,
            () if has("policy.py") && has("build.py") => Some(Self::Python),
            () if has("policy.js") && has("build.js") => Some(Self::Javascript),
            () => None,
        }
    }

    /// Makes the component.
    ///
    /// # Errors
    /// The toolchain cannot be had, or the script fails.
    pub(super) fn component(self, folder: &Path) -> Result<Vec<u8>, Failure> {
        let cannot = |error| Failure::Usage(format!("`{}`: {error}", folder.display()));
        // The scripts run in it.
        let folder = std::path::absolute(folder).map_err(cannot)?;
        let out = folder.join(UNFINISHED);
        let mut script = match self {
            Self::Python => {
                let mut command = Command::new(python(&folder)?);
                command.args(["build.py", "policy.py"]);
                command
            }
            Self::Javascript => {
                packages(&folder)?;
                let mut command = Command::new("npm");
                command.args(["run", "--silent", "component", "--", "policy.js"]);
                command
            }
        };
        script.arg(&out).current_dir(&folder);
        let failed = format!("`{}` does not compile", folder.display());
        let built = run(script, &failed).and_then(|()| read(&out));
        let _ = std::fs::remove_file(out);
        built
    }
}

/// The project's Python, which has componentize-py beside it.
fn python(folder: &Path) -> Result<PathBuf, Failure> {
    let venv = folder.join(".venv");
    let (python, tool) = (venv.join("bin/python"), venv.join("bin/componentize-py"));
    if tool.exists() {
        return Ok(python);
    }
    say("getting componentize-py into `.venv`");
    let failed = "componentize-py cannot be got (Python 3.11 or newer with pip and venv is needed)";
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    run(make, failed)?;
    let mut install = Command::new(&python);
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "--require-hashes", "-r"])
        .arg(folder.join("requirements.txt"));
    run(install, failed)?;
    Ok(python)
}

/// The project's packages, componentize-js among them.
fn packages(folder: &Path) -> Result<(), Failure> {
    // npm writes it last: without it somebody stopped an installation.
    if folder.join("node_modules/.package-lock.json").exists() {
        return Ok(());
    }
    say("getting componentize-js into `node_modules`");
    let mut install = Command::new("npm");
    install
        .args(["ci", "--silent", "--no-audit", "--no-fund"])
        .current_dir(folder);
    let failed = "componentize-js cannot be got (Node.js 20.11 or newer with npm is needed)";
    run(install, failed)
}

fn say(what: &str) {
    if terminal::is_watched() {
        terminal::warn(&format!("{what} .."));
    }
}
