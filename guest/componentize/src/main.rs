//! Wraps a core WebAssembly module that `wit-bindgen` made into a component.
//!
//! `componentize IN.wasm OUT.wasm` writes the component; `componentize --imports FILE.wasm` prints
//! what a component imports, one line each.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm};

const USAGE: &str =
    "usage: componentize IN.wasm OUT.wasm\n       componentize --imports COMPONENT.wasm";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let done = match arguments.as_slice() {
        [flag, file] if flag == "--imports" => print_imports(file.as_ref()),
        [module, component] if !module.to_string_lossy().starts_with("--") => {
            componentize(module.as_ref(), component.as_ref())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn componentize(module: &Path, component: &Path) -> Result<()> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .with_context(|| {
            format!(
                "cannot make a component of {}; is it a policy that `export!`s its type?",
                module.display()
            )
        })?;
    // Written beside and renamed, so that nobody ever reads half a component.
    let unfinished = component.with_extension("wasm.tmp");
    fs::write(&unfinished, encoded)
        .and_then(|()| fs::rename(&unfinished, component))
        .with_context(|| format!("cannot write {}", component.display()))
}

fn print_imports(component: &Path) -> Result<()> {
    let bytes =
        fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    let decoded = wit_component::decode(&bytes)
        .with_context(|| format!("cannot decode {}", component.display()))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        bail!("{} is a WIT package, not a component", component.display());
    };
    for name in resolve.worlds[world].imports.keys() {
        println!("{}", resolve.name_world_key(name));
    }
    Ok(())
}
