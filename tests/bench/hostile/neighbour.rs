//! A caller that means no harm, and how long it waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::attack::Target;
use crate::Result;
use crate::measure::Samples;
use crate::texts::Texts;

/// Documents of a request.
const DOCUMENTS: usize = 10;

/// From the end of one request to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// Each third request is one for health, on a connection of its own.
const HEALTH: usize = 3;

/// What a request has to be done in.
const DEADLINE: Duration = Duration::from_secs(5);

/// What it saw.
#[derive(Default)]
pub(super) struct Seen {
    /// Times of rankings, ms.
    pub(super) latencies: Samples,
    /// Requests, of health too, that failed or came late.
    pub(super) lost: usize,
}

/// One caller on a kept connection.
pub(super) struct Neighbour {
    agent: ureq::Agent,
    rerank: String,
    health: String,
    bodies: Vec<Vec<u8>>,
}

impl Neighbour {
    pub(super) fn new(target: &Target, texts: &Texts) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE));
        let searches = texts.searches.iter();
        Self {
            agent: config.build().into(),
            rerank: format!("http://{}/v1/rerank/semantic-blend", target.address),
            health: format!("http://{}/health/ready", target.address),
            bodies: searches.map(|search| search.body(DOCUMENTS)).collect(),
        }
    }

    /// Asks again and again; ends early where somebody says so.
    pub(super) fn ask_for(&self, time: Duration, stop: &AtomicBool) -> Result<Seen> {
        let mut seen = Seen::default();
        let started = Instant::now();
        let mut bodies = self.bodies.iter().cycle();
        let mut asked = 0_usize;
        while started.elapsed() < time && !stop.load(Ordering::Acquire) {
            let body = bodies.next().ok_or("no texts")?;
            let sent = Instant::now();
            let answer = self.agent.post(&self.rerank);
            let answer = answer.content_type("application/json").send(&body[..]);
            let well = answer.is_ok_and(|mut answer| {
                answer.body_mut().read_to_vec().is_ok() && answer.status() == 200
            });
            seen.latencies.push_time(sent.elapsed());
            seen.lost += usize::from(!well);
            if asked.is_multiple_of(HEALTH) {
                let request = self.agent.get(&self.health).header("connection", "close");
                let well = request.call().is_ok_and(|answer| answer.status() == 200);
                seen.lost += usize::from(!well);
            }
            asked += 1;
            std::thread::sleep(PAUSE);
        }
        Ok(seen)
    }
}
