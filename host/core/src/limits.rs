//! Every limit of the data plane, with its unit and default.

use std::time::Duration;

/// What one request, and all of them together, may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// Most documents in one request.
    pub max_documents: usize,
    /// Longest time in which a body must arrive.
    pub body_timeout: Duration,
    /// Longest time for a request's head to arrive, and for a connection to be idle between two
    /// requests.
    pub idle_timeout: Duration,
    /// Deadline of a request that names none.
    pub default_timeout: Duration,
    /// Longest deadline that a request may ask for.
    pub max_timeout: Duration,
    /// Most tokens (estimated) of all admitted requests together.
    pub max_queued_tokens: usize,
    /// Most bytes of all admitted requests together.
    pub max_bytes_in_flight: usize,
    /// Most policy instances at one time.
    pub max_instances: usize,
    /// Largest linear memory of one policy instance, bytes.
    pub guest_memory_bytes: usize,
    /// CPU time of one policy call: of the guest, and of the host's own work for it on the same thread.
    /// Tokenizer and models run on others.
    pub guest_cpu: Duration,
    /// Most calls of one policy call to the tokenizer and to models; of calls of any kind it has ten
    /// times as many.
    pub guest_host_calls: usize,
    /// Most bytes in tensors that one policy call holds at a time.
    pub guest_tensor_bytes: usize,
    /// Most log lines kept of one policy call.
    pub guest_log_lines: usize,
    /// Longest kept log line, bytes.
    pub guest_log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            max_body_bytes: 32 * MIB,
            max_documents: 1000,
            body_timeout: Duration::from_secs(10),
            // Longer than the pools of common clients keep a connection.
            idle_timeout: Duration::from_secs(75),
            default_timeout: Duration::from_secs(5),
            max_timeout: Duration::from_secs(60),
            max_queued_tokens: 1_000_000,
            max_bytes_in_flight: 256 * MIB,
            max_instances: 64,
            guest_memory_bytes: 256 * MIB,
            // Four times what 1000 documents take in JavaScript (tests/tests/contract.rs).
            guest_cpu: Duration::from_millis(500),
            guest_host_calls: 10_000,
            guest_tensor_bytes: 256 * MIB,
            guest_log_lines: 100,
            guest_log_line_bytes: 1024,
        }
    }
}
