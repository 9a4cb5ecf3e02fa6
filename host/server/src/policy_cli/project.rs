//! `rerankd policy new`: a project that builds, and passes its cases, as it is.
//!
//! One in Rust is a copy of `guest/template` with the SDK vendored, since that is on no registry; those in other
//! languages (`project/languages.rs`) are the same policy. All of it, and the contract, are parts of the binary,
//! taken from their one source when it is built.

mod languages;

use std::path::{Path, PathBuf};

use rerankd_policy::manifest::check_name;
use serde_json::json;
use toml::{Table, Value};

use super::args::{Language, NewArgs};
use super::outcome::{Failure, Outcome};

/// What the template calls itself.
const TEMPLATE_NAME: &str = "policy-template";

/// Where the SDK finds the contract, in the checkout and in a project.
const WIT_IN_CHECKOUT: &str = "path: [\"../../wit\", \"../../wit/reading\"]";
const WIT_IN_PROJECT: &str = "path: [\"wit\", \"wit/reading\"]";

macro_rules! checkout_file {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path))
    };
}
use checkout_file;

const GUEST_MANIFEST: &str = checkout_file!("guest/Cargo.toml");
const SDK_MANIFEST: &str = checkout_file!("guest/sdk/Cargo.toml");

/// Names in the project, and what stands there.
const TEMPLATE: [(&str, &str); 5] = [
    ("src/lib.rs", checkout_file!("guest/template/src/lib.rs")),
    (
        "manifest.json",
        checkout_file!("guest/template/manifest.json"),
    ),
    (
        "cases/titles.json",
        checkout_file!("guest/template/cases/titles.json"),
    ),
    ("README.md", checkout_file!("guest/template/README.md")),
    (".gitignore", checkout_file!("guest/template/gitignore")),
];

/// Cargo takes from it the versions of what the project needs, and drops the rest.
const LOCK: (&str, &str) = ("Cargo.lock", checkout_file!("guest/Cargo.lock"));

const SDK: &str = "vendor/rerank-policy";

/// Names in the SDK's folder, and what stands there.
const SDK_FILES: [(&str, &str); 13] = [
    (
        "src/document.rs",
        checkout_file!("guest/sdk/src/document.rs"),
    ),
    (
        "src/judgment.rs",
        checkout_file!("guest/sdk/src/judgment.rs"),
    ),
    ("src/models.rs", checkout_file!("guest/sdk/src/models.rs")),
    (
        "src/normalize.rs",
        checkout_file!("guest/sdk/src/normalize.rs"),
    ),
    ("src/panics.rs", checkout_file!("guest/sdk/src/panics.rs")),
    (
        "src/parameters.rs",
        checkout_file!("guest/sdk/src/parameters.rs"),
    ),
    ("src/reading.rs", checkout_file!("guest/sdk/src/reading.rs")),
    ("src/vector.rs", checkout_file!("guest/sdk/src/vector.rs")),
    ("wit/policy.wit", checkout_file!("wit/policy.wit")),
    ("wit/tokenizer.wit", checkout_file!("wit/tokenizer.wit")),
    ("wit/log.wit", checkout_file!("wit/log.wit")),
    (
        "wit/reading/reading.wit",
        checkout_file!("wit/reading/reading.wit"),
    ),
    (
        "wit/deps/nn/wasi-nn.wit",
        checkout_file!("wit/deps/nn/wasi-nn.wit"),
    ),
];

const SDK_LIB: &str = checkout_file!("guest/sdk/src/lib.rs");

/// Writes the project.
pub(super) fn new(flags: &NewArgs) -> Result<Outcome, Failure> {
    check_name("NAME", &flags.name).map_err(Failure::Usage)?;
    let name = &flags.name;
    let folder = flags.path.clone().unwrap_or_else(|| PathBuf::from(name));
    refuse_if_in_use(&folder)?;
    let (files, to_edit) = match flags.lang {
        Language::Rust => (rust_project(name), "src/lib.rs"),
        Language::Python => (languages::python(name), "policy.py"),
        Language::Javascript => (languages::javascript(name), "policy.js"),
    };
    for (path, content) in &files {
        write(&folder.join(path), content)?;
    }
    let shown = folder.display();
    let text = format!(
        "made {shown}: {} files; the line to edit is in {shown}/{to_edit}\n\nnext:\n  \
         rerankd policy build {shown}\n  rerankd policy test {shown}/{name}.wasm\n  \
         rerankd policy push {shown}/{name}.wasm --activate\n",
        files.len()
    );
    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    Ok(Outcome::good(
        text,
        json!({"name": name, "path": folder, "files": paths}),
    ))
}

fn refuse_if_in_use(folder: &Path) -> Result<(), Failure> {
    let fail = |problem: &str| {
        Err(Failure::Usage(format!(
            "`{}` {problem}: name another folder with --path",
            folder.display()
        )))
    };
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => fail("is not empty"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => fail(&format!("cannot be used ({error})")),
    }
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, content))
        .map_err(|error| Failure::Usage(format!("cannot write `{}`: {error}", path.display())))
}

/// What projects in all languages have of the template.
fn of_template(path: &str) -> &'static str {
    let file = TEMPLATE.iter().find(|(name, _)| *name == path);
    file.map_or("", |(_, text)| text)
}

/// The contract, by its files' names in `wit`; without the abilities that came later, which the scripts of
/// other languages than Rust do not know.
fn contract() -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = SDK_FILES.iter();
    let files = files.filter_map(|(path, text)| Some((path.strip_prefix("wit/")?, *text)));
    files.filter(|(path, _)| !path.starts_with("reading/"))
}

/// Every file of a project in Rust.
fn rust_project(name: &str) -> Vec<(String, String)> {
    let named = |text: &str| text.replace(TEMPLATE_NAME, name);
    let sdk_lib = SDK_LIB.replace(WIT_IN_CHECKOUT, WIT_IN_PROJECT);
    let own = TEMPLATE.map(|(path, text)| (path.to_owned(), named(text)));
    let sdk = SDK_FILES.map(|(path, text)| (format!("{SDK}/{path}"), text.to_owned()));
    let mut files = vec![
        ("Cargo.toml".to_owned(), cargo_manifest(name)),
        (LOCK.0.to_owned(), LOCK.1.to_owned()),
        (format!("{SDK}/Cargo.toml"), sdk_manifest()),
        (format!("{SDK}/src/lib.rs"), sdk_lib),
    ];
    files.extend(own);
    files.extend(sdk);
    files
}

fn cargo_manifest(name: &str) -> String {
    // Cargo's names begin with a letter, and no package depends on one of its own name.
    let package = if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name != "rerank-policy"
    {
        name.to_owned()
    } else {
        format!("policy-{name}")
    };
    // Of its own, for target folders that are shared; and not that of a crate of Rust's own.
    let library = format!("policy_{}", name.replace('-', "_"));
    let guest = guest_workspace();
    let of = |key: &str| {
        guest["workspace"]["package"][key]
            .as_str()
            .unwrap_or_default()
    };
    // The SDK has it already, so it costs nothing; parameters are read into a struct that derives it.
    let serde = &guest["workspace"]["dependencies"]["serde"];
    let mut profile = Table::new();
    profile.insert("release".to_owned(), guest["profile"]["release"].clone());
    format!(
        "[package]\nname = \"{package}\"\nversion = \"0.1.0\"\nedition = \"{}\"\nrust-version = \"{}\"\n\
         publish = false\n\n[lib]\nname = \"{library}\"\ncrate-type = [\"cdylib\"]\n\n[dependencies]\n\
         rerank-policy = {{ path = \"{SDK}\" }}\nserde = {serde}\n\n[workspace]\n\n[profile.{}",
        of("edition"),
        of("rust-version"),
        toml::to_string(&profile)
            .unwrap_or_default()
            .trim_start_matches('[')
    )
}

fn guest_workspace() -> Table {
    GUEST_MANIFEST.parse().expect("it is Cargo's own manifest")
}

/// The SDK's manifest without what it inherits from its workspace.
fn sdk_manifest() -> String {
    let mut manifest: Table = SDK_MANIFEST.parse().expect("it is Cargo's own manifest");
    let guest = guest_workspace();
    let workspace = &guest["workspace"];
    for section in ["package", "dependencies"] {
        let members = manifest[section].as_table_mut();
        for (key, value) in members.expect("a section is a table") {
            if value.get("workspace").and_then(Value::as_bool) == Some(true) {
                *value = workspace[section][key.as_str()].clone();
            }
        }
    }
    manifest.remove("lints");
    toml::to_string(&manifest).expect("it came out of TOML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_checkout_is_left_in_a_project() {
        assert_eq!(SDK_LIB.matches(WIT_IN_CHECKOUT).count(), 1);
        for (path, text) in rust_project("0-boost") {
            if path != LOCK.0 {
                assert!(!text.contains(TEMPLATE_NAME), "{path}");
                assert!(!text.contains("workspace = true"), "{path}: {text}");
            }
            if path.ends_with("Cargo.toml") {
                let _: Table = text.parse().expect("it is TOML");
            }
        }
        assert!(cargo_manifest("0-boost").contains("name = \"policy-0-boost\""));
        assert!(cargo_manifest("boost").contains("[profile.release]\n"));
    }
}
