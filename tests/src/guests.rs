//! The faulty guests: components that break one rule each, for the host to survive.

use std::collections::BTreeSet;

use crate::{Folder, Rerankd, require};

/// Those that the server must refuse to load. `sleep` and `clock` are loaded with `allow_wasi` alone.
pub const REFUSED_AT_LOAD: [&str; 5] = [
    "bad-schema",
    "not-json",
    "remote-schema",
    "spin-in-describe",
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
