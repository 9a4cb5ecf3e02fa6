//! The data folder: where it is, and which folders the server will not have.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Folder, Rerankd};

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

fn mode(path: &Path) -> u32 {
    let meta =
        std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    meta.permissions().mode() & 0o7777
}

fn are_root() -> bool {
    std::fs::metadata("/proc/self")
        .expect("there is /proc")
        .uid()
        == 0
}

fn serve(data: &Path) -> Refusal {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
    Rerankd::run(Rerankd::command(
        &[&arguments[..], &["--data-dir", text(data)]].concat(),
    ))
}

/// It ends with exit code 1 and one line that names the folder, its flag, and all of `parts`.
#[track_caller]
fn assert_refused(data: &Path, parts: &[&str]) {
    let refusal = serve(data);
    assert_eq!(
        (refusal.code, refusal.stdout.as_str()),
        (Some(1), ""),
        "{refusal:?}"
    );
    let line = refusal.stderr.trim_end();
    let start = format!("rerankd: data folder `{}` (--data-dir): ", text(data));
    assert!(line.starts_with(&start) && !line.contains('\n'), "{line}");
    for part in parts {
        assert!(line.contains(part), "expected `{part}` in: {line}");
    }
}

#[test]
fn it_is_made_for_its_owner_alone_and_kept() {
    let folder = Folder::new();
    let data = folder.path().join("not/there/yet");
    let mut server = Rerankd::start(&["--data-dir", text(&data)]);
    assert_eq!(server.data_dir(), data);
    for made in ["not", "not/there", "not/there/yet"] {
        assert_eq!(mode(&folder.path().join(made)), 0o700, "{made}");
    }
    assert_eq!(mode(&data.join("admin-token")), 0o600);
    let token = server.admin_token();
    assert!(token.starts_with("rkd_") && token.len() == 68, "{token}");
    server.restart();
    assert_eq!(server.admin_token(), token);
    server.admin_call("GET", "/v1/models", &[], b"").ok();
    let names: Vec<_> = std::fs::read_dir(&data)
        .expect("it is there")
        .map(|entry| entry.expect("it can be listed").file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(names.is_empty(), "left over: {names:?}");
}

#[test]
fn it_is_in_the_users_state_folder_unless_somebody_says_otherwise() {
    let printed = |variables: &[(&str, &str)]| {
        let mut command = Rerankd::command(&["serve", "--print-config"]);
        command.env_remove("XDG_STATE_HOME").env_remove("HOME");
        command.envs(variables.iter().copied());
        let printed = Rerankd::run(command).stdout;
        let line = printed.lines().find(|line| line.starts_with("data_dir"));
        line.expect("it is printed").to_owned()
    };
    let check = |variables: &[(&str, &str)], expected: &str| {
        let line = printed(variables);
        assert_eq!(line, format!("data_dir = \"{expected}\""), "{variables:?}");
    };
    check(&[], "/var/lib/rerankd");
    check(&[("HOME", "/home/x")], "/home/x/.local/state/rerankd");
    let both = [("HOME", "/home/x"), ("XDG_STATE_HOME", "/state")];
    check(&both, "/state/rerankd");
    // The specification of these folders: a relative one does not count.
    let relative = [("HOME", "/home/x"), ("XDG_STATE_HOME", "state")];
    check(&relative, "/home/x/.local/state/rerankd");
    check(&[("RERANKD_DATA_DIR", "/data")], "/data");
}

#[test]
fn a_file_is_no_folder() {
    let folder = Folder::new();
    let file = folder.write("file", "");
    assert_refused(&file, &["is a file, not a folder"]);
    let below = file.join("data");
    let refusal = serve(&below);
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
    assert!(refusal.stderr.contains("(--data-dir)"), "{refusal:?}");
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let folder = Folder::new();
    folder.write("data/x", "");
    let data = folder.path().join("data");
    for mode in [0o777, 0o775, 0o702, 0o1777] {
        folder.set_mode("data", mode);
        let mend = format!("it can be written by others: `chmod go-w {}`", text(&data));
        assert_refused(&data, &[&mend]);
    }
    // That others can see what there is does no harm: its files are private.
    folder.set_mode("data", 0o755);
    Rerankd::start(&["--data-dir", text(&data)]);
}

#[test]
fn a_folder_in_a_place_that_others_can_write_to_is_refused_and_not_made() {
    let folder = Folder::new();
    folder.write("open/x", "");
    let data = folder.path().join("open/data");
    let open = folder.path().join("open");
    folder.set_mode("open", 0o777);
    let mend = format!("`chmod o-w {}`", text(&open));
    assert_refused(&data, &["that it lies in can be written by anyone", &mend]);
    assert!(!data.exists());
    let deeper = open.join("own/data");
    assert_refused(&deeper, &[text(&open), "above it can be written by anyone"]);
    // Nobody can take away what is ours where only owners can.
    folder.set_mode("open", 0o1777);
    Rerankd::start(&["--data-dir", text(&deeper)]);
}

/// The system's temporary folder is such a place: what is ours there, nobody else can take away.
#[test]
fn a_folder_for_its_owner_alone_may_lie_where_only_owners_remove() {
    let folder = Folder::new();
    folder.write("open/x", "");
    folder.set_mode("open", 0o1777);
    let data = folder.path().join("open/data");
    Rerankd::start(&["--data-dir", text(&data)]);
    assert_eq!(mode(&data), 0o700);
    Rerankd::start(&["--data-dir", text(&data)]);
    // Others can look into it, or it is a link that somebody could have put there.
    folder.set_mode("open/data", 0o755);
    let mend = format!("`chmod 0700 {}`", text(&data));
    assert_refused(&data, &["can be written by anyone", &mend]);
    folder.write("own/x", "");
    folder.set_mode("own", 0o700);
    let link = folder.path().join("open/link");
    std::os::unix::fs::symlink(folder.path().join("own"), &link).expect("it is ours");
    assert_refused(&link, &["can be written by anyone"]);
    folder.set_mode("open", 0o755);
}

#[test]
fn a_link_is_as_safe_as_where_it_leads() {
    let folder = Folder::new();
    folder.write("open/data/x", "");
    folder.write("closed/x", "");
    folder.set_mode("open", 0o777);
    let link = folder.path().join("closed/link");
    std::os::unix::fs::symlink(folder.path().join("open/data"), &link).expect("it is ours");
    let refusal = serve(&link);
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
    assert!(
        refusal.stderr.contains("can be written by anyone"),
        "{refusal:?}"
    );
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let folder = Folder::new();
    folder.write("data/x", "");
    let data = folder.path().join("data");
    let (data, owner) = if are_root() {
        std::os::unix::fs::chown(&data, Some(4711), None).expect("root may");
        (data.as_path(), "it belongs to user 4711")
    } else {
        (Path::new("/usr"), "it belongs to user 0")
    };
    assert_refused(data, &[owner, "run this as that user"]);
    if are_root() {
        folder.write("theirs/data/x", "");
        let theirs = folder.path().join("theirs");
        std::os::unix::fs::chown(&theirs, Some(4711), None).expect("root may");
        let said = format!("`{}` belongs to user 4711, neither", text(&theirs));
        assert_refused(&theirs.join("data"), &[&said]);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = Folder::new();
    folder.write("data/x", "");
    let data = folder.path().join("data");
    // A mode is nothing to root, but in this one nobody can make a file.
    let data = if are_root() {
        Path::new("/proc/sys")
    } else {
        folder.set_mode("data", 0o500);
        data.as_path()
    };
    assert_refused(data, &["it cannot be written: "]);
    folder.set_mode("data", 0o700);
}
