//! What a test needs beside the source. What is missing fails the test, in every environment: a test
//! that did not run must not look like one that passed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The source checkout.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("`tests/` lies in the checkout").to_owned()
}

/// The release build of the server, in the same target folder as this test.
pub fn binary() -> PathBuf {
    let path = target().join("release/rerankd");
    built(path, "the server", "make build")
}

/// The folder that Cargo builds into.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its executable");
    // target/<profile>/deps/<test>
    let target = test.ancestors().nth(3);
    target
        .expect("Cargo runs tests from its target folder")
        .to_owned()
}

/// The components of the bundled policies.
pub fn policies() -> PathBuf {
    let folder = root().join("guest/dist/policies");
    for name in ["cross-encoder", "first-stage", "semantic-blend"] {
        built(
            folder.join(format!("{name}.wasm")),
            "a policy",
            "make policies",
        );
    }
    folder
}

/// The component of one faulty guest.
pub fn faulty(name: &str) -> PathBuf {
    let path = root().join(format!("guest/dist/faulty/{name}.wasm"));
    built(path, "a faulty guest", "make faulty")
}

/// The component of a policy in another language than Rust, by its name below `guest/dist/examples`.
pub fn example(name: &str) -> PathBuf {
    let path = root().join(format!("guest/dist/examples/{name}.wasm"));
    built(path, "a policy in another language", "make examples")
}

/// The folder of a model that is committed.
pub fn model(name: &str) -> PathBuf {
    let folder = root().join("models").join(name);
    built(
        folder.join("model.onnx"),
        "a committed model",
        "git checkout models",
    );
    folder
}

/// Everything that a server needs to start.
pub fn server() -> PathBuf {
    policies();
    model("all-minilm-l6-v2");
    model("tiny-cross-encoder");
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        let name = if cfg!(target_os = "macos") {
            "libonnxruntime.dylib"
        } else {
            "libonnxruntime.so"
        };
        let library = root().join(".runtime/onnxruntime").join(name);
        built(library, "ONNX Runtime", "make runtime");
    }
    binary()
}

/// A tool that reads the description of the admin plane, by its name in `.venv/openapi/bin`.
pub fn openapi_tool(name: &str) -> PathBuf {
    let path = root().join(".venv/openapi/bin").join(name);
    built(path, "a tool", "make openapi-tools")
}

/// Python with clients of rerank APIs, by its environment's name below `.venv`.
pub fn python_clients(environment: &str) -> PathBuf {
    let folder = root().join(".venv").join(environment);
    // It is copied last, when the packages are there.
    built(
        folder.join("requirements.txt"),
        "clients",
        "make client-tools",
    );
    folder.join("bin/python")
}

/// The folder with clients in JavaScript and their packages; `scripts/npm` finds a Node.js for it.
pub fn node_clients() -> PathBuf {
    let folder = root().join("tests/clients/javascript");
    let packages = folder.join("node_modules/.package-lock.json");
    built(packages, "clients in JavaScript", "make client-tools");
    folder
}

/// The folder of an engine, by its name in `.runtime/engines`; of any version, if none is named.
pub fn engine(name: &str, version: Option<&str>) -> PathBuf {
    let folder = root().join(".runtime/engines");
    let wanted = format!("{name}-{}", version.unwrap_or_default());
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut homes = entries.map(|entry| entry.path());
    let home = homes.find(|home| {
        let own = home.file_name().and_then(|own| own.to_str());
        own.is_some_and(|own| match version {
            Some(_) => own == wanted,
            None => own.starts_with(&wanted),
        })
    });
    home.unwrap_or_else(|| {
        panic!(
            "this test needs {wanted} in `{}`: run `make engines` (or `make test`, which sets up all)",
            folder.display()
        )
    })
}

/// OpenVINO's plugin for ONNX Runtime.
pub fn openvino() -> PathBuf {
    let package = root().join(".venv/openvino/onnxruntime_ep_openvino");
    let path = package.join("libonnxruntime_providers_openvino_plugin.so");
    built(path, "OpenVINO's plugin", "make openvino")
}

/// The zip of the plugin for OpenSearch of a major version.
pub fn plugin(major: u8) -> PathBuf {
    let path = root().join(format!(
        "plugin/opensearch/dist/rerankd-opensearch{major}.zip"
    ));
    built(path, "the plugin", "make plugin")
}

/// The zip of a plugin for OpenSearch 3 that does what other plugins do to searches.
pub fn neighbours() -> PathBuf {
    let path = root().join("plugin/opensearch/dist/rerankd-neighbours.zip");
    built(path, "the plugin of neighbours", "make plugin")
}

/// The Python that has the engines' own clients.
pub fn engines_python() -> PathBuf {
    let path = root().join(".venv/engines/bin/python");
    built(path, "the engines' clients", "make engines")
}

/// A real browser: Debian's chromium, or one that calls itself Chrome.
pub fn browser() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "this test needs a browser ({}): `apt-get install chromium`",
            names.join(", ")
        )
    })
}

/// Whether the processor is Intel's: OpenVINO's plugin for ONNX Runtime serves no other.
pub fn has_intel_cpu() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.contains("GenuineIntel")
}

/// Says that a part of a test needs a processor that this machine does not have. Test runners do not
/// capture this line: who reads the output sees what did not run.
pub fn left_out(what: &str, why: &str) {
    let line = format!("LEFT OUT: {what}: {why}\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("standard error takes a line");
}

fn built(path: PathBuf, what: &str, command: &str) -> PathBuf {
    assert!(
        path.is_file(),
        "this test needs {what} at `{}`: run `{command}` (or `make test`, which sets up all)",
        path.display()
    );
    path
}
