//! The server is killed while it releases policies, and starts anew on the same data folder: what it
//! acknowledged stands, what was under way happened or did not, and no file is half written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rerankd_tests::guests::with_version;
use rerankd_tests::rerankd::only_policies;
use rerankd_tests::{Answer, Connection, Folder, Rerankd, long_tests, require};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Kills in `make test`; ten times as many in `make test-long`.
const KILLS: usize = 20;

/// It is activated, rolled back and called; it compiles in some milliseconds.
const SERVED: &str = "first-stage";

/// It brings a model along, and is deleted again.
const MODELLED: &str = "semantic-blend";

/// What the server is doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// A component that is new, activated in the same request.
    UploadAndActivate,
    /// A version that was active before, or was only staged.
    Activate,
    /// To the version that was active before.
    RollBack,
    /// A component that is new, and a model that no other version keeps.
    UploadWithModel,
    /// Of the last version with this component and this model.
    Delete,
}

const ACTS: [Act; 5] = [
    Act::UploadAndActivate,
    Act::Activate,
    Act::UploadWithModel,
    Act::Delete,
    Act::RollBack,
];

/// One request, and what is true when it was acknowledged.
struct Step {
    method: &'static str,
    path: String,
    body: Vec<u8>,
    /// The version string of [`SERVED`] that is active then.
    active: Option<String>,
    /// A version that is there then.
    adds: Option<(&'static str, String)>,
    /// A version that is gone then.
    removes: Option<(&'static str, String)>,
}

/// What the server acknowledged.
struct Acknowledged {
    active: String,
    versions: BTreeSet<(&'static str, String)>,
}

/// A client that knows where the server was: it outlives it.
struct Client {
    address: SocketAddr,
    authorization: String,
}

impl Client {
    fn of(server: &Rerankd) -> Self {
        Self {
            address: server.admin_address(),
            authorization: format!("Bearer {}", server.admin_token()),
        }
    }

    /// The answer, unless the server went away before all of it had come.
    fn send(&self, step: &Step) -> Option<Answer> {
        let media = match step.method {
            "PUT" => "application/wasm",
            _ => "application/json",
        };
        let host = self.address.to_string();
        let headers = [
            ("Host", &*host),
            ("Authorization", &self.authorization),
            ("Content-Type", media),
        ];
        let mut connection = Connection::open(self.address).ok()?;
        connection
            .request(step.method, &step.path, &headers, &step.body)
            .ok()?;
        connection.answer().ok()
    }
}

/// The bench of one test: the server and what is known of it.
struct Bench {
    server: Rerankd,
    components: BTreeMap<&'static str, Vec<u8>>,
    next_version: usize,
    acknowledged: Acknowledged,
    /// How long each act took when nobody was killed.
    took: BTreeMap<Act, Duration>,
    random: u64,
    _policies: Folder,
}

impl Bench {
    fn start() -> Self {
        let policies = Folder::new();
        let component = |name: &str| {
            let path = require::policies().join(format!("{name}.wasm"));
            std::fs::read(path).expect("it is there")
        };
        let mut bench = Self {
            server: Rerankd::start(&only_policies(policies.path())),
            components: [SERVED, MODELLED]
                .map(|name| (name, component(name)))
                .into(),
            next_version: 0,
            acknowledged: Acknowledged {
                active: String::new(),
                versions: BTreeSet::new(),
            },
            took: BTreeMap::new(),
            random: RandomState::new().hash_one(0),
            _policies: policies,
        };
        eprintln!("the kills are those of seed {}", bench.random);
        // Twice: something must be there to roll back to.
        for _ in 0..2 {
            let upload = bench.upload(SERVED, true);
            bench.run(&upload);
        }
        for act in ACTS {
            let step = bench.prepare(act);
            let started = Instant::now();
            bench.run(&step);
            bench.took.insert(act, started.elapsed());
        }
        eprintln!("without a kill: {:?}", bench.took);
        bench
    }

    /// At least 0, less than 1: SplitMix64.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A release of a component that was never there, under a version string of its own.
    fn upload(&mut self, name: &'static str, activate: bool) -> Step {
        let number = self.next_version;
        self.next_version += 1;
        let version = format!("{}.{}.{}", number / 100, number / 10 % 10, number % 10);
        Step {
            method: "PUT",
            path: format!("/v1/policies/{name}?activate={activate}"),
            body: with_version(&self.components[name], &version),
            active: activate.then(|| version.clone()),
            adds: Some((name, version)),
            removes: None,
        }
    }

    /// What must be there for an act, and its request.
    fn prepare(&mut self, act: Act) -> Step {
        match act {
            Act::UploadAndActivate => self.upload(SERVED, true),
            Act::UploadWithModel => {
                self.delete_all(MODELLED);
                self.upload(MODELLED, false)
            }
            Act::Activate => {
                let acknowledged = &self.acknowledged;
                let mut others = acknowledged
                    .versions
                    .iter()
                    .filter(|(name, version)| *name == SERVED && *version != acknowledged.active);
                let (_, version) = others.next_back().expect("two are there from the start");
                let version = version.clone();
                Step {
                    method: "POST",
                    path: format!("/v1/policies/{SERVED}/activate"),
                    body: json!({"version": version}).to_string().into_bytes(),
                    active: Some(version),
                    adds: None,
                    removes: None,
                }
            }
            Act::RollBack => {
                let mut target = self.rollback_target();
                if target.is_none() {
                    let upload = self.upload(SERVED, true);
                    self.run(&upload);
                    target = self.rollback_target();
                }
                Step {
                    method: "POST",
                    path: format!("/v1/policies/{SERVED}/rollback"),
                    body: b"{}".to_vec(),
                    active: target,
                    adds: None,
                    removes: None,
                }
            }
            Act::Delete => {
                let kept = |this: &Self| {
                    let mut versions = this.acknowledged.versions.iter();
                    let (_, version) = versions.rfind(|(name, _)| *name == MODELLED)?;
                    Some(version.clone())
                };
                if kept(self).is_none() {
                    let upload = self.upload(MODELLED, false);
                    self.run(&upload);
                }
                let version = kept(self).expect("it was acknowledged");
                self.deletion(MODELLED, &version)
            }
        }
    }

    fn rollback_target(&self) -> Option<String> {
        let target = &self.policy(SERVED)["rollback_to"]["version"];
        target.as_str().map(str::to_owned)
    }

    fn deletion(&self, name: &'static str, version: &str) -> Step {
        let policy = self.policy(name);
        let versions = policy["versions"].as_array().expect("a list");
        let found = versions.iter().find(|found| found["version"] == version);
        let digest = text(&found.expect("it is there")["digest"]);
        Step {
            method: "DELETE",
            path: format!("/v1/policies/{name}/versions/{digest}"),
            body: Vec::new(),
            active: None,
            adds: None,
            removes: Some((name, version.to_owned())),
        }
    }

    fn delete_all(&mut self, name: &'static str) {
        let versions = self.acknowledged.versions.clone();
        for (_, version) in versions.iter().filter(|(of, _)| *of == name) {
            let deletion = self.deletion(name, version);
            self.run(&deletion);
        }
    }

    /// Without a kill.
    fn run(&mut self, step: &Step) {
        let answer = Client::of(&self.server).send(step).expect("it is answered");
        assert!(
            (200..300).contains(&answer.status),
            "{} {}: {}",
            step.method,
            step.path,
            answer.text()
        );
        self.acknowledge(step);
    }

    fn acknowledge(&mut self, step: &Step) {
        let acknowledged = &mut self.acknowledged;
        if let Some(active) = &step.active {
            acknowledged.active.clone_from(active);
        }
        acknowledged.versions.extend(step.adds.clone());
        if let Some(removed) = &step.removes {
            acknowledged.versions.remove(removed);
        }
    }

    /// Kills the server at a random point of an act, and looks at what the next one finds. Returns
    /// whether the act was acknowledged before.
    fn kill_in(&mut self, act: Act) -> bool {
        let step = self.prepare(act);
        // Beyond its end, so that its last moments have their share of the kills.
        let delay = self.took[&act].mul_f64(1.2 * self.random());
        let client = Client::of(&self.server);
        let answer = std::thread::scope(|scope| {
            let answer = scope.spawn(|| client.send(&step));
            let at = Instant::now() + delay;
            while let left @ 1.. = at.saturating_duration_since(Instant::now()).as_nanos() {
                std::thread::park_timeout(Duration::from_nanos(left as u64));
            }
            self.server.kill();
            answer.join().expect("it does not panic")
        });
        let acknowledged = answer.is_some();
        if let Some(answer) = answer {
            assert!(answer.status < 300, "{act:?}: {}", answer.text());
            self.acknowledge(&step);
        }
        self.server.restart();
        self.check(&step, &format!("{act:?} killed after {delay:?}"));
        acknowledged
    }

    fn policy(&self, name: &str) -> Value {
        let path = format!("/v1/policies/{name}");
        let answer = self.server.admin_call("GET", &path, &[], b"");
        match answer.status {
            404 => json!({"versions": []}),
            _ => answer.ok().json(),
        }
    }

    /// What must hold after any restart. `under_way` is what nobody knows the end of, or was
    /// acknowledged; afterwards it is known.
    fn check(&mut self, under_way: &Step, when: &str) {
        let listed = self.server.admin_call("GET", "/v1/policies", &[], b"");
        let listed = listed.ok().json();
        let policies = listed["policies"].as_array().expect("a list");
        let details: Vec<Value> = policies
            .iter()
            .map(|policy| self.policy(&text(&policy["name"])))
            .collect();

        let mut found = BTreeSet::new();
        for policy in &details {
            for version in policy["versions"].as_array().expect("a list") {
                let name = [SERVED, MODELLED]
                    .into_iter()
                    .find(|name| policy["name"] == *name);
                found.insert((name.expect("no other"), text(&version["version"])));
            }
        }
        let mut unsure = self.acknowledged.versions.clone();
        unsure.extend(under_way.adds.clone());
        if let Some(removed) = &under_way.removes {
            unsure.remove(removed);
        }
        assert!(
            found == self.acknowledged.versions || found == unsure,
            "{when}: {found:?}, not {:?} or {unsure:?}",
            self.acknowledged.versions
        );

        let served = details.iter().find(|policy| policy["name"] == SERVED);
        let active = &served.expect("it was acknowledged")["active"];
        let version = text(&active["version"]);
        let expected = [Some(&self.acknowledged.active), under_way.active.as_ref()];
        assert!(
            expected.contains(&Some(&version)),
            "{when}: {version} is active, not one of {expected:?}"
        );

        let digest = text(&active["digest"]);
        self.check_served(&digest, when);
        self.check_files(&details, when);
        self.acknowledged.active = version;
        self.acknowledged.versions = found;
    }

    /// The data plane answers with the version.
    fn check_served(&self, digest: &str, when: &str) {
        let document = |score: f64| json!({"score": score, "fields": {"title": "a title"}});
        let request = json!({"query": "q", "documents": [document(1.0), document(2.0)]});
        let path = format!("/v1/rerank/{SERVED}");
        let answer = self.server.post(&path, &request).ok();
        assert_eq!(answer.json()["version"], digest[..8], "{when}");
        assert_eq!(answer.order(), [1, 0], "{when}");
        let log = self.server.stderr();
        for complaint in ["compiled code is made anew", "cannot be loaded", "ERROR"] {
            assert!(!log.contains(complaint), "{when}: {log}");
        }
    }

    /// The folder has every file that a version names, whole, and no other.
    fn check_files(&self, details: &[Value], when: &str) {
        let versions = || {
            let lists = details.iter().map(|policy| policy["versions"].as_array());
            lists.flat_map(|versions| versions.expect("a list"))
        };
        let folder = self.server.data_dir();
        assert_eq!(names(&folder.join("tmp")), [""; 0], "{when}");

        let components: BTreeMap<String, u64> = versions()
            .map(|version| {
                let component = &version["component"];
                let bytes = component["bytes"].as_u64().expect("a size");
                (text(&component["sha256"]), bytes)
            })
            .collect();
        let kept = names(&folder.join("components"));
        assert!(kept.iter().eq(components.keys()), "{when}: {kept:?}");
        for (sha256, length) in &components {
            let bytes = std::fs::read(folder.join("components").join(sha256)).expect("it is there");
            assert_eq!(hex(&Sha256::digest(&bytes)), *sha256, "{when}");
            assert_eq!(bytes.len() as u64, *length, "{when}");
        }

        let compiled = folder.join("compiled");
        for engine in names(&compiled) {
            let code = names(&compiled.join(engine));
            // The digest beside it may be missing, if it was killed just then: it is compiled again.
            let (code, digests): (Vec<&String>, Vec<&String>) =
                code.iter().partition(|name| name.ends_with(".cwasm"));
            let expected = components.keys().map(|sha256| format!("{sha256}.cwasm"));
            assert!(
                code.iter().copied().cloned().eq(expected),
                "{when}: {code:?}"
            );
            for name in digests {
                let component = name.strip_suffix(".sha256").unwrap_or_default();
                assert!(components.contains_key(component), "{when}: {name}");
            }
        }

        let models: BTreeSet<(String, String)> = versions()
            .flat_map(|version| version["models"].as_object().expect("an object"))
            .map(|(_, model)| (text(&model["digest"]), text(&model["name"])))
            .collect();
        let kept = folder.join("models");
        let found: BTreeSet<(String, String)> = names(&kept)
            .into_iter()
            .flat_map(|digest| {
                let models = names(&kept.join(&digest)).into_iter();
                models.map(move |name| (digest.clone(), name))
            })
            .collect();
        assert_eq!(found, models, "{when}");
        for (digest, name) in &models {
            let model = kept.join(digest).join(name);
            for file in names(&model) {
                let own = std::fs::read(model.join(&file)).expect("it is there");
                let original = std::fs::read(require::model(name).join(&file));
                assert!(
                    own == original.expect("it is there"),
                    "{when}: {name}/{file}"
                );
            }
            for file in ["manifest.toml", "model.onnx", "tokenizer.json"] {
                assert!(model.join(file).is_file(), "{when}: no {name}/{file}");
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the server made it");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("the folder can be listed").file_name();
        name.into_string().expect("it is UTF-8")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn kill(times: usize) {
    let mut bench = Bench::start();
    let mut acknowledged = 0;
    for number in 0..times {
        acknowledged += usize::from(bench.kill_in(ACTS[number % ACTS.len()]));
    }
    eprintln!("{acknowledged} of {times} acts were acknowledged before the kill");
    assert!(
        acknowledged < times,
        "no kill came before the end of what it was to cut short"
    );
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    kill(KILLS);
}

#[test]
fn what_was_acknowledged_outlives_many_kills() {
    if long_tests("what_was_acknowledged_outlives_many_kills") {
        kill(10 * KILLS);
    }
}
