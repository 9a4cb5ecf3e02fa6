//! What docs/threat-model.md says that nobody can do, where no other test shows it already; and that
//! every test which that page names is there.

use std::path::{Path, PathBuf};

use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Answer, Folder, Rerankd, eventually, require};
use serde_json::{Value, json};

/// A server whose policies are these faulty guests, in a folder that it goes on watching.
fn serve(folder: &Folder, guests: &[&str], flags: &[&str]) -> Rerankd {
    folder.write("policies/README.md", "");
    for name in guests {
        folder.copy(&require::faulty(name), &format!("policies/{name}.wasm"));
    }
    let policies = folder.path().join("policies");
    let policies = policies.to_str().expect("the path is UTF-8");
    Rerankd::start(&[&["--policies", policies], flags].concat())
}

fn upload(server: &Rerankd, path: &str, token: &str, component: &[u8]) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Content-Type", "application/wasm"),
        ("Authorization", bearer.as_str()),
    ];
    server.admin_call("PUT", path, &headers, component)
}

fn faulty(name: &str) -> Vec<u8> {
    std::fs::read(require::faulty(name)).expect("it is there")
}

/// A new token's text.
fn token(server: &Rerankd, name: &str, policies: &str, rights: &str) -> String {
    let data = server.data_dir().to_str().expect("the path is UTF-8");
    let made: Refusal = Rerankd::run(Rerankd::command(&[
        "token",
        "new",
        name,
        "--policies",
        policies,
        "--rights",
        rights,
        "--data-dir",
        data,
    ]));
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout.trim_end().to_owned()
}

fn get(server: &Rerankd, path: &str, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    // A stream of events ends with its connection.
    let headers = [("Authorization", bearer.as_str()), ("Connection", "close")];
    server.admin_call("GET", path, &headers, b"")
}

fn post(server: &Rerankd, path: &str, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", bearer.as_str()),
    ];
    server.admin_call("POST", path, &headers, body.to_string().as_bytes())
}

/// The refusal's status and message.
#[track_caller]
fn refused(answer: &Answer) -> (u16, String) {
    let message = answer.json()["error"]["message"].clone();
    let message = message.as_str().expect("an error has a message").to_owned();
    (answer.status, message)
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let page = require::root().join("docs/threat-model.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let mut named = 0;
    for code in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = code.split_once(".rs::") else {
            continue;
        };
        let path = match file.contains('/') {
            true => format!("{file}.rs"),
            false => format!("tests/tests/{file}.rs"),
        };
        let source = std::fs::read_to_string(require::root().join(&path))
            .unwrap_or_else(|error| panic!("`{code}`: {path}: {error}"));
        let before = source
            .split_once(&format!("fn {test}("))
            .map(|(before, _)| before);
        let above = before.and_then(|before| before.trim_end().rsplit('\n').next());
        assert!(
            above.is_some_and(|line| line.starts_with('#') || line.ends_with("#[test]")),
            "`{code}` is no test in {path}"
        );
        named += 1;
    }
    assert!(named > 40, "only {named}: does this test see any?");
}

/// At the loudest, with document text in everything that a policy can say.
#[test]
fn what_a_policy_says_is_for_who_has_texts_and_never_in_the_log() {
    let folder = Folder::new();
    let server = serve(
        &folder,
        &["echo", "many-logs", "panic"],
        &["--log", "trace"],
    );
    let reader = token(&server, "reader", "*", "read,push,activate,metrics");
    let author = token(&server, "author", "*", "read,texts");
    let request = json!({
        "query": "hidden-query", "explain": true, "signals": {"user": "hidden-user"},
        "documents": [{"id": "hidden-id", "score": 1, "fields": {"title": "hidden-title"}}],
    });
    for policy in ["echo", "many-logs", "panic"] {
        let answer = server.post(&format!("/v1/rerank/{policy}"), &request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // What the log has of requests is there by now: each call was answered.
    let said = |policy: &str, token: &str| {
        let path = format!("/v1/policies/{policy}");
        get(&server, &path, token).ok().text().to_owned()
    };
    let admin = server.admin_token();
    for (policy, words) in [
        ("panic", "cannot rank 1 documents"),
        ("many-logs", "xxxxxxxx"),
    ] {
        for token in [&admin, &author] {
            let to_author = said(policy, token);
            assert!(to_author.contains(words), "{to_author}");
        }
        let to_reader = said(policy, &reader);
        assert!(!to_reader.contains(words), "{to_reader}");
        // The reader sees that there was something.
        assert!(to_reader.contains("\"calls\":1"), "{to_reader}");
    }
    let metrics = get(&server, "/metrics", &admin).ok();
    // The fault is of the last call: what came before it in the log is there, too.
    let log = eventually("the log speaks of the fault", || {
        let log = server.stderr();
        log.contains("policy fault").then_some(log)
    });
    for text in ["hidden-", "cannot rank", "xxxxxxxx", "examples/panic.rs"] {
        assert!(!log.contains(text), "the log has `{text}`");
        assert!(!metrics.text().contains(text), "the metrics have `{text}`");
    }
    for secret in [&admin, &reader] {
        assert!(!log.contains(secret.as_str()), "the log has a token");
    }
}

/// `describe` sees no document, but a line of the log shall be the host's, word for word.
#[test]
fn what_a_refused_component_said_is_not_in_the_log() {
    let folder = Folder::new();
    let server = serve(&folder, &[], &["--log", "trace"]);
    let (admin, reader) = (server.admin_token(), token(&server, "reader", "*", "read"));
    let answer = upload(
        &server,
        "/v1/policies/unknown-key",
        &admin,
        &faulty("unknown-key"),
    );
    let (status, message) = refused(&answer);
    assert_eq!(status, 422, "{message}");
    assert!(message.contains("unknown field `moon`"), "{message}");
    // The same by way of the folder, where nobody waits for an answer.
    folder.copy(&require::faulty("unknown-key"), "policies/unknown-key.wasm");
    let log = eventually("the file is refused", || {
        let log = server.stderr();
        let refused = "a file of a policy folder was refused";
        log.contains(refused).then_some(log)
    });
    assert!(!log.contains("moon"), "{log}");
    let events = |token: &str| {
        let answer = get(&server, "/v1/events?follow=false", token).ok();
        answer.text().to_owned()
    };
    let shown = events(&admin);
    assert_eq!(shown.matches("`moon`").count(), 2, "{shown}");
    // Who tried, too.
    for who in ["admin", "folder"] {
        assert!(shown.contains(&format!("\"who\":\"{who}\"")), "{shown}");
    }
    let withheld = events(&reader);
    assert_eq!(withheld.matches("event: refused").count(), 2, "{withheld}");
    assert!(!withheld.contains("moon"), "{withheld}");
}

#[test]
fn each_right_reaches_as_far_as_its_name_says() {
    let folder = Folder::new();
    let server = serve(&folder, &["echo"], &[]);
    let reader = token(&server, "reader", "*", "read,texts");
    let monitor = token(&server, "monitor", "*", "metrics");
    let pusher = token(&server, "pusher", "panic", "push");
    let switcher = token(&server, "switcher", "panic", "activate");
    let component = faulty("panic");
    let forbidden = |answer: &Answer, right: &str| {
        let (status, message) = refused(answer);
        assert_eq!(status, 403, "{message}");
        assert!(
            message.contains(&format!("has not the right `{right}` on ")),
            "{message}"
        );
    };
    // What needs a right that the token has not.
    for token in [&reader, &switcher, &monitor] {
        let answer = upload(&server, "/v1/policies/panic", token, &component);
        forbidden(&answer, "push");
    }
    let answer = upload(
        &server,
        "/v1/policies/panic?activate=true",
        &pusher,
        &component,
    );
    forbidden(&answer, "activate");
    assert_eq!(
        get(&server, "/v1/policies/panic", &server.admin_token()).status,
        404
    );
    for token in [&pusher, &switcher, &monitor] {
        forbidden(&get(&server, "/v1/policies/panic", token), "read");
    }
    for token in [&reader, &pusher, &switcher] {
        forbidden(&get(&server, "/metrics", token), "metrics");
    }
    get(&server, "/metrics", &monitor).ok();
    // What it has, on a policy that is none of its own.
    let answer = upload(&server, "/v1/policies/echo", &pusher, &faulty("echo"));
    forbidden(&answer, "push");
    // What it has, where it has it.
    let pushed = upload(&server, "/v1/policies/panic", &pusher, &component);
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    let digest = pushed.json()["digest"].clone();
    let which = json!({"digest": digest});
    for role in ["activate", "shadow"] {
        let path = format!("/v1/policies/panic/{role}");
        for token in [&reader, &pusher] {
            forbidden(&post(&server, &path, token, &which), "activate");
        }
    }
    let rollback = post(&server, "/v1/policies/panic/rollback", &pusher, &json!({}));
    forbidden(&rollback, "activate");
    let request = json!({"query": "q", "documents": ["d"]});
    assert_eq!(server.post("/v1/rerank/panic", &request).status, 404);
    post(&server, "/v1/policies/panic/activate", &switcher, &which).ok();
    server.post("/v1/rerank/panic", &request).ok();
}

#[test]
fn no_release_and_no_request_reaches_beyond_the_operators_grants() {
    let folder = Folder::new();
    let config = folder.write(
        "rerankd.toml",
        "[policies.echo]\ngrants = [\"title\", \"text\"]\n",
    );
    let config = config.to_str().expect("the path is UTF-8");
    let server = serve(&folder, &["echo"], &["--config", config]);
    let request = json!({
        "query": "q", "explain": true, "fields": ["title", "price"],
        "documents": [{"fields": {"title": "Clog", "price": 29.9}}],
    });
    let answer = server.post("/v1/rerank/echo", &request).ok();
    assert!(answer.text().contains("Clog"), "{}", answer.text());
    assert!(!answer.text().contains("29.9"), "{}", answer.text());
    let path = "/v1/policies/echo?grant=title&grant=text&grant=price";
    let answer = upload(&server, path, &server.admin_token(), &faulty("echo"));
    let (status, message) = refused(&answer);
    assert_eq!(status, 422, "{message}");
    assert!(
        message.contains("`price`") && message.contains("(by the configuration)"),
        "{message}"
    );
    // Fewer than its manifest asks for: it would not see what it was written for.
    let path = "/v1/policies/echo?grant=title";
    let answer = upload(&server, path, &server.admin_token(), &faulty("echo"));
    assert_eq!(refused(&answer).0, 422, "{}", answer.text());
}

/// A component that fits the world, and has a module in it that takes long to compile: functions of
/// so many steps, each of which needs the one before. One function is compiled by one thread.
fn bomb(functions: usize, steps: u32) -> Vec<u8> {
    let mut body = vec![0]; // no locals beside its two parameters
    for step in 0..steps {
        let (one, other) = ((step % 2) as u8, ((step + 1) % 2) as u8);
        // one = (one * other) ^ other
        body.extend([0x20, one, 0x20, other, 0x7e, 0x20, other, 0x85, 0x21, one]);
    }
    body.extend([0x20, 0, 0x0b]);
    let mut code = leb128(functions);
    for _ in 0..functions {
        code.extend(leb128(body.len()));
        code.extend(&body);
    }
    let mut types_of = leb128(functions);
    types_of.resize(types_of.len() + functions, 0);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // (i64, i64) -> i64
    let types = vec![1, 0x60, 2, 0x7e, 0x7e, 1, 0x7e];
    for (id, content) in [(1, types), (3, types_of), (10, code)] {
        module.push(id);
        module.extend(leb128(content.len()));
        module.extend(content);
    }
    let whole = require::policies().join("first-stage.wasm");
    let mut component = std::fs::read(whole).expect("it is there");
    component.push(1);
    component.extend(leb128(module.len()));
    component.extend(module);
    component
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The process that compiles for a server, if there is one.
fn compiling(server: u32) -> Option<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("this is Linux");
    processes
        .flatten()
        .map(|entry| entry.path())
        .find(|process| {
            let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
            let stat = read("stat");
            let parent = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.split(' ').nth(1));
            parent == Some(&server.to_string()) && read("cmdline").contains("\0compile\0")
        })
}

#[test]
#[cfg(target_os = "linux")]
fn a_component_that_compiles_for_ever_ends_at_the_limit_and_holds_up_no_search() {
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    let text = |name: &str| {
        let path = folder.path().join(name);
        path.to_str().expect("the path is UTF-8").to_owned()
    };
    let (policies, data) = (text("policies"), text("data"));
    let flags = ["--policies", &policies, "--data-dir", &data];
    // The bundled policies are compiled without such a limit.
    drop(Rerankd::start(&flags));
    // Far less than the time that it takes, on any machine.
    let limit = [
        "--compile-timeout-ms",
        "2500",
        "--compile-memory-mib",
        "16384",
    ];
    let server = Rerankd::start(&[&flags[..], &limit].concat());
    let request = json!({"query": "smart watch", "documents": ["a watch", "a strap"]});
    let before = server.post("/v1/rerank/semantic-blend", &request).ok();
    let admin = server.admin_token();
    std::thread::scope(|scope| {
        let path = "/v1/policies/first-stage?activate=true";
        let uploading = scope.spawn(|| upload(&server, path, &admin, &bomb(4, 600_000)));
        let child = eventually("it is compiled", || compiling(server.id()));
        // It has taken its limits once it has the lowest priority and runs on idle cores only (class 5).
        eventually("it has taken its limits", || {
            let stat = std::fs::read_to_string(child.join("stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
            (fields[16] == "19" && fields[38] == "5").then_some(())
        });
        let environment = std::fs::read(child.join("environ")).expect("it runs");
        // One thread, and nothing of the server's own environment.
        assert_eq!(
            String::from_utf8_lossy(&environment),
            "RAYON_NUM_THREADS=1\0"
        );
        let limits = std::fs::read_to_string(child.join("limits")).expect("it runs");
        for limited in ["Max core file size", "Max file size"] {
            let line = limits.lines().find(|line| line.starts_with(limited));
            let value = line.and_then(|line| line[limited.len()..].split_whitespace().next());
            assert_eq!(value, Some("0"), "{limits}");
        }
        let mut meanwhile = 0;
        while !uploading.is_finished() {
            let answer = server.post("/v1/rerank/semantic-blend", &request).ok();
            assert_eq!(answer.json()["results"], before.json()["results"]);
            meanwhile += usize::from(!uploading.is_finished());
        }
        assert!(meanwhile > 0, "no search was answered while it compiled");
        let (status, message) = refused(&uploading.join().expect("it does not panic"));
        assert_eq!(status, 422, "{message}");
        assert!(message.contains("it took more than 2.5s"), "{message}");
    });
    eventually("the process is gone", || {
        compiling(server.id()).is_none().then_some(())
    });
    server.post("/v1/rerank/first-stage", &request).ok();
}

#[test]
fn a_component_that_takes_much_memory_to_compile_ends_at_the_limit() {
    let server = serve(&Folder::new(), &[], &["--compile-memory-mib", "128"]);
    let path = "/v1/policies/first-stage";
    let answer = upload(&server, path, &server.admin_token(), &bomb(2, 200_000));
    let (status, message) = refused(&answer);
    assert_eq!(status, 422, "{message}");
    assert!(message.contains("more than 128 MiB of memory"), "{message}");
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let below = |path: PathBuf| match path.is_dir() {
        true => [vec![path.clone()], files(&path)].concat(),
        false => vec![path],
    };
    paths.flat_map(below).collect()
}

#[test]
fn all_that_a_server_keeps_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let server = Rerankd::start(&[]);
    token(&server, "reader", "*", "read");
    let kept = files(server.data_dir());
    for part in [
        "admin-token",
        "tokens.json",
        "components/",
        "compiled/",
        "models/",
    ] {
        let there = kept
            .iter()
            .any(|path| path.to_string_lossy().contains(part));
        assert!(there, "no {part} in {kept:?}");
    }
    for path in kept {
        let mode = std::fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
}

/// The compiled code of the three bundled policies.
fn compiled_code(server: &Rerankd) -> Vec<PathBuf> {
    let mut compiled = files(&server.data_dir().join("compiled"));
    compiled.retain(|path| path.extension().is_some_and(|it| it == "cwasm"));
    assert_eq!(compiled.len(), 3, "{compiled:?}");
    compiled
}

#[test]
#[cfg(target_os = "linux")]
fn a_compilation_that_is_killed_from_outside_is_no_limit_of_its_own() {
    let server = serve(&Folder::new(), &[], &["--compile-memory-mib", "16384"]);
    let admin = server.admin_token();
    std::thread::scope(|scope| {
        let path = "/v1/policies/first-stage";
        let uploading = scope.spawn(|| upload(&server, path, &admin, &bomb(2, 600_000)));
        let child = eventually("it is compiled", || compiling(server.id()));
        let id = child.file_name().expect("it has one").to_owned();
        let killed = std::process::Command::new("kill")
            .arg("-9")
            .arg(id)
            .status();
        assert!(killed.expect("there is a `kill`").success());
        let (status, message) = refused(&uploading.join().expect("it does not panic"));
        assert_eq!(status, 422, "{message}");
        assert!(message.contains("killed from outside"), "{message}");
        assert!(!message.contains("CPU"), "{message}");
    });
}

/// Not only what shows by itself: any bit.
#[test]
fn compiled_code_with_a_bit_that_flipped_is_made_anew() {
    let mut server = Rerankd::start(&[]);
    let request = json!({"query": "smart watch", "documents": ["a watch", "a strap"]});
    let ranked = |server: &Rerankd| {
        let answer = server.post("/v1/rerank/semantic-blend", &request).ok();
        let body = answer.json();
        (body["version"].clone(), body["results"].clone())
    };
    let before = ranked(&server);
    for part in 1..3 {
        server.kill();
        let compiled = compiled_code(&server);
        for path in &compiled {
            let mut code = std::fs::read(path).expect("it is there");
            let at = code.len() * part / 3;
            code[at] ^= 1 << part;
            std::fs::write(path, code).expect("it is ours");
        }
        server.restart();
        assert_eq!(ranked(&server), before);
        eventually("the log says so of each", || {
            let said = server.stderr();
            (said.matches("compiled code is made anew").count() >= 3).then_some(())
        });
    }
    // And the model that came with it.
    server.kill();
    let graphs = files(&server.data_dir().join("models"));
    let mut flipped = 0;
    for path in graphs.iter().filter(|path| path.is_file()) {
        let mut bytes = std::fs::read(path).expect("it is there");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("it is ours");
        flipped += 1;
    }
    assert!(flipped > 2, "{graphs:?}");
    server.restart();
    assert_eq!(ranked(&server), before);
    eventually("the log says so", || {
        let said = server.stderr();
        said.contains("a kept model is copied anew").then_some(())
    });
    let kept = files(&server.data_dir().join("models"));
    for path in kept.iter().filter(|path| path.is_file()) {
        let name = path
            .parent()
            .and_then(Path::file_name)
            .expect("it lies in its model's folder");
        let own =
            require::model(&name.to_string_lossy()).join(path.file_name().expect("it has one"));
        let own = std::fs::read(own).expect("the model is there");
        assert!(
            std::fs::read(path).expect("it is there") == own,
            "{}",
            path.display()
        );
    }
}

#[test]
fn compiled_code_that_turned_to_garbage_is_made_anew() {
    let mut server = Rerankd::start(&[]);
    let request = json!({"query": "smart watch", "documents": ["a watch", "a strap"]});
    let ranked = |server: &Rerankd| {
        let answer = server.post("/v1/rerank/semantic-blend", &request).ok();
        let body = answer.json();
        (body["version"].clone(), body["results"].clone())
    };
    let before = ranked(&server);
    server.kill();
    let compiled = compiled_code(&server);
    for (path, garbage) in compiled.iter().zip(["", "hello", "\x7fELF\x02\x01\x01"]) {
        std::fs::write(path, garbage).expect("it is ours");
    }
    server.restart();
    assert_eq!(ranked(&server), before);
    eventually("the log says so of each", || {
        let said = server.stderr();
        (said.matches("compiled code is made anew").count() == 3).then_some(())
    });
    for path in compiled {
        assert!(std::fs::metadata(&path).is_ok_and(|file| file.len() > 10_000));
    }
}

#[test]
fn a_token_in_the_environment_is_not_printed() {
    let server = Rerankd::start(&[]);
    let secret = "rkd_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let url = format!("http://{}", server.admin_address());
    for arguments in [
        &["policy", "list", "--to", &url][..],
        &["policy", "list", "--to", &url, "--json"],
        &["policy", "list", "--help"],
        &["policy", "push", "--help"],
    ] {
        let mut command = Rerankd::command(arguments);
        command.env("RERANKD_TOKEN", secret);
        let ended = Rerankd::run(command);
        assert!(!ended.stdout.contains(secret), "{ended:?}");
        assert!(!ended.stderr.contains(secret), "{ended:?}");
    }
    assert!(!server.stderr().contains(secret), "{}", server.stderr());
}
