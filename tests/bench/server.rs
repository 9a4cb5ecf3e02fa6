//! The real binary, as its own process, and a client that keeps its connection.

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

impl Server {
    /// Starts it from the project's root on a free port and waits until it is ready.
    pub(crate) fn start(root: &Path, flags: &[&str]) -> Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(root.join("target/release/rerankd"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error"])
            // A slow machine shall be slow here, not late.
            .args(["--timeout-ms", "60000", "--max-timeout-ms", "60000"])
            .args(flags)
            .current_dir(root)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("target/release/rerankd: {error}"))?;
        let mut greeting = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut greeting)?;
        }
        let start = started.elapsed();
        let address = greeting
            .split_once("http://")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .map(str::to_owned);
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            return Err("rerankd did not start".into());
        };
        Ok(Self {
            child,
            address,
            start,
            greeting,
        })
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

    /// One of `timings_ms`.
    pub(crate) fn timing(&self, name: &str) -> f64 {
        self.0["timings_ms"][name].as_f64().unwrap_or(f64::NAN)
    }
}
