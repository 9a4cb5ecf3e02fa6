//! Wraps a core WebAssembly module that `wit-bindgen` made into a component.
//!
//! `componentize IN.wasm OUT.wasm [CASES]` writes the component, together with the test cases in the
//! folder `CASES`, if it exists; `componentize --imports FILE.wasm` prints what a component imports,
//! one line each.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm};

const USAGE: &str =
    "usage: componentize IN.wasm OUT.wasm [CASES]\n       componentize --imports COMPONENT.wasm";

/// The custom section that holds a policy's cases; docs/cases.md has the format.
const CASES_SECTION: &str = "rerank:cases";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let done = match arguments.as_slice() {
        [flag, file] if flag == "--imports" => print_imports(file.as_ref()),
        [module, component, cases @ ..]
            if cases.len() < 2 && !module.to_string_lossy().starts_with("--") =>
        {
            let cases = cases.first().map(Path::new);
            componentize(module.as_ref(), component.as_ref(), cases)
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

fn componentize(module: &Path, component: &Path, cases: Option<&Path>) -> Result<()> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let mut encoded = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .with_context(|| {
            format!(
                "cannot make a component of {}; is it a policy that `export!`s its type?",
                module.display()
            )
        })?;
    if let Some(folder) = cases.filter(|folder| folder.is_dir()) {
        let cases = read_cases(folder)?;
        if !cases.is_empty() {
            append_section(&mut encoded, CASES_SECTION, &cases);
        }
    }
    // Written beside and renamed, so that nobody ever reads half a component.
    let unfinished = component.with_extension("wasm.tmp");
    fs::write(&unfinished, encoded)
        .and_then(|()| fs::rename(&unfinished, component))
        .with_context(|| format!("cannot write {}", component.display()))
}

/// The files of the folder, one after the other, in the order of their names.
fn read_cases(folder: &Path) -> Result<Vec<u8>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        cases.extend(bytes);
        cases.push(b'\n');
    }
    Ok(cases)
}

/// Appends a custom section to a component: id 0, size, length of the name, name, content.
fn append_section(component: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut named = leb128(name.len());
    named.extend(name.as_bytes());
    component.push(0);
    component.extend(leb128(named.len() + content.len()));
    component.extend(named);
    component.extend(content);
}

/// Seven bits a byte, the lowest first; all bytes but the last have their highest bit set.
fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
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
