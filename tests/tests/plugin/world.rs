//! The engine with the plugin, and the sidecars that stand beside it.

use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rerankd_tests::scenario::Scenarios;
use rerankd_tests::{Answer, Engine, Folder, Rerankd, Setup, engine, require};
use serde_json::{Value, json};

/// The pipeline that every index of the scenarios has by default.
pub(crate) const PIPELINE: &str = "scenarios";

/// The key of the sidecar that asks for one.
const TOKEN: &str = "k-0123456789abcdef";

pub(crate) static SCENARIOS: LazyLock<Scenarios> = LazyLock::new(Scenarios::read);
pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::build);

/// Everything that runs.
pub(crate) struct World {
    /// OpenSearch, with the indices of the scenarios.
    pub(crate) engine: Engine,
    /// A sidecar that pipelines name.
    pub(crate) sidecar: Rerankd,
    /// One that speaks TLS and asks for a key, which the node's settings name.
    pub(crate) secured: Rerankd,
    /// Keys and certificates: a key whose file is gone is good no more.
    _folder: Folder,
}

/// Which OpenSearch is tested.
pub(crate) fn version() -> String {
    let named = std::env::var("RERANKD_TEST_OPENSEARCH");
    named.unwrap_or_else(|_| engine::OPENSEARCH_VERSION.to_owned())
}

/// Whether it is the usual one, which has all modules; the older ones come without.
pub(crate) fn is_whole() -> bool {
    version() == engine::OPENSEARCH_VERSION
}

/// Whether it has processors that the system generates.
pub(crate) fn has_auto() -> bool {
    !version().starts_with("2.")
}

/// One test at a time: what one does to the cluster is in what another one finds.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pipeline with both processors.
pub(crate) fn pipeline(options: &Value) -> Value {
    json!({
        "request_processors": [{"rerankd_window": options}],
        "response_processors": [{"rerankd": {}}],
    })
}

/// The multi_match that the scenarios use.
pub(crate) fn search(query: &str) -> Value {
    json!({"query": {"multi_match": {"query": query, "fields": ["title", "text"]}}})
}

impl World {
    fn build() -> Self {
        let folder = Folder::new();
        folder.copy(&require::policies(), "policies");
        for name in ["nearest-length", "trap", "waits"] {
            folder.copy(&require::faulty(name), &format!("policies/{name}.wasm"));
        }
        let policies = path(&folder.path().join("policies"));
        let sidecar = Rerankd::start(&["--policies", &policies]);
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("the names are good");
        let cert = folder.write("ca.pem", made.cert.pem());
        let key = folder.write("key.pem", made.signing_key.serialize_pem());
        folder.set_mode("key.pem", 0o600);
        let keys = folder.write("keys", TOKEN);
        folder.set_mode("keys", 0o600);
        let secured = Rerankd::start(&[
            "--policies",
            &policies,
            "--tls-cert",
            &path(&cert),
            "--tls-key",
            &path(&key),
            "--api-key-file",
            &path(&keys),
        ]);
        let plugins = match has_auto() {
            true => vec![require::plugin(3), require::neighbours()],
            false => vec![require::plugin(2)],
        };
        let engine = Engine::start_with(
            "opensearch",
            &Setup {
                version: Some(version()),
                plugins,
                settings: vec![
                    format!("rerankd.url=https://{}", secured.address()),
                    "rerankd.policy=nearest-length".to_owned(),
                    "rerankd.ca_file=ca.pem".to_owned(),
                ],
                keystore: vec![format!("rerankd.token={TOKEN}")],
                config_files: vec![cert],
            },
        );
        engine.load(&SCENARIOS.indices, SCENARIOS.bulk.as_bytes());
        let world = Self {
            engine,
            sidecar,
            secured,
            _folder: folder,
        };
        let policies = ["nearest-length", "semantic-blend", "trap", "waits"];
        let options = json!({"url": world.sidecar_url(), "policies": policies});
        world.put_pipeline(PIPELINE, &pipeline(&options)).ok();
        let settings = json!({"index.search.default_pipeline": PIPELINE});
        world.call("PUT", "/*/_settings", &settings).ok();
        world
    }

    /// Where the sidecar of the pipelines listens.
    pub(crate) fn sidecar_url(&self) -> String {
        format!("http://{}", self.sidecar.address())
    }

    /// Makes a search pipeline.
    pub(crate) fn put_pipeline(&self, name: &str, pipeline: &Value) -> Answer {
        self.call("PUT", &format!("/_search/pipeline/{name}"), pipeline)
    }

    /// One call with a body of JSON; null is none.
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let json = [("Content-Type", "application/json")];
        engine::call(self.engine.address(), method, path, &json, text.as_bytes())
    }

    /// One `POST`.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, body)
    }

    /// What the engine alone answers to a search of `products`.
    pub(crate) fn alone(&self, body: &Value) -> Answer {
        self.post("/products/_search?search_pipeline=_none", body)
            .ok()
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("the path is UTF-8").to_owned()
}
