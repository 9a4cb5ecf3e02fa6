//! Tokens of the admin plane: what they are good for, and that the server notices at once what becomes
//! of them.

use std::os::unix::fs::PermissionsExt;

use rerankd_tests::components::{faulty, faulty_echo};
use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Answer, Deployment, Folder, Rerankd};
use serde_json::json;
use sha2::{Digest, Sha256};

/// `rerankd token ARGUMENTS` on a server's data folder.
fn token(server: &Rerankd, arguments: &[&str]) -> Refusal {
    let data = server.data_dir().to_str().expect("the path is UTF-8");
    let arguments = [&["token"], arguments, &["--data-dir", data]].concat();
    Rerankd::run(Rerankd::command(&arguments))
}

/// A new token's text.
#[track_caller]
fn new(server: &Rerankd, name: &str, policies: &str, rights: &str) -> String {
    let made = token(
        server,
        &["new", name, "--policies", policies, "--rights", rights],
    );
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:?}");
    let secret = made.stdout.trim_end();
    assert!(secret.starts_with("rkd_") && secret.len() == 68, "{made:?}");
    secret.to_owned()
}

/// A GET with an `Authorization` of its own.
fn get(server: &Rerankd, path: &str, authorization: &str) -> Answer {
    server.admin_call("GET", path, &[("Authorization", authorization)], b"")
}

fn get_with(server: &Rerankd, path: &str, secret: &str) -> Answer {
    get(server, path, &format!("Bearer {secret}"))
}

/// The answer's status, code and message, after a look at the rest of it.
#[track_caller]
fn error(answer: &Answer) -> (u16, String, String) {
    let body = answer.json();
    let error = &body["error"];
    assert_eq!(error["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let text = |key: &str| error[key].as_str().expect("it is text").to_owned();
    (answer.status, text("code"), text("message"))
}

/// It ends with exit code 1 and one line, in which all of `parts` stand.
#[track_caller]
fn assert_fails(refusal: &Refusal, parts: &[&str]) {
    assert_eq!(
        (refusal.code, refusal.stdout.as_str()),
        (Some(1), ""),
        "{refusal:?}"
    );
    let line = refusal.stderr.trim_end();
    assert!(
        line.starts_with("rerankd: ") && !line.contains('\n'),
        "{line}"
    );
    for part in parts {
        assert!(line.contains(part), "expected `{part}` in: {line}");
    }
}

#[test]
fn nothing_is_said_without_a_token() {
    let server = Rerankd::start(&[]);
    let refusals =
        |reason: &str| server.metric("rerankd_admin_refusals_total", &[("reason", reason)]);
    let missing = "a token is needed, as `Authorization: Bearer TOKEN`; the server made one, `admin-token` in its data folder";
    let unknown = "the token is not one of this server's, or was revoked";
    let good = server.admin_token();
    for path in ["/metrics", "/v1/models", "/v1/policies", "/no/such/route"] {
        for authorization in ["", "Bearer", "Basic YTpi", &good] {
            let answer = get(&server, path, authorization);
            let expected = (401, "token_missing".to_owned(), missing.to_owned());
            assert_eq!(error(&answer), expected, "{path} {authorization}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"rerankd\"")
            );
        }
        let nearly =
            [&good[..67], &format!("{good}0"), "x", &good.to_uppercase()].map(str::to_owned);
        for secret in nearly {
            let answer = get_with(&server, path, &secret);
            let expected = (401, "token_unknown".to_owned(), unknown.to_owned());
            assert_eq!(error(&answer), expected, "{path} {secret}");
            let challenge = "Bearer realm=\"rerankd\", error=\"invalid_token\"";
            assert_eq!(answer.header("www-authenticate"), Some(challenge));
        }
    }
    assert_eq!(
        (refusals("token-missing"), refusals("token-unknown")),
        (16.0, 16.0)
    );
    // The scheme's name has no case.
    get(&server, "/v1/models", &format!("bearer {good}")).ok();
    assert_eq!(error(&get_with(&server, "/no/such/route", &good)).0, 404);
    assert!(!server.stderr().contains(&good), "{}", server.stderr());
}

#[test]
fn a_token_is_good_for_what_it_was_made_for() {
    let server = Rerankd::start(&[]);
    let shop = new(&server, "shop", "shop-*", "read,push");
    get_with(&server, "/v1/models", &shop).ok();
    // The metrics name all policies, so they are a right of their own.
    let reader = new(&server, "reader", "*", "read,texts");
    for (name, secret) in [("shop", &shop), ("reader", &reader)] {
        let refused = get_with(&server, "/metrics", secret);
        let said = format!("token `{name}` has not the right `metrics` on all policies (`*`)");
        assert_eq!(error(&refused), (403, "forbidden".into(), said));
    }
    let deploy = new(&server, "deploy", "*", "push,activate");
    for (path, right) in [("/v1/models", "read"), ("/metrics", "metrics")] {
        let (status, _, message) = error(&get_with(&server, path, &deploy));
        assert_eq!(status, 403, "{path}");
        let said = format!("token `deploy` has not the right `{right}` on ");
        assert!(message.contains(&said), "{message}");
    }
    let prometheus = new(&server, "prometheus", "*", "metrics");
    let (status, _, message) = error(&get_with(&server, "/v1/models", &prometheus));
    assert_eq!(status, 403);
    assert!(
        message.contains("the right `read` on any policy"),
        "{message}"
    );
    let metrics = get_with(&server, "/metrics", &prometheus).ok();
    let counted = "rerankd_admin_refusals_total{reason=\"right\"} 5";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

/// A file as version 0.1.0 wrote it, with tokens that are `rkd_` and their name.
fn old_file(tokens: &[(&str, &str, &[&str])]) -> String {
    let token = |(name, policies, rights): &(&str, &str, &[&str])| {
        let digest = Sha256::digest(format!("rkd_{name}"));
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"name": name, "sha256": sha256, "policies": policies, "rights": rights,
            "created_at": "2026-01-31T12:00:00Z"})
    };
    let tokens: Vec<_> = tokens.iter().map(token).collect();
    json!({ "tokens": tokens }).to_string()
}

#[test]
fn tokens_of_the_first_format_may_what_they_could_and_no_more() {
    let server = Deployment::start(&[]);
    server.release("panic", &faulty("panic"), "activate=true");
    server.ask("panic", "q", &[]).ok();
    // Refused, with what it calls itself.
    let refused = server.push("panic", &faulty_echo("panic", "9.0.0"), "");
    assert_eq!(refused.status, 422);
    let path = server.data_dir().join("tokens.json");
    let file = old_file(&[
        ("old-author", "pan*", &["read", "push"]),
        ("old-reader", "*", &["read"]),
        ("old-shop", "pan*", &["read"]),
        ("old-pusher", "*", &["push"]),
        ("old-switcher", "**", &["read", "activate"]),
    ]);
    let file_of = |right: &str| old_file(&[("wrong", "*", &["read", right])]);
    std::fs::write(&path, file).expect("it is ours");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("it is ours");

    // Which of the page, the events, their texts and the metrics a token gets.
    let gets = |secret: &str| {
        let page = get_with(&server, "/v1/policies/panic", secret);
        let events = get_with(&server, "/v1/events?follow=false", secret);
        let texts = [
            page.text().contains("cannot rank 3 documents"),
            events.text().contains("it calls itself"),
        ];
        assert_eq!(texts[0], texts[1], "{}{}", page.text(), events.text());
        let metrics = get_with(&server, "/metrics", secret).status == 200;
        (page.status == 200, texts[0], metrics)
    };
    let expected = [
        ("old-author", (true, true, false)),
        ("old-reader", (true, false, true)),
        ("old-shop", (true, false, false)),
        ("old-pusher", (false, false, false)),
        ("old-switcher", (true, false, true)),
    ];
    let check = |when: &str| {
        for (name, expected) in expected {
            assert_eq!(gets(&format!("rkd_{name}")), expected, "{name} {when}");
        }
    };
    check("in a file of the first format");
    let rights = |secret: &str, push: u16, activate: u16| {
        let bearer = format!("Bearer {secret}");
        let call = |method: &str, path: &str| {
            let headers = [
                ("Authorization", &*bearer),
                ("Content-Type", "application/json"),
            ];
            server.admin_call(method, path, &headers, b"{}").status
        };
        let delete = call("DELETE", "/v1/policies/panic/versions/00000000");
        let rollback = call("POST", "/v1/policies/panic/rollback");
        assert_eq!((delete, rollback), (push, activate), "{secret}");
    };
    // 404 and 409: it may, but there is none.
    rights("rkd_old-author", 404, 403);
    rights("rkd_old-pusher", 404, 403);
    rights("rkd_old-reader", 403, 403);
    rights("rkd_old-switcher", 403, 409);

    // A new token has what it names, and its file says for all of them what they have.
    let pusher = new(&server, "new-pusher", "*", "read,push");
    assert_eq!(gets(&pusher), (true, false, false));
    let author = new(&server, "new-author", "panic", "read,texts");
    assert_eq!(gets(&author), (true, true, false));
    rights(&author, 403, 403);
    check("in a file that was written anew");
    let written = std::fs::read_to_string(&path).expect("it is there");
    assert!(written.contains("\"format\": 2"), "{written}");
    let listed = token(&server, &["list"]).stdout;
    for (name, rights) in [
        ("old-author", "read,texts,push"),
        ("old-reader", "read,metrics"),
        ("old-shop", "read"),
        ("old-pusher", "push"),
        ("old-switcher", "read,activate,metrics"),
        ("new-pusher", "read,push"),
    ] {
        let line = listed.lines().find(|line| line.starts_with(name));
        let rights_of = line.and_then(|line| line.split_whitespace().nth(2));
        assert_eq!(rights_of, Some(rights), "{listed}");
    }

    // No old file has a new right, and none of a later format is read.
    for right in ["texts", "metrics"] {
        std::fs::write(&path, file_of(right)).expect("it is ours");
        assert_eq!(get_with(&server, "/v1/models", "rkd_wrong").status, 401);
        let said = format!("token `wrong`: a file without `format` has no right `{right}`");
        assert_fails(&token(&server, &["list"]), &[&said]);
    }
    let later = json!({"format": 3, "tokens": [], "more": 1}).to_string();
    std::fs::write(&path, later).expect("it is ours");
    assert_fails(
        &token(&server, &["list"]),
        &["its `format` is 3", "reads 2"],
    );
}

#[test]
fn models_are_listed_with_what_they_are() {
    let server = Rerankd::start(&[]);
    let body = server.admin_call("GET", "/v1/models", &[], b"").ok().json();
    let models = body["models"].as_array().expect("there is a list");
    let name = |of: &serde_json::Value| of["name"].as_str().expect("it has a name").to_owned();
    let names: Vec<String> = models.iter().map(name).collect();
    assert_eq!(names, ["all-minilm-l6-v2", "tiny-cross-encoder"]);
    let tiny = &models[1];
    for (key, value) in [
        ("kind", "cross-encoder"),
        ("precision", "fp32"),
        ("provider", "cpu"),
        ("score_kind", "logit"),
    ] {
        assert_eq!(tiny[key], value, "{tiny}");
    }
    assert_eq!(
        (&tiny["max_tokens"], &tiny["test_only"]),
        (&128.into(), &true.into())
    );
    assert!(
        tiny["digest"]
            .as_str()
            .is_some_and(|digest| digest.len() >= 64),
        "{tiny}"
    );
}

#[test]
fn what_becomes_of_a_token_counts_from_the_next_request_on() {
    let mut server = Rerankd::start(&[]);
    let secret = new(&server, "one", "*", "read");
    let other = new(&server, "other", "*", "read");
    get_with(&server, "/v1/models", &secret).ok();
    let revoked = token(&server, &["revoke", "one"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert_eq!(get_with(&server, "/v1/models", &secret).status, 401);
    get_with(&server, "/v1/models", &other).ok();
    server.restart();
    assert_eq!(get_with(&server, "/v1/models", &secret).status, 401);
    get_with(&server, "/v1/models", &other).ok();
    // The same name is another token.
    let again = new(&server, "one", "*", "read");
    assert_ne!(again, secret);
    get_with(&server, "/v1/models", &again).ok();

    // So it is with the token that may do everything.
    let before = server.admin_token();
    let path = server.data_dir().join("admin-token");
    std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").expect("it is ours");
    assert_eq!(get_with(&server, "/v1/models", &before).status, 401);
    server.admin_call("GET", "/metrics", &[], b"").ok();
    std::fs::remove_file(&path).expect("it is ours");
    assert_eq!(get_with(&server, "/v1/models", &before).status, 401);
    server.restart();
    assert_ne!(server.admin_token(), before);
    server.admin_call("GET", "/metrics", &[], b"").ok();
}

#[test]
fn a_file_of_tokens_that_is_wrong_makes_none_good_and_keeps_a_server_from_starting() {
    let mut server = Rerankd::start(&["--log", "error"]);
    let secret = new(&server, "one", "*", "read");
    let path = server.data_dir().join("tokens.json");
    let good = std::fs::read_to_string(&path).expect("it is there");
    let mode = |path: &std::path::Path, mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("it is ours");
    };
    let start = |server: &Rerankd| {
        let data = server.data_dir().to_str().expect("the path is UTF-8");
        let arguments = [
            "serve",
            "--log",
            "error",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            data,
        ];
        Rerankd::run(Rerankd::command(&arguments))
    };
    for (content, said) in [
        ("{", "tokens.json`: EOF"),
        ("{\"tokens\":[{}]}", "missing field `name`"),
        (
            &*good.replace("\"policies\"", "\"policy\""),
            "unknown field `policy`",
        ),
        (
            &*good.replace("\"*\"", "\"Shop\""),
            "`Shop` must be names of policies",
        ),
        (
            &*good.replace("\"read\"", "\"write\""),
            "unknown variant `write`",
        ),
        (
            &*good.replacen("\"sha256\": \"", "\"sha256\": \"ff", 1),
            "no SHA-256",
        ),
    ] {
        std::fs::write(&path, content).expect("it is ours");
        assert_eq!(
            get_with(&server, "/v1/models", &secret).status,
            401,
            "{said}"
        );
        assert_eq!(
            server.admin_call("GET", "/v1/models", &[], b"").status,
            401,
            "{said}"
        );
        assert_fails(&start(&server), &[said, "tokens.json"]);
    }
    assert!(
        server
            .stderr()
            .contains("no token is good until this is mended")
    );
    std::fs::write(&path, &good).expect("it is ours");
    get_with(&server, "/v1/models", &secret).ok();

    for name in ["tokens.json", "admin-token"] {
        let path = server.data_dir().join(name);
        for wrong in [0o640, 0o604, 0o622] {
            mode(&path, wrong);
            let mend = format!("chmod 600 {}", path.display());
            assert_fails(
                &start(&server),
                &["can be read or written by others", &mend],
            );
        }
        mode(&path, 0o600);
    }
    // While it runs, too: neither a change of mode nor a FIFO has another time of writing.
    for name in ["tokens.json", "admin-token"] {
        let path = server.data_dir().join(name);
        let aside = server.data_dir().join("aside");
        let status = || get_with(&server, "/v1/models", &secret).status;
        assert_eq!(status(), 200);
        mode(&path, 0o604);
        assert_eq!(status(), 401, "{name}");
        mode(&path, 0o600);
        assert_eq!(status(), 200);
        std::fs::rename(&path, &aside).expect("it is ours");
        let made = std::process::Command::new("mkfifo")
            .arg("-m600")
            .arg(&path)
            .status();
        assert!(made.expect("there is `mkfifo`").success());
        assert_eq!(status(), 401, "{name}");
        assert_fails(&start(&server), &[name, "it is a FIFO, not a file"]);
        std::fs::rename(&aside, &path).expect("it is ours");
        assert_eq!(status(), 200);
    }
    std::fs::write(server.data_dir().join("admin-token"), "short\n").expect("it is ours");
    assert_fails(
        &start(&server),
        &["admin-token` must hold a token of at least 32"],
    );
    std::fs::remove_file(server.data_dir().join("admin-token")).expect("it is ours");
    server.restart();
    get_with(&server, "/v1/models", &secret).ok();
}

#[test]
fn tokens_are_kept_as_digests_in_a_private_file_and_listed_without() {
    let server = Rerankd::start(&[]);
    let secret = new(&server, "shop-team", "shop-*", "push,read");
    new(&server, "ci", "*", "activate");
    let path = server.data_dir().join("tokens.json");
    let meta = std::fs::metadata(&path).expect("it is there");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    let kept = std::fs::read_to_string(&path).expect("it is there");
    assert!(!kept.contains(&secret) && !kept.contains("rkd_"), "{kept}");

    let table = token(&server, &["list"]).stdout;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["NAME", "POLICIES", "RIGHTS", "CREATED"]);
    assert_eq!(lines[1][..3], ["shop-team", "shop-*", "read,push"]);
    assert_eq!(lines[2][..3], ["ci", "*", "activate"]);
    let json = token(&server, &["list", "--json"]).stdout;
    assert!(!json.contains("sha256"), "{json}");
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let first = &json["tokens"][0];
    assert_eq!(first["rights"], serde_json::json!(["read", "push"]));
    let created = first["created_at"].as_str().expect("it is text");
    assert!(created.len() == 20 && created.ends_with('Z'), "{created}");
}

#[test]
fn the_command_says_what_is_wrong() {
    let server = Rerankd::start(&[]);
    new(&server, "ci", "*", "read");
    let make = |name: &str, policies: &str, rights: &str| {
        token(
            &server,
            &["new", name, "--policies", policies, "--rights", rights],
        )
    };
    assert_fails(&make("ci", "*", "read"), &["there is a token `ci` already"]);
    assert_fails(
        &make("admin", "*", "read"),
        &["there is a token `admin` already"],
    );
    assert_fails(
        &make("A B", "*", "read"),
        &["`NAME` must have", "got `A B`"],
    );
    for (refusal, said) in [
        (make("x", "Shop", "read"), "must be names of policies"),
        (make("x", "", "read"), "--policies"),
        (
            make("x", "*", "write"),
            "[possible values: read, texts, push, activate, metrics]",
        ),
        (
            make("x", "*", ""),
            "[possible values: read, texts, push, activate, metrics]",
        ),
    ] {
        assert_eq!(refusal.code, Some(2), "{refusal:?}");
        assert!(refusal.stderr.contains(said), "{refusal:?}");
    }
    assert_fails(
        &make("x", "*", "texts,push"),
        &["`texts` adds to what `read` shows: --rights read,texts"],
    );
    assert_fails(
        &make("x", "shop-*", "read,metrics"),
        &["`metrics` names all policies, so it needs --policies '*', not `shop-*`"],
    );
    assert_fails(
        &token(&server, &["revoke", "x"]),
        &["no token `x`", "rerankd token list"],
    );
    assert_fails(
        &token(&server, &["revoke", "admin"]),
        &["admin-token", "remove that"],
    );

    let folder = Folder::new();
    let nowhere = folder.path().join("data");
    let nowhere = nowhere.to_str().expect("the path is UTF-8");
    let refusal = Rerankd::run(Rerankd::command(&["token", "list", "--data-dir", nowhere]));
    assert_fails(&refusal, &[nowhere, "(--data-dir)", "No such file"]);
    // The file that configures the server names the folder as well.
    let config = format!("data_dir = \"{}\"\n", server.data_dir().display());
    let config = folder.write("rerankd.toml", config);
    let config = config.to_str().expect("the path is UTF-8");
    let listed = Rerankd::run(Rerankd::command(&["token", "list", "--config", config]));
    assert!(listed.stdout.contains("ci"), "{listed:?}");
}

#[test]
fn tokens_that_are_made_at_one_time_are_all_there() {
    let server = Rerankd::start(&[]);
    let names: Vec<String> = (0..12).map(|number| format!("token-{number}")).collect();
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let makers: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(|| new(&server, name, "*", "read")))
            .collect();
        let secret =
            |maker: std::thread::ScopedJoinHandle<String>| maker.join().expect("it is made");
        makers.into_iter().map(secret).collect()
    });
    for secret in &secrets {
        get_with(&server, "/v1/models", secret).ok();
    }
}
