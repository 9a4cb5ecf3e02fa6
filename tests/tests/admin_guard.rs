//! What web pages, rebound names and forms get from the planes: nothing. And a real browser tries.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rerankd_tests::upstream::write_json;
use rerankd_tests::{Answer, Connection, Folder, PATIENCE, Rerankd, Upstream, http, require};

const JSON: (&str, &str) = ("Content-Type", "application/json");
/// A path of a release, which no refused request reaches.
const ROLLBACK: &str = "/v1/policies/semantic-blend/rollback";

fn refusals(server: &Rerankd, reason: &str) -> f64 {
    server.metric("rerankd_admin_refusals_total", &[("reason", reason)])
}

/// Its status, code and message.
#[track_caller]
fn error(answer: &Answer) -> (u16, String, String) {
    let body = answer.json();
    let error = &body["error"];
    assert_eq!(error["request_id"].as_str(), answer.header("x-request-id"));
    let text = |key: &str| error[key].as_str().expect("it is text").to_owned();
    (answer.status, text("code"), text("message"))
}

#[track_caller]
fn assert_no_permission_for_pages(answer: &Answer) {
    for (name, _) in &answer.headers {
        assert!(!name.starts_with("access-control-"), "{name}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn a_name_that_is_not_its_own_is_refused_before_the_token() {
    let server = Rerankd::start(&[]);
    let port = server.admin_address().port();
    let call = |host: &str| server.admin_call("GET", "/v1/models", &[("Host", host)], b"");
    let own = ["127.0.0.1", "localhost", "LocalHost", "[::1]"];
    for name in own {
        call(&format!("{name}:{port}")).ok();
    }
    let other = if port == 9600 { 9601 } else { 9600 };
    let mut wrong = vec![
        "rebound.test".to_owned(),
        format!("rebound.test:{port}"),
        format!("localhost.rebound.test:{port}"),
        format!("127.0.0.1.rebound.test:{port}"),
        format!("127.0.0.1:{other}"),
        format!("0.0.0.0:{port}"),
        format!("localhost.:{port}"),
        format!("user@localhost:{port}"),
        String::new(),
    ];
    wrong.extend(own.map(str::to_owned));
    for host in &wrong {
        let answer = call(host);
        let (status, code, message) = error(&answer);
        assert_eq!((status, code.as_str()), (403, "host_not_allowed"), "{host}");
        assert!(
            message.contains(&format!("`Host: {}` is not allowed", host.to_lowercase())),
            "{message}"
        );
        assert!(message.contains("--admin-allow-host"), "{message}");
        assert_no_permission_for_pages(&answer);
    }
    // Whoever it is: it is not told whether its token is good.
    let nobody = [("Host", "rebound.test"), ("Authorization", "Bearer x")];
    assert_eq!(
        server.admin_call("GET", "/v1/models", &nobody, b"").status,
        403
    );
    assert_eq!(refusals(&server, "host"), wrong.len() as f64 + 1.0);
    assert_eq!(refusals(&server, "token-unknown"), 0.0);
}

#[test]
fn a_request_without_one_host_is_refused() {
    let server = Rerankd::start(&[]);
    let address = server.admin_address();
    let token = format!("Authorization: Bearer {}\r\n", server.admin_token());
    let check = |head: String, expected: (u16, &str), said: &str| {
        let mut connection = Connection::open(address).expect("it listens");
        connection
            .send(format!("{head}{token}Connection: close\r\n\r\n"))
            .expect("it is open");
        let answer = connection.answer().expect("it is answered");
        let (status, code, message) = error(&answer);
        assert_eq!((status, code.as_str()), expected, "{head}");
        assert!(message.contains(said), "{message}");
    };
    let path = "/v1/models";
    let (wrong, refused) = ((400, "bad_request"), (403, "host_not_allowed"));
    let without = |version| format!("GET {path} HTTP/{version}\r\n");
    check(without("1.1"), wrong, "`Host` is missing");
    check(without("1.0"), refused, "`Host` is missing");
    let twice = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nHost: {address}\r\n");
    check(twice, wrong, "more than once");
    let whole = format!("GET http://{address}{path} HTTP/1.1\r\nHost: {address}\r\n");
    check(whole, refused, "must name a path, not a whole address");
    let other = format!("GET http://{address}{path} HTTP/1.1\r\nHost: rebound.test\r\n");
    check(other, refused, "must name a path, not a whole address");
}

#[test]
fn operators_allow_more_names() {
    let allowed = ["--admin-allow-host", "Search.Internal,rerankd.test:8080"];
    let server = Rerankd::start(&allowed);
    let call = |host: &str| {
        server
            .admin_call("GET", "/v1/models", &[("Host", host)], b"")
            .status
    };
    let own = server.admin_address().to_string();
    for (host, status) in [
        ("search.internal", 200),
        ("SEARCH.internal:1234", 200),
        ("rerankd.test:8080", 200),
        (&own, 200),
        ("rerankd.test", 403),
        ("rerankd.test:8081", 403),
        ("x.search.internal", 403),
        ("search.internal:", 403),
        ("search.internal:x", 403),
    ] {
        assert_eq!(call(host), status, "{host}");
    }
    for wrong in ["http://x", "a b", "x@y", "/"] {
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-allow-host",
            wrong,
        ];
        let refusal = Rerankd::run(Rerankd::command(&arguments));
        assert_eq!(refusal.code, Some(2), "{refusal:?}");
        let said = format!("`{wrong}` (--admin-allow-host) must be a name or an address");
        assert!(refusal.stderr.contains(&said), "{refusal:?}");
    }
}

#[test]
fn pages_of_other_origins_are_refused_whatever_they_carry() {
    let server = Rerankd::start(&[]);
    let own = format!("http://{}", server.admin_address());
    let other_port = format!("http://127.0.0.1:{}", server.address().port());
    let call =
        |name: &str, value: &str| server.admin_call("GET", "/v1/models", &[(name, value)], b"");
    let wrong = [
        ("Origin", "http://shop.test"),
        ("Origin", "null"),
        ("Origin", ""),
        ("Origin", &other_port),
        ("Origin", &own.replace("http", "https")),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "something-new"),
    ];
    for (name, value) in wrong {
        let answer = call(name, value);
        let (status, code, message) = error(&answer);
        assert_eq!(
            (status, code.as_str()),
            (403, "cross_site"),
            "{name}: {value}"
        );
        assert!(
            message.starts_with(&format!("`{name}: {value}`")),
            "{message}"
        );
        assert_no_permission_for_pages(&answer);
    }
    for (name, value) in [
        ("Origin", own.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Site", "none"),
    ] {
        let answer = call(name, value).ok();
        assert_no_permission_for_pages(&answer);
    }
    // One that fits does not make up for one that does not.
    let host = server.admin_address().to_string();
    let mixed = [("Origin", own.as_str()), ("Origin", "http://shop.test")];
    assert_eq!(
        server.admin_call("GET", "/v1/models", &mixed, b"").status,
        403
    );
    let rebound = [("Host", host.as_str()), ("Origin", "http://rebound.test")];
    assert_eq!(
        server.admin_call("GET", "/v1/models", &rebound, b"").status,
        403
    );
    // What a browser asks before it lets a page send a token.
    let preflight = [
        ("Origin", "http://shop.test"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "authorization"),
    ];
    let answer = server.admin_call("OPTIONS", ROLLBACK, &preflight, b"");
    assert_eq!(answer.status, 403);
    assert_no_permission_for_pages(&answer);
    assert_eq!(refusals(&server, "cross-site"), wrong.len() as f64 + 3.0);
}

#[test]
fn what_is_sent_must_say_what_it_is() {
    let server = Rerankd::start(&[]);
    let takes = "it must be `application/json` or `application/wasm` or `multipart/form-data`";
    let forms = [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json, text/plain",
        "",
    ];
    for method in ["POST", "PUT"] {
        for media in forms {
            // Before the token: without one it is the same.
            for authorization in [None, Some(("Authorization", "Bearer x"))] {
                let mut headers = vec![("Content-Type", media)];
                headers.extend(authorization);
                let answer = server.admin_call(method, ROLLBACK, &headers, b"{}");
                let said = format!("`Content-Type` is `{media}`; {takes}");
                let expected = (415, "unsupported_media_type".to_owned(), said);
                assert_eq!(error(&answer), expected, "{method} {media}");
            }
        }
        let answer = server.admin_call(method, ROLLBACK, &[], b"");
        let said = format!("`Content-Type` is missing; {takes}");
        assert_eq!(error(&answer).2, said);
        let twice = [JSON, ("Content-Type", "text/plain")];
        assert_eq!(
            server.admin_call(method, ROLLBACK, &twice, b"{}").status,
            415
        );
    }
    let expected = 2.0 * (2.0 * forms.len() as f64 + 2.0);
    assert_eq!(refusals(&server, "content-type"), expected);
    for media in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/wasm",
        "multipart/form-data; boundary=x",
    ] {
        let headers = [("Content-Type", media), ("Authorization", "Bearer x")];
        let answer = server.admin_call("POST", ROLLBACK, &headers, b"{}");
        assert_eq!(error(&answer).1, "token_unknown", "{media}");
    }
}

#[test]
fn routes_and_methods_that_are_not_there_are_said() {
    let server = Rerankd::start(&[]);
    let answer = server.admin_call("GET", "/v1/nothing", &[], b"");
    let (status, code, message) = error(&answer);
    assert_eq!((status, code.as_str()), (404, "not_found"));
    assert_eq!(
        message,
        "no route `GET /v1/nothing`; GET /v1/openapi.json says which there are"
    );
    let answer = server.admin_call("POST", "/metrics", &[JSON], b"{}");
    let (status, code, message) = error(&answer);
    assert_eq!((status, code.as_str()), (405, "method_not_allowed"));
    assert_eq!(
        message,
        "`/metrics` must not be called with POST; the header `Allow` has those that it may"
    );
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    // The data plane knows nothing of it.
    assert_eq!(server.get("/metrics").status, 404);
    let given = [("X-Request-Id", "order-66")];
    let answer = server.admin_call("GET", "/v1/nothing", &given, b"");
    assert_eq!(answer.json()["error"]["request_id"], "order-66");
}

/// A browser with nothing in it, which opens one page.
fn browser(folder: &Folder, more: &[&str], url: &str) -> Command {
    let profile = format!(
        "--user-data-dir={}",
        folder.path().join("profile").display()
    );
    let mut command = Command::new(require::browser());
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--disable-sync", &profile])
        .args(more)
        .arg(url)
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Serves `page` to whoever asks for `/`; what is asked for at `/done?..` comes out of the channel.
fn site(page: String) -> (SocketAddr, mpsc::Receiver<String>) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    let (sender, reports) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            let _ = lines.find(String::is_empty);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match path.split_once('?') {
                _ if path == "/" => ("200 OK", page.as_str()),
                Some(("/done", report)) => {
                    let _ = sender.send(report.to_owned());
                    ("200 OK", "")
                }
                _ => ("404 Not Found", ""),
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, reports)
}

#[test]
fn a_web_page_in_a_real_browser_changes_nothing_and_learns_nothing() {
    let server = Rerankd::start(&[]);
    let admin = format!("http://{}", server.admin_address());
    let before = server.admin_call("GET", "/v1/models", &[], b"").ok().body;
    // The page even knows the token.
    let page = r#"<!doctype html><iframe name=frame></iframe>
<form id=form method=post target=frame action="ADMIN/v1/policies/semantic-blend/rollback">
<input name='{"digest":"x","y' value='"}'></form>
<script>
const url = 'ADMIN/v1/policies/semantic-blend/rollback';
const models = 'ADMIN/v1/models';
const authorization = 'Bearer TOKEN';
const outcomes = [];
async function attempt(name, url, options) {
  try {
    const answer = await fetch(url, options);
    outcomes.push(name + '=' + answer.type);
  } catch (error) {
    outcomes.push(name + '=' + error.name);
  }
}
function submitted(encoding) {
  return new Promise(resolve => {
    document.querySelector('iframe').onload = resolve;
    const form = document.getElementById('form');
    form.enctype = encoding;
    form.submit();
  });
}
onload = async () => {
  await submitted('application/x-www-form-urlencoded');
  await submitted('text/plain');
  await submitted('multipart/form-data');
  outcomes.push('forms=sent');
  await attempt('text', url, {method: 'POST', mode: 'no-cors', body: '{}'});
  await attempt('image', models, {mode: 'no-cors'});
  await attempt('read', models, {});
  await attempt('token', models, {headers: {authorization}});
  const headers = {authorization, 'content-type': 'application/json'};
  await attempt('json', url, {method: 'POST', headers, body: '{}'});
  await attempt('put', 'ADMIN/v1/policies/evil', {method: 'PUT', headers, body: '{}'});
  await attempt('delete', 'ADMIN/v1/policies/first-stage/versions/x', {method: 'DELETE', headers});
  fetch('/done?' + outcomes.join('&'));
};
</script>"#;
    let page = page
        .replace("ADMIN", &admin)
        .replace("TOKEN", &server.admin_token());
    let (address, reports) = site(page);
    let folder = Folder::new();
    let mut browser = browser(&folder, &[], &format!("http://{address}/"));
    let mut browser = browser.stdout(Stdio::null()).spawn().expect("it runs");
    let report = reports.recv_timeout(PATIENCE);
    browser.kill().expect("it is our child");
    browser.wait().expect("it is our child");
    assert_eq!(
        report.as_deref(),
        Ok(
            "forms=sent&text=opaque&image=opaque&read=TypeError&token=TypeError&json=TypeError&put=TypeError&delete=TypeError"
        )
    );
    // Three forms, five requests that were sent, four questions whether more may be sent.
    assert_eq!(refusals(&server, "cross-site"), 3.0 + 3.0 + 4.0);
    let served = server.metric("rerankd_admin_refusals_total", &[]);
    assert_eq!(served, 10.0, "nothing got further than that");
    assert_eq!(
        server.admin_call("GET", "/v1/models", &[], b"").ok().body,
        before
    );
}

/// A server before an engine that answers everything.
fn before_an_engine(flags: &[&str]) -> (Rerankd, Upstream) {
    let upstream =
        Upstream::start(|_, stream| write_json(stream, "200 OK", "{\"hits\":\"secret\"}"));
    let url = upstream.url();
    let own = ["--upstream", &url, "--proxy-listen", "127.0.0.1:0"];
    (Rerankd::start(&[&own, flags].concat()), upstream)
}

/// One request with this `Host`.
fn call(address: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    let mut connection = Connection::open(address).expect("it listens");
    let headers = [("Host", host), JSON];
    let sent = connection.request(
        method,
        path,
        &headers,
        b"{\"query\":\"q\",\"documents\":[\"d\"]}",
    );
    let answer = connection.answer();
    answer.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error} ({sent:?})"))
}

#[test]
fn the_data_plane_answers_to_names_of_loopback_and_to_those_that_it_is_given() {
    let server = Rerankd::start(&["--allow-host", "Rerank.Shop,other.shop:8080"]);
    let address = server.address();
    let rank = |host: &str| call(address, "POST", "/v1/rerank/first-stage", host);
    for host in [
        "localhost",
        "LOCALHOST:1234",
        "app.localhost:9500",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]:9500",
        "10.1.2.3",
        "rerank.shop:1",
        "other.shop:8080",
    ] {
        rank(host).ok();
    }
    let wrong = [
        "rebound.test",
        "localhost.rebound.test:9500",
        "127.0.0.1.rebound.test",
        "other.shop",
        "x.rerank.shop",
        "",
    ];
    for host in wrong {
        let answer = rank(host);
        assert_eq!(answer.status, 403, "{host}");
        let message = answer.error_message();
        assert!(
            message.contains(&format!("`Host: {host}` is not allowed")),
            "{message}"
        );
        assert!(message.contains("--allow-host"), "{message}");
        let status = answer.header("rerank-status").expect("it has one");
        assert!(status.contains("reason=host-not-allowed"), "{status}");
    }
    let refused = [("protocol", "native"), ("reason", "host-not-allowed")];
    assert_eq!(
        server.metric("rerankd_requests_total", &refused),
        wrong.len() as f64
    );
    // For an operator who forgot one, once.
    let said = server
        .stderr()
        .matches("give the name to --allow-host")
        .count();
    assert_eq!(said, 1, "{}", server.stderr());
    // Each protocol says it in its own words, and so does what is none.
    for (method, path, shape) in [
        ("POST", "/rerank", "\"message\":\"`Host"),
        ("POST", "/inference/encoder/x", "`Host"),
        ("GET", "/info", "\"error_type\":\"Validation\""),
        ("GET", "/v1/models", "`Host"),
        ("GET", "/nowhere", "`Host"),
    ] {
        let answer = call(address, method, path, "rebound.test");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains(shape), "{path}: {}", answer.text());
        assert!(
            answer.text().contains("is not allowed"),
            "{}",
            answer.text()
        );
    }
    // A probe calls by any name.
    for path in ["/health/live", "/health/ready", "/health", "/ping", "/"] {
        call(address, "GET", path, "pod-7.rerank").ok();
    }
}

#[test]
fn off_loopback_names_count_only_where_some_are_given() {
    for (flags, status) in [(&[][..], 200), (&["--allow-host", "rerank.shop"], 403)] {
        let arguments = [&["serve", "--listen", "0.0.0.0:0", "--insecure"], flags].concat();
        let server = Rerankd::spawn(Rerankd::command(&arguments));
        let address = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
        let rank = |host: &str| call(address, "POST", "/v1/rerank/first-stage", host).status;
        assert_eq!(
            rank("rerank.prod.svc.cluster.local:9500"),
            status,
            "{flags:?}"
        );
        assert_eq!((rank("rerank.shop"), rank("10.0.0.7:9500")), (200, 200));
    }
}

#[test]
fn a_request_has_one_host_on_the_planes_for_applications_too() {
    let (server, upstream) = before_an_engine(&[]);
    for address in [server.address(), server.proxy_address()] {
        let status = |head: &str| {
            let mut connection = Connection::open(address).expect("it listens");
            let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
            connection.send(format!("{head}{end}")).expect("it is open");
            connection.answer().expect("it is answered").status
        };
        let own = format!("Host: {address}\r\n");
        assert_eq!(status("GET /v1/models HTTP/1.1\r\n"), 400);
        assert_eq!(
            status(&format!("GET /v1/models HTTP/1.1\r\n{own}{own}")),
            400
        );
        // A check of an old load balancer.
        assert_eq!(status("GET /v1/models HTTP/1.0\r\n"), 200);
        assert_eq!(status(&format!("GET /v1/models HTTP/1.1\r\n{own}")), 200);
    }
    assert_eq!(upstream.asked().len(), 2);
}

#[test]
fn the_proxy_asks_the_engine_nothing_for_a_name_that_is_not_its_own() {
    let (server, upstream) = before_an_engine(&["--proxy-allow-host", "search.shop"]);
    let address = server.proxy_address();
    for host in ["localhost:9200", "127.0.0.1", "[::1]", "search.shop:9200"] {
        call(address, "GET", "/products/_doc/1", host).ok();
    }
    assert_eq!(upstream.asked().len(), 4);
    for (method, path) in [
        ("GET", "/products/_doc/1"),
        ("POST", "/products/_search"),
        ("POST", "/_msearch"),
        ("GET", "/health/live"),
    ] {
        let answer = call(address, method, path, "rebound.test:9200");
        assert_eq!(answer.status, 403, "{path}");
        let body = answer.json();
        assert_eq!(body["status"], 403, "{body}");
        assert_eq!(body["error"]["root_cause"][0]["type"], "rerankd_exception");
        let reason = body["error"]["reason"].as_str().expect("it says why");
        assert!(
            reason.contains("`Host: rebound.test:9200` is not allowed"),
            "{reason}"
        );
        assert!(reason.contains("--proxy-allow-host"), "{reason}");
    }
    assert_eq!(upstream.asked().len(), 4);
    let refused = [("reason", "host-not-allowed")];
    assert_eq!(server.metric("rerankd_requests_total", &refused), 4.0);
    for flag in ["--allow-host", "--proxy-allow-host"] {
        let arguments = ["serve", "--listen", "127.0.0.1:0", flag, "http://x"];
        let refusal = Rerankd::run(Rerankd::command(&arguments));
        let said = format!("`http://x` ({flag}) must be a name or an address");
        assert!(refusal.stderr.contains(&said), "{refusal:?}");
    }
}

#[test]
fn a_name_rebound_to_loopback_gets_a_real_browser_nowhere() {
    let (server, upstream) = before_an_engine(&[]);
    let refused = |address: SocketAddr, path: &str, code: &str| {
        let shown = rebound(&format!("http://rebound.test:{}{path}", address.port()));
        assert!(shown.contains(code), "{shown}");
    };
    refused(server.admin_address(), "/v1/models", "host_not_allowed");
    assert!(refusals(&server, "host") >= 1.0);
    let message = "`Host: rebound.test";
    refused(server.address(), "/v1/models", message);
    refused(server.proxy_address(), "/products/_search", message);
    assert_eq!(upstream.asked().len(), 0);
}

/// What a real browser shows of a page under a name that was pointed at loopback.
fn rebound(url: &str) -> String {
    let folder = Folder::new();
    let rules = "--host-resolver-rules=MAP rebound.test 127.0.0.1";
    let mut browser = browser(&folder, &[rules, "--dump-dom"], url);
    let mut child = browser.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut stdout = child.stdout.take().expect("it is piped");
    let (sender, pages) = mpsc::channel();
    std::thread::spawn(move || {
        let mut page = String::new();
        let _ = stdout.read_to_string(&mut page);
        let _ = sender.send(page);
    });
    let shown = pages.recv_timeout(PATIENCE);
    // Fails only where it has ended already.
    let _ = child.kill();
    child.wait().expect("it is our child");
    shown.expect("the browser shows the page")
}

#[test]
fn a_head_is_all_that_it_reads_of_a_caller_it_does_not_know() {
    let server = Rerankd::start(&[]);
    let host = server.admin_address().to_string();
    let headers = [
        ("Host", host.as_str()),
        JSON,
        ("Content-Length", "1000000000"),
    ];
    let mut connection = Connection::open(server.admin_address()).expect("it listens");
    connection
        .send(http::head("PUT", "/v1/policies/x", &headers))
        .expect("it is open");
    let answer = connection.answer().expect("it is answered");
    assert_eq!(error(&answer).1, "token_missing");
    assert!(connection.is_closed_by_server());
}
