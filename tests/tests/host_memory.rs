//! What a policy makes the host hold is bounded, whatever it asks for; and what it says is short.

use std::sync::LazyLock;

use rerankd_tests::admin::{assert_refused, error};
use rerankd_tests::components::{bundled, faulty};
use rerankd_tests::documents::scored_texts;
use rerankd_tests::rerankd::only_policies;
use rerankd_tests::{Answer, Deployment, Folder, Rerankd, documents, eventually};
use serde_json::{Value, json};

/// Limits that are soon reached; time is none of them.
const LIMITS: [&str; 14] = [
    "--guest-host-mib",
    "64",
    "--guest-tensor-mib",
    "1024",
    "--guest-memory-mib",
    "64",
    "--max-instances",
    "4",
    "--guest-cpu-ms",
    "20000",
    "--guest-host-calls",
    "100000000",
    "--timeout-ms",
    "60000",
];

/// What one call may add to the server's memory, kB: what the host holds for it, its own memory, what
/// it passes in one call and that once more as elements, and 32 MiB for rows that run.
const ONE_CALL_KB: u64 = (64 + 64 + 2 * 17 + 32) << 10;

/// A server with `hoards` and `semantic-blend`.
fn serve() -> Deployment {
    let folder = Folder::new();
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).expect("the folder is new");
    let listen = ["serve", "--listen", "127.0.0.1:0"];
    let arguments = [&listen[..], &only_policies(&policies), &LIMITS].concat();
    let mut command = Rerankd::command(&arguments);
    // So that what the allocator keeps of freed memory does not depend on the number of cores.
    command.env("MALLOC_ARENA_MAX", "2");
    let server = Deployment::of(Rerankd::spawn(command), folder);
    for (name, component) in [
        ("semantic-blend", bundled("semantic-blend")),
        ("hoards", faulty("hoards")),
    ] {
        server.release(name, &component, "activate=true");
    }
    // What every server has after its first searches.
    let request = json!({"query": "smart watch", "documents": scored_texts(50)});
    let answer = server.post("/v1/rerank/semantic-blend", &request).ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
    server
}

static SERVER: LazyLock<Deployment> = LazyLock::new(serve);

/// The most memory that a server has had, kB, where the system says so.
fn peak_kb(server: &Deployment) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn request(case: &str, n: u64, times: u64) -> Value {
    json!({
        "query": "smart watch",
        "explain": true,
        "on_failure": "error",
        "parameters": {"case": case, "n": n, "times": times},
        "documents": scored_texts(3),
    })
}

fn hoard(server: &Deployment, case: &str, n: u64, times: u64) -> Answer {
    server.post("/v1/rerank/hoards", &request(case, n, times))
}

#[test]
fn a_call_holds_no_more_than_it_may_whatever_it_asks_for() {
    let server = serve();
    let before = peak_kb(&server);
    let host = "it had the host hold more than 64 MiB (--guest-host-mib)";
    let passed = "it passed more than 16 MiB to the host in one call, or as its result";
    let cases: [(&str, u64, u64, &str, &str); 11] = [
        (
            "rows",
            1_000_000,
            1,
            "rows",
            "it gave 1000000 rows to one `compute`; at most 64000 are taken",
        ),
        // Outputs are 128 times the inputs.
        ("rows", 64_000, 1, "host-bytes", host),
        (
            "texts",
            100_000,
            4,
            "rows",
            "it gave 100000 rows to one `encode`; at most 64000 are taken",
        ),
        ("texts", 50_000, 100, "host-bytes", host),
        ("tensors", 8_000_000, 100, "host-bytes", host),
        (
            "dimensions",
            4_000_000,
            20,
            "bad-tensor",
            "it made a tensor that is none: it has 4000000 dimensions; at most 16 are taken",
        ),
        ("internal", 40_000_000, 1, "passed-bytes", passed),
        ("panic", 20_000_000, 1, "passed-bytes", passed),
        // Nothing is wrong with these.
        ("names", 15_000_000, 50, "", ""),
        ("copies", 15_000_000, 20, "", ""),
        ("logs", 15_000_000, 20, "", ""),
    ];
    for (case, n, times, fault, message) in cases {
        let faults = || {
            let labels = [("policy", "hoards"), ("fault", fault)];
            server.metric("rerankd_policy_faults_total", &labels)
        };
        let faults_before = if fault.is_empty() { 0.0 } else { faults() };
        let answer = hoard(&server, case, n, times);
        if fault.is_empty() {
            assert_eq!(answer.ok().parameter("status"), Some("applied"), "{case}");
            continue;
        }
        let text = answer.error_message();
        assert_eq!(
            (answer.status, answer.parameter("reason")),
            (424, Some("policy-fault")),
            "{case}: {text}"
        );
        assert!(text.ends_with(message), "{case}: {text}");
        assert_eq!(faults() - faults_before, 1.0, "{case}: {fault}");
    }
    if let (Some(before), Some(after)) = (before, peak_kb(&server)) {
        let grown = after - before;
        assert!(grown <= ONE_CALL_KB, "{grown} kB, not {ONE_CALL_KB} kB");
    }
    // All of it was given back.
    let held = || server.metric("rerankd_guest_host_bytes", &[]);
    eventually("nothing is held", || (held() == 0.0).then_some(()));
    let refused = [("bound", "call")];
    let refused = server.metric("rerankd_guest_host_bytes_refused_total", &refused);
    assert_eq!(refused, 3.0);
}

#[test]
fn a_policy_that_holds_all_that_it_may_takes_nothing_from_others() {
    let server = serve();
    let held = || server.metric("rerankd_guest_host_bytes", &[]);
    let bound = server.metric("rerankd_guest_host_bytes_limit", &[]);
    assert_eq!(bound, f64::from((4 + 4) * 4 + 2 * 64) * f64::from(1 << 20));
    let mut hoarding = request("tensors", 8_000_000, 7);
    hoarding["timeout_ms"] = json!(3000);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.post("/v1/rerank/hoards", &hoarding));
        eventually("the first call holds its tensors", || {
            (held() > 56e6).then_some(())
        });
        // With the first call the policy has nearly half of the pool, which is all that it may.
        let second = server.post("/v1/rerank/hoards", &hoarding);
        let text = second.error_message();
        assert_eq!(second.status, 429, "{text}");
        assert_eq!(second.header("retry-after"), Some("1"));
        assert!(
            text.contains("may hold no more on the host than is left for others, of 128 MiB"),
            "{text}"
        );
        let request = json!({"query": "smart watch", "documents": scored_texts(100)});
        let neighbour = server.post("/v1/rerank/semantic-blend", &request).ok();
        assert_eq!(neighbour.parameter("status"), Some("applied"));
        let first = first.join().expect("the client does not panic");
        assert_eq!(first.parameter("reason"), Some("deadline-exceeded"));
    });
    assert!(held() < bound);
    eventually("nothing is held", || (held() == 0.0).then_some(()));
    let refused = [("bound", "pool")];
    let refused = server.metric("rerankd_guest_host_bytes_refused_total", &refused);
    assert_eq!(refused, 1.0);
}

/// So that a policy that leaks is taken back, whichever of its calls comes first to which bound.
#[test]
fn a_call_that_holds_much_itself_where_no_more_is_left_ends_in_its_own_fault() {
    let server = serve();
    let held = || server.metric("rerankd_guest_host_bytes", &[]);
    let mut holding = request("tensors", 8_000_000, 4);
    holding["timeout_ms"] = json!(2000);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.post("/v1/rerank/hoards", &holding));
        eventually("the first call holds its tensors", || {
            (held() > 32e6).then_some(())
        });
        let second = hoard(&server, "tensors", 8_000_000, 7);
        let text = second.error_message();
        assert_eq!(second.status, 424, "{text}");
        assert!(
            text.contains("above 16 MiB one call answers for that"),
            "{text}"
        );
        first.join().expect("the client does not panic");
    });
    let labels = [("policy", "hoards"), ("fault", "host-bytes")];
    assert_eq!(server.metric("rerankd_policy_faults_total", &labels), 1.0);
}

/// Longest answer about one error of a policy, bytes: its text of 1 KiB, more than once, and what is
/// around it.
const SHORT: usize = 8 << 10;

#[track_caller]
fn assert_short(answer: &Answer) {
    let text = answer.text();
    assert!(text.len() <= SHORT, "{} bytes", text.len());
    assert!(!text.contains("\\u0001"), "{text}");
}

#[test]
fn what_a_policy_says_is_short_on_every_route() {
    let server = &*SERVER;
    for (case, status) in [("internal", 424), ("panic", 424), ("invalid", 400)] {
        let answer = hoard(server, case, 8_000_000, 1);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.error_message().contains("\u{fffd}\u{fffd}"));
        assert_short(&answer);
    }
    let explained = hoard(server, "explains", 4_000_000, 1).ok();
    assert_eq!(explained.parameter("status"), Some("partial"));
    assert_short(&explained);

    // The other routes have no place for parameters: the operator's.
    let said = json!({"case": "internal", "n": 8_000_000, "times": 1});
    let query = rerankd_tests::admin::parameters(&said);
    server.release(
        "hoards",
        &faulty("hoards"),
        &format!("activate=true&{query}"),
    );
    let response = documents::recorded("chorus-smart-watch");
    let page =
        format!(r#"{{"query": "smart watch", "on_failure": "error", "response": {response}}}"#);
    let hits = server.post_text("/v1/rerank/hoards/hits", page);
    let texts = json!({"model": "hoards", "query": "smart watch", "documents": ["one", "two"]});
    for answer in [
        hits,
        server.post("/v2/rerank", &texts),
        server.post("/v1/rerank", &texts),
    ] {
        assert_short_error(&answer);
    }
    // Its pushers read its faults and its log.
    hoard(server, "logs", 1_000_000, 5).ok();
    let detail = server
        .admin_call("GET", "/v1/policies/hoards", &[], b"")
        .ok();
    let detail = detail.text();
    assert!(detail.contains("\u{fffd}\u{fffd}") && !detail.contains("\\u0001"));
    assert!(detail.len() < 64 << 10, "{} bytes", detail.len());
    // The report of its cases, and the event of the refusal.
    let case = |name: &str| json!({"name": name, "request": request("internal", 8_000_000, 1), "expect": {"status": "applied"}});
    let cases = json!({"cases": [case("one"), case("two")]}).to_string();
    let component = faulty("hoards");
    let parts = [("component", &component[..]), ("cases", cases.as_bytes())];
    let refused = server.push_form("hoards", "", &parts);
    assert_refused(&refused, 422, "cases", &["`one`: ", "\u{fffd}\u{fffd}"]);
    assert_short(&refused);
    assert!(error(&refused).message.len() <= SHORT);
    for event in server.events("", &[]) {
        let length = event.data.to_string().len();
        assert!(length <= SHORT, "{}: {length} bytes", event.kind);
    }
}

#[track_caller]
fn assert_short_error(answer: &Answer) {
    assert!(answer.status >= 400, "{}", answer.text());
    assert_short(answer);
}
