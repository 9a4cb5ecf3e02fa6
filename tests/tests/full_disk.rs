//! No room left in the data folder, or nothing writable: what cannot be kept is refused, and searching
//! goes on.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use rerankd_tests::admin::assert_refused;
use rerankd_tests::components::echo;
use rerankd_tests::{Deployment, Folder, Rerankd};
use serde_json::json;

/// Mounts a file system of its own over the data folder, with the token that was there.
const SCRIPT: &str = r#"
token=$(cat "$0/admin-token") && mount -t tmpfs -o size=8m,mode=0700 tmpfs "$0" && umask 077 &&
printf '%s\n' "$token" > "$0/admin-token" && exec "$@""#;

/// A server whose data folder has 5 MiB; `None`, and a line that says so, where one may not mount.
fn small(test: &str) -> Option<(Deployment, PathBuf)> {
    let folder = Folder::new();
    let (data, policies) = (folder.path().join("data"), folder.path().join("policies"));
    std::fs::create_dir(&policies).expect("it is ours");
    let text = |path: &PathBuf| path.to_str().expect("the path is UTF-8").to_owned();
    let (data_text, policies) = (text(&data), text(&policies));
    let flags = ["--data-dir", &data_text, "--policies", &policies];
    drop(Rerankd::start(&flags));
    let probe = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "tmpfs", &data_text])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Past the harness, which hides what a test prints that does not fail.
        let line = format!("SKIPPED full_disk::{test}: this user may not mount a file system\n");
        let mut stderr = std::io::stderr();
        stderr.write_all(line.as_bytes()).expect("stderr is there");
        return None;
    }
    let serve = [&["serve", "--listen", "127.0.0.1:0"][..], &flags].concat();
    let serve = Rerankd::command(&serve);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", SCRIPT, &data_text])
        .arg(serve.get_program())
        .args(serve.get_args());
    for (key, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    Some((Deployment::of(Rerankd::spawn(command), folder), data))
}

/// Runs a command where the server's files are.
fn beside(server: &Deployment, command: &[&str]) {
    let process = server.id().to_string();
    let output = Command::new("nsenter")
        .args(["-m", "-t", &process])
        .args(command)
        .output();
    let output = output.expect("there is `nsenter`");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}

#[test]
fn a_full_disk_costs_the_upload_that_meets_it_and_nothing_else() {
    let name = "a_full_disk_costs_the_upload_that_meets_it_and_nothing_else";
    let Some((server, data)) = small(name) else {
        return;
    };
    let mut released = vec![server.release("echo", &echo("0.0.1"), "activate=true")];
    let mut number = 0;
    let push = |number: usize| {
        let component = echo(&format!("1.{number}.0"));
        server.push("echo", &component, "activate=true")
    };
    let refused = loop {
        number += 1;
        assert!(number < 200, "nothing ever fills up");
        let answer = push(number);
        if answer.status != 201 {
            break answer;
        }
        released.push(rerankd_tests::admin::digest(&answer.json()));
    };
    assert_refused(
        &refused,
        507,
        "stage",
        &["no space left", "make room and try again"],
    );
    let last = released.last().expect("one was released");
    let check = || {
        assert_eq!(server.serving("echo"), last[..8]);
        assert_eq!(server.list()["policies"][0]["versions"], released.len());
        assert_eq!(server.detail("echo")["active"]["digest"], **last);
    };
    check();
    // Again and again it is the same.
    assert_refused(&push(number), 507, "stage", &["no space left"]);
    check();
    // Not a byte is left, and still a version can be deleted.
    let filler = data.join("filler").display().to_string();
    beside(
        &server,
        &["sh", "-c", "cat /dev/zero > \"$0\" 2>&1; true", &filler],
    );
    let gone = server.delete("echo", &released.remove(1));
    assert_eq!(gone.status, 204, "{}", gone.text());
    beside(&server, &["rm", &filler]);
    let last = released.last().expect("some are left");
    assert_eq!(server.serving("echo"), last[..8]);
    // A version that is deleted makes room.
    let gone = server.delete("echo", &released[0]);
    assert_eq!(gone.status, 204, "{}", gone.text());
    let answer = push(number);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let digest = rerankd_tests::admin::digest(&answer.json());
    assert_eq!(server.serving("echo"), digest[..8]);
}

#[test]
fn a_read_only_folder_costs_the_upload_that_meets_it_and_nothing_else() {
    let name = "a_read_only_folder_costs_the_upload_that_meets_it_and_nothing_else";
    let Some((server, data)) = small(name) else {
        return;
    };
    let (one, two) = (server.release_echo(1, true), server.release_echo(2, false));
    let data = data.to_str().expect("the path is UTF-8");
    beside(&server, &["mount", "--bind", data, data]);
    beside(&server, &["mount", "-o", "remount,bind,ro", data]);
    let before = server.list();
    let answer = server.push("echo", &echo("2.0.0"), "activate=true");
    assert_refused(
        &answer,
        507,
        "stage",
        &["cannot be written", "(--data-dir)"],
    );
    assert_eq!(
        (server.list(), server.serving("echo")),
        (before, one[..8].to_owned())
    );
    assert_eq!(server.serving(&format!("echo@{}", &two[..8])), two[..8]);
    beside(&server, &["mount", "-o", "remount,bind,rw", data]);
    let three = server.release("echo", &echo("2.0.0"), "activate=true");
    assert_eq!(server.serving("echo"), three[..8]);
    let body = json!({"digest": two});
    server.role("echo", "activate", &body).ok();
}
