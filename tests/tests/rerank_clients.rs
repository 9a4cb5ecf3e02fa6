//! Real clients of rerank APIs, unchanged, against the real server: each ranks, asks for fewer documents
//! and for the documents themselves where it can, and makes of each refusal what it makes of its own
//! vendor's. What is asked of a client stands in `tests/clients`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rerankd_tests::rerankd::only_policies;
use rerankd_tests::{Folder, Rerankd, require};
use serde_json::Value;

/// Modules of clients, by the environment that they run in: Python's two, as some packages exclude each
/// other, and Node.js.
const JUDGED: [(&str, &str); 15] = [
    (CLIENTS, "cohere_sdk"),
    (CLIENTS, "haystack_rankers"),
    (CLIENTS, "hugging_face_hub"),
    (CLIENTS, "lite_llm"),
    (CLIENTS, "rerankers_api"),
    (CLIENTS, "voyage_sdk"),
    (CLIENTS, "xinference_sdk"),
    (OLDER, "cohere_sdk"),
    (OLDER, "hugging_face_hub"),
    (OLDER, "infinity_sdk"),
    (OLDER, "langchain_compressors"),
    (OLDER, "llama_index_postprocessors"),
    (NODE, "ai_sdk"),
    (NODE, "cohere_ai"),
    (NODE, "voyageai"),
];
const CLIENTS: &str = "clients";
const OLDER: &str = "clients-older";
const NODE: &str = "node";

/// The names of models that the clients were made for.
const ALIASES: &str = r#"
[wire.aliases]
"rerank-v3.5" = "cross-encoder"
"rerank-2.5" = "cross-encoder"
"jina-reranker-v2-base-multilingual" = "cross-encoder"
"BAAI/bge-reranker-base" = "cross-encoder"
"bge-reranker-base" = "cross-encoder"
"#;

const KEY: &str = "of-the-tests-0123456789";

/// For clients that name no model: here the policy that answers them fails.
static FAILING: LazyLock<(Rerankd, Folder)> = LazyLock::new(|| {
    let folder = Folder::new();
    (start("trap", &folder), folder)
});

/// A server that ranks and asks for a key, with one policy that fails, and one that holds all the
/// room there is for as long as its client stays.
fn start(default_policy: &str, folder: &Folder) -> Rerankd {
    for component in [
        require::policies().join("cross-encoder.wasm"),
        require::faulty("trap"),
        require::faulty("spin"),
    ] {
        let file = component.file_name().expect("a file has a name");
        folder.copy(&component, &format!("policies/{}", file.to_string_lossy()));
    }
    let config = folder.write("rerankd.toml", ALIASES);
    let keys = folder.write("keys", format!("{KEY}\n"));
    folder.set_mode("keys", 0o600);
    let path = |path: &Path| path.to_str().expect("the path is UTF-8").to_owned();
    let (config, keys) = (path(&config), path(&keys));
    let files = ["--config", &config, "--api-key-file", &keys];
    let policies = folder.path().join("policies");
    let limits = [
        "--default-policy",
        default_policy,
        // One request has all the room there is for tokens, however small it is.
        "--max-queued-tokens",
        "1",
        "--guest-cpu-ms",
        "60000",
        "--timeout-ms",
        "60000",
    ];
    Rerankd::start(&[&files[..], &only_policies(&policies), &limits].concat())
}

/// A program of `tests/clients` with nothing of the caller's environment, so that no proxy, key or
/// setting of a client comes into it, and with what keeps clients from calling home.
fn runner(environment: &str, home: &Folder) -> Command {
    let mut command = if environment == NODE {
        let mut command = Command::new(require::root().join("scripts/npm"));
        command.arg("--prefix").arg(require::node_clients());
        command.args(["run", "--silent", "clients", "--"]);
        command
    } else {
        let mut command = Command::new(require::python_clients(environment));
        command.arg(require::root().join("tests/clients/python/run.py"));
        command
    };
    command.env_clear();
    command.env("HOME", home.path());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    for (name, value) in [
        ("DO_NOT_TRACK", "1"),
        ("HAYSTACK_TELEMETRY_ENABLED", "False"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("LANGSMITH_TRACING", "false"),
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ] {
        command.env(name, value);
    }
    command
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().expect("the runner is executable");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout.into_owned()
}

#[track_caller]
fn judge(environment: &str, module: &str) {
    assert!(JUDGED.contains(&(environment, module)));
    let (home, folder) = (Folder::new(), Folder::new());
    let server = start("cross-encoder", &folder);
    let done = output(
        runner(environment, &home)
            .args(["judge", module])
            .env("SERVER", format!("http://{}", server.address()))
            .env("SERVER_KEY", KEY)
            .env("ADMIN", format!("http://{}", server.admin_address()))
            .env("ADMIN_TOKEN", server.admin_token())
            .env("FAILING_SERVER", format!("http://{}", FAILING.0.address())),
    );
    let checks = done.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(checks > 3, "it checked next to nothing: {done}");
}

#[test]
fn cohere() {
    judge(CLIENTS, "cohere_sdk");
}

#[test]
fn cohere_of_two_years_ago() {
    judge(OLDER, "cohere_sdk");
}

#[test]
fn voyageai() {
    judge(CLIENTS, "voyage_sdk");
}

#[test]
fn xinference_client() {
    judge(CLIENTS, "xinference_sdk");
}

#[test]
fn infinity_client() {
    judge(OLDER, "infinity_sdk");
}

#[test]
fn litellm() {
    judge(CLIENTS, "lite_llm");
}

#[test]
fn langchain() {
    judge(OLDER, "langchain_compressors");
}

#[test]
fn llama_index() {
    judge(OLDER, "llama_index_postprocessors");
}

#[test]
fn haystack() {
    judge(CLIENTS, "haystack_rankers");
}

#[test]
fn rerankers() {
    judge(CLIENTS, "rerankers_api");
}

#[test]
fn huggingface_hub() {
    judge(OLDER, "hugging_face_hub");
}

#[test]
fn huggingface_hub_of_litellm() {
    judge(CLIENTS, "hugging_face_hub");
}

#[test]
fn ai_sdk() {
    judge(NODE, "ai_sdk");
}

#[test]
fn cohere_in_javascript() {
    judge(NODE, "cohere_ai");
}

#[test]
fn voyageai_in_javascript() {
    judge(NODE, "voyageai");
}

/// What docs/clients.md says of applications names what was recorded of them.
#[test]
fn the_table_of_applications_names_recorded_requests() {
    let page = std::fs::read_to_string(require::root().join("docs/clients.md"));
    let page = page.expect("the checkout has it");
    let (_, table) = page.split_once("## Applications").expect("it has the part");
    let (table, _) = table.split_once("\n## ").expect("the part ends");
    let mut records = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, application, _, set, sends, _] = cells[..] else {
            panic!("a line of four cells: {line}");
        };
        assert!(!application.is_empty() && !set.is_empty(), "{line}");
        for name in sends.split('`').filter(|part| part.contains('/')) {
            let file = format!("host/wire/fixtures/{name}.request.json");
            assert!(require::root().join(&file).is_file(), "{file}: {line}");
            records += 1;
        }
    }
    assert!(records > 20, "{records}");
}

/// Each line of the table in docs/clients.md is a client that is judged here in that version, and none
/// is left out.
#[test]
fn the_table_of_clients_is_what_is_tested() {
    let mut judged: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut modules = BTreeSet::new();
    for environment in [CLIENTS, OLDER, NODE] {
        let listed = output(runner(environment, &Folder::new()).arg("list"));
        for line in listed.lines() {
            let client: Value = serde_json::from_str(line).expect("a line is JSON");
            let text = |key: &str| client[key].as_str().expect("a text").to_owned();
            modules.insert((environment, text("module")));
            judged
                .entry(text("name"))
                .or_default()
                .insert(text("version"));
        }
    }
    let tested = JUDGED.map(|(environment, module)| (environment, module.to_owned()));
    assert_eq!(modules, BTreeSet::from(tested));

    let page: PathBuf = require::root().join("docs/clients.md");
    let page = std::fs::read_to_string(page).expect("the checkout has it");
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| **")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('*').to_owned();
        let versions = cells[2].split(", ").map(str::to_owned).collect();
        let before = described.insert(name, versions);
        assert_eq!(before, None, "twice: {line}");
    }
    assert_eq!(described, judged);
}
