//! What was computed before is not computed again: over HTTP, over a restart, and when `rerankd warm`
//! showed it to the server.

use std::process::Output;

use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::documents::texts;
use rerankd_tests::upstream::{Asked, write_json};
use rerankd_tests::{Folder, Rerankd, Upstream};
use serde_json::{Value, json};

const MODEL: &str = "all-minilm-l6-v2";
const NATIVE: &str = "/v1/rerank/semantic-blend";

fn ask(server: &Rerankd, query: &str, documents: &[Value]) -> Vec<Option<f64>> {
    let body = json!({"query": query, "documents": documents, "timeout_ms": 60000});
    server.post(NATIVE, &body).ok().scores()
}

fn rows_run(server: &Rerankd) -> f64 {
    server.metric("rerankd_rows_run_total", &[])
}

fn known(server: &Rerankd, cache: &str) -> (f64, f64) {
    let labels = [("cache", cache), ("model", MODEL)];
    let read = |name: &str| server.metric(name, &labels);
    (
        read("rerankd_cache_hits_total"),
        read("rerankd_cache_misses_total"),
    )
}

#[test]
fn a_search_that_is_repeated_runs_no_model_and_has_the_same_scores() {
    let server = Rerankd::start(&["--timeout-ms", "60000"]);
    let off = Rerankd::start(&["--row-cache-mib", "0", "--encoding-cache-mib", "0"]);
    let documents = texts(30);
    let first = ask(&server, "clog", &documents);
    let (run, rows, encodings) = (
        rows_run(&server),
        known(&server, "rows"),
        known(&server, "encodings"),
    );
    assert_same_bits(&ask(&server, "clog", &documents), &first);
    assert_same_bits(&ask(&off, "clog", &documents), &first);
    assert_eq!(rows_run(&server), run);
    assert_eq!(known(&server, "rows"), (rows.0 + 31.0, rows.1));
    assert_eq!(
        known(&server, "encodings"),
        (encodings.0 + 31.0, encodings.1)
    );
    for cache in ["rows", "encodings"] {
        let labels = [("cache", cache)];
        assert!(server.metric("rerankd_cache_entries", &labels) >= 31.0);
        let bytes = server.metric("rerankd_cache_bytes", &labels);
        assert!(bytes > 31.0 * 128.0 && bytes < 1e6, "{cache}: {bytes}");
        assert_eq!(off.metric("rerankd_cache_max_bytes", &labels), 0.0);
    }
    ask(&server, "a query that was never asked", &documents);
    assert_eq!(rows_run(&server), run + 1.0, "the query alone is new");
}

#[test]
fn a_killed_server_comes_back_warm_and_a_damaged_file_is_dropped() {
    let folder = Folder::new();
    let path = folder.path().join("rows");
    let file = path.to_str().expect("the path is UTF-8");
    let mut server = Rerankd::start(&["--cache-file", file]);
    let documents = texts(20);
    let first = ask(&server, "clog", &documents);
    // A row is on the disk about a second after it was computed.
    let written = || std::fs::metadata(&path).expect("it is there").len();
    let before = written();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(written() >= before);
    server.kill();
    server.restart();
    let run = rows_run(&server);
    assert_same_bits(&ask(&server, "clog", &documents), &first);
    assert_eq!(rows_run(&server), run, "all was known");

    server.kill();
    std::fs::write(&path, "this was a cache").expect("it is ours");
    server.restart();
    let run = rows_run(&server);
    assert_same_bits(&ask(&server, "clog", &documents), &first);
    assert_eq!(rows_run(&server), run + 21.0);
    let log = server.stderr();
    assert!(log.contains("the cache file is dropped"), "{log}");
}

#[test]
fn a_cache_file_without_a_cache_or_of_another_server_is_an_error() {
    let folder = Folder::new();
    let path = folder.path().join("rows");
    let file = path.to_str().expect("the path is UTF-8");
    let start = |more: &[&str]| {
        let flags = [
            &["serve", "--listen", "127.0.0.1:0", "--cache-file", file],
            more,
        ]
        .concat();
        Rerankd::run(Rerankd::command(&flags))
    };
    let refusal = start(&["--row-cache-mib", "0"]);
    assert_eq!(refusal.code, Some(2));
    assert!(
        refusal
            .stderr
            .contains("it needs --row-cache-mib of at least 1")
    );
    let _other = Rerankd::start(&["--cache-file", file]);
    let refusal = start(&[]);
    assert_eq!(refusal.code, Some(1));
    let sentence = format!("cache file `{file}` (--cache-file): another process has it open");
    assert!(refusal.stderr.contains(&sentence), "{}", refusal.stderr);
}

fn warm(server: &Rerankd, arguments: &[&str]) -> Output {
    let mut command = Rerankd::command(&[&["warm", "--json"], arguments].concat());
    command
        .env(
            "RERANKD_ADMIN",
            format!("http://{}", server.admin_address()),
        )
        .env("RERANKD_TOKEN", server.admin_token());
    command.output().expect("the binary is executable")
}

#[track_caller]
fn warmed(server: &Rerankd, arguments: &[&str]) -> Value {
    let output = warm(server, arguments);
    let (said, errors) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(said).expect("it is JSON")
}

#[test]
fn documents_of_a_file_are_known_before_the_first_search() {
    let server = Rerankd::start(&["--timeout-ms", "60000"]);
    let folder = Folder::new();
    let titles: Vec<String> = (0..50).map(|i| format!("Clog number {i}")).collect();
    let lines: Vec<String> = titles
        .iter()
        .map(|title| json!({"title": title, "price": 3}).to_string())
        .chain([r#"{"price": 4}"#.to_owned(), String::new()])
        .collect();
    let file = folder.write("documents.ndjson", lines.join("\n"));
    let file = file.to_str().expect("the path is UTF-8");
    let said = warmed(&server, &["--file", file, "--batch", "20"]);
    assert_eq!(said["documents"], 51);
    assert_eq!(said["known"], 50);
    assert_eq!(said["unscored"], 1);
    assert_eq!(said["full"], false);
    assert!(said["cache"]["entries"].as_u64().expect("a number") >= 50);

    let run = rows_run(&server);
    let documents: Vec<Value> = titles
        .iter()
        .map(|title| json!({"fields": {"title": title}}))
        .collect();
    ask(&server, "wooden shoe", &documents);
    assert_eq!(rows_run(&server), run + 1.0, "the query alone is new");
}

#[test]
fn documents_of_an_index_are_read_to_the_end() {
    let upstream = Upstream::start(|asked: &Asked, stream| {
        let page = |id: &str, titles: std::ops::Range<usize>| {
            let hit = |i| json!({"_id": i, "_source": {"title": format!("Boot {i}")}});
            let hits: Vec<Value> = titles.map(hit).collect();
            json!({"_scroll_id": id, "hits": {"total": {"value": 7}, "hits": hits}}).to_string()
        };
        let body: Value = serde_json::from_slice(&asked.body).expect("it is JSON");
        let answer = match (asked.target(), body["scroll_id"].as_str()) {
            ("/products/_search?scroll=5m", None) => page("first", 0..5),
            ("/_search/scroll", Some("first")) => page("second", 5..7),
            ("/_search/scroll", Some("second")) => page("third", 7..7),
            _ => json!({"error": {"reason": "no such page"}}).to_string(),
        };
        write_json(stream, "200 OK", &answer)
    });
    let server = Rerankd::start(&[]);
    let url = upstream.url();
    let said = warmed(
        &server,
        &[
            "--upstream",
            &url,
            "--upstream-authorization",
            "ApiKey x",
            "--index",
            "products",
            "--fields",
            "title",
            "--batch",
            "5",
        ],
    );
    assert_eq!((&said["documents"], &said["known"]), (&json!(7), &json!(7)));
    let asked = upstream.asked();
    assert_eq!(asked.len(), 4, "three pages, and the scroll is given back");
    for asked in &asked {
        assert_eq!(asked.header("authorization"), Some("ApiKey x"));
    }
    let body: Value = serde_json::from_slice(&asked[0].body).expect("it is JSON");
    assert_eq!(
        (&body["size"], &body["_source"]),
        (&json!(5), &json!(["title"]))
    );
    assert!(asked[3].line.starts_with("DELETE /_search/scroll "));
    let run = rows_run(&server);
    let documents: Vec<Value> = (0..7)
        .map(|i| json!({"fields": {"title": format!("Boot {i}")}}))
        .collect();
    ask(&server, "boot", &documents);
    assert_eq!(rows_run(&server), run + 1.0);
}

#[test]
fn what_cannot_be_known_beforehand_is_refused_with_its_reason() {
    let server = Rerankd::start(&["--encoding-cache-mib", "0"]);
    let folder = Folder::new();
    let file = folder.write("documents.ndjson", "\"clog\"\n");
    let file = file.to_str().expect("the path is UTF-8");
    let refusal = |server: &Rerankd, policy: &str, file: &str| {
        let output = warm(server, &["--policy", policy, "--file", file]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = refusal(&server, "cross-encoder", file);
    assert_eq!(code, Some(1));
    assert!(text.contains("depends on the query"), "{text}");
    let (code, text) = refusal(&server, "nobody", file);
    assert_eq!(code, Some(1));
    assert!(text.contains("no policy `nobody`"), "{text}");
    let bad = folder.write("bad.ndjson", "\"clog\"\n7\n");
    let (code, text) = refusal(&server, "semantic-blend", bad.to_str().expect("UTF-8"));
    assert_eq!(code, Some(2));
    assert!(
        text.contains("line 2: expected a text, or an object"),
        "{text}"
    );
    let off = Rerankd::start(&["--row-cache-mib", "0"]);
    let (code, text) = refusal(&off, "semantic-blend", file);
    assert_eq!(code, Some(1));
    assert!(text.contains("--row-cache-mib 0"), "{text}");
    let output = warm(&server, &[]);
    assert_eq!(output.status.code(), Some(2));
}
