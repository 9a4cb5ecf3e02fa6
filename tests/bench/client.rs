//! A client that times its calls, on a kept connection.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;

/// One connection to one listener.
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
}

/// A request of a client.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) path: String,
    /// A `GET` without one.
    pub(crate) body: Option<Value>,
}

impl Client {
    /// Connects when it is first used.
    pub(crate) fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self {
            agent: config.build().into(),
            base: format!("http://{address}"),
        }
    }

    /// How long it took from before it was sent until its answer was read, the answer, and its `Rerank-Status`.
    ///
    /// # Errors
    /// If its status is not 200.
    pub(crate) fn call(&self, call: &Call) -> Result<(Duration, Vec<u8>, String)> {
        let url = format!("{}{}", self.base, call.path);
        let body = call.body.as_ref().map(Value::to_string);
        let started = Instant::now();
        let mut answer = match &body {
            Some(body) => {
                let request = self.agent.post(&url).content_type("application/json");
                request.send(body)?
            }
            None => self.agent.get(&url).call()?,
        };
        let bytes = answer.body_mut().read_to_vec()?;
        let took = started.elapsed();
        if answer.status() != 200 {
            return Err(format!("{url}: {}", String::from_utf8_lossy(&bytes)).into());
        }
        let status = answer.headers().get("rerank-status");
        let status = status.and_then(|value| value.to_str().ok());
        Ok((took, bytes, status.unwrap_or_default().to_owned()))
    }
}

/// Whether `Rerank-Status` says that a search was reranked, all of it.
pub(crate) fn applied(status: &str) -> Result<()> {
    if status.contains("status=applied") {
        return Ok(());
    }
    Err(format!("not reranked: {status}").into())
}
