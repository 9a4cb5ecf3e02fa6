//! Rules about the source that no compiler keeps: ARCHITECTURE.md names them.

use std::path::{Path, PathBuf};
use std::process::Command;

use rerankd_tests::require;
use serde_json::Value;

/// Which crates of the host each one may name, and which of others it must not (its tests may).
const ARROWS: [(&str, &[&str], &[&str]); 6] = [
    (
        "rerankd-core",
        &[],
        &["serde", "serde_json", "tokio", "http"],
    ),
    (
        "rerankd-wire",
        &["rerankd-core"],
        &["tokio", "axum", "hyper", "wasmtime", "ort"],
    ),
    (
        "rerankd-inference",
        &["rerankd-core"],
        &["wasmtime", "http", "axum", "hyper"],
    ),
    (
        "rerankd-policy",
        &["rerankd-core", "rerankd-inference"],
        &["http", "axum", "hyper", "ort", "tokenizers"],
    ),
    (
        "rerankd",
        &[
            "rerankd-core",
            "rerankd-wire",
            "rerankd-inference",
            "rerankd-policy",
        ],
        &["ort", "wasmtime", "tokenizers"],
    ),
    ("rerankd-tests", &[], &["wasmtime"]),
];

/// Longest source file, lines.
const MAX_LINES: usize = 700;

#[test]
fn crates_depend_only_in_the_direction_of_the_arrows() {
    let host = packages("Cargo.toml");
    assert_eq!(host.len(), ARROWS.len(), "a crate without arrows");
    for (name, ours, foreign) in ARROWS {
        let dependencies = &host
            .iter()
            .find(|(package, _)| package == name)
            .unwrap_or_else(|| panic!("no crate `{name}`"))
            .1;
        for (dependency, only_for_tests) in dependencies {
            let allowed = match dependency.starts_with("rerankd") {
                true => ours.contains(&dependency.as_str()),
                false => *only_for_tests || !foreign.contains(&dependency.as_str()),
            };
            assert!(allowed, "`{name}` must not depend on `{dependency}`");
        }
    }
    for (name, dependencies) in packages("guest/Cargo.toml") {
        let of_the_host = |(name, _): &&(String, bool)| name.starts_with("rerankd");
        let linked = dependencies.iter().find(of_the_host);
        assert_eq!(linked, None, "guest `{name}` links a crate of the host");
    }
}

#[test]
fn source_files_are_short() {
    for path in sources(&["rs", "py", "sh", "wit"]) {
        let lines = read(&path).lines().count();
        assert!(
            lines <= MAX_LINES,
            "{} has {lines} lines, the limit is {MAX_LINES}: split it by what it does",
            path.display()
        );
    }
}

/// What is printed goes by the one file that escapes what would steer a terminal.
#[test]
fn one_file_prints() {
    let own = Path::new("host/server/src/terminal.rs");
    let words = ["println!", "print!", "io::stdout()", "io::stderr()"];
    // A compiled component goes to the server that asked for it, and a compiler says what it says.
    let others = [
        Path::new("host/policy/src/compiler.rs"),
        Path::new("host/server/src/policy_cli/build.rs"),
        Path::new("host/server/src/telemetry.rs"),
    ];
    for path in sources(&["rs"]) {
        let is_code =
            path.starts_with("host") && path.components().any(|part| part.as_os_str() == "src");
        if !is_code || path == own || others.contains(&path.as_path()) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let prints = words.iter().any(|word| line.contains(word));
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(!prints, "{place}: only {} prints", own.display());
        }
    }
}

#[test]
fn one_file_names_onnx_runtimes_crate() {
    let own = Path::new("host/inference/src/backend/onnx.rs");
    for path in sources(&["rs"]) {
        if !path.starts_with("host") || path == own {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let words: Vec<&str> = code
                .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .collect();
            let names = words.iter().any(|word| word.starts_with("ort::"))
                || code.trim_start().starts_with("use ort");
            assert!(
                !names,
                "{}:{}: only {} names `ort`",
                path.display(),
                number + 1,
                own.display()
            );
        }
    }
}

#[test]
fn log_messages_are_lower_case_and_without_a_full_stop() {
    let mut seen = 0;
    for path in sources(&["rs"]) {
        let source = read(&path);
        if !path.starts_with("host") {
            continue;
        }
        for level in ["trace", "debug", "info", "warn", "error"] {
            let opening = format!("tracing::{level}!(");
            for (at, _) in source.match_indices(&opening) {
                let Some(message) = last_string(&source[at + opening.len()..]) else {
                    continue;
                };
                seen += 1;
                assert!(
                    !message.starts_with(char::is_uppercase) && !message.ends_with('.'),
                    "{}: log message {message:?}",
                    path.display()
                );
            }
        }
    }
    assert!(
        seen > 5,
        "only {seen} log messages: does this test see any?"
    );
}

#[test]
fn decisions_are_numbered() {
    let mut names: Vec<String> = std::fs::read_dir(require::root().join("docs/decisions"))
        .expect("there are decisions")
        .map(|entry| entry.expect("the folder can be read").file_name())
        .map(|name| name.into_string().expect("names are UTF-8"))
        .collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        let number = format!("{:04}", index + 1);
        assert!(
            name.starts_with(&format!("{number}-")) && name.ends_with(".md"),
            "`{name}` must be {number}-title.md"
        );
        let text = read(&Path::new("docs/decisions").join(name));
        assert!(
            text.starts_with(&format!("# {number}: ")),
            "`{name}` must begin with `# {number}: `"
        );
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = sources(&["md"]);
    pages.extend(["README.md", "ARCHITECTURE.md"].map(PathBuf::from));
    for page in pages {
        let text = read(&page);
        for (_, rest) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let link = rest.split(')').next().unwrap_or_default();
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = page.parent().unwrap_or(Path::new(""));
            assert!(
                require::root().join(folder).join(target).exists(),
                "{}: `{link}` leads nowhere",
                page.display()
            );
        }
    }
}

/// The packages of a workspace, each with what it depends on, and whether only its tests do.
fn packages(manifest: &str) -> Vec<(String, Vec<(String, bool)>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .arg("--manifest-path")
        .arg(require::root().join(manifest))
        .output()
        .expect("cargo runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let name = |of: &Value| {
        of["name"]
            .as_str()
            .expect("everything has a name")
            .to_owned()
    };
    let list = |of: &Value| of.as_array().expect("it is a list").clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let dependency = |of: &Value| (name(of), of["kind"] == "dev");
            let dependencies = list(&package["dependencies"]);
            (name(package), dependencies.iter().map(dependency).collect())
        })
        .collect()
}

/// Our own files with one of these extensions, relative to the root.
fn sources(extensions: &[&str]) -> Vec<PathBuf> {
    let root = require::root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["demo", "docs", "guest", "host", "models", "scripts"]
        .iter()
        .chain(&["tests", "wit"])
        .map(PathBuf::from)
        .collect();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(root.join(&folder)).expect("the folder is there");
        for entry in entries {
            let path = folder.join(entry.expect("the folder can be read").file_name());
            let name = path.file_name().and_then(|name| name.to_str());
            if root.join(&path).is_dir() {
                // What was built, and the interfaces of others.
                let foreign = ["target", "dist", "deps", "__pycache__", "node_modules"];
                if !name.is_some_and(|name| foreign.contains(&name)) {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|own| extensions.iter().any(|extension| own == *extension))
            {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no {extensions:?} anywhere");
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(require::root().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The last string literal before the parenthesis that closes a macro's arguments.
fn last_string(arguments: &str) -> Option<String> {
    let mut last = None;
    let mut depth = 1;
    let mut characters = arguments.chars();
    while let Some(character) = characters.next() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(inside) = characters.next() {
                    match inside {
                        '"' => break,
                        '\\' => text.extend(characters.next()),
                        _ => text.push(inside),
                    }
                }
                last = Some(text);
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    last
}
