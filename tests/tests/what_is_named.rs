//! What the operator names (policies, models, parameters of rules) is there, or the server says so: at start,
//! or, where it is expected later, by not being ready.

use std::net::TcpStream;
use std::path::Path;

use rerankd_tests::admin::error;
use rerankd_tests::components::{bundled, echo, with_manifest};
use rerankd_tests::rerankd::{Refusal, only_policies};
use rerankd_tests::upstream::{Asked, write_json};
use rerankd_tests::{
    Answer, Connection, Deployment, Folder, Rerankd, Upstream, eventually, require,
};
use serde_json::{Value, json};

const PAGE: &str = r#"{"took":1,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},"hits":{"total":{"value":2,"relation":"eq"},"max_score":2.0,"hits":[{"_index":"shop","_id":"a","_score":2.0,"_source":{"title":"a boot"}},{"_index":"shop","_id":"b","_score":1.0,"_source":{"title":"a clog"}}]}}"#;

fn engine(_: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    write_json(stream, "200 OK", PAGE)
}

fn text(path: &Path) -> String {
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// A configuration file in a folder.
fn config(folder: &Folder, content: &str) -> String {
    text(&folder.write("rerankd.toml", content))
}

fn run(command: &str, flags: &[&str]) -> Refusal {
    Rerankd::run(Rerankd::command(&[&[command], flags].concat()))
}

fn serve(flags: &[&str]) -> Refusal {
    let arguments = ["--listen", "127.0.0.1:0", "--log", "error"];
    run("serve", &[&arguments, flags].concat())
}

/// Exit code 1 and one line in which all of `parts` stand.
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
}

/// A search of `shop` through the proxy.
fn search(server: &Rerankd, more: &Value) -> Answer {
    let mut body = json!({"query": {"match": {"title": "clog"}}});
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("it is one").extend(more);
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [("Content-Type", "application/json")];
    let sent = connection.request(
        "POST",
        "/shop/_search",
        &headers,
        body.to_string().as_bytes(),
    );
    sent.expect("the proxy reads");
    connection.answer().expect("there is an answer")
}

#[test]
fn a_name_that_nothing_has_keeps_the_server_from_starting() {
    let folder = Folder::new();
    let check = |content: &str, parts: &[&str]| {
        let config = config(&folder, content);
        for command in ["serve", "check"] {
            let flags = ["--config", &config, "--log", "error"];
            let upstream = ["--upstream", "http://127.0.0.1:9"];
            let refusal = run(command, &[&flags[..], &upstream].concat());
            assert_says(&refusal, &[parts, &["`expect = [..]`"]].concat());
        }
    };
    check(
        "default_policy = \"semantic-blnd\"\n[wire.aliases]\n\"rerank-v3.5\" = \"cross-encodr\"\n\
         [[index]]\npattern = \"shop\"\npolicies = [\"boost\"]\n",
        &[
            "--default-policy: no policy `semantic-blnd`; active: `cross-encoder`, `first-stage`, `semantic-blend`",
            "[wire.aliases] \"rerank-v3.5\": no policy `cross-encodr`",
            "[[index]] `shop`: no policy `boost`",
        ],
    );
    check(
        "default_policy = \"semantic-blend@9.9.9\"\n",
        &["no version `9.9.9` of `semantic-blend`"],
    );
    let models = "models (--bind-model) or parameters (`policies.NAME`) to `semantic-blnd`";
    check(
        "[policies.semantic-blnd.parameters]\nweight = 0.5\n",
        &[models],
    );
    check(
        "[policies.semantic-blnd.models]\nbi-encoder = \"all-minilm-l6-v2\"\n",
        &[models],
    );
}

#[test]
fn a_policy_that_is_expected_is_waited_for() {
    let upstream = Upstream::start(engine);
    let folder = Folder::new();
    folder.write("policies/README.md", "");
    let config = config(
        &folder,
        "expect = [\"echo\"]\ndefault_policy = \"echo\"\n[[index]]\npattern = \"*\"\npolicies = [\"echo\"]\n",
    );
    let (policies, url) = (folder.path().join("policies"), upstream.url());
    let flags = ["--config", &config, "--upstream", &url];
    let proxy = ["--proxy-listen", "127.0.0.1:0"];
    let server = Rerankd::start(&[&only_policies(&policies), &flags[..], &proxy].concat());
    let server = Deployment::of(server, folder);
    let ready = server.get("/health/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.text(),
        "not ready: policy `echo` is missing (--default-policy, [[index]] `*`, --expect)\n"
    );
    server.get("/health/live").ok();
    for more in [
        json!({}),
        json!({"ext": {"rerankd": {"on_failure": "error"}}}),
    ] {
        let answer = search(&server, &more).ok();
        assert_eq!(answer.text(), PAGE);
        assert_eq!(answer.parameter("status"), Some("skipped"));
        assert_eq!(answer.parameter("reason"), Some("no-policy"));
    }
    let labels = [("status", "skipped"), ("reason", "no-policy")];
    assert_eq!(server.metric("rerankd_requests_total", &labels), 2.0);

    server.release("echo", &echo("1.0.0"), "activate=true");
    server.get("/health/ready").ok();
    let answer = search(&server, &json!({})).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
}

/// A folder that somebody named is a place where policies are put, at any time.
#[test]
fn a_policy_may_come_from_a_folder_that_was_named() {
    let folder = Folder::new();
    folder.write("policies/README.md", "");
    let policies = text(&folder.path().join("policies"));
    let flags = ["--policies", &policies, "--default-policy", "echo"];
    let server = Deployment::of(Rerankd::start(&flags), folder);
    let ready = server.get("/health/ready");
    assert_eq!(
        (ready.status, ready.text()),
        (
            503,
            "not ready: policy `echo` is missing (--default-policy)\n"
        )
    );
    server.drop_file("echo.wasm", echo("1.0.0"));
    eventually("it is ready", || {
        (server.get("/health/ready").status == 200).then_some(())
    });
    // A check knows what there is now.
    let folder = Folder::new();
    folder.write("policies/README.md", "");
    let policies = text(&folder.path().join("policies"));
    let quiet = ["--log", "error", "--policies", &policies];
    let flags = [&quiet[..], &["--default-policy", "echo"]].concat();
    assert_says(&run("check", &flags), &["policy `echo` is missing"]);
    let expected = run("check", &[&flags[..], &["--expect", "echo"]].concat());
    assert_eq!(expected.code, Some(0), "{expected:?}");
    let said = "not ready at start: policy `echo` is missing (--default-policy, --expect)";
    assert!(expected.stdout.contains(said), "{expected:?}");
}

/// Whatever a data folder that was used before could serve in its place.
#[test]
fn a_model_that_was_asked_for_is_never_replaced_by_the_one_before() {
    let folder = Folder::new();
    folder.copy(
        &require::model("tiny-cross-encoder"),
        "models/tiny-cross-encoder",
    );
    folder.copy(
        &require::policies().join("cross-encoder.wasm"),
        "policies/cross-encoder.wasm",
    );
    let path = |name: &str| text(&folder.path().join(name));
    let (policies, models, data) = (path("policies"), path("models"), path("data"));
    let places = [
        "--policies",
        &policies,
        "--models",
        &models,
        "--data-dir",
        &data,
    ];
    drop(Rerankd::start(&places));
    let bind = |model: &str, parts: &[&str]| {
        let slot = format!("cross-encoder.cross-encoder={model}");
        let refusal = serve(&[&places[..], &["--bind-model", &slot]].concat());
        assert_says(&refusal, parts);
    };
    bind(
        "ms-marco",
        &[
            "cross-encoder.wasm",
            "no model `ms-marco`",
            "tiny-cross-encoder",
        ],
    );
    folder.write("models/broken/manifest.toml", "name = \"broken\"\n");
    bind("broken", &["cross-encoder.wasm", "broken/manifest.toml"]);
    let slot = "cross-encoder.encoder=tiny-cross-encoder";
    let refusal = serve(&[&places[..], &["--bind-model", slot]].concat());
    assert_says(&refusal, &["`encoder`", "its manifest has: cross-encoder"]);
    // What the configuration allows counts as well.
    let grants = config(&folder, "[policies.cross-encoder]\ngrants = [\"brand\"]\n");
    let refusal = serve(&[&places[..], &["--config", &grants]].concat());
    assert_says(&refusal, &["it asks for fields that it is not granted"]);
    // Its files.
    let damaged = folder.copy(&require::model("tiny-cross-encoder"), "models/damaged");
    let manifest = std::fs::read_to_string(damaged.join("manifest.toml")).expect("it was copied");
    let renamed = manifest.replace("\"tiny-cross-encoder\"", "\"damaged\"");
    folder.write("models/damaged/manifest.toml", renamed);
    folder.write("models/damaged/model.onnx", "half of it");
    bind("damaged", &["cross-encoder.wasm", "damaged/model.onnx"]);
    // Those of the policy's own model.
    folder.write("models/tiny-cross-encoder/manifest.toml", "name = 7\n");
    let named = ["cross-encoder.wasm", "tiny-cross-encoder/manifest.toml"];
    assert_says(&serve(&places), &named);
}

#[test]
fn a_model_for_a_policy_that_was_pushed_must_be_there() {
    let folder = Folder::new();
    let data = text(&folder.path().join("data"));
    let mut server = Deployment::start(&["--data-dir", &data]);
    server.release("cross-encoder", &bundled("cross-encoder"), "activate=true");
    server.kill();
    folder.write("policies/README.md", "");
    let policies = text(&folder.path().join("policies"));
    let check = |binding: &str, parts: &[&str]| {
        let places = ["--policies", &policies, "--data-dir", &data];
        let refusal = serve(&[&places[..], &["--bind-model", binding]].concat());
        assert_says(&refusal, parts);
    };
    check(
        "cross-encoder.cross-encoder=ms-marco",
        &["`cross-encoder.cross-encoder`", "no model `ms-marco`"],
    );
    check(
        "cross-encoder.encoder=tiny-cross-encoder",
        &["has no such slot; it has: cross-encoder"],
    );
}

#[test]
fn what_a_rule_gives_a_policy_must_be_taken() {
    let folder = Folder::new();
    let check = |rule: &str, parts: &[&str]| {
        let config = config(&folder, rule);
        for command in ["serve", "check"] {
            let flags = ["--config", &config, "--log", "error"];
            let upstream = ["--upstream", "http://127.0.0.1:9"];
            assert_says(&run(command, &[&flags[..], &upstream].concat()), parts);
        }
    };
    check(
        "[[index]]\npattern = \"shop-*\"\nparameters = { weight = 5 }\n",
        &[
            "[[index]] `shop-*`: policy `semantic-blend`: `parameters.weight`",
            "maximum of 1",
        ],
    );
    check(
        "[[index]]\npattern = \"a\"\nparameters = { wieght = 0.5 }\n[[index]]\npattern = \"b\"\n\
         policies = [\"semantic-blend\", \"first-stage\"]\nparameters = { weight = 0.5 }\n",
        &[
            "[[index]] `a`: policy `semantic-blend`: `parameters.wieght`: unknown parameter; the policy takes `fields`",
            "[[index]] `b`: policy `first-stage`: `parameters.weight`: unknown parameter",
        ],
    );
    let good = config(
        &folder,
        "[[index]]\npattern = \"*\"\nfields = [\"name\"]\nparameters = { weight = 0.5 }\n",
    );
    let quiet = ["--upstream", "http://127.0.0.1:9", "--log", "error"];
    let good = run("check", &[&[good.as_str()][..], &quiet].concat());
    assert_eq!((good.code, good.stderr.as_str()), (Some(0), ""), "{good:?}");
    assert!(good.stdout.starts_with("good: policies cross-encoder@"));
}

/// `echo` that takes parameters of these names, and no others.
fn taking(version: &str, names: &[&str]) -> Vec<u8> {
    let any = names.iter().map(|name| ((*name).to_owned(), json!({})));
    let any: serde_json::Map<_, _> = any.collect();
    with_manifest(&echo(version), |manifest| {
        // There is room for little.
        manifest["fields"] = json!(["title"]);
        manifest["parameters"] = json!({"additionalProperties": false, "properties": any});
    })
}

#[test]
fn a_release_that_does_not_take_what_a_rule_gives_is_refused_and_a_rollback_never() {
    let upstream = Upstream::start(engine);
    let folder = Folder::new();
    // The first one that served takes nothing, and stays in the history.
    let (policies, url) = (folder.path().join("policies"), upstream.url());
    std::fs::create_dir(&policies).expect("the folder is new");
    let data = text(&folder.path().join("data"));
    let places = [&only_policies(&policies)[..], &["--data-dir", &data]].concat();
    let mut plain = Deployment::of(Rerankd::start(&places), Folder::new());
    let none = taking("1.0.0", &[]);
    let first = plain.release("echo", &none, "activate=true");
    let boost = taking("2.0.0", &["boost"]);
    plain.release("echo", &boost, "activate=true");
    plain.kill();

    let config = config(
        &folder,
        "[[index]]\npattern = \"shop\"\npolicies = [\"echo\"]\nparameters = { boost = 2 }\n",
    );
    let flags = ["--config", &config, "--upstream", &url];
    let proxy = ["--proxy-listen", "127.0.0.1:0"];
    let server = Rerankd::start(&[&places[..], &flags, &proxy].concat());
    let mut server = Deployment::of(server, folder);
    let refused = |answer: &Answer| {
        let error = error(answer);
        assert_eq!((error.status, error.step.as_str()), (422, "activate"));
        let rule = "[[index]] `shop` of this server's configuration gives it parameters";
        assert!(error.message.contains(rule), "{}", error.message);
        assert!(
            error.message.contains("`parameters.boost`"),
            "{}",
            error.message
        );
    };
    let versions = |server: &Rerankd| {
        let answer = server.admin_call("GET", "/v1/policies/echo", &[], b"").ok();
        answer.json()["versions"].as_array().map_or(0, Vec::len)
    };
    // With `activate` nothing of it is kept; without, it is there for who changes the rule.
    let other = taking("3.0.0", &["lift"]);
    refused(&server.push("echo", &other, "activate=true"));
    assert_eq!(versions(&server), 2);
    assert_eq!(server.push("echo", &other, "").status, 201);
    let post = |path: &str, body: &Value| {
        let path = format!("/v1/policies/echo/{path}");
        let headers = [("Content-Type", "application/json")];
        server.admin_call("POST", &path, &headers, body.to_string().as_bytes())
    };
    refused(&post("activate", &json!({"version": "3.0.0"})));
    refused(&post("canary", &json!({"version": "3.0.0", "percent": 5})));
    let shown = search(&server, &json!({})).ok();
    assert_eq!(shown.parameter("status"), Some("applied"), "{shown:?}");

    // The way back is open, and survives a restart.
    let back = post("rollback", &json!({})).ok().json();
    assert_eq!(back["active"]["digest"], first.as_str());
    server.restart();
    let health = server.get("/health/ready");
    assert_eq!(health.status, 200, "{}", health.text());
}

#[test]
fn a_file_that_does_not_take_what_a_rule_gives_is_refused_at_start_and_what_served_goes_on() {
    // Without a name it is the default policy, the only one.
    for named in ["policies = [\"echo\"]\n", ""] {
        let folder = Folder::new();
        folder.write("policies/echo.wasm", taking("1.0.0", &["boost"]));
        let rule = format!("[[index]]\npattern = \"shop\"\n{named}parameters = {{ boost = 2 }}\n");
        let config = config(&folder, &rule);
        let (policies, data) = (folder.path().join("policies"), folder.path().join("data"));
        let (policies, data) = (text(&policies), text(&data));
        let proxy = [
            "--upstream",
            "http://127.0.0.1:9",
            "--proxy-listen",
            "127.0.0.1:0",
        ];
        let places = [
            "--policies",
            &policies,
            "--data-dir",
            &data,
            "--config",
            &config,
        ];
        let mut server = Rerankd::start(&[&places[..], &proxy].concat());
        folder.write("policies/echo.wasm", taking("2.0.0", &["lift"]));
        server.restart();
        let answer = server.admin_call("GET", "/v1/policies/echo", &[], b"").ok();
        assert_eq!(answer.json()["active"]["version"], "1.0.0", "{named}");
        let said =
            "[[index]] `shop` gives it parameters that it does not take; GET /v1/events has which";
        assert!(server.stderr().contains(said), "{}", server.stderr());
        // Nor does one start that has nothing else to serve.
        let flags = [
            "--log",
            "error",
            "--policies",
            &policies,
            "--config",
            &config,
        ];
        let refusal = run("check", &[&flags[..], &proxy].concat());
        assert_says(
            &refusal,
            &["[[index]] `shop`: policy `echo`: `parameters.boost`"],
        );
    }
}

#[test]
fn a_canary_that_does_not_take_what_a_rule_gives_is_warned_of_at_start() {
    let folder = Folder::new();
    folder.write("policies/README.md", "");
    let (policies, data) = (folder.path().join("policies"), folder.path().join("data"));
    let (policies, data) = (text(&policies), text(&data));
    let places = ["--policies", &policies, "--data-dir", &data];
    let mut plain = Deployment::of(Rerankd::start(&places), Folder::new());
    plain.release("echo", &taking("1.0.0", &["boost"]), "activate=true");
    plain.release("echo", &taking("2.0.0", &[]), "");
    plain
        .role("echo", "canary", &json!({"version": "2.0.0", "percent": 1}))
        .ok();
    plain.kill();
    let rule = "[[index]]\npattern = \"shop\"\npolicies = [\"echo\"]\nparameters = { boost = 2 }\n";
    let config = config(&folder, rule);
    let proxy = [
        "--upstream",
        "http://127.0.0.1:9",
        "--proxy-listen",
        "127.0.0.1:0",
    ];
    let server = Rerankd::start(&[&places[..], &["--config", &config], &proxy].concat());
    let said = "[[index]] `shop` gives `boost`, which the canary does not take";
    assert!(server.stderr().contains(said), "{}", server.stderr());
}

#[test]
fn a_check_looks_at_the_places_of_what_outlives_the_process() {
    let folder = Folder::new();
    let path = |name: &str| text(&folder.path().join(name));
    let data = folder.write("data/readme", "");
    let data = data.parent().expect("it lies in a folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(data, mode).expect("it is this user's");
    let (nowhere, data) = (path("nowhere/rows"), text(data));
    for (flags, said) in [
        (["--data-dir", &data], "it can be written by others"),
        (["--cache-file", &nowhere], "(--cache-file): "),
        (["--cache-file", &data], "(--cache-file): "),
    ] {
        for command in ["serve", "check"] {
            assert_says(
                &run(command, &[&flags[..], &["--log", "error"]].concat()),
                &[said],
            );
        }
    }
    let refusal = run("check", &["--print-config"]);
    assert_eq!(refusal.code, Some(2), "{refusal:?}");
    assert!(refusal.stderr.contains("`rerankd serve`"), "{refusal:?}");
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of_with_the_nearest_name() {
    let with = |arguments: &[&str]| {
        let mut command = Rerankd::command(arguments);
        command.env("RERANKD_LISTNE", "127.0.0.1:0");
        command.env("RERANKD_SERVICE_HOST", "10.0.0.1");
        command
    };
    let said = "the variable RERANKD_LISTNE is no setting; is RERANKD_LISTEN meant?";
    let server = Rerankd::spawn(with(&["serve", "--listen", "127.0.0.1:0"]));
    eventually("the log says so", || {
        server.stderr().contains(said).then_some(())
    });
    assert!(!server.stderr().contains("RERANKD_SERVICE_HOST"));
    let listed = Rerankd::run(with(&["token", "list", "--data-dir", "/nonexistent"]));
    assert!(
        listed.stderr.starts_with("rerankd: warning: "),
        "{listed:?}"
    );
    assert!(listed.stderr.contains(said), "{listed:?}");
}

#[test]
fn a_binary_without_its_parts_names_all_that_is_missing_at_once() {
    let nowhere = ["/nowhere/policies", "/nowhere/models", "/nowhere/ort.so"];
    let flags = [
        "--policies",
        nowhere[0],
        "--models",
        nowhere[1],
        "--onnxruntime",
        nowhere[2],
    ];
    for command in ["serve", "check"] {
        let refusal = run(command, &flags);
        let ways_out = ["--policies", "--models", "--onnxruntime"];
        assert_says(&refusal, &[&nowhere[..], &ways_out].concat());
    }
}

#[test]
fn a_folder_that_is_called_like_a_component_is_refused_as_what_it_is() {
    let folder = Folder::new();
    folder.write("policies/d.wasm/x", "");
    let policies = text(&folder.path().join("policies"));
    let refusal = serve(&["--policies", &policies]);
    assert_says(&refusal, &["d.wasm", "it cannot be read", "is a folder"]);
}
