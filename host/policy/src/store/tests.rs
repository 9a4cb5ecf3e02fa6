//! The n-th operation on the disk fails, tears or is the last one of the process, for every n that a
//! life of the store has: what was acknowledged is there, a failed call can be made again, nothing
//! serves that was not asked for, and no garbage is left.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::fault::{self, Plan};
use super::{
    Canary, ChangeError, JournalDraft, ModelRef, NameRecord, Store, StoreError, VersionRecord,
};

const ENGINE: &str = "engine-1";

/// In `make test` each plan is tried at every so many operations; all of them with
/// `RERANKD_LONG_TESTS=1`. A prime, so that the plans do not meet the same ones.
const STRIDE: usize = 7;

#[test]
fn a_full_disk_at_any_write_costs_one_call_that_can_be_made_again() {
    at_every_operation(0, |n| Plan::Fails(n, ErrorKind::StorageFull));
}

#[test]
fn an_error_at_any_write_costs_one_call_that_can_be_made_again() {
    at_every_operation(1, |n| Plan::Fails(n, ErrorKind::Other));
}

#[test]
fn a_process_that_ends_before_any_write_leaves_what_it_acknowledged() {
    at_every_operation(2, Plan::Killed);
}

#[test]
fn a_write_that_tears_leaves_what_was_acknowledged() {
    at_every_operation(3, Plan::Torn);
}

#[test]
fn power_that_fails_at_any_write_leaves_what_was_acknowledged() {
    at_every_operation(4, Plan::Lost);
}

fn at_every_operation(first: usize, plan: impl Fn(usize) -> Plan) {
    let long = std::env::var_os("RERANKD_LONG_TESTS").is_some_and(|value| value == "1");
    let stride = if long { 1 } else { STRIDE };
    let expected = expected();
    let mut n = if long { 0 } else { first };
    let mut tried = 0;
    while run(plan(n), n, &expected) {
        n += stride;
        tried += 1;
        assert!(n < 10_000, "it never ends");
    }
    assert!(tried > 20, "only {tried}: does this test see any?");
}

/// What the store says of itself.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    versions: BTreeSet<String>,
    name: Option<NameRecord>,
    deployed: Option<String>,
}

type Step = fn(&Store, &World) -> Result<(), StoreError>;

/// A life of the store; each step can be taken again where it failed.
const STEPS: [(&str, Step); 16] = [
    ("put one", |store, _| put(store, "one")),
    ("keep its model", |store, world| keep(store, world, "m1")),
    ("stage one", |store, _| stage(store, "one", Some("m1"))),
    ("activate one", |store, _| {
        roles(store, Some("one"), &[], None)
    }),
    ("put two", |store, _| put(store, "two")),
    ("stage two", |store, _| stage(store, "two", None)),
    ("two as canary", |store, _| {
        roles(store, Some("one"), &[], Some("two"))
    }),
    ("activate two", |store, _| {
        roles(store, Some("two"), &["one"], None)
    }),
    ("roll back", |store, _| roles(store, Some("one"), &[], None)),
    ("put three", |store, _| put(store, "three")),
    ("keep the model of three", |store, world| {
        keep(store, world, "m2")
    }),
    ("stage three", |store, _| stage(store, "three", Some("m2"))),
    ("delete two", |store, _| delete(store, "two")),
    ("delete three", |store, _| delete(store, "three")),
    ("remember a file", |store, _| {
        store.set_deployed("/a.wasm", "f1")
    }),
    ("an event", |store, _| {
        store.record_event(draft("event")).map(drop)
    }),
];

/// What is there after each number of steps.
fn expected() -> Vec<Seen> {
    let world = World::new();
    fault::plan(None);
    let store = world.open().expect("nothing fails");
    let mut expected = vec![seen(&store)];
    for (name, step) in STEPS {
        step(&store, &world).unwrap_or_else(|error| panic!("{name}: {error}"));
        expected.push(seen(&store));
    }
    expected
}

/// Whether the plan was met.
fn run(plan: Plan, n: usize, expected: &[Seen]) -> bool {
    let world = World::new();
    let at = |step: usize| match step.checked_sub(1) {
        Some(step) => format!("{plan:?}: {}", STEPS[step].0),
        None => format!("{plan:?}: open"),
    };
    let is_fatal = !matches!(plan, Plan::Fails(..));
    fault::plan(Some(plan));
    let met = || fault::operations() > n;
    let mut store = world.open();
    let mut done = 0;
    if let Err(error) = &store {
        assert!(met(), "{}: {error}", at(0));
        if !is_fatal {
            said(error, plan);
            store = world.open();
        }
    }
    if let Ok(store) = &store {
        while done < STEPS.len() && !(is_fatal && met()) {
            let result = STEPS[done].1(store, &world);
            if is_fatal && met() {
                done += usize::from(result.is_ok());
                break;
            }
            if let Err(error) = result {
                assert!(met(), "{}: {error}", at(done + 1));
                said(&error, plan);
                assert_eq!(seen(store), expected[done], "{}", at(done + 1));
                // A failed upload begins anew.
                for (name, step) in &STEPS[begin_again(done)..=done] {
                    let again = step(store, &world);
                    again.unwrap_or_else(|error| panic!("{}, {name} again: {error}", at(done + 1)));
                }
            }
            done += 1;
            assert_eq!(seen(store), expected[done], "{}", at(done));
        }
    }
    let met = met();
    drop(store);
    fault::plan(None);

    // After a restart.
    let store = world.open();
    let store = store.unwrap_or_else(|error| panic!("{}, opened anew: {error}", at(done)));
    assert_eq!(names(&world.data().join("tmp")), [""; 0], "{}", at(done));
    let now = seen(&store);
    let next = expected.get(done + 1).filter(|_| is_fatal && met);
    assert!(
        now == expected[done] || Some(&now) == next,
        "{}: opened anew, {now:?}",
        at(done)
    );
    check_journal(&store);
    let garbage = store.collect_garbage(ENGINE);
    garbage.unwrap_or_else(|error| panic!("{}: {error}", at(done)));
    check_files(&store, &world, &at(done));
    // It goes on from there; of an upload, from its beginning: what no version names yet is garbage.
    for (name, step) in &STEPS[begin_again(done)..] {
        step(&store, &world).unwrap_or_else(|error| panic!("{}, then {name}: {error}", at(done)));
    }
    assert_eq!(
        seen(&store),
        expected[STEPS.len()],
        "{}, at the end",
        at(done)
    );
    met
}

/// The first step of the upload that a step belongs to.
fn begin_again(step: usize) -> usize {
    let puts = STEPS
        .iter()
        .take(step + 1)
        .rposition(|(name, _)| name.starts_with("put "));
    let stages = STEPS
        .iter()
        .take(step)
        .rposition(|(name, _)| name.starts_with("stage "));
    match (puts, stages) {
        (Some(put), stage) if stage.is_none_or(|stage| stage < put) => put,
        _ => step,
    }
}

fn said(error: &StoreError, plan: Plan) {
    let is_right = match plan {
        Plan::Fails(_, ErrorKind::StorageFull) => matches!(error, StoreError::NoSpace { .. }),
        _ => matches!(error, StoreError::Io { .. }),
    };
    assert!(is_right, "{plan:?}: {error:?}");
}

fn seen(store: &Store) -> Seen {
    let versions = store.versions("p").expect("it reads").into_iter();
    let versions: BTreeSet<String> = versions.map(|version| version.digest).collect();
    let indexed = store.latest("p", 100).into_iter();
    let indexed: BTreeSet<String> = indexed.map(|version| version.digest).collect();
    assert_eq!(indexed, versions, "the index in memory is another");
    Seen {
        versions,
        name: store.name("p").expect("it reads"),
        deployed: store.deployed("/a.wasm").expect("it reads"),
    }
}

fn check_journal(store: &Store) {
    let journal = store.journal(0, usize::MAX).expect("it reads");
    let sequence: Vec<u64> = journal.iter().map(|entry| entry.seq).collect();
    let without_gaps: Vec<u64> = (1..=sequence.len() as u64).collect();
    assert_eq!(sequence, without_gaps);
}

/// After a clean-up: all that a version names is whole, and there is nothing else.
fn check_files(store: &Store, world: &World, at: &str) {
    let (mut components, mut models) = (BTreeSet::new(), BTreeSet::new());
    for version in store.versions("p").expect("it reads") {
        store
            .component(&version.component)
            .unwrap_or_else(|error| panic!("{at}: {error}"));
        let code = store.compiled(ENGINE, &version.component);
        let code = code.unwrap_or_else(|| panic!("{at}: no code of {}", version.version));
        let code = std::fs::read(code).expect("it reads");
        assert_eq!(code, code_of(&version.version), "{at}");
        components.insert(version.component);
        for model in version.models.values() {
            let kept = store.model_folder(&model.name, &model.digest);
            let kept = kept.unwrap_or_else(|| panic!("{at}: {} is gone", model.digest));
            for file in ["manifest.toml", "onnx/model.onnx"] {
                let (own, other) = (kept.join(file), world.model().join(file));
                let read = |path| std::fs::read(path).expect("it is whole");
                assert_eq!(read(own), read(other), "{at}: {file}");
            }
            models.insert(model.digest.clone());
        }
    }
    let data = world.data();
    let found: BTreeSet<String> = names(&data.join("components")).into_iter().collect();
    assert_eq!(found, components, "{at}: components");
    let found: BTreeSet<String> = names(&data.join("models")).into_iter().collect();
    assert_eq!(found, models, "{at}: models");
    for name in names(&data.join("compiled").join(ENGINE)) {
        let component = name.split('.').next().unwrap_or_default();
        assert!(components.contains(component), "{at}: code {name}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("it reads").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

fn sha256(content: &str) -> String {
    hex::encode(Sha256::digest(content))
}

/// Large enough that half of it is not all of it.
fn code_of(content: &str) -> Vec<u8> {
    format!("code of {content} ").repeat(100).into_bytes()
}

fn draft(kind: &str) -> JournalDraft {
    JournalDraft {
        kind: kind.to_owned(),
        policy: "p".to_owned(),
        ..JournalDraft::default()
    }
}

fn put(store: &Store, content: &str) -> Result<(), StoreError> {
    let component = sha256(content);
    store.put_component(&component, content.as_bytes())?;
    store.put_compiled(ENGINE, &component, &code_of(content))?;
    Ok(())
}

fn keep(store: &Store, world: &World, digest: &str) -> Result<(), StoreError> {
    let files = ["manifest.toml", "onnx/model.onnx"].map(PathBuf::from);
    store.keep_model(&world.model(), &files, "tiny", digest)?;
    Ok(())
}

fn stage(store: &Store, content: &str, model: Option<&str>) -> Result<(), StoreError> {
    let model = model.map(|digest| {
        let (name, digest) = ("tiny".to_owned(), digest.to_owned());
        ("encoder".to_owned(), ModelRef { name, digest })
    });
    let version = VersionRecord {
        digest: format!("d-{content}"),
        name: "p".to_owned(),
        version: content.to_owned(),
        component: sha256(content),
        models: model.into_iter().collect(),
        ..VersionRecord::default()
    };
    store.stage(&version, draft("staged"))?;
    Ok(())
}

fn roles(
    store: &Store,
    active: Option<&str>,
    history: &[&str],
    canary: Option<&str>,
) -> Result<(), StoreError> {
    let digest = |content: &str| format!("d-{content}");
    let changed = store.change("p", |record| {
        record.active = active.map(digest);
        record.history = history.iter().copied().map(digest).collect();
        record.canary = canary.map(|content| Canary {
            digest: digest(content),
            percent: 5.0,
            since_ms: 1,
        });
        Ok::<_, String>(draft("changed"))
    });
    match changed {
        Ok(_) => Ok(()),
        Err(ChangeError::Store(error)) => Err(error),
        Err(ChangeError::Refused(why)) => panic!("{why}"),
    }
}

fn delete(store: &Store, content: &str) -> Result<(), StoreError> {
    let digest = format!("d-{content}");
    store.delete_version("p", &digest, draft("deleted"))?;
    Ok(())
}

/// A folder with a data folder and a model in it.
struct World(PathBuf);

impl World {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let test = std::env::current_exe().expect("a process has one");
        // target/<profile>/deps/<test>
        let target = test.ancestors().nth(3).expect("Cargo put it there");
        let name = format!("faults-{}-{number}", std::process::id());
        let world = Self(target.join("tmp").join(name));
        let graph = world.model().join("onnx");
        std::fs::create_dir_all(&graph).expect("the target folder is writable");
        std::fs::create_dir_all(world.data()).expect("the target folder is writable");
        let files = [
            ("manifest.toml", "name = \"tiny\""),
            ("onnx/model.onnx", "graph"),
        ];
        for (name, content) in files {
            let written = std::fs::write(world.model().join(name), content.repeat(40));
            written.expect("the target folder is writable");
        }
        world
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    fn model(&self) -> PathBuf {
        self.0.join("tiny")
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.data())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It is in the target folder: what cannot be removed goes with the next `cargo clean`.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
