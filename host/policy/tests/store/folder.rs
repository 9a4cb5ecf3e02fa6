//! A folder with a store, and what is put into it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rerankd_policy::store::{JournalDraft, ModelRef, NameRecord, Store, VersionRecord};
use sha2::{Digest, Sha256};

pub(crate) const ENGINE: &str = "engine-1";
pub(crate) const MODEL_BYTES: usize = 100_000;
/// Where a process that a test starts shall work.
const FOLDER: &str = "STORE_TEST_FOLDER";

/// A test of this binary as a process of its own, which works in `folder`.
pub(crate) fn start_anew(test: &str, folder: &Folder) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a process has one"));
    command
        .args(["--exact", "--nocapture", test])
        .env(FOLDER, &folder.path);
    command
}

/// Puts a component and its code; the version that names them is not staged.
pub(crate) fn put(store: &Store, content: &str, version: &str) -> VersionRecord {
    let component = sha256(content.as_bytes());
    let put = store.put_component(&component, content.as_bytes());
    put.expect("there is room");
    let code = format!("code of {content}");
    let code = store.put_compiled(ENGINE, &component, code.as_bytes());
    code.expect("there is room");
    VersionRecord {
        digest: format!("d-{}", &component[..16]),
        name: "p".to_owned(),
        version: version.to_owned(),
        component,
        ..VersionRecord::default()
    }
}

pub(crate) fn stage(store: &Store, content: &str, version: &str) -> VersionRecord {
    let version = put(store, content, version);
    let staged = store.stage(&version, draft("staged"));
    assert!(staged.expect("there is room").created);
    version
}

pub(crate) fn activate(store: &Store, digest: &str) -> NameRecord {
    let change = store.change("p", |record| {
        let previous = record.active.replace(digest.to_owned());
        record.history.extend(previous);
        Ok::<_, String>(draft("activated"))
    });
    change.expect("the version is there")
}

pub(crate) fn keep_model(store: &Store, folder: &Folder, digest: &str) -> ModelRef {
    let files = ["manifest.toml", "onnx/model.onnx"].map(PathBuf::from);
    let kept = store.keep_model(&folder.model(), &files, "tiny", digest);
    let found = store.model_folder("tiny", digest);
    assert_eq!(found, Some(kept.expect("there is room")));
    ModelRef {
        name: "tiny".to_owned(),
        digest: digest.to_owned(),
    }
}

pub(crate) fn draft(kind: &str) -> JournalDraft {
    JournalDraft {
        kind: kind.to_owned(),
        policy: "p".to_owned(),
        ..JournalDraft::default()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Every file outside of `tmp/` must be whole.
pub(crate) fn check_files(data: &Path) {
    for name in files(&data.join("components")) {
        let bytes = std::fs::read(data.join("components").join(&name)).expect("it reads");
        assert_eq!(sha256(&bytes), name);
    }
    let compiled = data.join("compiled").join(ENGINE);
    for name in files(&compiled) {
        // What it is the digest of may have been written again since: then the code is not taken.
        if name.ends_with(".sha256") {
            continue;
        }
        let code = std::fs::read(compiled.join(&name)).expect("it reads");
        let content = code.strip_prefix(b"code of ").expect("it is code");
        assert_eq!(format!("{}.cwasm", sha256(content)), name);
    }
    for digest in files(&data.join("models")) {
        let folder = data.join("models").join(digest).join("tiny");
        if folder.exists() {
            let graph = folder.join("onnx/model.onnx").metadata();
            assert_eq!(graph.expect("it is whole").len(), MODEL_BYTES as u64);
            assert!(folder.join("manifest.toml").is_file());
        }
    }
}

/// The names in a folder; none if it is not there.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("it reads").file_name())
        .map(|name| name.into_string().expect("names are UTF-8"))
        .collect()
}

pub(crate) fn walk(path: &Path, visit: &mut impl FnMut(&Path)) {
    for name in files(path) {
        let path = path.join(name);
        visit(&path);
        walk(&path, visit);
    }
}

/// A folder of a test, with the store's in `data/`; removed at drop by the process that made it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    is_ours: bool,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("store-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("the target folder is writable");
        Self {
            path,
            is_ours: true,
        }
    }

    /// The one of the test that started this process, if one did.
    pub(crate) fn given() -> Option<Self> {
        let path = std::env::var_os(FOLDER)?;
        Some(Self {
            path: path.into(),
            is_ours: false,
        })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(crate) fn open(&self) -> Store {
        std::fs::create_dir_all(self.data()).expect("the target folder is writable");
        Store::open(&self.data()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A model's folder, outside of the store.
    pub(crate) fn model(&self) -> PathBuf {
        let path = self.path.join("tiny");
        if !path.exists() {
            self.write("tiny/manifest.toml", "name = \"tiny\"");
            self.write("tiny/onnx/model.onnx", "x".repeat(MODEL_BYTES));
        }
        path
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path.join(name);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("the target folder is writable");
        std::fs::write(&path, content).expect("the target folder is writable");
    }

    /// Alters the database behind the store's back.
    pub(crate) fn edit(&self, work: impl FnOnce(&redb::WriteTransaction)) {
        let database = redb::Database::open(self.data().join("releases.redb"));
        let database = database.expect("the store is closed");
        let transaction = database.begin_write().expect("nobody else writes");
        work(&transaction);
        transaction.commit().expect("there is room");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_ours {
            // It is in the target folder: what cannot be removed goes with the next `cargo clean`.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
