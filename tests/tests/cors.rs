//! Web pages of other origins: none may call the data plane unless `[cors]` names it.

use rerankd_tests::{Answer, Folder, Rerankd};

const BODY: &[u8] = br#"{"query": "clog", "documents": ["a clog"]}"#;
const PATH: &str = "/v1/rerank";
const PAGE: &str = "https://search.example";

fn start(config: &str, flags: &[&str]) -> (Rerankd, Folder) {
    let folder = Folder::new();
    let path = folder.write("rerankd.toml", config);
    let path = path.to_str().expect("the path is UTF-8").to_owned();
    let server = Rerankd::start(&[&["--config", &path], flags].concat());
    (server, folder)
}

/// What a browser asks before it sends JSON or a key.
fn preflight(server: &Rerankd, origin: &str) -> Answer {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type,x-fern-language",
        ),
    ];
    server.call("OPTIONS", PATH, &headers, b"")
}

fn call(server: &Rerankd, origin: &str) -> Answer {
    server.call("POST", PATH, &[("Origin", origin)], BODY)
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn no_page_of_another_origin_may_call_unless_it_is_named() {
    let server = Rerankd::start(&[]);
    let before = preflight(&server, PAGE);
    assert_eq!((before.status, allowed(&before)), (405, None));
    let answer = call(&server, PAGE).ok();
    assert_eq!((allowed(&answer), answer.header("vary")), (None, None));
}

#[test]
fn pages_of_the_named_origins_may_call_and_others_may_not() {
    let folder = Folder::new();
    let keys = folder.write("keys", "k-0123456789abcdef\n");
    folder.set_mode("keys", 0o600);
    let keys = keys.to_str().expect("the path is UTF-8");
    let config = format!("[cors]\nallow_origins = [\"http://localhost:3000\", \"{PAGE}\"]\n");
    let (server, _folder) = start(&config, &["--api-key-file", keys]);
    // A browser sends no key with it.
    let before = preflight(&server, PAGE);
    assert_eq!((before.status, allowed(&before)), (204, Some(PAGE)));
    assert_eq!(
        before.header("access-control-allow-methods"),
        Some("GET, POST")
    );
    let asked = "authorization,content-type,x-fern-language";
    assert_eq!(before.header("access-control-allow-headers"), Some(asked));
    assert!(before.header("access-control-max-age").is_some());
    let headers = [("Origin", PAGE), ("x-api-key", "k-0123456789abcdef")];
    let answer = server.call("POST", PATH, &headers, BODY).ok();
    assert_eq!(allowed(&answer), Some(PAGE));
    assert_eq!(answer.header("vary"), Some("origin"));
    let exposed = answer.header("access-control-expose-headers");
    assert!(exposed.is_some_and(|names| names.contains("rerank-status")));
    // A page may read what was wrong, on a route that is none as well.
    let refused = call(&server, PAGE);
    assert_eq!((refused.status, allowed(&refused)), (401, Some(PAGE)));
    let lost = server.call("POST", "/nowhere", &[("Origin", PAGE)], BODY);
    assert_eq!((lost.status, allowed(&lost)), (404, Some(PAGE)));
    for other in [
        "https://other.example",
        "null",
        "https://search.example:8443",
        "*",
    ] {
        let before = preflight(&server, other);
        assert_eq!((before.status, allowed(&before)), (401, None), "{other}");
        let answer = server
            .call("POST", PATH, &[("Origin", other), headers[1]], BODY)
            .ok();
        assert_eq!(
            (allowed(&answer), answer.header("vary")),
            (None, Some("origin")),
            "{other}"
        );
    }
    for answer in [before, answer, refused] {
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    // The admin plane allows nobody, whatever is named.
    let admin = server.admin_call("GET", "/v1/policies", &[("Origin", PAGE)], b"");
    assert_eq!(allowed(&admin), None);
}

#[test]
fn any_page_may_call_where_the_list_is_a_star() {
    let (server, _folder) = start("[cors]\nallow_origins = [\"*\"]\n", &[]);
    for page in [PAGE, "null"] {
        assert_eq!(allowed(&preflight(&server, page)), Some("*"));
        assert_eq!(allowed(&call(&server, page).ok()), Some("*"));
    }
}

#[test]
fn an_origin_that_no_browser_sends_keeps_the_server_from_starting() {
    for (origins, says) in [
        (
            "[\"https://search.example/\"]",
            "`https://search.example/` (cors.allow_origins)",
        ),
        ("[\"null\"]", "`null` (cors.allow_origins)"),
        (
            "[\"*\", \"https://search.example\"]",
            "the list must be [\"*\"]",
        ),
    ] {
        let folder = Folder::new();
        let path = folder.write(
            "rerankd.toml",
            format!("[cors]\nallow_origins = {origins}\n"),
        );
        let path = path.to_str().expect("the path is UTF-8");
        let refusal = Rerankd::run(Rerankd::command(&["serve", "--config", path]));
        assert_ne!(refusal.code, Some(0));
        assert!(refusal.stderr.contains(says), "{refusal:?}");
    }
}
