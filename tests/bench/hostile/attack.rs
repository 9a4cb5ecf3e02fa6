//! What is done to the server, and whom it is done to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::server::Server;

/// Connections of an attack that needs many, for each attacker.
const CONNECTIONS: usize = 140;

/// Documents of a ranking of the caller that means no harm.
const HONEST_DOCUMENTS: usize = 100;

/// What stands in the answers that nobody reads, bytes.
const LARGE_BYTES: usize = 2 << 20;

/// Between two bytes of a connection that dribbles.
const DRIBBLE: Duration = Duration::from_millis(200);

/// A server with a hostile policy in it.
pub(super) struct Target {
    /// `host:port` of the data plane.
    pub(super) address: String,
    admin_address: String,
    token: String,
    /// Rankings that the honest caller has asked for: no two have the same texts.
    honest: AtomicUsize,
}

/// One kind of attack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// None: what a neighbour feels of a caller that means no harm and is as busy.
    Honest,
    Loop,
    Fill,
    Log,
    Compute,
    Encode,
    Query,
    Tensors,
    Data,
    WrongIds,
    ErrorText,
    Explanations,
    Versions,
    Heads,
    AdminHeads,
    OneByteChunks,
    NeverRead,
    Uploads,
}

impl Target {
    /// The faulty guest that does what it is told is served beside the bundled policies.
    pub(super) fn flags(root: &Path) -> Result<Vec<&'static str>> {
        let own = root.join("target/tmp/rerankd-bench/hostile-policies");
        std::fs::create_dir_all(&own)?;
        let from = root.join("guest/dist/faulty/puppet.wasm");
        std::fs::copy(from, own.join("puppet.wasm"))?;
        // The server is started from the root.
        Ok(vec![
            "--policies",
            "guest/dist/policies",
            "--policies",
            "target/tmp/rerankd-bench/hostile-policies",
        ])
    }

    pub(super) fn prepare(server: &Server) -> Self {
        Self {
            address: server.address().to_owned(),
            admin_address: server.admin_address().to_owned(),
            token: server.token().to_owned(),
            honest: AtomicUsize::new(0),
        }
    }

    /// Has the puppet do something; what the caller is told.
    fn puppet(&self, parameters: &Value) -> Result<String> {
        let body = json!({
            "query": "red shoe", "documents": ["a red shoe", "a hat"],
            "parameters": parameters, "on_failure": "error",
        });
        self.post("puppet", &body)
    }

    /// A ranking of [`HONEST_DOCUMENTS`] titles that no cache knows.
    fn rank_new_titles(&self) -> Result<String> {
        let ranking = self.honest.fetch_add(1, Ordering::Relaxed);
        let titles: Vec<String> = (0..HONEST_DOCUMENTS)
            .map(|title| format!("running shoe {title} of collection {ranking}"))
            .collect();
        self.post(
            "semantic-blend",
            &json!({"query": format!("red shoe {ranking}"), "documents": titles}),
        )
    }

    fn post(&self, policy: &str, body: &Value) -> Result<String> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)));
        let agent: ureq::Agent = config.build().into();
        let url = format!("http://{}/v1/rerank/{policy}", self.address);
        let answer = agent.post(&url).content_type("application/json");
        let mut answer = match answer.send(body.to_string()) {
            Ok(answer) => answer,
            Err(error) => return Ok(error.to_string()),
        };
        let status = answer.status().as_u16();
        // Some are made to be large.
        let body = answer
            .body_mut()
            .with_config()
            .limit(2 << 30)
            .read_to_vec()?;
        let body: Value = serde_json::from_slice(&body)?;
        let message = body["error"]["message"].as_str().unwrap_or("ranked");
        let message: String = message.chars().take(110).collect();
        Ok(format!("{status} {}", message.replace(['|', '\n'], " ")))
    }
}

impl Attack {
    pub(super) const ALL: [Self; 18] = [
        Self::Honest,
        Self::Loop,
        Self::Fill,
        Self::Log,
        Self::Compute,
        Self::Encode,
        Self::Query,
        Self::Tensors,
        Self::Data,
        Self::WrongIds,
        Self::ErrorText,
        Self::Explanations,
        Self::Versions,
        Self::Heads,
        Self::AdminHeads,
        Self::OneByteChunks,
        Self::NeverRead,
        Self::Uploads,
    ];

    /// For tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Honest => "no attack: a caller that ranks 100 new titles after the other",
            Self::Loop => "a policy that loops",
            Self::Fill => "a policy that fills 100 MB of memory, a thousand times",
            Self::Log => "a policy that logs lines of 100 MB",
            Self::Compute => "a policy that runs 1,000,000 rows of one token",
            Self::Encode => "a policy that keeps four encodings of 100,000 texts",
            Self::Query => {
                "a policy that encodes its query 1,000,000 times, and 50,000 texts that are cut"
            }
            Self::Tensors => "a policy that keeps tensors of 64 MB",
            Self::Data => "a policy that reads a tensor of 32 MB again and again",
            Self::WrongIds => "a policy whose token ids are outside the vocabulary",
            Self::ErrorText => "a policy whose error has 100 MB",
            Self::Explanations => "a policy whose explanations have 10 MB each",
            Self::Versions => "a client that asks for versions that do not exist",
            Self::Heads => "a client that never finishes the heads of its requests",
            Self::AdminHeads => "the same on the admin plane",
            Self::OneByteChunks => "a client that sends bodies in chunks of one byte",
            Self::NeverRead => "a client that never reads its answers",
            Self::Uploads => "a pusher whose uploads come by one byte each 200 ms",
        }
    }

    /// Whether a policy does it.
    pub(super) fn is_a_policy(self) -> bool {
        self.steps().is_some()
    }

    /// Whether one attempt is one request that is answered.
    pub(super) fn is_a_call(self) -> bool {
        self.is_a_policy() || matches!(self, Self::Honest | Self::Versions)
    }

    /// What the puppet is told.
    fn steps(self) -> Option<Value> {
        let inputs = |rows: u32, id: i64| {
            json!([
                {"do": "load"},
                {"do": "ids", "rows": rows, "tokens": 1, "id": id},
                {"do": "compute", "take": 3},
            ])
        };
        Some(match self {
            Self::Loop => json!({"ops": [{"do": "loop"}]}),
            Self::Fill => json!({"ops": [{"do": "fill", "bytes": 100_000_000, "times": 1000}]}),
            Self::Log => json!({"ops": [{"do": "log", "bytes": 100_000_000, "times": 1000}]}),
            Self::Compute => json!({"ops": inputs(1_000_000, 101), "end": {"error": "last"}}),
            Self::Encode => json!({"ops": [
                {"do": "repeat", "times": 4, "ops": [{"do": "encode", "texts": 100_000, "bytes": 9, "say": "words"}]},
            ]}),
            Self::Query => json!({"ops": [
                {"do": "encode", "texts": 1_000_000, "say": "query", "cut": 50_000},
            ]}),
            Self::Tensors => json!({"ops": [
                {"do": "repeat", "times": 100, "ops": [
                    {"do": "tensor", "dims": [16_777_216], "type": "FP32", "bytes": 67_108_864},
                ]},
            ]}),
            Self::Data => json!({"ops": [
                {"do": "tensor", "dims": [8_388_608], "type": "FP32", "bytes": 33_554_432},
                {"do": "read-tensor", "times": 10_000},
            ]}),
            Self::WrongIds => json!({"ops": inputs(4, 9_000_000), "end": {"error": "last"}}),
            Self::ErrorText => json!({"end": {"error": "internal", "bytes": 100_000_000}}),
            Self::Explanations => json!({"end": {"explanation": 10_000_000}}),
            _ => return None,
        })
    }

    /// One attempt; what the attacker is told.
    pub(super) fn once(self, target: &Target) -> Result<String> {
        match self.steps() {
            Some(steps) => target.puppet(&steps),
            None if self == Self::Honest => target.rank_new_titles(),
            None => target.post(
                "semantic-blend@nothing",
                &json!({"query": "q", "documents": ["d"]}),
            ),
        }
    }

    /// Attempts until it is stopped; how many, and what the attacker was told last.
    pub(super) fn go_on(self, target: &Target, stop: &AtomicBool) -> Result<(usize, String)> {
        if !self.is_a_call() {
            return self.hold(target, stop);
        }
        let mut tried = 0;
        let mut last = String::new();
        while !stop.load(Ordering::Acquire) {
            last = self.once(target)?;
            tried += 1;
        }
        Ok((tried, last))
    }

    /// Attempts that are connections: as many as it may have, opened anew where the server ends them.
    fn hold(self, target: &Target, stop: &AtomicBool) -> Result<(usize, String)> {
        let connections = if self == Self::Uploads {
            8
        } else {
            CONNECTIONS
        };
        let mut held: Vec<Held> = Vec::new();
        let mut tried = 0;
        let mut last = "nothing".to_owned();
        while !stop.load(Ordering::Acquire) {
            while held.len() < connections && !stop.load(Ordering::Acquire) {
                match Held::open(self, target) {
                    Ok(one) => held.push(one),
                    Err(_) => break,
                }
                tried += 1;
            }
            for one in &mut held {
                one.dribble(self);
            }
            held.retain_mut(|one| {
                if self == Self::NeverRead {
                    return one.open;
                }
                match one.said() {
                    Some(said) => {
                        last = said;
                        false
                    }
                    None => one.open,
                }
            });
            std::thread::sleep(DRIBBLE);
        }
        Ok((tried, last))
    }
}

/// A connection that an attacker holds.
struct Held {
    stream: TcpStream,
    open: bool,
}

impl Held {
    fn open(attack: Attack, target: &Target) -> Result<Self> {
        let admin = matches!(attack, Attack::AdminHeads | Attack::Uploads);
        let address = if admin {
            &target.admin_address
        } else {
            &target.address
        };
        let address: std::net::SocketAddr = address.parse()?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let page = json!({"query": "q", "response": {"hits": {"hits": [
            {"_id": "a", "_score": 1.0, "_source": {"title": "t", "other": "o".repeat(LARGE_BYTES)}},
        ]}}});
        let page = page.to_string();
        let head = match attack {
            Attack::OneByteChunks => format!(
                "POST /v1/rerank/first-stage HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            Attack::NeverRead => format!(
                "POST /v1/rerank/first-stage/hits HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            ),
            Attack::Uploads => format!(
                "PUT /v1/policies/puppet HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/wasm\r\nContent-Length: 1000000\r\n\r\n",
                target.token
            ),
            _ => format!("POST /v1/rerank/first-stage HTTP/1.1\r\nHost: {address}\r\nX-Long: "),
        };
        let open = stream.write_all(head.as_bytes()).is_ok();
        stream.set_nonblocking(true)?;
        Ok(Self { stream, open })
    }

    /// Sends what keeps the connection busy.
    fn dribble(&mut self, attack: Attack) {
        let bytes = match attack {
            Attack::OneByteChunks => "1\r\n \r\n".repeat(2000),
            Attack::NeverRead => String::new(),
            _ => "x".to_owned(),
        };
        if let Err(error) = self.stream.write_all(bytes.as_bytes()) {
            self.open = error.kind() == std::io::ErrorKind::WouldBlock;
        }
    }

    /// The status line, where the server has said something; "closed" where it has ended it.
    fn said(&mut self) -> Option<String> {
        let mut head = [0; 512];
        match self.stream.read(&mut head) {
            Ok(0) => Some("closed".to_owned()),
            Ok(read) => {
                let text = String::from_utf8_lossy(&head[..read]).into_owned();
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some("closed".to_owned()),
        }
    }
}
