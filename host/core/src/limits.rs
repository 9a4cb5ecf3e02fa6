//! Every limit of the data plane, with its unit and default.

use std::time::Duration;

use crate::ledger::LedgerBounds;

const MIB: usize = 1 << 20;

/// What each policy call has of the host's memory for itself, bytes: tokens, tensors and outputs of
/// about 500 documents.
pub const GUEST_RESERVE_BYTES: usize = 4 * MIB;

/// Most bytes that a guest passes to the host in one call, or as its result, beside the size of its
/// request, with at most [`USUAL_DOCUMENTS`] a request: wasmtime copies them before any function of the
/// host is called. 2 million elements of a tensor.
const GUEST_PASSED_BYTES: usize = 16 * MIB;

/// Documents of a request for which a policy has room however few the operator allows: it has texts of its
/// own as well.
const USUAL_DOCUMENTS: usize = 1000;

/// Most rows of one `compute`, and texts of one `encode`, for each document that a request may have:
/// passages of a long document.
pub const ROWS_PER_DOCUMENT: usize = 64;

/// What one request, and all of them together, may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// Most documents in one request.
    pub max_documents: usize,
    /// Longest time in which a body must arrive.
    pub body_timeout: Duration,
    /// Longest time for a connection to be idle between two requests.
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
    /// Most bytes that one policy call holds on the host at a time: tensors, encodings, texts, errors
    /// and all else that is not its linear memory.
    pub guest_host_bytes: usize,
    /// Most log lines kept of one policy call.
    pub guest_log_lines: usize,
    /// Longest kept log line, bytes.
    pub guest_log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 * MIB,
            max_documents: USUAL_DOCUMENTS,
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
            guest_host_bytes: 512 * MIB,
            guest_log_lines: 100,
            guest_log_line_bytes: 1024,
        }
    }
}

impl Limits {
    /// Most rows of one `compute`, and most texts of one `encode`.
    pub fn guest_rows(&self) -> usize {
        self.max_documents
            .max(USUAL_DOCUMENTS)
            .saturating_mul(ROWS_PER_DOCUMENT)
    }

    /// Most bytes that a guest passes to the host in one call, or as its result, beside the size of its
    /// request.
    pub fn guest_passed_bytes(&self) -> usize {
        let documents = self.max_documents.max(USUAL_DOCUMENTS);
        (GUEST_PASSED_BYTES / USUAL_DOCUMENTS)
            .saturating_mul(documents)
            .max(GUEST_PASSED_BYTES)
    }

    /// Bounds on what policy calls hold on the host, of which `spare` may run beside those of
    /// requests. A call has the most of one call if no other policy has much.
    pub fn ledger_bounds(&self, spare: usize) -> LedgerBounds {
        LedgerBounds {
            call_bytes: self.guest_host_bytes,
            reserve_bytes: GUEST_RESERVE_BYTES.min(self.guest_host_bytes),
            pool_bytes: self.guest_host_bytes.saturating_mul(2),
            calls: self.max_instances + spare,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_may_pass_grows_with_the_documents_of_a_request() {
        let passed = |max_documents| {
            let limits = Limits {
                max_documents,
                ..Limits::default()
            };
            limits.guest_passed_bytes()
        };
        assert_eq!((passed(1), passed(1000)), (16 * MIB, 16 * MIB));
        // A number of 8 bytes for each of 512 tokens of each document.
        assert!(passed(10_000) > 10_000 * 512 * 8);
        assert!(passed(usize::MAX) > MIB);
    }
}
