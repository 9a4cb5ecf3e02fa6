//! The faulty guests: components that break one rule each, for the host to survive.

use std::collections::BTreeSet;

use crate::{Folder, Rerankd, require};

/// Those that the server must refuse to load. `sleep` and `clock` are loaded with `allow_wasi` alone.
pub const REFUSED_AT_LOAD: [&str; 8] = [
    "bad-schema",
    "grow-in-describe",
    "huge-schema",
    "not-json",
    "remote-schema",
    "spin-in-describe",
    "trap-in-describe",
    "unknown-key",
];

/// Every faulty guest that there is, by the files of `guest/faulty/examples`.
pub fn all() -> BTreeSet<String> {
    let folder = require::root().join("guest/faulty/examples");
    let files = std::fs::read_dir(&folder).expect("the checkout has the faulty guests");
    let names = files.map(|file| {
        let path = file.expect("the folder can be listed").path();
        let stem = path.file_stem().expect("a file has a name");
        stem.to_string_lossy().into_owned()
    });
    names.collect()
}

/// A server with the bundled policies and every faulty guest that can be loaded.
pub fn serve(flags: &[&str]) -> Rerankd {
    // A policy is read at start and never again, so the files may go afterwards.
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    for name in all() {
        if !REFUSED_AT_LOAD.contains(&name.as_str()) {
            folder.copy(&require::faulty(&name), &format!("policies/{name}.wasm"));
        }
    }
    let config = folder.write(
        "rerankd.toml",
        "[policies.sleep]\nallow_wasi = true\n\
         [policies.clock]\nallow_wasi = true\n\
         [policies.wrong-inputs.parameters]\ncase = \"name\"\n",
    );
    let policies = folder.path().join("policies");
    let text = |path: &std::path::Path| path.to_str().expect("the path is UTF-8").to_owned();
    let (config, policies) = (text(&config), text(&policies));
    Rerankd::start(&[&["--config", &config, "--policies", &policies], flags].concat())
}

/// A bundled policy's component with another version string of five bytes, such as `1.2.3`: another
/// component, and no conflict with the one that it was made of.
///
/// # Panics
/// If the component does not hold its manifest once, or `version` has another length.
pub fn with_version(component: &[u8], version: &str) -> Vec<u8> {
    const KEY: &[u8] = b"\"version\": \"0.1.0\"";
    assert_eq!(version.len(), 5, "`{version}`");
    let is_key = |at: &usize| component[*at..].starts_with(KEY);
    let found: Vec<usize> = (0..component.len()).filter(is_key).collect();
    let [at] = found[..] else {
        panic!("the manifest is there {} times", found.len());
    };
    let end = at + KEY.len() - 1;
    let mut component = component.to_vec();
    component[end - version.len()..end].copy_from_slice(version.as_bytes());
    component
}
