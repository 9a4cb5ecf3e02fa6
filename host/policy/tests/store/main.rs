//! The store on disk: what it keeps, what it refuses, and what is left when it is killed or the disk
//! is full. The last two in a process of their own: this test, started anew.

mod folder;
mod full;
mod killed;

use std::os::unix::fs::PermissionsExt;

use redb::TableDefinition;
use rerankd_policy::VersionSelector;
use rerankd_policy::store::{
    Canary, ChangeError, MAX_JOURNAL_ENTRIES, MAX_MESSAGE_BYTES, ModelRef, NameRecord, Role,
    Staged, Store, StoreError, VersionRecord,
};

use folder::{ENGINE, Folder, MODEL_BYTES, activate, draft, files, keep_model, put, stage, walk};

#[test]
fn everything_is_there_after_a_restart() {
    let folder = Folder::new();
    let store = folder.open();
    let mut version = put(&store, "b", "1.0.0");
    let model = keep_model(&store, &folder, "m1");
    version.models.insert("encoder".to_owned(), model.clone());
    version.parameters = serde_json::from_str(r#"{"weight": 0.5}"#).expect("it is JSON");
    let staged = store.stage(&version, draft("staged")).expect("it is new");
    assert!(staged.created);
    let again = store.stage(&version, draft("staged"));
    assert_eq!(again.expect("it is there"), Staged { created: false });
    let record = activate(&store, &version.digest);
    let set = store.set_deployed("/a.wasm", "f1");
    set.expect("there is room");
    let event = store.record_event(draft("started")).expect("there is room");
    assert_eq!(event.seq, 3);

    drop(store);
    let store = folder.open();
    let versions = store.versions("p").expect("it reads");
    assert_eq!(versions, [version.clone()]);
    assert_eq!(store.names().expect("it reads"), [record]);
    assert_eq!(store.component(&version.component).expect("it reads"), b"b");
    let code = store.compiled(ENGINE, &version.component);
    let code = std::fs::read(code.expect("it was put")).expect("it reads");
    assert_eq!(code, b"code of b");
    let kept = store.model_folder(&model.name, &model.digest);
    let graph = kept.expect("it was kept").join("onnx/model.onnx");
    let bytes = std::fs::read(graph).expect("it reads");
    assert_eq!(bytes.len(), MODEL_BYTES);
    let fingerprint = store.deployed("/a.wasm").expect("it reads");
    assert_eq!(fingerprint.as_deref(), Some("f1"));
    let journal = store.journal(1, 10).expect("it reads");
    let kinds: Vec<&str> = journal.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["activated", "started"]);
    assert_eq!(store.last_seq().expect("it reads"), 3);
}

#[test]
fn only_its_owner_can_read_it() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, "b", "1");
    keep_model(&store, &folder, "m1");
    let mut seen = 0;
    walk(&folder.data(), &mut |path| {
        let metadata = path.metadata().expect("it is there");
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        let own = metadata.permissions().mode() & 0o777;
        assert_eq!(own, mode, "{}", path.display());
        seen += 1;
    });
    assert!(seen >= 14, "only {seen} files and folders");
}

#[test]
fn the_same_version_string_of_another_component_is_a_conflict() {
    let folder = Folder::new();
    let store = folder.open();
    let first = stage(&store, "first", "1.0.0");
    let second = put(&store, "second", "1.0.0");
    let error = store.stage(&second, draft("staged"));
    let error = error.expect_err("it is another component");
    assert!(
        matches!(&error, StoreError::Conflict { component, .. } if *component == first.component),
        "{error}"
    );
    // What was put for it is gone; what is of the other stays.
    let missing = store.component(&second.component);
    assert!(matches!(missing, Err(StoreError::Unknown { .. })));
    assert_eq!(store.compiled(ENGINE, &second.component), None);
    assert!(store.component(&first.component).is_ok());
    // The same component with other parameters, and the string under another name, are fine.
    let mut tuned = first.clone();
    tuned.digest = "tuned".to_owned();
    let mut elsewhere = put(&store, "second", "1.0.0");
    elsewhere.name = "q".to_owned();
    for version in [&tuned, &elsewhere] {
        let staged = store.stage(version, draft("staged")).expect("no conflict");
        assert!(staged.created);
    }
    assert_eq!(store.last_seq().expect("it reads"), 3);
}

/// Who asks for a version by a part of its digest shall not get one whose author called it so.
#[test]
fn a_version_string_that_is_the_head_of_a_digest_is_refused() {
    let folder = Folder::new();
    let store = folder.open();
    let mut first = put(&store, "first", "1.0.0");
    first.digest = "0123456789abcdef".repeat(4);
    let staged = store.stage(&first, draft("staged"));
    assert!(staged.expect("there is room").created);
    for (version, is_refused) in [
        (&first.digest[..8], true),
        (&first.digest[..63], true),
        (&first.digest[..7], false),
        ("01234568", false),
    ] {
        let second = put(&store, version, version);
        let error = store.stage(&second, draft("staged")).err();
        let refused = matches!(error, Some(StoreError::LooksLikeDigest { .. }));
        assert_eq!(refused, is_refused, "{version}: {error:?}");
    }
    // Nor does the digest come after the string.
    let mut later = put(&store, "later", "2.0.0");
    later.digest = format!("01234568{}", "0".repeat(56));
    let error = store.stage(&later, draft("staged")).err();
    let refused = matches!(error, Some(StoreError::LooksLikeDigest { .. }));
    assert!(refused, "{error:?}");
}

/// One bit, anywhere.
#[test]
fn compiled_code_with_a_bit_that_flipped_is_not_there() {
    let folder = Folder::new();
    let store = folder.open();
    let version = stage(&store, "b", "1");
    let path = store.compiled(ENGINE, &version.component);
    let path = path.expect("it was put");
    let digest = path.with_extension("sha256");
    for file in [&path, &digest] {
        let whole = std::fs::read(file).expect("it is there");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(file, flipped).expect("it is ours");
            assert_eq!(store.compiled(ENGINE, &version.component), None, "{at}");
        }
        std::fs::write(file, whole).expect("it is ours");
        assert!(store.compiled(ENGINE, &version.component).is_some());
    }
    std::fs::remove_file(&digest).expect("it is ours");
    assert_eq!(store.compiled(ENGINE, &version.component), None);
    let put = store.put_compiled(ENGINE, &version.component, b"anew");
    put.expect("there is room");
    assert!(store.compiled(ENGINE, &version.component).is_some());
}

/// Of a version that is deleted while it is compiled anew.
#[test]
fn code_of_a_component_that_is_gone_is_not_kept() {
    let folder = Folder::new();
    let store = folder.open();
    let version = stage(&store, "c", "1");
    let deleted = store.delete_version("p", &version.digest, draft("deleted"));
    assert!(deleted.expect("it has no role"));
    let put = store.put_compiled(ENGINE, &version.component, b"late");
    assert!(matches!(put, Err(StoreError::Unknown { .. })), "{put:?}");
    assert_eq!(files(&folder.data().join("compiled").join(ENGINE)), [""; 0]);
}

/// What is asked before anybody is admitted reads no record.
#[test]
fn versions_are_selected_without_their_records() {
    let folder = Folder::new();
    let store = folder.open();
    let mut version = put(&store, "b", "1.0.0");
    version.digest = "0123456789abcdef".repeat(4);
    version.created_at_ms = 2;
    let mut older = version.clone();
    older.digest = "f".repeat(64);
    older.created_at_ms = 1;
    for version in [&version, &older] {
        store
            .stage(version, draft("staged"))
            .expect("there is room");
    }
    let check = |store: &Store| {
        let digests = |selector: &VersionSelector| -> Vec<String> {
            let found = store.select("p", selector).into_iter();
            found.map(|version| version.digest).collect()
        };
        let [by_string, by_head, by_nothing] =
            ["1.0.0", "01234567", "nothing"].map(VersionSelector::any);
        assert_eq!(digests(&by_string), [&*older.digest, &*version.digest]);
        assert_eq!(digests(&by_head), [&*version.digest]);
        assert_eq!(digests(&by_nothing), [""; 0]);
        let latest = store.latest("p", 1);
        assert_eq!(latest[0].digest, version.digest);
        assert_eq!(store.latest("q", 9), []);
    };
    check(&store);
    drop(store);
    let store = folder.open();
    check(&store);
    let deleted = store.delete_version("p", &older.digest, draft("deleted"));
    assert!(deleted.expect("it has no role"));
    assert_eq!(store.latest("p", 9).len(), 1);
}

#[test]
fn records_name_only_what_is_there() {
    let folder = Folder::new();
    let store = folder.open();
    let mut version = put(&store, "b", "1");
    let (name, digest) = ("tiny".to_owned(), "none".to_owned());
    let model = ModelRef { name, digest };
    version.models.insert("encoder".to_owned(), model);
    let error = store.stage(&version, draft("staged"));
    let error = error.expect_err("there is no such model").to_string();
    assert_eq!(error, "no model `tiny` with digest `none` in the store");
    let change = store.change("p", |record| {
        record.active = Some("none".to_owned());
        Ok::<_, String>(draft("activated"))
    });
    let error = change.expect_err("there is no such version").to_string();
    assert_eq!(error, "no version `p@none` in the store");
    let refused = store.change("p", |_| Err("no"));
    assert!(matches!(refused, Err(ChangeError::Refused("no"))));
    assert_eq!(store.names().expect("it reads"), []);
    assert_eq!(store.last_seq().expect("it reads"), 0);

    let outside = store.keep_model(&folder.model(), &["../x".into()], "m", "d");
    let error = outside.expect_err("it is outside of the folder");
    assert!(matches!(error, StoreError::BadName { .. }), "{error}");
    assert_eq!(store.model_folder("m", "d"), None);
    let error = store.put_component("../x", b"");
    let error = error.expect_err("it is no file's name");
    assert!(matches!(error, StoreError::BadName { .. }), "{error}");
}

#[test]
fn a_version_with_a_role_stays_and_a_deleted_one_takes_its_files_with_it() {
    let folder = Folder::new();
    let store = folder.open();
    let names = ["old", "target", "active", "canary", "shadow"];
    let [old, target, active, canary, shadow] = names.map(|name| {
        let mut version = put(&store, name, name);
        let model = keep_model(&store, &folder, "shared");
        version.models.insert("encoder".to_owned(), model);
        let staged = store.stage(&version, draft("staged"));
        staged.expect("there is room");
        version
    });
    let change = store.change("p", |record| {
        record.active = Some(active.digest.clone());
        record.history = vec![old.digest.clone(), target.digest.clone()];
        record.canary = Some(Canary {
            digest: canary.digest.clone(),
            percent: 5.0,
            since_ms: 1,
        });
        record.shadow = Some(shadow.digest.clone());
        Ok::<_, String>(draft("activated"))
    });
    change.expect("all of them are there");
    let delete =
        |version: &VersionRecord| store.delete_version("p", &version.digest, draft("deleted"));
    for (version, expected) in [
        (&active, Role::Active),
        (&canary, Role::Canary),
        (&shadow, Role::Shadow),
        (&target, Role::RollbackTarget),
    ] {
        let error = delete(version).expect_err("it has a role");
        assert!(
            matches!(error, StoreError::InRole { role, .. } if role == expected),
            "{error}"
        );
    }
    assert!(delete(&old).expect("it has no role"));
    assert!(!delete(&old).expect("that it is gone is no error"));
    let record = store.name("p").expect("it reads").expect("it is there");
    assert_eq!(record.history, [target.digest.as_str()]);
    assert!(store.component(&old.component).is_err());
    assert_eq!(store.compiled(ENGINE, &old.component), None);
    assert!(store.model_folder("tiny", "shared").is_some());

    let change = store.change("p", |record| {
        *record = NameRecord::default();
        Ok::<_, String>(draft("emptied"))
    });
    change.expect("it names no version");
    for version in [&target, &active, &canary, &shadow] {
        assert!(delete(version).expect("it has no role"));
    }
    assert_eq!(store.names().expect("it reads"), []);
    for name in ["components", "models", "tmp", "compiled/engine-1"] {
        assert_eq!(files(&folder.data().join(name)), [""; 0], "{name}");
    }
}

#[test]
fn garbage_goes_and_what_is_named_or_under_way_stays() {
    let folder = Folder::new();
    let store = folder.open();
    let mut kept = put(&store, "kept", "1");
    let model = keep_model(&store, &folder, "named");
    kept.models.insert("encoder".to_owned(), model);
    let staged = store.stage(&kept, draft("staged"));
    staged.expect("there is room");
    keep_model(&store, &folder, "stray");
    let stray = put(&store, "stray", "1");
    let code = store.put_compiled("engine-0", &kept.component, b"old");
    code.expect("there is room");
    folder.write("data/tmp/half", "a file that was cut sho");
    let garbage = store.collect_garbage(ENGINE).expect("it can be removed");
    assert_eq!(garbage.removed, 1, "code of another engine");
    assert!(store.component(&stray.component).is_ok());

    // What was under way is not, after a restart.
    drop(store);
    let store = folder.open();
    assert_eq!(files(&folder.data().join("tmp")), [""; 0]);
    let garbage = store.collect_garbage(ENGINE).expect("it can be removed");
    assert_eq!(garbage.removed, 3, "a component, its code and a model");
    assert!(store.component(&stray.component).is_err());
    assert_eq!(store.model_folder("tiny", "stray"), None);
    assert!(store.component(&kept.component).is_ok());
    assert!(store.compiled(ENGINE, &kept.component).is_some());
    assert!(store.model_folder("tiny", "named").is_some());
    assert_eq!(store.collect_garbage(ENGINE).expect("fine").removed, 0);
}

#[test]
fn one_process_has_it_at_a_time() {
    let folder = Folder::new();
    let store = folder.open();
    let error = Store::open(&folder.data()).err().expect("it is in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
    drop(store);
    folder.open();
}

#[test]
fn damage_is_said_and_not_worked_with() {
    let folder = Folder::new();
    let store = folder.open();
    let version = stage(&store, "b", "1");
    let path = folder.data().join("components").join(&version.component);
    std::fs::write(&path, "other").expect("it is ours");
    let error = store.component(&version.component);
    let error = error.expect_err("it is another").to_string();
    assert!(error.contains("push the component again"), "{error}");
    put(&store, "b", "1");
    let healed = store.component(&version.component).expect("it is whole");
    assert_eq!(healed, b"b");
    drop(store);

    let path = folder.data().join("releases.redb");
    let whole = std::fs::read(&path).expect("it is there");
    let mut altered = whole.clone();
    let key = b"\"digest\"";
    for at in 0..altered.len() - key.len() {
        if altered[at..].starts_with(key) {
            altered[at + 1] = b'D';
        }
    }
    assert!(altered != whole, "no record is in there");
    for bad in [b"no database".to_vec(), whole[..5000].to_vec(), altered] {
        std::fs::write(&path, bad).expect("it is ours");
        let error = Store::open(&folder.data()).err().expect("it is damaged");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("releases.redb` is damaged: "), "{text}");
        assert!(text.ends_with("deploy the policies again"), "{text}");
    }
    std::fs::write(&path, &whole).expect("it is ours");
    let versions = folder.open().versions("p").expect("it reads");
    assert_eq!(versions, [version]);
}

#[test]
fn records_of_a_newer_rerankd_are_read_and_a_newer_format_is_not() {
    let folder = Folder::new();
    drop(folder.open());
    let record = br#"{"name": "p", "canary": {"digest": "d", "sticky": true}, "mirror": []}"#;
    folder.edit(|transaction| {
        let names = TableDefinition::<&str, &[u8]>::new("names");
        let mut names = transaction.open_table(names).expect("it is there");
        names.insert("p", record.as_slice()).expect("there is room");
    });
    let found = folder.open().name("p").expect("it reads");
    let found = found.expect("it is there");
    assert_eq!(found.role_of("d"), Some(Role::Canary));
    assert_eq!(found.active, None);

    folder.edit(|transaction| {
        let meta = TableDefinition::<&str, u64>::new("meta");
        let mut meta = transaction.open_table(meta).expect("it is there");
        meta.insert("format", 2).expect("there is room");
    });
    let error = Store::open(&folder.data()).err().expect("it is newer");
    assert!(
        matches!(error, StoreError::NewerFormat { found: 2, .. }),
        "{error}"
    );
}

#[test]
fn the_journal_is_bounded() {
    let folder = Folder::new();
    drop(folder.open());
    folder.edit(|transaction| {
        let journal = TableDefinition::<u64, &[u8]>::new("journal");
        let mut journal = transaction.open_table(journal).expect("it is there");
        for seq in 1..=MAX_JOURNAL_ENTRIES as u64 {
            let entry = format!(r#"{{"seq": {seq}, "kind": "old"}}"#);
            let inserted = journal.insert(seq, entry.as_bytes());
            inserted.expect("there is room");
        }
    });
    let store = folder.open();
    let mut long = draft("new");
    long.message = Some("ä".repeat(MAX_MESSAGE_BYTES));
    let entry = store.record_event(long).expect("there is room");
    assert_eq!(entry.seq, MAX_JOURNAL_ENTRIES as u64 + 1);
    let bytes = entry.message.map(|text| text.len());
    assert_eq!(bytes, Some(MAX_MESSAGE_BYTES));
    let all = store.journal(0, usize::MAX).expect("it reads");
    assert_eq!((all.len(), all[0].seq), (MAX_JOURNAL_ENTRIES, 2));
    let next = store.journal(5, 2).expect("it reads");
    let next: Vec<u64> = next.iter().map(|entry| entry.seq).collect();
    assert_eq!(next, [6, 7]);
}
