//! Who may come in: bounds on bytes and tokens of all requests together, and a refusal at once for a request
//! that could not start in time, or that the others would make late. Policy instances are waited for, in the
//! order of arrival, as long as the deadline allows: who waits holds its bytes, tokens and share of the work.

mod forecast;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rerankd_core::{ErrorKind, Limits, RerankError, RerankRequest, Reranked};
use rerankd_inference::{Deadline, Inference};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::forecast::{Load, Paces};

/// Tokens that a document is reckoned to have beside its text, and a request beside its documents.
const TOKENS_PER_ROW: usize = 4;

/// Characters a token, roughly, for the reckoning before anything is tokenized.
const BYTES_PER_TOKEN: usize = 4;

/// The part of a request's time that its share of the machine may take by the forecast, and in which its turn
/// for an instance must come. The rest is for what a forecast does not know: requests that come later share too,
/// and no two take the same.
const PART_FOR_SHARING: f64 = 0.6;

/// Searches that wait for a search engine before their ranking, for each policy instance. They hold no
/// instance: a slow engine shall not keep those from requests that have their documents.
const SEARCHES_PER_INSTANCE: usize = 4;

/// A ranked search waits no longer than this for an instance, when its engine has answered, nor longer than a
/// tenth of its deadline: after that the engine's page is worth more than an order.
const SEARCH_PATIENCE: Duration = Duration::from_millis(100);

/// No document counts for more than this: models cut it.
const MAX_TOKENS_PER_DOCUMENT: usize = 512;

/// The bounds, and what is in use.
pub struct Admission {
    limits: Limits,
    bytes: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
    /// Requests that have an instance, or wait for one.
    requests: Arc<AtomicUsize>,
    instances: Arc<Semaphore>,
    /// Searches that wait for an engine.
    searches: Arc<AtomicUsize>,
    /// Worker time of all admitted requests, microseconds.
    work: Arc<AtomicUsize>,
    paces: Paces,
}

/// What an admitted request holds; given back at drop.
#[derive(Default)]
pub struct Permit {
    counted: Vec<(Arc<AtomicUsize>, usize)>,
    instance: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        for (counter, amount) in &self.counted {
            counter.fetch_sub(*amount, Ordering::AcqRel);
        }
    }
}

/// Bytes of bodies that may be in memory at a time. One holder has half of them at most.
pub struct Room {
    used: Arc<AtomicUsize>,
    most: usize,
    by_holder: Mutex<HashMap<String, Arc<AtomicUsize>>>,
}

impl Room {
    /// `most` bytes, of which none is in use.
    pub fn new(most: usize) -> Self {
        Self {
            used: Arc::default(),
            most,
            by_holder: Mutex::default(),
        }
    }

    /// Bytes in use.
    pub fn in_use(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so much is in use that a holder may not find its half.
    pub fn is_scarce(&self) -> bool {
        self.in_use() > self.most / 2
    }

    /// Room for `bytes` more of `holder`, held by `permit`; `None` where there is none, or where the
    /// holder has its half.
    pub fn admit(&self, permit: &mut Permit, holder: &str, bytes: usize) -> Option<()> {
        permit.hold(take(&self.of(holder), bytes, self.most / 2)?);
        permit.hold(take(&self.used, bytes, self.most)?);
        Some(())
    }

    fn of(&self, holder: &str) -> Arc<AtomicUsize> {
        let by_holder = self.by_holder.lock();
        let mut by_holder = by_holder.unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = by_holder.get(holder) {
            return Arc::clone(held);
        }
        // Who holds nothing is forgotten.
        by_holder.retain(|_, held| Arc::strong_count(held) > 1);
        Arc::clone(by_holder.entry(holder.to_owned()).or_default())
    }
}

impl Permit {
    fn hold(&mut self, held: (Arc<AtomicUsize>, usize)) {
        let mut known = self.counted.iter_mut();
        match known.find(|(counter, _)| Arc::ptr_eq(counter, &held.0)) {
            Some((_, amount)) => *amount += held.1,
            None => self.counted.push(held),
        }
    }
}

impl Admission {
    /// Nothing is in use at first.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            bytes: Arc::default(),
            tokens: Arc::default(),
            requests: Arc::default(),
            instances: Arc::new(Semaphore::new(limits.max_instances)),
            searches: Arc::default(),
            work: Arc::default(),
            paces: Paces::default(),
        }
    }

    /// Bytes, tokens and requests in use; of requests also those that wait for an instance.
    pub fn in_use(&self) -> (usize, usize, usize) {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (read(&self.bytes), read(&self.tokens), read(&self.requests))
    }

    /// Room for `bytes` more of a body, held by `permit`.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn admit_bytes(&self, permit: &mut Permit, bytes: usize) -> Result<(), RerankError> {
        let held = take(&self.bytes, bytes, self.limits.max_bytes_in_flight)
            .ok_or_else(|| overloaded("too many bytes in flight", Duration::from_secs(1)))?;
        permit.hold(held);
        Ok(())
    }

    /// Room for the work of a call, and its deadline. A call runs one policy instance at a time,
    /// however many requests it has, and waits for it until it could not be done in time any more.
    /// `ranker` is the digest of the version, or of the model, that ranks.
    ///
    /// # Errors
    /// `Overloaded`, with the time after which another try makes sense.
    pub async fn admit(
        &self,
        ranker: &str,
        requests: &[RerankRequest],
        arrived: Instant,
        inference: &Inference,
    ) -> Result<(Permit, Deadline), RerankError> {
        let asked = requests.iter().filter_map(|request| request.timeout).min();
        let (deadline, wait) = self.in_time(asked, arrived, inference)?;
        let mut permit = Permit::default();
        let alone = self.take_work(
            &mut permit,
            ranker,
            requests,
            (deadline, arrived),
            inference,
        )?;
        self.take_tokens(&mut permit, requests, wait)?;
        // Whose turn comes later than that would have too little time left, and the next one as well.
        let whole = deadline.start_by - arrived;
        let most = whole
            .mul_f64(PART_FOR_SHARING)
            .min(whole.saturating_sub(alone));
        let until = arrived + most;
        self.take_instance(&mut permit, until, wait).await?;
        Ok((permit, deadline))
    }

    /// Notes what a request took, so that it is known what the next one will.
    pub fn learn(&self, ranker: &str, estimated_tokens: usize, reranked: &Reranked) {
        let (ranking, worked) = (&reranked.ranking, reranked.timings.worked);
        // Rows that did not run in time took nothing, but would have.
        let (all, scored) = (ranking.documents(), ranking.scored());
        if scored > 0 {
            let whole = worked.mul_f64(all.max(1) as f64 / scored as f64);
            self.paces.of(ranker).learn(estimated_tokens, whole);
        }
    }

    /// A place for a search that is to be ranked when its engine has answered, to be held until then.
    /// [`reserve`](Self::reserve) comes then. It takes no instance; where half as many requests wait for one as
    /// there are (rounded up), none is to be had soon.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_search(
        &self,
        timeout: Option<Duration>,
        inference: &Inference,
    ) -> Result<Permit, RerankError> {
        let (_, wait) = self.in_time(timeout, Instant::now(), inference)?;
        let most = self.limits.max_instances + self.limits.max_instances.div_ceil(2);
        if self.requests.load(Ordering::Acquire) >= most {
            return Err(overloaded("too many requests are running", wait));
        }
        let most = SEARCHES_PER_INSTANCE * self.limits.max_instances;
        let one = take(&self.searches, 1, most).ok_or_else(|| {
            overloaded("too many searches are waiting for the search engine", wait)
        })?;
        let mut permit = Permit::default();
        permit.hold(one);
        Ok(permit)
    }

    /// Room for one policy instance, for what an engine found: at once, or after a short wait.
    /// [`admit_reserved`](Self::admit_reserved) is the rest.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub async fn reserve(
        &self,
        timeout: Option<Duration>,
        inference: &Inference,
    ) -> Result<Permit, RerankError> {
        let now = Instant::now();
        let (deadline, wait) = self.in_time(timeout, now, inference)?;
        let patience = (deadline.start_by - now) / 10;
        let mut permit = Permit::default();
        let until = now + patience.min(SEARCH_PATIENCE);
        self.take_instance(&mut permit, until, wait).await?;
        Ok(permit)
    }

    /// As [`reserve`](Self::reserve), if there is an instance now.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn reserve_now(&self) -> Result<Permit, RerankError> {
        let free = Arc::clone(&self.instances).try_acquire_owned();
        let instance = free.map_err(|_| too_many_are_running(Duration::ZERO))?;
        Ok(Permit {
            counted: vec![count(&self.requests, 1)],
            instance: Some(instance),
        })
    }

    /// Room for a request that has an instance reserved, and its deadline.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_reserved(
        &self,
        ranker: &str,
        request: &RerankRequest,
        arrived: Instant,
        inference: &Inference,
    ) -> Result<(Permit, Deadline), RerankError> {
        let (deadline, wait) = self.in_time(request.timeout, arrived, inference)?;
        let mut permit = Permit::default();
        let requests = std::slice::from_ref(request);
        self.take_work(
            &mut permit,
            ranker,
            requests,
            (deadline, arrived),
            inference,
        )?;
        self.take_tokens(&mut permit, requests, wait)?;
        Ok((permit, deadline))
    }

    /// The deadline, and how long a row waits, if one can start before it.
    fn in_time(
        &self,
        timeout: Option<Duration>,
        arrived: Instant,
        inference: &Inference,
    ) -> Result<(Deadline, Duration), RerankError> {
        let timeout = timeout
            .unwrap_or(self.limits.default_timeout)
            .clamp(Duration::from_millis(1), self.limits.max_timeout);
        let deadline = Deadline::after(arrived, timeout);
        let wait = inference.scheduler().expected_wait();
        if Instant::now() + wait > deadline.start_by {
            return Err(overloaded("no row could start before the deadline", wait));
        }
        Ok((deadline, wait))
    }

    /// Room for the work itself, and how long it takes alone: refused is what would be in time alone, but not beside the others.
    /// What is late by itself comes in as long as it has half of the machine: the head of its list is
    /// scored.
    fn take_work(
        &self,
        permit: &mut Permit,
        ranker: &str,
        requests: &[RerankRequest],
        (deadline, arrived): (Deadline, Instant),
        inference: &Inference,
    ) -> Result<Duration, RerankError> {
        let tokens = requests.iter().map(estimated_tokens).sum();
        let own = self.paces.of(ranker).expect(tokens);
        let others = self.work.load(Ordering::Acquire) as u64;
        let load = Load {
            work: Duration::from_micros(others),
            requests: self.requests.load(Ordering::Acquire),
            workers: inference.scheduler().workers(),
        };
        let (alone, beside) = load.forecast(own);
        let waited = arrived.elapsed();
        let most = (deadline.start_by - arrived).mul_f64(PART_FOR_SHARING);
        let most = most.max(waited + alone * 2);
        if waited + beside > most {
            let reason = "with those before it, it would not be done before the deadline";
            return Err(overloaded(reason, load.work / load.workers.max(1) as u32));
        }
        let own = usize::try_from(own.as_micros()).unwrap_or(usize::MAX / 2);
        permit.hold(count(&self.work, own));
        Ok(alone)
    }

    fn take_tokens(
        &self,
        permit: &mut Permit,
        requests: &[RerankRequest],
        wait: Duration,
    ) -> Result<(), RerankError> {
        let tokens = requests.iter().map(estimated_tokens).sum();
        let tokens = take(&self.tokens, tokens, self.limits.max_queued_tokens)
            // LiteLLM takes "too many tokens" for a request that is larger than the model's window.
            .ok_or_else(|| overloaded("too much text is waiting for its turn", wait))?;
        permit.hold(tokens);
        Ok(())
    }

    /// Waits for an instance; who came first has the next one.
    async fn take_instance(
        &self,
        permit: &mut Permit,
        until: Instant,
        wait: Duration,
    ) -> Result<(), RerankError> {
        permit.hold(count(&self.requests, 1));
        let instances = Arc::clone(&self.instances);
        let turn = tokio::time::timeout_at(until.into(), instances.acquire_owned()).await;
        match turn {
            Ok(Ok(instance)) => {
                permit.instance = Some(instance);
                Ok(())
            }
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(too_many_are_running(wait)),
        }
    }
}

/// Adds to a counter.
fn count(counter: &Arc<AtomicUsize>, amount: usize) -> (Arc<AtomicUsize>, usize) {
    counter.fetch_add(amount, Ordering::AcqRel);
    (Arc::clone(counter), amount)
}

fn too_many_are_running(wait: Duration) -> RerankError {
    let reason = "too many requests are running, and none of them ended in time (--max-instances)";
    overloaded(reason, wait)
}

/// Takes `amount` if it stays within `limit`, or if nothing else is in use: a request that is larger
/// than the whole limit must not wait for ever.
fn take(
    counter: &Arc<AtomicUsize>,
    amount: usize,
    limit: usize,
) -> Option<(Arc<AtomicUsize>, usize)> {
    let before = counter.fetch_add(amount, Ordering::AcqRel);
    if before == 0 || before + amount <= limit {
        return Some((Arc::clone(counter), amount));
    }
    counter.fetch_sub(amount, Ordering::AcqRel);
    None
}

fn overloaded(reason: &str, retry_after: Duration) -> RerankError {
    let retry_after = retry_after.max(Duration::from_secs(1));
    RerankError::new(
        ErrorKind::Overloaded,
        format!("no room for the request: {reason}; try again"),
    )
    .with_retry_after(retry_after)
}

/// Tokens of a request, before anything is tokenized.
pub(crate) fn estimated_tokens(request: &RerankRequest) -> usize {
    let query = request.query.len() / BYTES_PER_TOKEN;
    let rows = request.documents.iter().map(|document| {
        let bytes: usize = document
            .fields
            .iter()
            .map(|field| field.value.size_bytes())
            .sum();
        (query + bytes / BYTES_PER_TOKEN).min(MAX_TOKENS_PER_DOCUMENT) + TOKENS_PER_ROW
    });
    rows.sum::<usize>() + TOKENS_PER_ROW
}
