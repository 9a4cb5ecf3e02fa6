//! `rerankd policy build`: a project becomes a component, with its cases inside. Those in other languages than
//! Rust have a script of their own for it (`build/languages.rs`).

mod languages;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rerankd_policy::manifest::check_name;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wit_component::{ComponentEncoder, DecodedWasm};

use super::args::BuildArgs;
use super::outcome::{Failure, Outcome, size};
use crate::cases::Cases;
use crate::terminal;
use rerankd_policy::artifact;

/// Chooses the toolchain and compiles, as for the policies that come with rerankd.
const COMPILE: &str = include_str!("../../../../guest/compile.sh");

/// Compiles, makes a component, and puts the cases in.
pub(super) fn build(flags: &BuildArgs) -> Result<Outcome, Failure> {
    let folder = &flags.dir;
    let name = policy_name(folder)?;
    let cases_folder = folder.join("cases");
    let cases = cases_folder.is_dir().then(|| Cases::read(&cases_folder));
    let cases = cases.transpose().map_err(Failure::refused)?;
    let count = cases.as_ref().map_or(0, Cases::len);
    let component = match languages::Project::of(folder) {
        Some(project) => project.component(folder)?,
        None => component_of(&compile(folder)?)?,
    };
    // In place of what a script may have put in: what is counted here is what is inside.
    let component = match cases.filter(|_| count > 0) {
        Some(cases) => artifact::with_cases(&component, cases.text())
            .map_err(|error| Failure::refused(error.to_string()))?,
        None => component,
    };
    let path = folder.join(format!("{name}.wasm"));
    write(&path, &component)?;
    let imports = imports(&component).unwrap_or_default();
    let sha256 = hex::encode(Sha256::digest(&component));
    let text = format!(
        "made {}\n  size     {}\n  imports  {}\n  cases    {count}\n  sha256   {sha256}\n",
        path.display(),
        size(component.len() as u64),
        if imports.is_empty() {
            "none".to_owned()
        } else {
            imports.join(", ")
        },
    );
    Ok(Outcome::good(
        text,
        json!({
            "name": name, "path": path, "bytes": component.len(), "sha256": sha256,
            "imports": imports, "cases": count,
        }),
    ))
}

/// A component of a core module.
fn component_of(module: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read(module)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode());
    component.map_err(|error| {
        Failure::refused(format!(
            "cannot make a component of `{}`; does it `export!` a policy? {error:#}",
            module.display()
        ))
    })
}

/// What a component imports; `None` if it is not one.
pub(super) fn imports(component: &[u8]) -> Option<Vec<String>> {
    let Ok(DecodedWasm::Component(resolve, world)) = wit_component::decode(component) else {
        return None;
    };
    let names = resolve.worlds[world].imports.keys();
    Some(names.map(|name| resolve.name_world_key(name)).collect())
}

/// The name in the project's manifest.
fn policy_name(folder: &Path) -> Result<String, Failure> {
    let path = folder.join("manifest.json");
    let fail = |problem: String| {
        Failure::Usage(format!(
            "`{}`: {problem}; a project is a folder as `rerankd policy new` makes it",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
    let manifest: Value = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
    let name = manifest["name"].as_str().unwrap_or_default();
    check_name("name", name).map_err(fail)?;
    Ok(name.to_owned())
}

/// Runs the script; gives the path of the core module.
fn compile(folder: &Path) -> Result<PathBuf, Failure> {
    let library = library_name(folder)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    let mut command = Command::new("bash");
    command
        .args(["-c", COMPILE, "compile.sh"])
        .arg(folder)
        .arg(&target)
        .arg("--lib");
    run(command, &format!("`{}` does not compile", folder.display()))?;
    Ok(target.join(format!("wasm32-unknown-unknown/release/{library}.wasm")))
}

/// Runs what compiles; its output is shown as it comes to who watches, else where it fails.
fn run(mut command: Command, failed: &str) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let cannot = |error| Failure::Usage(format!("cannot run `{program}`: {error}"));
    command.stdin(Stdio::null());
    if terminal::is_watched() {
        command.stdout(Stdio::from(std::io::stderr()));
        if !command.status().map_err(cannot)?.success() {
            return Err(Failure::refused(failed));
        }
        return Ok(());
    }
    let output = command.output().map_err(cannot)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(Failure::refused(format!("{failed}:\n{}", said.trim_end())))
}

/// The file name that Cargo gives the module.
fn library_name(folder: &Path) -> Result<String, Failure> {
    let path = folder.join("Cargo.toml");
    let fail = |problem: String| Failure::Usage(format!("`{}`: {problem}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
    let manifest: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| fail(error.message().to_owned()))?;
    let name = |section: &str| manifest.get(section)?.get("name")?.as_str();
    let name = name("lib").or_else(|| name("package"));
    let name = name.ok_or_else(|| fail("it has no `package.name`".to_owned()))?;
    Ok(name.replace('-', "_"))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::Usage(format!("cannot read `{}`: {error}", path.display())))
}

/// Written beside and renamed, so that nobody ever reads half a component.
fn write(path: &Path, component: &[u8]) -> Result<(), Failure> {
    let unfinished = path.with_extension("wasm.tmp");
    std::fs::write(&unfinished, component)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|error| Failure::Usage(format!("cannot write `{}`: {error}", path.display())))
}
