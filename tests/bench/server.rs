//! The real binary, as its own process, and a client that keeps its connection.

use std::fs::File;
use std::fs::read_to_string;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;

/// A running `rerankd`; killed at drop.
pub(crate) struct Server {
    child: Child,
    address: String,
    admin_address: String,
    /// Where it was told to stand before an engine.
    proxy_address: Option<String>,
    token: String,
    /// From the start of the process to the line that says that it listens.
    pub(crate) start: Duration,
    /// That line.
    pub(crate) greeting: String,
}

/// Memory of a process, MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) peak: f64,
    /// The part of `resident` that is not pages of files.
    pub(crate) anonymous: f64,
}

/// Where a model is measured, it must run.
const NO_CACHES: [&str; 4] = ["--row-cache-mib", "0", "--encoding-cache-mib", "0"];

impl Server {
    /// Starts it from the project's root on a free port and waits until it is ready. It keeps nothing
    /// of what it computes.
    pub(crate) fn start(root: &Path, flags: &[&str]) -> Result<Self> {
        Self::start_with_caches(root, &[&NO_CACHES, flags].concat())
    }

    /// The same with its caches, as it comes.
    pub(crate) fn start_with_caches(root: &Path, flags: &[&str]) -> Result<Self> {
        let flags = [&["--log", "error"], flags].concat();
        let data = root.join("target/tmp/rerankd-bench/data");
        Self::launch(root, &data, Stdio::inherit(), &flags)
    }

    /// The same on a data folder that it has to make: it compiles its policies.
    pub(crate) fn start_first(root: &Path) -> Result<Self> {
        let data = root.join("target/tmp/rerankd-bench/first");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        Self::launch(root, &data, Stdio::inherit(), &["--log", "error"])
    }

    /// The same without caches, on a data folder of its own, with its log in a file.
    pub(crate) fn start_on(root: &Path, data: &Path, log: &Path, flags: &[&str]) -> Result<Self> {
        let flags = [&NO_CACHES, flags].concat();
        Self::launch(root, data, File::create(log)?.into(), &flags)
    }

    /// The same with every limit as it comes.
    pub(crate) fn start_as_it_comes(root: &Path, flags: &[&str]) -> Result<Self> {
        let data = root.join("target/tmp/rerankd-bench/hostile");
        Self::spawn(root, &data, Stdio::null(), flags)
    }

    fn launch(root: &Path, data: &Path, stderr: Stdio, flags: &[&str]) -> Result<Self> {
        // A slow machine shall be slow here, not late.
        let patient = ["--timeout-ms", "60000", "--max-timeout-ms", "60000"];
        Self::spawn(root, data, stderr, &[&patient, flags].concat())
    }

    fn spawn(root: &Path, data: &Path, stderr: Stdio, flags: &[&str]) -> Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(root.join("target/release/rerankd"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(flags)
            .current_dir(root)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("target/release/rerankd: {error}"))?;
        let (mut greeting, mut admin, mut proxy) = (String::new(), String::new(), String::new());
        let mut start = Duration::ZERO;
        if let Some(stdout) = child.stdout.take() {
            let mut lines = BufReader::new(stdout);
            lines.read_line(&mut greeting)?;
            start = started.elapsed();
            lines.read_line(&mut admin)?;
            if flags.contains(&"--upstream") {
                lines.read_line(&mut proxy)?;
            }
        }
        let address = |line: &str| {
            let (_, rest) = line.split_once("http://")?;
            let address = rest.split([' ', ',', '\n']).next();
            address.map(str::to_owned)
        };
        let proxy_address = address(&proxy);
        let (Some(address), Some(admin_address)) = (address(&greeting), address(&admin)) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err("rerankd did not start".into());
        };
        Ok(Self {
            child,
            address,
            admin_address,
            proxy_address,
            token: std::fs::read_to_string(data.join("admin-token"))?,
            start,
            greeting,
        })
    }

    /// A client of the admin plane.
    pub(crate) fn admin(&self) -> Admin {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Admin {
            agent: config.build().into(),
            url: format!("http://{}/v1/policies", self.admin_address),
            authorization: format!("Bearer {}", self.token.trim()),
        }
    }

    /// `host:port` of the admin plane.
    pub(crate) fn admin_address(&self) -> &str {
        &self.admin_address
    }

    /// The token that may do everything.
    pub(crate) fn token(&self) -> &str {
        self.token.trim()
    }

    /// CPU time that the process has taken, of all its threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut taken = Duration::ZERO;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // Nanoseconds on a core, then two other numbers; a thread may end meanwhile.
            let text = read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            let first = text.split_whitespace().next().unwrap_or("0");
            taken += Duration::from_nanos(first.parse()?);
        }
        Ok(taken)
    }

    /// `host:port` of the data plane.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// `host:port` of the search proxy.
    pub(crate) fn proxy_address(&self) -> Result<&str> {
        let address = self.proxy_address.as_deref();
        Ok(address.ok_or("there is no search proxy")?)
    }

    pub(crate) fn client(&self, policy: &str) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Client {
            agent: config.build().into(),
            url: format!("http://{}/v1/rerank/{policy}", self.address),
        }
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mebibytes = |key: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.ok_or("no such line")?.parse::<f64>()? / 1024.0)
        };
        Ok(Memory {
            resident: mebibytes("VmRSS:")?,
            peak: mebibytes("VmHWM:")?,
            anonymous: mebibytes("RssAnon:")?,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection, kept alive.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    /// Posts a request; the time goes from before it is sent until its answer has been read.
    pub(crate) fn post(&self, body: &[u8]) -> Result<(Duration, Vec<u8>)> {
        let started = Instant::now();
        let mut response = self
            .agent
            .post(&self.url)
            .content_type("application/json")
            .send(body)?;
        let answer = response.body_mut().read_to_vec()?;
        let took = started.elapsed();
        if response.status() != 200 {
            return Err(format!("{}: {}", self.url, String::from_utf8_lossy(&answer)).into());
        }
        Ok((took, answer))
    }

    /// Posts a request and reads its answer, which must have ranked every document.
    pub(crate) fn rerank(&self, body: &[u8]) -> Result<(Duration, Answer)> {
        let (took, answer) = self.post(body)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if answer["status"] != "applied" {
            return Err(format!("{}: status {}", self.url, answer["status"]).into());
        }
        Ok((took, Answer(answer)))
    }
}

/// A connection to the admin plane that may do everything.
pub(crate) struct Admin {
    agent: ureq::Agent,
    url: String,
    authorization: String,
}

impl Admin {
    /// Releases a component; returns the version's digest.
    pub(crate) fn upload(&self, name: &str, query: &str, component: &[u8]) -> Result<String> {
        let request = self.agent.put(format!("{}/{name}?{query}", self.url));
        let request = request.header("authorization", &self.authorization);
        let answer = request.content_type("application/wasm").send(component)?;
        let answer = read(answer)?;
        let digest = answer["digest"].as_str();
        Ok(digest.ok_or("no digest")?.to_owned())
    }

    /// Makes a version the active one; the time is the client's.
    pub(crate) fn activate(&self, name: &str, digest: &str) -> Result<Duration> {
        let started = Instant::now();
        let request = self.agent.post(format!("{}/{name}/activate", self.url));
        let request = request.header("authorization", &self.authorization);
        let body = format!("{{\"digest\": \"{digest}\"}}");
        let answer = request.content_type("application/json").send(&body)?;
        let answer = read(answer)?;
        if answer["active"]["digest"] == digest {
            Ok(started.elapsed())
        } else {
            Err(format!("`{digest}` is not active: {answer}").into())
        }
    }
}

/// The body of an answer that must say that all is well.
fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = answer.status();
    let body = answer.body_mut().read_to_vec()?;
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(serde_json::from_slice(&body)?)
}

/// A native answer.
pub(crate) struct Answer(Value);

impl Answer {
    /// In the request's order.
    pub(crate) fn scores(&self) -> Result<Vec<f64>> {
        let results = self.0["results"].as_array().ok_or("no results")?;
        let mut scores = vec![f64::NAN; results.len()];
        for result in results {
            let index = result["index"].as_u64().ok_or("no index")?;
            scores[index as usize] = result["score"].as_f64().ok_or("no score")?;
        }
        Ok(scores)
    }

    /// The version that says that it ranked: the first digits of its digest.
    pub(crate) fn version(&self) -> &str {
        self.0["version"].as_str().unwrap_or_default()
    }

    /// One of `timings_ms`.
    pub(crate) fn timing(&self, name: &str) -> f64 {
        self.0["timings_ms"][name].as_f64().unwrap_or(f64::NAN)
    }
}
