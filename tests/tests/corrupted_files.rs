//! Every file that a server keeps, damaged in every way: bits flipped, cut short, emptied, gone, a
//! folder in its place. It starts and ranks as before or not at all, or it says which file is wrong;
//! it never dies of it, never hangs and never ranks differently.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use rerankd_tests::{
    Answer, Connection, Folder, PATIENCE, Rerankd, eventually, long_tests, require,
};
use serde_json::json;

/// Bits that are flipped in one file.
const FLIPS: usize = 8;

/// Servers at a time.
const WORKERS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Flipped,
    Cut,
    Emptied,
    Gone,
    Folder,
}

const ALL: [Damage; 5] = [
    Damage::Flipped,
    Damage::Cut,
    Damage::Emptied,
    Damage::Gone,
    Damage::Folder,
];

/// A data folder with one file of each kind, and the ranking that is made with it.
struct Whole {
    folder: Folder,
    scores: Vec<Option<f64>>,
    /// Files below the data folder, each with its kind.
    files: BTreeMap<PathBuf, String>,
}

#[test]
fn a_damaged_file_is_named_or_made_anew_and_never_changes_a_ranking() {
    let whole = Arc::new(Whole::make());
    let rounds = if long_tests("corrupted_files with many damages") {
        12
    } else {
        1
    };
    let mut trials = Vec::new();
    for (number, file) in whole.files.keys().enumerate() {
        for round in 0..rounds {
            for (at, damage) in ALL.into_iter().enumerate() {
                // Of what does not depend on chance once is enough; in a short run, one of these three.
                let by_chance = matches!(damage, Damage::Flipped | Damage::Cut);
                if !by_chance && (round > 0 || rounds == 1 && number % 3 != at - 2) {
                    continue;
                }
                trials.push((file.clone(), damage, round));
            }
        }
    }
    let (next, trials) = (Arc::new(AtomicUsize::new(0)), Arc::new(trials));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (whole, next, trials) = (whole.clone(), next.clone(), trials.clone());
            std::thread::spawn(move || {
                let mut all = Vec::new();
                while let Some((file, damage, round)) =
                    trials.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let became = try_one(&whole, file, *damage, *round);
                    println!("{} {damage:?}: {became}", file.display());
                    all.push(became);
                }
                all
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.join().expect("each damage is survived"));
    }
    for became in ["ended", "ranked"] {
        assert!(
            all.contains(&became),
            "none {became}: does this test see any?"
        );
    }
}

impl Whole {
    fn make() -> Self {
        let folder = Folder::new();
        folder.copy(
            &require::policies().join("cross-encoder.wasm"),
            "policies/cross-encoder.wasm",
        );
        folder.copy(
            &require::model("tiny-cross-encoder"),
            "models/tiny-cross-encoder",
        );
        fs::create_dir_all(folder.path().join("none")).expect("it is ours");
        let data = folder.path().join("data");
        let text = |name: &str| folder.path().join(name).display().to_string();
        let (policies, models) = (text("policies"), text("models"));
        let (data_text, cache) = (text("data"), text("data/rows.redb"));
        let mut server = Rerankd::start(&[
            "--data-dir",
            &data_text,
            "--policies",
            &policies,
            "--models",
            &models,
            "--cache-file",
            &cache,
        ]);
        let made = Rerankd::run(Rerankd::command(&[
            "token",
            "new",
            "reader",
            "--policies",
            "*",
            "--rights",
            "read",
            "--data-dir",
            &data_text,
        ]));
        assert_eq!(made.code, Some(0), "{made:?}");
        let scores = ask(server.address()).ok().scores();
        assert!(
            scores.len() == 3 && scores.iter().all(Option::is_some),
            "{scores:?}"
        );
        // What was ranked is in the cache file by then.
        server.terminate();
        assert!(server.exit_status().success(), "{}", server.stderr());

        let mut files = BTreeMap::new();
        collect(&data, Path::new(""), &mut files);
        let kinds: Vec<&str> = files.values().map(String::as_str).collect();
        for kind in [
            "admin-token",
            "components",
            "compiled",
            "models",
            "releases.redb",
            "rows.redb",
            "tokens.json",
        ] {
            assert!(kinds.contains(&kind), "no file of `{kind}`: {kinds:?}");
        }
        Self {
            folder,
            scores,
            files,
        }
    }

    fn start(&self, data: &Path) -> Started {
        let text = |path: PathBuf| path.display().to_string();
        // Neither policy nor model lies anywhere but in the data folder.
        let none = text(self.folder.path().join("none"));
        let (data, cache) = (text(data.to_owned()), text(data.join("rows.redb")));
        Started::of(Rerankd::command(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--policies",
            &none,
            "--models",
            &none,
            "--data-dir",
            &data,
            "--cache-file",
            &cache,
        ]))
    }
}

/// The kind of a file is the first part of its path.
fn collect(data: &Path, below: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(data.join(below)).expect("it can be listed") {
        let path = below.join(entry.expect("it can be listed").file_name());
        if data.join(&path).is_dir() {
            collect(data, &path, files);
        } else {
            let first = path.iter().next().expect("it has a name");
            let kind = first.to_string_lossy().into_owned();
            files.insert(path, kind);
        }
    }
}

/// What became of a server with one damaged file: it `ended`, or `ranked`, or serves `without` the policy.
fn try_one(whole: &Whole, file: &Path, damage: Damage, round: usize) -> &'static str {
    let what = format!("{} {damage:?} {round}", file.display());
    let data = whole
        .folder
        .path()
        .join(format!("trial-{}", what.replace(['/', ' '], "-")));
    copy(&whole.folder.path().join("data"), &data);
    let mut random = Random::of(&what);
    damage_file(&data.join(file), damage, &mut random);
    let mut started = whole.start(&data);
    let became = match started.outcome() {
        Outcome::Ended(status) => {
            let stderr = started.stderr();
            assert_eq!(status.signal(), None, "{what}: {status} {stderr}");
            assert_eq!(status.code(), Some(1), "{what}: {stderr}");
            let name = file.file_name().expect("it has one").to_string_lossy();
            assert!(stderr.contains(&*name), "{what}: it is not named: {stderr}");
            "ended"
        }
        Outcome::Serves(address) => {
            let answer = ask(address);
            let ranked = answer.status == 200 && answer.parameter("status") == Some("applied");
            if ranked {
                assert_eq!(answer.scores(), whole.scores, "{what}: another ranking");
            } else {
                // A model is named by its folder.
                let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
                eventually(&format!("{what}: the log names it"), || {
                    let stderr = started.stderr();
                    parts
                        .iter()
                        .any(|part| stderr.contains(&**part))
                        .then_some(())
                });
            }
            // The process is the same one, and still well.
            assert_eq!(get(address, "/health/live").status, 200, "{what}");
            let status = started.child.try_wait().expect("it is our child");
            assert_eq!(status, None, "{what}: {}", started.stderr());
            if ranked { "ranked" } else { "without" }
        }
    };
    drop(started);
    fs::remove_dir_all(&data).expect("it is ours");
    became
}

fn damage_file(path: &Path, damage: Damage, random: &mut Random) {
    let bytes = fs::read(path).expect("it is there");
    let at = |random: &mut Random| random.below(bytes.len().max(1));
    let written = match damage {
        Damage::Flipped => {
            let mut bytes = bytes.clone();
            for _ in 0..FLIPS {
                let at = at(random);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            fs::write(path, bytes)
        }
        Damage::Cut => fs::write(path, &bytes[..at(random)]),
        Damage::Emptied => fs::write(path, b""),
        Damage::Gone => fs::remove_file(path),
        Damage::Folder => fs::remove_file(path).and_then(|()| fs::create_dir(path)),
    };
    written.expect("it is ours");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("it is ours");
    let permissions = fs::metadata(from).expect("it is there").permissions();
    fs::set_permissions(to, permissions).expect("it is ours");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let from = entry.expect("it can be listed").path();
        let to = to.join(from.file_name().expect("it has one"));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("it is ours");
        }
    }
}

fn ask(address: std::net::SocketAddr) -> Answer {
    let body = json!({"query": "clog", "documents": ["a clog", "a boot", "a garden shoe"]});
    let headers = [("Content-Type", "application/json")];
    let mut connection = Connection::open(address).expect("it listens");
    let sent = connection.request(
        "POST",
        "/v1/rerank/cross-encoder",
        &headers,
        body.to_string().as_bytes(),
    );
    sent.and_then(|()| connection.answer()).expect("it answers")
}

fn get(address: std::net::SocketAddr, path: &str) -> Answer {
    let mut connection = Connection::open(address).expect("it listens");
    let sent = connection.request("GET", path, &[], b"");
    sent.and_then(|()| connection.answer()).expect("it answers")
}

/// A process that becomes a server or ends.
struct Started {
    child: Child,
    lines: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

enum Outcome {
    Ended(ExitStatus),
    Serves(std::net::SocketAddr),
}

impl Started {
    fn of(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is executable");
        let (stdout, said) = (child.stdout.take(), child.stderr.take());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout.expect("it is piped"))
                .lines()
                .map_while(Result::ok)
            {
                // Nobody may be listening any more; the pipe must not fill up all the same.
                let _ = sender.send(line);
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&stderr);
        std::thread::spawn(move || {
            for line in BufReader::new(said.expect("it is piped"))
                .lines()
                .map_while(Result::ok)
            {
                let mut text = text.lock().expect("nothing panics with it");
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self {
            child,
            lines,
            stderr,
        }
    }

    fn stderr(&self) -> String {
        self.stderr.lock().expect("nothing panics with it").clone()
    }

    fn outcome(&mut self) -> Outcome {
        // The first line is of the data plane; it comes last, when all of them listen.
        if let Ok(line) = self.lines.recv_timeout(5 * PATIENCE) {
            let address = line
                .split_once("://")
                .and_then(|(_, rest)| rest.split([' ', ',']).next());
            let address = address.and_then(|address| address.parse().ok());
            return Outcome::Serves(address.unwrap_or_else(|| panic!("no address: {line}")));
        }
        let status = eventually("it serves or ends", || {
            self.child.try_wait().expect("it is our child")
        });
        // Its last words may still be in the pipe.
        let stderr = Arc::clone(&self.stderr);
        eventually("its output was read", || {
            (Arc::strong_count(&stderr) == 2).then_some(())
        });
        Outcome::Ended(status)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// xorshift64, from a text: the same damage each time.
struct Random(u64);

impl Random {
    fn of(text: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, mix) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % limit
    }
}
