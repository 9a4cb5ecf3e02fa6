//! The search proxy's settings: what is wrong with them is said at start, all of it at once.

use rerankd_tests::upstream::write_json;
use rerankd_tests::{Connection, Folder, Rerankd, Upstream, eventually};

fn refused(flags: &[&str], file: &str) -> String {
    let folder = Folder::new();
    let config = folder.write("rerankd.toml", file);
    let config = config.to_str().expect("the path is UTF-8");
    let all = [
        &["serve", "--listen", "127.0.0.1:0", "--config", config],
        flags,
    ];
    let ended = Rerankd::run(Rerankd::command(&all.concat()));
    assert_ne!(ended.code, Some(0), "{flags:?} {file}");
    ended.stderr
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let said = refused(
        &[
            "--upstream",
            "ftp://a,http://b/prefix,http://user:pw@c",
            "--max-rewrite-bytes",
            "0",
        ],
        "[[index]]\npattern = \"a\"\nwindow = 0\n\
         [[index]]\npattern = \"b\"\npolicies = []\nwindow = 50\nmax_window = 20\n\
         [[index]]\npattern = \"\"\non_failure = \"panic\"\n",
    );
    for part in [
        "`ftp://a` (--upstream)",
        "`http://b/prefix` (--upstream) has a path",
        "(--upstream) has a password in it",
        "--max-rewrite-bytes must be at least 1",
        "[[index]] `a`: `window` and `max_window` must be 1 to 10000, got 0",
        "[[index]] `b`: `policies` must name at least one",
        "[[index]] `b`: `window` (50) must not be larger than `max_window` (20)",
        "[[index]] ``: `pattern` must not be empty",
        "`on_failure` must be `first-stage` or `error`, got `panic`",
    ] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[test]
fn settings_that_need_an_engine_or_a_policy_say_so() {
    let said = refused(&["--proxy-listen", "127.0.0.1:0"], "");
    assert!(said.contains("--upstream http://127.0.0.1:9200"), "{said}");
    let said = refused(
        &["--upstream", "http://127.0.0.1:9"],
        "[[index]]\nindices = \"*\"\n",
    );
    assert!(said.contains("indices"), "{said}");
    let said = refused(
        &[
            "--upstream",
            "https://127.0.0.1:9",
            "--upstream-ca",
            "Cargo.nowhere",
        ],
        "",
    );
    assert!(said.contains("--upstream-ca"), "{said}");
    let said = refused(
        &[
            "--upstream",
            "http://127.0.0.1:9",
            "--proxy-listen",
            "127.0.0.1:0",
        ],
        "[[index]]\npattern = \"*\"\npolicies = [\"boost\"]\n",
    );
    assert!(said.contains("no policy `boost`; active: "), "{said}");
}

#[test]
fn an_idle_client_makes_room_for_one_beyond_the_limit() {
    let upstream = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
    let server = Rerankd::start(&[
        "--upstream",
        &upstream.url(),
        "--proxy-listen",
        "127.0.0.1:0",
        "--proxy-max-connections",
        "1",
    ]);
    let connect = || Connection::open(server.proxy_address()).expect("the system takes it");
    let mut first = connect();
    first.request("GET", "/first", &[], b"").expect("it reads");
    first.answer().expect("an answer").ok();
    // One that was answered just now is left alone: it may have more to say.
    eventually("the second has the place", || {
        let mut second = connect();
        let sent = second.request("GET", "/second", &[], b"");
        sent.expect("it is sent");
        let answer = second.answer().expect("an answer");
        (answer.status == 200).then_some(())
    });
    assert!(first.is_closed_by_server());
    let asked = upstream.asked();
    let targets: Vec<&str> = asked.iter().map(|asked| asked.target()).collect();
    assert_eq!(targets, ["/first", "/second"]);
}

#[test]
fn credentials_for_look_ups_that_are_none_are_refused_with_what_would_be_right() {
    let folder = Folder::new();
    let file = folder.write("lookup", "secret");
    let path = file.to_str().expect("the path is UTF-8");
    let flags = [
        "--upstream",
        "http://127.0.0.1:9",
        "--proxy-listen",
        "127.0.0.1:0",
        "--upstream-lookup-auth",
        path,
    ];
    let with_mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("it is this user's");
        refused(&flags, "")
    };
    let said = with_mode(0o644);
    assert!(
        said.contains("(--upstream-lookup-auth)") && said.contains("0600"),
        "{said}"
    );
    let said = with_mode(0o600);
    assert!(said.contains("expected `USER:PASSWORD`"), "{said}");
}
