//! `rerankd policy` against a real server: what each command changes there, what it says to people and
//! to programs, and how a script learns that the server said no.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};

use rcgen::CertifiedKey;
use rerankd_tests::rerankd::only_policies;
use rerankd_tests::{Folder, PATIENCE, Rerankd, require};
use serde_json::{Value, json};

/// A server without any policy, and the commands that go to it.
struct Server {
    server: Rerankd,
    _policies: Folder,
}

impl Server {
    fn start() -> Self {
        let policies = Folder::new();
        Self {
            server: Rerankd::start(&only_policies(policies.path())),
            _policies: policies,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Rerankd::command(&[&["policy"], arguments].concat());
        command
            .env("RERANKD_ADMIN", self.url())
            .env("RERANKD_TOKEN", self.server.admin_token());
        command
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.admin_address())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments))
    }

    /// What a command that went well printed.
    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_code(&output, 0);
        stdout(&output)
    }

    /// The same for programs.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_code(&output, 0);
        json_of(&output)
    }

    /// What a command said that the server refused: to people, and the error for programs.
    #[track_caller]
    fn refusal(&self, arguments: &[&str]) -> (String, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_code(&output, 1);
        (stderr(&output), json_of(&output)["error"].take())
    }
}

fn output(mut command: Command) -> Output {
    command.output().expect("the binary is executable")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let said = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{said:?}");
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", stdout(output)))
}

#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected `{part}` in: {said}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

fn component(name: &str) -> PathBuf {
    require::policies().join(format!("{name}.wasm"))
}

/// The first eight digits of an answer's digest.
fn short(answer: &Value) -> String {
    let digest = answer["digest"].as_str().expect("there is a digest");
    digest[..8].to_owned()
}

#[test]
fn a_push_stages_and_says_so() {
    let server = Server::start();
    let path = component("first-stage");
    let file = text(&path);
    let pushed = server.text(&["push", file]);
    let first = server.json(&["push", file]);
    let label = format!("first-stage: 0.1.0@{} is staged", short(&first));
    assert_says(&pushed, &[&label, "cases: ", " passed\n"]);
    assert!(!pushed.contains("it was there"), "{pushed}");
    assert_eq!(
        (&first["created"], &first["state"]),
        (&json!(false), &json!("staged"))
    );
    let (total, passed) = (&first["cases"]["total"], &first["cases"]["passed"]);
    assert!(total == passed && total.as_u64() >= Some(4), "{first}");

    let active = server.text(&["push", file, "--activate"]);
    assert_says(&active, &[" is active (it was there)\n"]);

    // The same version string, of other bytes.
    let folder = Folder::new();
    let mut other = std::fs::read(&path).expect("it was built");
    other.extend(b"\x00\x05\x04more");
    let other = folder.write("first-stage.wasm", other);
    let (said, error) = server.refusal(&["push", text(&other), "--activate"]);
    assert_says(
        &said,
        &[
            "policy `first-stage` has a version `0.1.0` already",
            "another version",
        ],
    );
    assert_eq!(error["code"], "conflict");
    assert!(error["request_id"].is_string(), "{error}");
    let (said, error) = server.refusal(&["push", file, "--name", "other"]);
    assert_says(&said, &["step `describe`: it calls itself `first-stage`"]);
    assert_eq!(
        (&error["code"], &error["step"]),
        (&json!("refused"), &json!("describe"))
    );
}

#[test]
fn a_push_takes_parameters_grants_models_and_cases_along() {
    let server = Server::start();
    let path = component("semantic-blend");
    let file = text(&path);
    let push = ["push", file, "--parameters", "{\"weight\": 0.25}"];
    let more = ["--grant", "title", "--grant", "text", "--grant", "a&b=c"];
    let first = server.json(&[&push[..], &more].concat());
    let detail = server.json(&["list", "semantic-blend"]);
    let version = &detail["versions"][0];
    assert_eq!(version["digest"], first["digest"]);
    assert_eq!(version["parameters"], json!({"weight": 0.25}));
    assert_eq!(version["grants"], json!(["a&b=c", "text", "title"]));
    let model = &version["models"]["bi-encoder"]["name"];
    assert_eq!(model, "all-minilm-l6-v2");
    let total = first["cases"]["total"].as_u64();
    assert!(total >= Some(4), "{first}");

    // Cases beside it take the place of its own. A query can carry the parameters as well as a form.
    let folder = Folder::new();
    let case = |order: Value| {
        let documents = json!([{"id": "a", "score": 1.0, "fields": {"title": "disk"}},
            {"id": "b", "score": 2.0, "fields": {"title": "watch"}}]);
        let request = json!({"query": "watch", "documents": documents});
        json!({"cases": [{"name": "watch", "request": request, "expect": {"order": order}}]})
            .to_string()
    };
    let good = folder.write("good.json", case(json!(["b", "a"])));
    let bad = folder.write("bad.json", case(json!(["a", "b"])));
    let model = "bi-encoder=all-minilm-l6-v2";
    let more = ["--cases", text(&good), "--model", model];
    let second = server.json(&[&push[..], &more].concat());
    assert_eq!(second["cases"]["total"], 1, "{second}");
    assert_ne!(second["digest"], first["digest"]);

    let refused: [(&[&str], &str, &str); 5] = [
        (
            &["--cases", text(&bad)],
            "cases",
            "1 of its 1 cases failed: `watch`: expected the order a, b",
        ),
        (
            &["--parameters", "{\"wieght\": 1}"],
            "describe",
            "unknown parameter",
        ),
        (&["--grant", "text"], "describe", "not granted: `title`"),
        (&["--model", "bi-encoder=none"], "models", "no model `none`"),
        (&["--model", "other=all-minilm-l6-v2"], "models", "`other`"),
    ];
    for (flags, step, reason) in refused {
        let (said, error) = server.refusal(&[&["push", file, "--activate"], flags].concat());
        assert_says(&said, &[&format!("rerankd: step `{step}`: "), reason]);
        assert_eq!(error["step"], step);
    }
    let spins = require::faulty("spin-in-describe");
    let (said, _) = server.refusal(&["push", text(&spins), "--activate"]);
    assert_says(&said, &["step `describe`: its manifest cannot be had"]);
    let list = server.json(&["list"]);
    assert_eq!(list["policies"][0]["active"], Value::Null, "{list}");
}

/// Two versions of one component; the first is active. Their short digests.
fn two_versions(server: &Server) -> (String, String) {
    let path = component("semantic-blend");
    let file = text(&path);
    let first = server.json(&["push", file, "--activate"]);
    let second = server.json(&["push", file, "--parameters", "{\"weight\": 0.25}"]);
    (short(&first), short(&second))
}

#[test]
fn versions_take_roles_and_lose_them() {
    let server = Server::start();
    assert_eq!(
        server.text(&["list"]),
        "NAME  ACTIVE  CANARY  SHADOW  VERSIONS\n"
    );
    let (first, second) = two_versions(&server);
    let row = |canary: &str, shadow: &str| {
        let columns = |line: &str| -> Vec<String> {
            let columns = line.split("  ").map(str::trim);
            columns
                .filter(|c| !c.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let text = server.text(&["list"]);
        let shown = columns(text.lines().nth(1).unwrap_or_default());
        let active = format!("0.1.0@{first}");
        assert_eq!(
            shown,
            ["semantic-blend", &active, canary, shadow, "2"],
            "{text}"
        );
    };
    row("-", "-");

    let said = server.text(&["canary", "semantic-blend", &second, "10"]);
    assert_eq!(
        said,
        format!("semantic-blend: 0.1.0@{second} gets 10 % of the requests\n")
    );
    row(&format!("0.1.0@{second} 10 %"), "-");
    let (said, error) = server.refusal(&["canary", "semantic-blend", &first, "10"]);
    assert_says(&said, &["is the active version already"]);
    assert_eq!(error["code"], "conflict");
    let said = server.text(&["canary", "semantic-blend", &second, "0"]);
    assert_eq!(said, "semantic-blend: no canary\n");

    let said = server.text(&["shadow", "semantic-blend", &second]);
    assert_eq!(
        said,
        format!("semantic-blend: 0.1.0@{second} runs as shadow\n")
    );
    row("-", &format!("0.1.0@{second}"));
    let (said, _) = server.refusal(&["delete", "semantic-blend", &second]);
    assert_says(&said, &["only a version without a role can be deleted"]);
    let ended = server.json(&["shadow", "semantic-blend", "--off"]);
    assert_eq!(ended["shadow"], Value::Null, "{ended}");
    row("-", "-");
    let said = server.text(&["shadow", "semantic-blend", "--off"]);
    assert_eq!(said, "semantic-blend: no shadow\n");

    let said = server.text(&["activate", "semantic-blend", &second.to_uppercase()]);
    assert_eq!(
        said,
        format!("semantic-blend: 0.1.0@{second} is active; before: 0.1.0@{first}\n")
    );
    let said = server.text(&["activate", "semantic-blend", &second]);
    assert_eq!(said, format!("semantic-blend: 0.1.0@{second} is active\n"));
    let (said, _) = server.refusal(&["delete", "semantic-blend", &first]);
    assert_says(&said, &["only a version without a role can be deleted"]);
    let back = server.json(&["rollback", "semantic-blend"]);
    assert_eq!(
        (short(&back["active"]), short(&back["previous"])),
        (first.clone(), second.clone())
    );
    let (said, error) = server.refusal(&["rollback", "semantic-blend"]);
    assert_says(&said, &["no earlier active version to go back to"]);
    assert_eq!(error["code"], "conflict");

    // A version string means the active one of those that have it.
    let (said, _) = server.refusal(&["delete", "semantic-blend", "0.1.0"]);
    assert_says(&said, &["only a version without a role can be deleted"]);
    let upper = second.to_uppercase();
    let said = server.text(&["delete", "semantic-blend", &upper]);
    assert_eq!(said, format!("semantic-blend: {upper} is deleted\n"));
    // Now it says which.
    let said = server.text(&["activate", "semantic-blend", "0.1.0"]);
    assert_eq!(said, format!("semantic-blend: 0.1.0@{first} is active\n"));
}

#[test]
fn a_version_string_that_two_versions_have_is_not_enough() {
    let server = Server::start();
    let path = component("semantic-blend");
    let push = ["push", text(&path)];
    let first = short(&server.json(&push));
    let other = ["--parameters", "{\"weight\": 0.25}"];
    let second = short(&server.json(&[push, other].concat()));
    let (said, error) = server.refusal(&["activate", "semantic-blend", "0.1.0"]);
    assert_says(
        &said,
        &["several versions", &first, &second, "say the digest"],
    );
    assert_eq!(error["code"], "conflict");
}

#[test]
fn the_versions_of_one_policy_are_a_table() {
    let server = Server::start();
    let (first, second) = two_versions(&server);
    let said = server.text(&["list", "semantic-blend"]);
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "VERSION", "DIGEST", "STATE", "SIZE", "CASES", "CREATED", "BY"
        ]
    );
    // The latest first.
    assert_eq!(&lines[1][..3], ["0.1.0", &second, "staged"]);
    assert_eq!(&lines[2][..3], ["0.1.0", &first, "active"]);
    assert_eq!(lines[2][7], "admin", "{said}");
    assert_eq!(lines.len(), 3, "{said}");
}

#[test]
fn what_is_not_there_is_said() {
    let server = Server::start();
    two_versions(&server);
    let name = "semantic-blend";
    let commands: [(&[&str], &str); 9] = [
        (&["list", "other"], "no policy `other`"),
        (&["activate", "other", "0.1.0"], "no policy `other`"),
        (&["rollback", "other"], "no policy `other`"),
        (&["shadow", "other", "--off"], "no policy `other`"),
        (&["delete", "other", "00000000"], "no policy `other`"),
        (
            &["activate", name, "9.9.9"],
            "no version `9.9.9` of `semantic-blend`; there are: ",
        ),
        (&["canary", name, "00000000", "5"], "no version `00000000`"),
        (&["shadow", name, "00000000"], "no version `00000000`"),
        (&["delete", name, "00000000"], "no version `00000000`"),
    ];
    for (command, reason) in commands {
        let (said, error) = server.refusal(command);
        assert_says(&said, &[reason]);
        assert_eq!(error["code"], "not_found", "{command:?}");
    }
}

/// A command whose lines are read as they come.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is executable");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may be waiting any more.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn line_with(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line with `{part}`: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }
}

#[test]
fn events_are_told_now_and_as_they_come() {
    let mut server = Server::start();
    let following = Running::start(server.command(&["events", "--follow"]));
    let (first, second) = two_versions(&server);
    let refused = server.run(&["push", text(&require::faulty("not-json"))]);
    assert_code(&refused, 1);
    server.text(&["activate", "semantic-blend", &second]);
    server.text(&["rollback", "semantic-blend"]);

    let said = server.text(&["events"]);
    let lines: Vec<&str> = said.lines().collect();
    let kinds: Vec<&str> = lines
        .iter()
        .map(|line| line.split_whitespace().nth(1).unwrap_or_default())
        .collect();
    assert_eq!(
        kinds,
        [
            "staged",
            "activated",
            "staged",
            "refused",
            "activated",
            "rolled-back"
        ],
        "{said}"
    );
    assert_says(
        lines[1],
        &[&format!("semantic-blend 0.1.0@{first}"), "(by admin)"],
    );
    assert_says(lines[3], &["not-json", "describe: its manifest is wrong"]);
    let told = server.run(&["events", "--json"]);
    assert_code(&told, 0);
    let told = stdout(&told);
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert_eq!(told.len(), 6);
    assert_eq!(
        (&told[4]["kind"], &told[4]["who"]),
        (&json!("activated"), &json!("admin"))
    );
    assert!(
        told.windows(2)
            .all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64())
    );

    // The same lines, and then the end.
    for line in lines {
        assert_eq!(following.line_with(line), line);
    }
    server.server.kill();
    let ended = following.child.wait_with_output().expect("it is our child");
    assert_code(&ended, 3);
    assert_says(&stderr(&ended), &[&server.url()]);
}

#[test]
fn a_token_must_be_known_and_may_not_do_more_than_it_says() {
    let server = Server::start();
    let (first, _) = two_versions(&server);
    let path = component("first-stage");
    let file = text(&path);
    for command in [
        &["list"][..],
        &["push", file],
        &["rollback", "semantic-blend"],
    ] {
        let (said, error) = server.refusal(&[command, &["--token", "rerankd_0"]].concat());
        assert_says(
            &said,
            &["the token is not one of this server's, or was revoked"],
        );
        assert_eq!(error["code"], "token_unknown");
    }
    let data = text(server.server.data_dir());
    let new = [
        "token",
        "new",
        "shop",
        "--policies",
        "semantic-*",
        "--rights",
        "read,push",
    ];
    let token = output(Rerankd::command(
        &[&new[..], &["--data-dir", data]].concat(),
    ));
    assert_code(&token, 0);
    let token = stdout(&token).trim().to_owned();
    let shop = |arguments: &[&str]| server.run(&[arguments, &["--token", &token]].concat());
    assert_code(&shop(&["list", "semantic-blend"]), 0);
    let component = component("semantic-blend");
    assert_code(&shop(&["push", text(&component)]), 0);
    let forbidden: [(&[&str], &str); 4] = [
        (
            &["push", file],
            "token `shop` has not the right `push` on policy `first-stage`",
        ),
        (
            &["push", text(&component), "--activate"],
            "the right `activate` on policy `semantic-blend`",
        ),
        (
            &["activate", "semantic-blend", &first],
            "the right `activate`",
        ),
        (
            &["list", "first-stage"],
            "the right `read` on policy `first-stage`",
        ),
    ];
    for (command, reason) in forbidden {
        let refused = shop(command);
        assert_code(&refused, 1);
        assert_says(&stderr(&refused), &[reason]);
    }
}

#[test]
fn a_component_that_is_too_large_is_refused_before_it_is_sent() {
    let folder = Folder::new();
    let flags = ["--max-component-mib", "1"];
    let server = Server {
        server: Rerankd::start(&[&only_policies(folder.path())[..], &flags].concat()),
        _policies: Folder::new(),
    };
    let path = require::example("semantic-blend-python");
    let (said, error) = server.refusal(&["push", text(&path)]);
    assert_says(
        &said,
        &["larger than a component may be (--max-component-mib)"],
    );
    assert_eq!(error["code"], "too_large");
}

#[test]
fn the_token_is_found_in_the_data_folder() {
    let state = Folder::new();
    let data = state.path().join("rerankd");
    let server = Rerankd::start(&["--data-dir", text(&data)]);
    let url = format!("http://{}", server.admin_address());
    let list = |variable: &str, folder: &Path| {
        let mut command = Rerankd::command(&["policy", "list", "--to", &url]);
        command
            .env("HOME", "/nonexistent")
            .env_remove("XDG_STATE_HOME");
        output({
            command.env(variable, folder);
            command
        })
    };
    for found in [
        list("XDG_STATE_HOME", state.path()),
        list("RERANKD_DATA_DIR", &data),
    ] {
        assert_code(&found, 0);
        assert_says(
            &stdout(&found),
            &["cross-encoder", "first-stage", "semantic-blend"],
        );
    }
    let elsewhere = Folder::new();
    let missing = list("XDG_STATE_HOME", elsewhere.path());
    assert_code(&missing, 1);
    let place = elsewhere.path().join("rerankd/admin-token");
    let said = format!("there is no token at `{}`", place.display());
    assert_says(
        &stderr(&missing),
        &[&said, "--token or RERANKD_TOKEN", "--data-dir"],
    );
    // Of another server.
    elsewhere.write("rerankd/admin-token", "rerankd_0\n");
    let wrong = list("XDG_STATE_HOME", elsewhere.path());
    assert_code(&wrong, 1);
    assert_says(
        &stderr(&wrong),
        &[&format!("the token is that of `{}`", place.display())],
    );
}

/// A folder with `cert.pem` and `key.pem` for loopback.
fn certificate() -> Folder {
    let folder = Folder::new();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("the names are good");
    folder.write("cert.pem", cert.pem());
    folder.write("key.pem", signing_key.serialize_pem());
    folder.set_mode("key.pem", 0o600);
    folder
}

#[test]
fn a_server_with_tls_is_asked_if_its_certificate_is_trusted() {
    let (folder, policies) = (certificate(), Folder::new());
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let tls = [
        "--admin-tls-cert",
        text(&cert),
        "--admin-tls-key",
        text(&key),
    ];
    let server = Rerankd::start(&[&tls[..], &only_policies(policies.path())].concat());
    let port = server.admin_address().port();
    let token = server.admin_token();
    let run = |arguments: &[&str]| {
        let all = [&["policy"], arguments, &["--token", &token]].concat();
        output(Rerankd::command(&all))
    };
    let path = component("first-stage");
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{port}");
        let trusting = ["--to", &url, "--ca", text(&cert)];
        assert_code(
            &run(&[&["push", text(&path), "--activate"], &trusting[..]].concat()),
            0,
        );
        assert_code(&run(&[&["list"], &trusting[..]].concat()), 0);
    }
    let url = format!("https://127.0.0.1:{port}");
    let other = certificate();
    let other = other.path().join("cert.pem");
    let refused = run(&["list", "--to", &url, "--ca", text(&other)]);
    assert_code(&refused, 3);
    assert_says(
        &stderr(&refused),
        &["cannot be trusted", "--ca names the certificates to trust"],
    );
    let clear = run(&["list", "--to", &format!("http://127.0.0.1:{port}")]);
    assert_code(&clear, 3);
    assert_says(&stderr(&clear), &["speaks HTTPS alone", &url]);
}
