//! No room left, and nothing writable.

use std::io::Write;
use std::process::Command;

use rerankd_policy::store::{MAX_MESSAGE_BYTES, Store, StoreError, VersionRecord};

use crate::folder::{Folder, activate, check_files, draft, files, sha256, stage, start_anew};

#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_file_sizes_costs_only_the_write_that_meets_it() {
    let folder = Folder::new();
    let command = start_anew("full::works_at_a_limit", &folder);
    let script = r#"trap "" XFSZ; ulimit -S -f 4096; exec "$0" "$@""#;
    finish(wrap("sh", &["-c", script], &command));
}

/// Started by another test, with a limit of 2 MiB: passes at once in any other case.
#[test]
fn works_at_a_limit() {
    let Some(folder) = Folder::given() else {
        return;
    };
    nothing_can_be_written(&folder);
    fill_and_free(&folder, folder.open(), None, || limit("unlimited"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_or_read_only_disk_costs_only_the_write_that_meets_it() {
    let folder = Folder::new();
    std::fs::create_dir(folder.data()).expect("it is ours");
    let data = folder.data().display().to_string();
    let mount = ["mount", "-t", "tmpfs", "tmpfs", &data];
    let options = ["-m", "-Urm"].into_iter().find(|options| {
        let probe = Command::new("unshare").arg(options).args(mount).output();
        probe.is_ok_and(|output| output.status.success())
    });
    let Some(options) = options else {
        // Past the harness, which hides what a test prints that does not fail.
        let line = b"SKIPPED full::a_full_or_read_only_disk_costs_only_the_write_that_meets_it: \
                     this user may not mount a file system (unshare -Urm)\n";
        std::io::stderr().write_all(line).expect("stderr is there");
        return;
    };
    let command = start_anew("full::works_on_a_full_disk", &folder);
    finish(wrap("unshare", &[options], &command));
}

/// Started by another test, where it may mount: passes at once in any other case.
#[test]
fn works_on_a_full_disk() {
    let Some(folder) = Folder::given() else {
        return;
    };
    let data = folder.data().display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=6m", "tmpfs", &data]);
    let store = folder.open();
    let filler = folder.data().join("filler");
    std::fs::write(&filler, vec![0; 1 << 20]).expect("there is room");
    // Ordinary ones, of which there is room for the files too: they are staged before it is full.
    let spare = ["spare-1", "spare-2"].map(|content| stage(&store, content, content));
    fill_and_free(&folder, store, Some(&spare), || {
        std::fs::remove_file(&filler).expect("it is ours");
    });

    let store = folder.open();
    let version = stage(&store, "read", "read");
    run("mount", &["--bind", &data, &data]);
    run("mount", &["-o", "remount,bind,ro", &data]);
    let bytes = b"refused";
    let error = store.put_component(&sha256(bytes), bytes);
    let error = error.expect_err("it is read-only");
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert!(store.component(&version.component).is_ok());
    drop(store);
    let error = Store::open(&folder.data()).err().expect("it is read-only");
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    run("umount", &[&data]);
    let store = folder.open();
    assert!(store.component(&version.component).is_ok());
    let put = store.put_component(&sha256(bytes), bytes);
    put.expect("it can be written again");
}

/// Not even over what is there: the database cannot be opened for writing either.
fn nothing_can_be_written(folder: &Folder) {
    let mut store = folder.open();
    let version = stage(&store, "before", "0");
    let last = store.last_seq().expect("it reads");
    limit("1:");
    for is_opened_anew in [false, true] {
        if is_opened_anew {
            drop(store);
            store = folder.open();
        }
        let error = store.record_event(draft("refused"));
        let error = error.expect_err("nothing can be written");
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        let versions = store.versions("p").expect("it reads");
        assert_eq!(versions, std::slice::from_ref(&version));
        assert_eq!(store.last_seq().expect("it reads"), last);
    }
    limit("2097152:");
    let entry = store.record_event(draft("again"));
    assert_eq!(entry.expect("there is room again").seq, last + 1);
}

/// Limits the size of files that this process writes, bytes.
fn limit(bytes: &str) {
    let own = std::process::id().to_string();
    run("prlimit", &["--pid", &own, &format!("--fsize={bytes}")]);
}

/// Writes until there is no room, looks whether all the rest works, makes room and writes again.
/// Of `spare` each is deleted while there is none: the disk stays full, whatever that frees.
fn fill_and_free(
    folder: &Folder,
    store: Store,
    spare: Option<&[VersionRecord]>,
    free: impl FnOnce(),
) {
    let is_full = |error: &StoreError| matches!(error, StoreError::NoSpace { .. });
    let version = stage(&store, "first", "1");
    let record = activate(&store, &version.digest);
    let large = vec![1; 3 << 20];
    let error = store.put_component(&sha256(&large), &large);
    let error = error.expect_err("there is no room for it");
    assert!(is_full(&error), "{error}");
    assert_eq!(files(&folder.data().join("tmp")), [""; 0]);
    check_files(&folder.data());

    let event = |store: &Store| {
        let mut event = draft("event");
        event.message = Some("x".repeat(MAX_MESSAGE_BYTES));
        store.record_event(event)
    };
    let check = |store: &Store, last: u64| {
        assert_eq!(store.last_seq().expect("it reads"), last);
        let name = store.name("p").expect("it reads");
        assert_eq!(name.as_ref(), Some(&record));
        let bytes = store.component(&version.component).expect("it reads");
        assert_eq!(bytes, b"first");
    };
    let mut last = store.last_seq().expect("it reads");
    let error = loop {
        match event(&store) {
            Ok(entry) => last = entry.seq,
            Err(error) => break error,
        }
        assert!(last < 5_000, "nothing ever fills up");
    };
    assert!(is_full(&error), "{error}");
    check(&store, last);
    // Opened anew it may have found a little room: what counts is that it says so.
    for _ in 0..3 {
        match event(&store) {
            Ok(entry) => last = entry.seq,
            Err(error) => assert!(is_full(&error), "{error}"),
        }
        check(&store, last);
    }
    drop(store);
    let store = folder.open();
    check(&store, last);
    for spare in spare.unwrap_or_default() {
        let fill = |name: &str| {
            let path = folder.data().join(name);
            let mut file = std::fs::File::create(path).expect("an empty file takes no room");
            while file.write_all(&[1; 4096]).is_ok() {}
        };
        fill(&format!("more-{}", spare.version));
        // The database may have some of its own.
        let error = loop {
            match event(&store) {
                Ok(entry) => assert!(entry.seq < 5_000, "nothing ever fills up"),
                Err(error) => break error,
            }
        };
        assert!(is_full(&error), "{error}");
        let deleted = store.delete_version("p", &spare.digest, draft("deleted"));
        let name = &spare.version;
        assert!(deleted.unwrap_or_else(|error| panic!("{name}: {error}")));
        assert!(store.component(&spare.component).is_err());
        last = store.last_seq().expect("it reads");
        check(&store, last);
    }
    free();
    for spare in spare.unwrap_or_default() {
        let path = folder.data().join(format!("more-{}", spare.version));
        std::fs::remove_file(path).expect("it is ours");
    }
    for _ in 0..3 {
        let entry = event(&store).expect("there is room again");
        assert_eq!(entry.seq, last + 1);
        last = entry.seq;
    }
    let second = stage(&store, "second", "2");
    activate(&store, &second.digest);
    drop(store);
    let name = folder.open().name("p").expect("it reads");
    let active = name.expect("it is there").active;
    assert_eq!(active, Some(second.digest));
}

/// `command`, started by way of another program.
fn wrap(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(program);
    wrapped
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        wrapped.env(key, value.expect("none is removed"));
    }
    wrapped
}

fn finish(mut command: Command) {
    let output = command.output().expect("it starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "{stdout}");
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
}
