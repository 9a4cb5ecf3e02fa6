//! A folder of policies: a file that is put there is a release.

use rerankd_tests::components::{echo, faulty, faulty_echo, with_cases};
use rerankd_tests::{Deployment, Folder, eventually};
use serde_json::{Value, json};

/// Waits until `echo` is served in this version, and returns its digest.
fn served(server: &Deployment, version: &str) -> String {
    eventually("the file is released", || {
        let list = server.list();
        let mut policies = list["policies"].as_array()?.iter();
        let active = &policies.find(|policy| policy["name"] == "echo")?["active"];
        let digest = active["digest"].as_str()?;
        // The list is what the store says, which is written before the swap.
        let answer = server.ask("echo", "who is there?", &[]).json();
        let is_served = active["version"] == version && answer["version"] == digest[..8];
        is_served.then(|| digest.to_owned())
    })
}

/// Waits for the refusal of a file; what it says.
fn refusal(server: &Deployment, after: u64) -> String {
    eventually("the file is refused", || {
        let events = server.events(&format!("after={after}"), &[]);
        let refused = events.into_iter().find(|event| event.kind == "refused")?;
        assert_eq!(refused.data["who"], "folder");
        refused.data["message"].as_str().map(str::to_owned)
    })
}

fn last_event(server: &Deployment) -> u64 {
    server.events("", &[]).last().map_or(0, |event| event.id)
}

#[test]
fn a_file_that_is_dropped_in_is_a_deploy_and_a_bad_one_is_not() {
    let server = Deployment::start(&[]);
    assert_eq!(server.ask("echo", "q", &[]).status, 404);
    let path = server.drop_file("echo.wasm", echo("1.0.0"));
    let first = served(&server, "1.0.0");
    assert_eq!(server.serving("echo"), first[..8]);
    let version = server.version("echo", &first);
    assert_eq!(version["by"], "folder");
    assert_eq!(version["source"].as_str(), path.to_str());

    server.drop_file("echo.wasm", echo("2.0.0"));
    let second = served(&server, "2.0.0");
    let detail = server.detail("echo");
    assert_eq!(detail["rollback_to"]["digest"], first);

    for (bad, says) in [
        (b"hello".to_vec(), "inspect: not a WebAssembly component"),
        (faulty("panic"), "describe: it calls itself `panic`"),
        (echo("3.0.0")[..5000].to_vec(), "was the upload cut off?"),
    ] {
        let before = last_event(&server);
        server.drop_file("echo.wasm", bad);
        let refused = refusal(&server, before);
        assert!(refused.contains(says), "{refused}");
        assert_eq!(server.serving("echo"), second[..8]);
    }
    server.drop_file("echo.wasm", echo("3.0.0"));
    served(&server, "3.0.0");
    // What is no component's name is nothing.
    server.drop_file("README.md", "hello");
    server.drop_file("panic.wasm", faulty("panic"));
    eventually("another file is released", || {
        (server.ask("panic", "q", &[]).status == 200).then_some(())
    });
    // A policy outlives its file.
    std::fs::remove_file(path).expect("it is ours");
    server.drop_file("trap.wasm", faulty("trap"));
    eventually("the file after it is released", || {
        (server.ask("trap", "q", &[]).status == 200).then_some(())
    });
    served(&server, "3.0.0");
}

fn cases(order: [&str; 2]) -> Value {
    json!({"cases": [{
        "name": "beside",
        "request": {"query": "q", "documents": [{"id": "a", "fields": {}}, {"id": "b", "fields": {}}]},
        "expect": {"order": order},
    }]})
}

#[test]
fn cases_beside_a_file_are_run() {
    let server = Deployment::start(&[]);
    server.drop_file("echo.cases.json", cases(["b", "a"]).to_string());
    server.drop_file("echo.wasm", echo("1.0.0"));
    let refused = refusal(&server, 0);
    assert!(
        refused.contains("cases: 1 of its 1 cases failed: `beside`"),
        "{refused}"
    );
    assert_eq!(server.ask("echo", "q", &[]).status, 404);
    // They alone are mended: that is a deploy of the file beside them.
    server.drop_file("echo.cases.json", cases(["a", "b"]).to_string());
    let digest = served(&server, "1.0.0");
    let version = server.version("echo", &digest);
    assert_eq!(version["cases"]["results"][0]["name"], "beside");
    // They go before those in the component.
    let component = with_cases(&echo("2.0.0"), &cases(["b", "a"]));
    server.drop_file("echo.wasm", component);
    served(&server, "2.0.0");
}

#[test]
fn a_folder_that_did_not_change_undoes_nothing() {
    let folder = Folder::new();
    folder.write("policies/echo.wasm", echo("1.0.0"));
    let mut server = Deployment::start_in(folder, &[]);
    let from_folder = served(&server, "1.0.0");
    let events = last_event(&server);
    server.restart();
    assert_eq!(
        last_event(&server),
        events,
        "an unchanged folder is no release"
    );

    let pushed = server.release("echo", &echo("2.0.0"), "activate=true");
    server.restart();
    assert_eq!(server.serving("echo"), pushed[..8], "the push came later");
    // A touch of the same file is no release either; the file that comes after it is.
    server.drop_file("echo.wasm", echo("1.0.0"));
    server.drop_file("panic.wasm", faulty("panic"));
    eventually("the other file is released", || {
        (server.ask("panic", "q", &[]).status == 200).then_some(())
    });
    assert_eq!(server.serving("echo"), pushed[..8]);
    let detail = server.detail("echo");
    assert_eq!(detail["rollback_to"]["digest"], from_folder);

    // What was changed while nobody watched is released at the start.
    server.kill();
    server.drop_file("echo.wasm", echo("3.0.0"));
    server.restart();
    let third = served(&server, "3.0.0");
    // A bad file at the start does not keep the server from serving what it had.
    server.kill();
    server.drop_file("echo.wasm", b"hello");
    server.restart();
    assert_eq!(server.serving("echo"), third[..8]);
    assert!(refusal(&server, events).contains("not a WebAssembly component"));
}

/// A newer rerankd may have other defaults; and so may a newer configuration.
#[test]
fn limits_that_make_no_difference_make_no_other_version() {
    let folder = Folder::new();
    folder.write("policies/echo.wasm", echo("1.0.0"));
    let limits = |limits: &str| format!("[limits]\n{limits}\n");
    let config = folder.write("rerankd.toml", limits("guest_cpu_ms = 200"));
    let config = config.to_str().expect("the path is UTF-8").to_owned();
    let mut server = Deployment::start_in(folder, &["--config", &config]);
    let first = served(&server, "1.0.0");
    server.drop_file("echo.wasm", echo("2.0.0"));
    let second = served(&server, "2.0.0");
    server.role("echo", "rollback", &json!({})).ok();
    let events = last_event(&server);
    let restart_with = |server: &mut Deployment, now: &str| {
        server.kill();
        std::fs::write(&config, limits(now)).expect("it is ours");
        server.restart();
    };
    // Of CPU time a stored version has what the configuration gives, where that is more.
    restart_with(&mut server, "guest_cpu_ms = 500");
    assert_eq!(last_event(&server), events, "no file has changed");
    assert_eq!(server.serving("echo"), first[..8], "it was rolled back");
    let pushed = server.release("echo", &echo("2.0.0"), "");
    assert_eq!(pushed, second, "it is there already");
    // What is in force for it would be other: that takes a release.
    restart_with(&mut server, "guest_cpu_ms = 500\nguest_host_calls = 5000");
    assert_ne!(served(&server, "2.0.0"), second);
}

#[test]
fn a_version_from_a_folder_is_on_probation_as_well() {
    let mut server = Deployment::start(&["--probation-min-calls", "10"]);
    server.drop_file("echo.wasm", echo("1.0.0"));
    let good = served(&server, "1.0.0");
    server.drop_file("echo.wasm", faulty_echo("trap", "2.0.0"));
    let bad = served(&server, "2.0.0");
    eventually("it is taken back", || {
        let serving = server.serving("echo");
        assert!(serving == good[..8] || serving == bad[..8]);
        (serving == good[..8]).then_some(())
    });
    let kinds = server.event_kinds("echo");
    assert!(kinds.contains(&"taken-back".to_owned()), "{kinds:?}");
    // The file is still there, and was dealt with.
    server.restart();
    assert_eq!(server.serving("echo"), good[..8]);
    assert_eq!(server.event_kinds("echo"), kinds);
}
