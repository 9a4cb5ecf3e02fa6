//! A real OpenSearch or Elasticsearch, as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Answer, Connection, http, require};

/// The engines that the tests run, by the names that scenarios use.
pub const ENGINES: [&str; 2] = ["opensearch", "elasticsearch"];

/// The version of OpenSearch that is started where nobody names one.
pub const OPENSEARCH_VERSION: &str = "3.6.0";

/// What an engine is given before its start.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Its version; the usual one, if there is none.
    pub version: Option<String>,
    /// Zips of plugins.
    pub plugins: Vec<PathBuf>,
    /// Lines of its configuration, `KEY=VALUE`.
    pub settings: Vec<String>,
    /// Entries of its keystore, `KEY=VALUE`.
    pub keystore: Vec<String>,
    /// Files that are copied into its folder of configuration.
    pub config_files: Vec<PathBuf>,
}

impl Setup {
    fn arguments(&self) -> Vec<String> {
        let paths = |paths: &[PathBuf]| -> Vec<String> {
            let text = |path: &PathBuf| path.to_str().expect("the path is UTF-8").to_owned();
            paths.iter().map(text).collect()
        };
        let flags = [
            ("--version", self.version.iter().cloned().collect()),
            ("--plugin", paths(&self.plugins)),
            ("--setting", self.settings.clone()),
            ("--keystore", self.keystore.clone()),
            ("--config-file", paths(&self.config_files)),
        ];
        let of = |(flag, values): (&str, Vec<String>)| {
            let pairs = values.into_iter().map(|value| [flag.to_owned(), value]);
            pairs.flatten().collect::<Vec<_>>()
        };
        flags.into_iter().flat_map(of).collect()
    }
}

/// A running engine on a free port of loopback. It ends with the test's process, however that ends:
/// `scripts/engines.py` stops it when this side of its standard input is gone.
pub struct Engine {
    name: &'static str,
    address: SocketAddr,
    child: Child,
}

impl Engine {
    /// Starts one of [`ENGINES`], as a user that is not root, and waits until it answers.
    ///
    /// # Panics
    /// If it was not fetched, or does not start.
    pub fn start(name: &'static str) -> Self {
        Self::start_with(name, &Setup::default())
    }

    /// The same with plugins, settings and so on.
    ///
    /// # Panics
    /// As [`Engine::start`], and if it does not take them.
    pub fn start_with(name: &'static str, setup: &Setup) -> Self {
        require::engine(name, setup.version.as_deref());
        let mut child = Command::new("python3")
            .arg(require::root().join("scripts/engines.py"))
            .args(["run", name])
            .args(setup.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is `python3`");
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        // The script gives up by itself.
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the script writes UTF-8");
        let address = line.trim().strip_prefix("http://");
        let address = address.and_then(|address| address.parse().ok());
        Self {
            name,
            address: address.unwrap_or_else(|| panic!("{name} did not start (see above)")),
            child,
        }
    }

    /// Its name in [`ENGINES`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The process that started it and ends it.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Creates indices and fills them: `indices` are the bodies of their creation by name, `documents` a
    /// body of `_bulk`. All of it is visible to searches afterwards.
    ///
    /// # Panics
    /// If the engine refuses anything.
    pub fn load(&self, indices: &Value, documents: &[u8]) {
        let json = [("Content-Type", "application/json")];
        for (name, settings) in indices.as_object().expect("indices have names") {
            let body = settings.to_string();
            call(
                self.address,
                "PUT",
                &format!("/{name}"),
                &json,
                body.as_bytes(),
            )
            .ok();
        }
        let lines = [("Content-Type", "application/x-ndjson")];
        let answer = call(
            self.address,
            "POST",
            "/_bulk?refresh=true",
            &lines,
            documents,
        )
        .ok();
        assert_eq!(answer.json()["errors"], false, "{}", answer.text());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has ended already, or ends now.
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own, to an engine or to what stands before it.
///
/// # Panics
/// If there is no answer.
pub fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut all = headers.to_vec();
    let host = address.to_string();
    if !http::has_header(headers, "host") {
        all.push(("Host", &host));
    }
    let mut connection = Connection::open(address).expect("it listens");
    // It may answer and close before it has read the whole body.
    let sent = match body {
        [] => connection.send(http::head(method, path, &all)),
        body => connection.request(method, path, &all, body),
    };
    let answer = match method {
        // Its `Content-Length` speaks of a body that does not come.
        "HEAD" => connection.answer_head(),
        _ => connection.answer(),
    };
    answer.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error} ({sent:?})"))
}
