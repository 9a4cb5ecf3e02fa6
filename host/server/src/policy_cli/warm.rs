//! `rerankd warm`: a running server is shown documents, so that searches find them known.
//!
//! Documents come from a file or from an index of the search engine ([`source`](super::warm_source)),
//! and go to the admin plane in batches, one after the other: the server runs them on spare capacity.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::args::WarmArgs;
use super::client::{Client, Sent, percent_encoded};
use super::outcome::{Failure, Outcome, size};
use super::warm_source::Source;
use crate::terminal;

/// How often a batch is sent again while the server gets on with it, or is busy, at most.
const MAX_TRIES: usize = 20;

/// How long to wait for a server that is busy.
const PAUSE: Duration = Duration::from_secs(1);

/// How often progress is said.
const SAY_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Totals {
    sent: u64,
    known: u64,
    unscored: u64,
    cache: Value,
}

pub(super) fn warm(flags: &WarmArgs) -> Result<Outcome, Failure> {
    if !(1..=1000).contains(&flags.batch) {
        return Err(Failure::Usage("--batch must be 1 to 1000".to_owned()));
    }
    let client = Client::new(&flags.server)?;
    let mut source = Source::open(flags)?;
    let path = format!("/v1/policies/{}/warm", percent_encoded(&flags.policy));
    let started = Instant::now();
    let mut said = started;
    let mut totals = Totals::default();
    while let Some(documents) = source.next_batch(flags.batch)? {
        let count = documents.len() as u64;
        let answer = send(&client, &path, flags, &documents)?;
        totals.sent += count;
        totals.known += answer["known"].as_u64().unwrap_or(0);
        totals.unscored += answer["unscored"].as_u64().unwrap_or(0);
        totals.cache = answer["cache"].clone();
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(&totals, source.share(), started);
        }
    }
    Ok(totals.outcome(started))
}

/// Sends a batch until the server has had time for all of it.
fn send(
    client: &Client,
    path: &str,
    flags: &WarmArgs,
    documents: &[Value],
) -> Result<Value, Failure> {
    let mut body = json!({ "documents": documents });
    if !flags.fields.is_empty() {
        body["fields"] = json!(flags.fields);
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = client.call(Method::POST, path, Sent::Json(body.clone()));
        match answer {
            Ok(answer) if answer["late_rows"] == 0 => return Ok(answer),
            Err(failure) if failure.json()["error"]["code"] != "busy" => return Err(failure),
            Err(failure) if tries == MAX_TRIES => return Err(failure),
            Ok(_) if tries == MAX_TRIES => {
                return Err(Failure::refused(
                    "the server has no spare capacity: searches take all of it",
                ));
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// One line, over the last one, for people who watch.
fn say(totals: &Totals, share: Option<f64>, started: Instant) {
    if terminal::is_watched() {
        let share = share.map_or(String::new(), |share| format!(", {:.0} %", share * 100.0));
        let rate = totals.sent as f64 / started.elapsed().as_secs_f64();
        terminal::progress(&format!(
            "{} documents{share}, {rate:.0} a second   ",
            totals.sent
        ));
    }
}

impl Totals {
    fn outcome(&self, started: Instant) -> Outcome {
        if terminal::is_watched() {
            terminal::warn("");
        }
        let number = |key: &str| self.cache[key].as_u64().unwrap_or(0);
        let (bytes, max) = (number("bytes"), number("max_bytes"));
        let mut text = format!(
            "{} documents in {:.1} s: {} known, {} without a text or a score\nrow cache: {} entries, {} of {}\n",
            self.sent,
            started.elapsed().as_secs_f64(),
            self.known,
            self.unscored,
            number("entries"),
            size(bytes),
            size(max),
        );
        // Shards fill unevenly.
        let is_full = bytes > max / 100 * 95;
        if is_full {
            text += "the row cache is full: what was shown first may be gone again; give `rerankd serve` a larger --row-cache-mib\n";
        }
        Outcome {
            good: self.known > 0 || self.sent == 0,
            text,
            json: json!({
                "documents": self.sent,
                "known": self.known,
                "unscored": self.unscored,
                "cache": self.cache,
                "full": is_full,
            }),
        }
    }
}
