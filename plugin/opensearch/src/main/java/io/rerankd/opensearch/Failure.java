package io.rerankd.opensearch;

import org.opensearch.core.rest.RestStatus;

/** Why there is no ranking: a word for the status, a sentence, and what it is as an error. */
final class Failure extends Exception {
    private static final long serialVersionUID = 1L;

    private final String reason;
    private final RestStatus status;

    /**
     * @param reason a word of the closed set that {@code Rerank-Status} knows
     * @param status what the search is answered with where {@code on_failure} is {@code error}
     */
    Failure(String reason, RestStatus status, String message) {
        super(message, null, false, false);
        this.reason = reason;
        this.status = status;
    }

    String reason() {
        return reason;
    }

    /** Whether the search itself is wrong: an error then, whatever {@code on_failure} says. */
    boolean isOfTheSearch() {
        return status == RestStatus.BAD_REQUEST || status == RestStatus.REQUEST_ENTITY_TOO_LARGE;
    }

    RerankdException error() {
        return new RerankdException(getMessage(), status);
    }

    static Failure deadline(long milliseconds) {
        return new Failure(
            "deadline",
            RestStatus.FAILED_DEPENDENCY,
            "rerankd did not answer within " + milliseconds + " ms (`timeout_ms`)"
        );
    }

    static Failure overloaded(int calls, String url) {
        return new Failure(
            "overloaded",
            RestStatus.TOO_MANY_REQUESTS,
            calls + " calls of rerankd at " + url + " are in flight already (`max_concurrent_calls`)"
        );
    }

    static Failure unavailable(String url, Throwable cause) {
        String said = cause.getMessage() == null ? "" : ": " + cause.getMessage();
        return new Failure(
            "sidecar-unavailable",
            RestStatus.BAD_GATEWAY,
            "rerankd at " + url + " gave no answer: " + cause.getClass().getSimpleName() + said
        );
    }

    static Failure notUnderstood(String problem) {
        return new Failure(
            "sidecar-response",
            RestStatus.BAD_GATEWAY,
            "rerankd's answer is not understood: " + problem
        );
    }

    static Failure internal(Exception cause) {
        return new Failure("internal", RestStatus.INTERNAL_SERVER_ERROR, "reranking failed: " + cause);
    }
}
