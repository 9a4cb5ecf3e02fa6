//! How a server starts, what keeps it from starting, and how it ends.

use std::net::SocketAddr;
use std::path::Path;

use rerankd_tests::documents::texts;
use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Connection, Folder, Rerankd, eventually, require};
use serde_json::json;

const NATIVE: &str = "/v1/rerank/semantic-blend";

/// Starts a server that must not start; its log says nothing but errors.
fn start(flags: &[&str]) -> Refusal {
    let arguments = [
        &["serve", "--listen", "127.0.0.1:0", "--log", "error"],
        flags,
    ]
    .concat();
    Rerankd::run(Rerankd::command(&arguments))
}

/// It ends with exit code 1 and one sentence, in which all of `parts` stand.
#[track_caller]
fn assert_says(refusal: &Refusal, parts: &[&str]) {
    assert_eq!(
        (refusal.code, refusal.stdout.as_str()),
        (Some(1), ""),
        "{refusal:?}"
    );
    let line = refusal.stderr.trim_end();
    assert!(
        !line.contains('\n') && line.starts_with("rerankd: "),
        "{line}"
    );
    for part in parts {
        assert!(line.contains(part), "expected `{part}` in: {line}");
    }
    assert!(
        !line.contains("panicked") && !line.contains("backtrace"),
        "{line}"
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

#[test]
fn it_says_in_one_line_where_it_listens_and_what_it_serves() {
    let server = Rerankd::start(&["--workers", "3"]);
    let address = server.address();
    assert_ne!(address.port(), 0);
    let greeting = server.greeting();
    let start = format!("rerankd 0.1.0 listening on http://{address} (policies: cross-encoder@");
    assert!(greeting.starts_with(&start), "{greeting}");
    for part in [
        ", first-stage@",
        ", semantic-blend@",
        "; models: all-minilm-l6-v2, tiny-cross-encoder; ONNX Runtime 1.",
        ", 3 workers)",
    ] {
        assert!(greeting.contains(part), "expected `{part}` in: {greeting}");
    }
    server.get("/health/ready").ok();

    let admin = server.admin_greeting();
    let token = server.data_dir().join("admin-token");
    let expected = format!(
        "admin plane on http://{}, token in {}",
        server.admin_address(),
        token.display()
    );
    assert_eq!(admin, expected);
}

#[test]
fn the_log_is_for_machines_if_that_is_wanted_and_never_coloured_in_a_pipe() {
    let server = Rerankd::start(&["--log", "debug", "--log-format", "json"]);
    let request = json!({"query": "hidden-1", "documents": ["hidden-2"]});
    let headers = [("X-Request-Id", "order-66")];
    server
        .call("POST", NATIVE, &headers, request.to_string().as_bytes())
        .ok();
    let log = eventually("the request is logged", || {
        Some(server.stderr()).filter(|log| log.contains("order-66"))
    });
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(
        !log.contains("hidden"),
        "what is ranked is nobody's but the caller's: {log}"
    );

    let server = Rerankd::start(&["--log", "debug"]);
    server
        .call("POST", NATIVE, &headers, request.to_string().as_bytes())
        .ok();
    let log = eventually("the request is logged", || {
        Some(server.stderr()).filter(|log| log.contains("order-66"))
    });
    assert!(!log.contains('\x1b'), "{log:?}");
    assert!(!log.contains("hidden"), "{log}");
}

#[test]
fn without_onnx_runtime_it_says_how_to_get_it() {
    let way_out = ["`make runtime`", "--onnxruntime", "ORT_DYLIB_PATH"];
    let missing = "/nonexistent/libonnxruntime.so";
    let refusal = start(&["--onnxruntime", missing]);
    let said = ["ONNX Runtime is missing: no library at", missing];
    assert_says(&refusal, &[&said, &way_out[..]].concat());

    let folder = Folder::new();
    let library = folder.write("libonnxruntime.so", "this is a text file\n");
    let refusal = start(&["--onnxruntime", text(&library)]);
    let said = ["cannot be used", text(&library), "or newer is needed"];
    assert_says(&refusal, &[&said, &way_out[..]].concat());

    // The environment's name for it, and a flag that goes before it.
    let mut command = Rerankd::command(&["serve", "--listen", "127.0.0.1:0", "--log", "error"]);
    command.env("ORT_DYLIB_PATH", missing);
    assert_says(
        &Rerankd::run(command),
        &["ONNX Runtime is missing", missing],
    );
}

/// A folder with a copy of the tiny cross-encoder, its manifest changed.
fn changed_model(from: &str, to: &str) -> Folder {
    let folder = Folder::new();
    let copy = folder.copy(
        &require::model("tiny-cross-encoder"),
        "models/tiny-cross-encoder",
    );
    let manifest = std::fs::read_to_string(copy.join("manifest.toml")).expect("it was copied");
    assert!(manifest.contains(from), "{manifest}");
    let manifest = manifest.replacen(from, to, 1);
    folder.write("models/tiny-cross-encoder/manifest.toml", manifest);
    folder.copy(
        &require::policies().join("cross-encoder.wasm"),
        "policies/cross-encoder.wasm",
    );
    folder
}

/// Starts a server on the models and policies of a folder alone.
fn start_on(folder: &Folder) -> Refusal {
    let (models, policies) = (folder.path().join("models"), folder.path().join("policies"));
    start(&["--models", text(&models), "--policies", text(&policies)])
}

#[test]
fn an_execution_provider_that_is_not_there_is_an_error_and_never_another_one() {
    let folder = changed_model("provider = \"cpu\"", "provider = \"tpu\"");
    let said = [
        "model `tiny-cross-encoder`",
        "execution provider `tpu` is not there",
    ];
    assert_says(
        &start_on(&folder),
        &[&said[..], &["CPUExecutionProvider"]].concat(),
    );
    // A build of ONNX Runtime for GPUs has this one; then the error is another.
    let folder = changed_model("provider = \"cpu\"", "provider = \"cuda\"");
    let refusal = start_on(&folder);
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
}

#[test]
fn a_model_whose_files_are_not_what_its_manifest_says_is_refused() {
    let folder = changed_model("name", "name");
    let path = folder.path().join("models/tiny-cross-encoder/model.onnx");
    let mut model = std::fs::read(&path).expect("it was copied");
    model.push(0);
    folder.write("models/tiny-cross-encoder/model.onnx", model);
    assert_says(
        &start_on(&folder),
        &[text(&path), "its sha256 is ", "the manifest says 855b18ea"],
    );

    std::fs::remove_file(&path).expect("it was copied");
    assert_says(&start_on(&folder), &[text(&path), "No such file"]);
}

#[test]
fn a_model_whose_manifest_is_wrong_is_refused() {
    let check = |from: &str, to: &str, parts: &[&str]| {
        let refusal = start_on(&changed_model(from, to));
        assert_eq!(
            (refusal.code, refusal.stdout.as_str()),
            (Some(1), ""),
            "{refusal:?}"
        );
        for part in parts {
            assert!(
                refusal.stderr.contains(part),
                "expected `{part}` in: {}",
                refusal.stderr
            );
        }
        assert!(!refusal.stderr.contains("panicked"), "{}", refusal.stderr);
    };
    let file = "tiny-cross-encoder/manifest.toml`";
    check(
        "licence",
        "license",
        &[file, "line 5", "unknown field `license`"],
    );
    let inside = "`../model.onnx` must lie in the model's own folder";
    check(
        "path = \"model.onnx\"",
        "path = \"../model.onnx\"",
        &[file, inside],
    );
    let outputs = "names the outputs probabilities, but the graph has logits";
    check(
        "score = \"logits\"",
        "score = \"probabilities\"",
        &[outputs],
    );
    let input = "the graph has no input `mask`";
    check(
        "mask = \"attention_mask\"",
        "mask = \"mask\"",
        &["`tiny-cross-encoder`", input],
    );
    let tokens = "`max_tokens` must be at least 8, got 4";
    check("max_tokens = 128", "max_tokens = 4", &[file, tokens]);
    check(
        "kind = \"cross-encoder\"",
        "kind = \"bi-encoder\"",
        &[file, "needs `outputs.embedding`"],
    );
}

#[test]
fn a_model_is_called_like_its_folder() {
    let folder = changed_model("name = \"tiny-cross-encoder\"", "name = \"other\"");
    let file = "tiny-cross-encoder/manifest.toml`";
    assert_says(
        &start_on(&folder),
        &[file, "`other`", "`tiny-cross-encoder`"],
    );
}

#[test]
fn a_window_that_the_graph_has_no_positions_for_is_refused() {
    let folder = changed_model("max_tokens = 128", "max_tokens = 512");
    assert_says(&start_on(&folder), &["`tiny-cross-encoder`"]);
}

#[test]
fn a_model_that_is_not_there_is_named_with_those_that_are() {
    let refusal = start(&["--load-model", "bert"]);
    assert_says(
        &refusal,
        &["no model `bert`", "all-minilm-l6-v2", "tiny-cross-encoder"],
    );
}

#[test]
fn an_address_in_use_is_said() {
    let server = Rerankd::start(&[]);
    let address = server.address().to_string();
    let arguments = ["serve", "--log", "error", "--listen", &address];
    let refusal = Rerankd::run(Rerankd::command(&arguments));
    assert_says(
        &refusal,
        &[&format!("cannot listen on {address} (--listen)"), "in use"],
    );
    let address = server.admin_address().to_string();
    assert_says(
        &start(&["--admin-listen", &address]),
        &[
            &format!("cannot listen on {address} (--admin-listen)"),
            "in use",
        ],
    );
}

#[test]
fn it_ends_at_once_when_nothing_runs() {
    let mut server = Rerankd::start(&[]);
    // A client that keeps its connection open is no reason to wait.
    let mut idle = server.connect();
    idle.request("GET", "/health/live", &[], b"")
        .expect("it is open");
    idle.answer().expect("it is answered").ok();
    let _silent = server.connect();
    let mut idle_admin = Connection::open(server.admin_address()).expect("it listens");
    idle_admin
        .request("GET", "/metrics", &[], b"")
        .expect("it is open");
    let refused = idle_admin.answer().expect("it is answered");
    assert_eq!(refused.status, 403);
    let _silent_admin = Connection::open(server.admin_address()).expect("it listens");
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(idle.is_closed_by_server());
    assert!(idle_admin.is_closed_by_server());
}

/// Sends a request that keeps the only worker busy for seconds, and waits until its rows are queued.
fn busy(server: &Rerankd, documents: usize) -> Connection {
    let request = json!({"query": "smart watch", "documents": texts(documents)}).to_string();
    let mut connection = server.connect();
    let sent = connection.request("POST", NATIVE, &[], request.as_bytes());
    sent.expect("it is open");
    eventually("its rows are queued", || {
        (server.metric("rerankd_queue_rows", &[]) > 1.0).then_some(())
    });
    connection
}

/// Whether new work is refused: nobody listens, or it is said that nothing is accepted any more.
fn is_going_down(address: SocketAddr) -> Option<()> {
    let Ok(mut connection) = Connection::open(address) else {
        return Some(());
    };
    connection.request("GET", "/health/ready", &[], b"").ok()?;
    connection
        .answer()
        .ok()
        .filter(|answer| answer.status == 503)
        .map(|_| ())
}

#[test]
fn a_running_request_is_finished_before_the_end() {
    let mut server = Rerankd::start(&["--workers", "1", "--timeout-ms", "60000"]);
    let mut running = busy(&server, 200);
    server.terminate();
    eventually("new work is refused", || is_going_down(server.address()));
    let answer = running.answer().expect("it is answered").ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_eq!(answer.scores().iter().flatten().count(), 200);
    assert!(running.is_closed_by_server());
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(server.stderr().contains("drained"), "{}", server.stderr());
}

#[test]
fn draining_ends_when_its_time_is_up_or_at_a_second_signal() {
    let flags = ["--workers", "1", "--timeout-ms", "60000", "--drain-ms"];
    let mut server = Rerankd::start(&[&flags[..], &["50"]].concat());
    let _running = busy(&server, 1000);
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(
        server.stderr().contains("requests were still running"),
        "{}",
        server.stderr()
    );

    let mut server = Rerankd::start(&[&flags[..], &["60000"]].concat());
    let _running = busy(&server, 1000);
    server.terminate();
    eventually("new work is refused", || is_going_down(server.address()));
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(
        server.stderr().contains("second signal"),
        "{}",
        server.stderr()
    );
}

/// `rerankd serve FLAGS --print-config`.
fn printed(flags: &[&str]) -> Refusal {
    let arguments = [&["serve", "--print-config"], flags].concat();
    Rerankd::run(Rerankd::command(&arguments))
}

#[test]
fn where_to_listen_is_an_address_or_localhost() {
    let good = printed(&["--listen", "localhost:7"]);
    assert!(good.stdout.contains("listen = \"127.0.0.1:7\""), "{good:?}");
    let folder = Folder::new();
    for (address, says) in [
        (":9500", "127.0.0.1:9500 is for this machine alone"),
        ("search.internal:9500", "of names only `localhost` is taken"),
    ] {
        let config = format!("proxy_listen = \"{address}\"\n");
        let config = folder.write("rerankd.toml", config);
        for flags in [["--listen", address], ["--config", text(&config)]] {
            let refusal = printed(&flags);
            assert_eq!(refusal.code, Some(2), "{refusal:?}");
            assert!(refusal.stderr.contains(says), "{refusal:?}");
        }
    }
}

#[test]
fn a_host_that_would_match_nothing_is_refused() {
    let hosts = "*.shop,search.internal:99999";
    let refusal = printed(&["--allow-host", hosts, "--admin-allow-host", "a?c"]);
    assert_eq!(refusal.code, Some(2), "{refusal:?}");
    for says in [
        "`*.shop` (--allow-host) is a pattern, and would match nothing",
        "`search.internal:99999` (--allow-host) must be a name or an address",
        "`a?c` (--admin-allow-host) is a pattern",
    ] {
        assert!(refusal.stderr.contains(says), "{refusal:?}");
    }
}
