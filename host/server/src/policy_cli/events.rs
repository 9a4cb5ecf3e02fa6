//! `rerankd policy events`: the server's stream of server-sent events, one line each.

use std::io::{BufRead, BufReader};

use http::Method;
use serde_json::Value;

use super::args::EventsArgs;
use super::client::{Client, Sent};
use super::outcome::{Failure, Outcome};
use crate::terminal;

/// Prints events as they come; without `--follow` those that there are.
pub(super) fn events(flags: &EventsArgs, json: bool) -> Result<Outcome, Failure> {
    let (client, path) = if flags.follow {
        (Client::endless(&flags.server)?, "/v1/events")
    } else {
        (Client::new(&flags.server)?, "/v1/events?follow=false")
    };
    // From the oldest that the server has kept.
    let headers = [("accept", "text/event-stream"), ("last-event-id", "0")];
    let response = client.send(Method::GET, path, Sent::Nothing, &headers)?;
    let kind = response.headers().get("content-type");
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return Err(client.stranger(response.status()));
    }
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    for line in &mut lines {
        let line = line.map_err(|error| {
            Failure::Unreachable(format!("`{}` broke off: {error}", client.base()))
        })?;
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        let data = data.trim_start();
        let shown = if json {
            data.to_owned()
        } else {
            sentence(data)
        };
        if terminal::print(&format!("{shown}\n")).is_err() {
            // Nobody reads any more.
            return Ok(printed());
        }
    }
    if flags.follow {
        return Err(Failure::Unreachable(format!(
            "`{}` ended the stream of events",
            client.base()
        )));
    }
    Ok(printed())
}

fn printed() -> Outcome {
    Outcome::good(String::new(), Value::Null)
}

/// `2026-01-31T12:00:00Z  activated  semantic-blend 0.2.0@3f2a91c0  message (by alice)`.
fn sentence(data: &str) -> String {
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |key: &str| -> String {
        terminal::one_line(event[key].as_str().unwrap_or_default()).into_owned()
    };
    let digest: String = text("digest").chars().take(8).collect();
    let version = match (text("version"), digest) {
        (version, digest) if !version.is_empty() && !digest.is_empty() => {
            format!(" {version}@{digest}")
        }
        (version, digest) if version.is_empty() && digest.is_empty() => String::new(),
        (version, digest) => format!(" {version}{digest}"),
    };
    let who = match text("who") {
        who if who.is_empty() => String::new(),
        who => format!("(by {who})"),
    };
    let (at, kind, policy) = (text("at"), text("kind"), text("policy"));
    let parts = [at, kind, format!("{policy}{version}"), text("message"), who];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("  ")
}
