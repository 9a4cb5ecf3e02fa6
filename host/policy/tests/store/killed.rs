//! Killed by SIGKILL while it works.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rerankd_policy::store::JournalEntry;

use crate::folder::{
    ENGINE, Folder, activate, check_files, draft, files, keep_model, put, start_anew,
};

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let folder = Folder::new();
    folder.model();
    let mut known = Acknowledged::default();
    for seed in 0..20 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut child = start_anew("killed::releases_without_end", &folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(stdout).lines();
        let mut lines = lines.map(|line| line.expect("it is text"));
        for line in lines.by_ref().take(random.random_range(0..60)) {
            known.take(&line);
        }
        // Not to wait for anything, but to be anywhere in its work.
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        for line in lines {
            known.take(&line);
        }
        known.check(&folder);
    }
    let staged = known.staged.len();
    assert!(staged > 50, "only {staged} versions: when was it killed?");
}

/// Started by another test, which kills it: passes at once in any other case.
#[test]
fn releases_without_end() {
    let Some(folder) = Folder::given() else {
        return;
    };
    let store = folder.open();
    for number in store.last_seq().expect("it reads").. {
        let content = format!("{number} ").repeat(100_000);
        let mut version = put(&store, &content, &number.to_string());
        let model = keep_model(&store, &folder, &format!("m{}", number % 7));
        version.models.insert("encoder".to_owned(), model);
        version.created_at_ms = number;
        let digest = &version.digest;
        let staged = store.stage(&version, draft("staged"));
        assert!(staged.expect("there is room").created);
        println!("\nstaged {digest}");
        println!("activating {digest}");
        activate(&store, digest);
        println!("active {digest}");
        let versions = store.versions("p").expect("it reads");
        if versions.len() > 4 {
            let oldest = &versions[0].digest;
            println!("deleting {oldest}");
            let deleted = store.delete_version("p", oldest, draft("deleted"));
            assert!(deleted.expect("it has no role"));
        }
    }
}

/// What a process said before it was killed.
#[derive(Default)]
struct Acknowledged {
    staged: HashSet<String>,
    /// Were deleted, or were about to be.
    deleted: HashSet<String>,
    activating: Option<String>,
    active: Option<String>,
}

impl Acknowledged {
    fn take(&mut self, line: &str) {
        let (what, digest) = line.split_once(' ').unwrap_or_default();
        let digest = digest.to_owned();
        match what {
            "staged" => drop(self.staged.insert(digest)),
            "deleting" => drop(self.deleted.insert(digest)),
            "activating" => self.activating = Some(digest),
            "active" => self.active = Some(digest),
            _ => {}
        }
    }

    fn check(&mut self, folder: &Folder) {
        // Before the store is opened, which cleans up.
        check_files(&folder.data());
        let store = folder.open();
        assert_eq!(files(&folder.data().join("tmp")), [""; 0]);
        let versions = store.versions("p").expect("it reads");
        for digest in self.staged.difference(&self.deleted) {
            let is_there = versions.iter().any(|version| version.digest == *digest);
            assert!(is_there, "`{digest}` was acknowledged and is gone");
        }
        let record = store.name("p").expect("it reads").unwrap_or_default();
        assert!(
            record.active == self.active || record.active == self.activating,
            "{:?} is active, {:?} was acknowledged",
            record.active,
            self.active
        );
        self.active = record.active;
        let journal = store.journal(0, usize::MAX).expect("it reads");
        let gap = |pair: &[JournalEntry]| pair[1].seq != pair[0].seq + 1;
        assert!(!journal.windows(2).any(gap), "the journal has a gap");

        let garbage = store.collect_garbage(ENGINE);
        garbage.expect("it can be removed");
        check_files(&folder.data());
        for version in &versions {
            let component = store.component(&version.component);
            component.expect("it is whole");
            let model = &version.models["encoder"];
            let kept = store.model_folder(&model.name, &model.digest);
            assert!(kept.is_some(), "{} lost its model", version.digest);
        }
        let left = files(&folder.data().join("components")).len();
        assert_eq!(left, versions.len(), "components of no version are left");
    }
}
