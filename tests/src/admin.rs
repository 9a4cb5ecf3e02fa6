//! Releases on a server, through its admin plane.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::rerankd::only_policies;
use crate::{Answer, Connection, Folder, Rerankd};

/// The boundary of [`Deployment::push_form`].
const BOUNDARY: &str = "------------------------rerankd-tests";

/// A server whose folder of policies is empty, and what one does with it through HTTP.
pub struct Deployment {
    server: Rerankd,
    folder: Folder,
}

/// An event of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its `id:`.
    pub id: u64,
    /// Its `event:`.
    pub kind: String,
    /// Its `data:`.
    pub data: Value,
}

/// An error of the admin plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminError {
    /// The answer's status.
    pub status: u16,
    /// For programs.
    pub code: String,
    /// The step of the pipeline; empty if there is none.
    pub step: String,
    /// For people.
    pub message: String,
}

impl Deref for Deployment {
    type Target = Rerankd;

    fn deref(&self) -> &Rerankd {
        &self.server
    }
}

impl DerefMut for Deployment {
    fn deref_mut(&mut self) -> &mut Rerankd {
        &mut self.server
    }
}

impl Deployment {
    /// A server without any policy.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_in(Folder::new(), flags)
    }

    /// The same with what lies in `policies` of a folder.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_in(folder: Folder, flags: &[&str]) -> Self {
        let policies = folder.path().join("policies");
        std::fs::create_dir_all(&policies).expect("the target folder is writable");
        let server = Rerankd::start(&[&only_policies(&policies), flags].concat());
        Self { server, folder }
    }

    /// A server that was started in another way; `folder` is kept for as long as it lives.
    pub fn of(server: Rerankd, folder: Folder) -> Self {
        Self { server, folder }
    }

    /// Puts a file into its folder of policies as one should: written beside, then moved.
    pub fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let beside = self.folder.write(&format!("beside/{name}"), content);
        let path = self.folder.path().join("policies").join(name);
        std::fs::rename(beside, &path).expect("both are ours");
        path
    }

    /// Releases a component; `query` is what stands behind the `?`.
    pub fn push(&self, name: &str, component: &[u8], query: &str) -> Answer {
        let path = format!("/v1/policies/{name}?{query}");
        let headers = [("Content-Type", "application/wasm")];
        self.admin_call("PUT", &path, &headers, component)
    }

    /// Releases a component by a form of these parts.
    pub fn push_form(&self, name: &str, query: &str, parts: &[(&str, &[u8])]) -> Answer {
        let mut body = Vec::new();
        for (part, content) in parts {
            let head = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{part}\"\r\n\r\n"
            );
            body.extend([head.as_bytes(), content, b"\r\n"].concat());
        }
        body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
        let media = format!("multipart/form-data; boundary={BOUNDARY}");
        let path = format!("/v1/policies/{name}?{query}");
        self.admin_call("PUT", &path, &[("Content-Type", &media)], &body)
    }

    /// Releases a component that is good, and returns its digest.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn release(&self, name: &str, component: &[u8], query: &str) -> String {
        let answer = self.push(name, component, query);
        assert!(
            matches!(answer.status, 200 | 201),
            "{} {}",
            answer.status,
            answer.text()
        );
        digest(&answer.json())
    }

    /// [`echo`](crate::components::echo) as version `0.1.0` with a parameter `n`, staged: the same
    /// component for every `n`, and another version.
    #[track_caller]
    pub fn release_echo(&self, n: u32, activate: bool) -> String {
        let query = format!("activate={activate}&{}", parameters(&json!({"n": n})));
        self.release("echo", &crate::components::echo("0.1.0"), &query)
    }

    /// A change of roles: `activate`, `rollback`, `canary` or `shadow`.
    pub fn role(&self, name: &str, role: &str, body: &Value) -> Answer {
        let path = format!("/v1/policies/{name}/{role}");
        let headers = [("Content-Type", "application/json")];
        self.admin_call("POST", &path, &headers, body.to_string().as_bytes())
    }

    /// Deletes a version.
    pub fn delete(&self, name: &str, digest: &str) -> Answer {
        let path = format!("/v1/policies/{name}/versions/{digest}");
        self.admin_call("DELETE", &path, &[], b"")
    }

    /// `GET /v1/policies/{name}`.
    #[track_caller]
    pub fn detail(&self, name: &str) -> Value {
        let path = format!("/v1/policies/{name}");
        self.admin_call("GET", &path, &[], b"").ok().json()
    }

    /// One version in [`detail`](Self::detail).
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    pub fn version(&self, name: &str, digest: &str) -> Value {
        let detail = self.detail(name);
        let versions = detail["versions"].as_array().expect("an array");
        let found = versions.iter().find(|version| version["digest"] == digest);
        found
            .unwrap_or_else(|| panic!("no version {digest}: {detail}"))
            .clone()
    }

    /// What everybody can see of the names: roles and numbers of versions.
    pub fn list(&self) -> Value {
        self.admin_call("GET", "/v1/policies", &[], b"").ok().json()
    }

    /// The first 8 digits of the version that answers a request for a policy (`name` or `name@version`)
    /// on the data plane, with a ranking or without.
    #[track_caller]
    pub fn serving(&self, policy: &str) -> String {
        let answer = self.ask(policy, "who is there?", &[]).ok();
        let version = answer.json()["version"].as_str().map(str::to_owned);
        version.unwrap_or_else(|| panic!("no version: {}", answer.text()))
    }

    /// A request of three documents.
    pub fn ask(&self, policy: &str, query: &str, headers: &[(&str, &str)]) -> Answer {
        let body = json!({"query": query, "explain": true, "documents": [
            {"id": "a", "score": 3.0, "fields": {"title": "one"}},
            {"id": "b", "score": 2.0, "fields": {"title": "two"}},
            {"id": "c", "score": 1.0, "fields": {"title": "three"}},
        ]});
        let path = format!("/v1/rerank/{policy}");
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        self.call("POST", &path, &headers, body.to_string().as_bytes())
    }

    /// A new token of the server's.
    pub fn token(&self, name: &str, policies: &str, rights: &str) -> String {
        let data = self.data_dir().to_str().expect("the path is UTF-8");
        let arguments = [
            "token",
            "new",
            name,
            "--policies",
            policies,
            "--rights",
            rights,
            "--data-dir",
            data,
        ];
        let made = Rerankd::run(Rerankd::command(&arguments));
        assert_eq!(made.code, Some(0), "{made:?}");
        made.stdout.trim_end().to_owned()
    }

    /// The events that there are; `headers` as for [`Rerankd::admin_call`].
    pub fn events(&self, query: &str, headers: &[(&str, &str)]) -> Vec<Event> {
        let path = format!("/v1/events?follow=false&{query}");
        let answer = self.admin_call("GET", &path, headers, b"").ok();
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        events_in(answer.text())
    }

    /// The kinds of a policy's events, oldest first.
    pub fn event_kinds(&self, name: &str) -> Vec<String> {
        let events = self.events("", &[]).into_iter();
        events
            .filter(|event| event.data["policy"] == name)
            .map(|event| event.kind)
            .collect()
    }

    /// A connection on which events come as they happen, after those that there are.
    ///
    /// # Panics
    /// If there is no stream.
    pub fn follow_events(&self, headers: &[(&str, &str)]) -> Connection {
        let mut connection =
            Connection::open(self.admin_address()).expect("the admin plane listens");
        let (host, bearer) = (
            self.admin_address().to_string(),
            format!("Bearer {}", self.admin_token()),
        );
        let own = [("Host", host.as_str()), ("Authorization", &bearer)];
        connection
            .request("GET", "/v1/events", &[&own, headers].concat(), b"")
            .expect("the admin plane listens");
        let head = connection.answer_head().expect("it answers");
        assert_eq!(head.status, 200, "{head:?}");
        connection
    }
}

/// `parameters=..` of a query.
pub fn parameters(parameters: &Value) -> String {
    format!("parameters={}", encoded(&parameters.to_string()))
}

/// Percent-encoded for a query.
pub fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// The digest in an answer.
#[track_caller]
pub fn digest(answer: &Value) -> String {
    let digest = answer["digest"].as_str();
    let digest = digest.unwrap_or_else(|| panic!("no digest: {answer}"));
    assert_eq!(digest.len(), 64, "{digest}");
    digest.to_owned()
}

/// The events in a stream.
pub fn events_in(text: &str) -> Vec<Event> {
    let blocks = text.split("\n\n");
    let event = |block: &str| {
        let line = |key: &str| block.lines().find_map(|line| line.strip_prefix(key));
        let event = Event {
            id: line("id: ")?.parse().expect("an id is a number"),
            kind: line("event: ")?.to_owned(),
            data: serde_json::from_str(line("data: ")?).expect("data is JSON"),
        };
        assert_eq!(event.data["seq"], event.id);
        assert_eq!(event.data["kind"], *event.kind);
        Some(event)
    };
    blocks.filter_map(event).collect()
}

/// The error in an answer, after a look at the rest of it.
///
/// # Panics
/// If it is none.
#[track_caller]
pub fn error(answer: &Answer) -> AdminError {
    let body = answer.json();
    let error = &body["error"];
    let request_id = answer.header("x-request-id");
    assert_eq!(error["request_id"].as_str(), request_id, "{body}");
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    AdminError {
        status: answer.status,
        code: text("code"),
        step: text("step"),
        message: text("message"),
    }
}

/// It is a refusal with this status and step (empty: none), whose message has all of `parts`.
///
/// # Panics
/// If it is anything else.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, step: &str, parts: &[&str]) {
    let error = error(answer);
    assert_eq!(
        (error.status, error.step.as_str()),
        (status, step),
        "{error:?}"
    );
    for part in parts {
        assert!(
            error.message.contains(part),
            "expected `{part}` in: {error:?}"
        );
    }
    assert!(!error.message.contains('\n'), "{error:?}");
}
