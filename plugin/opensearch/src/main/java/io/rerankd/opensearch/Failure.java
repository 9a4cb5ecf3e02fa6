package io.rerankd.opensearch;

import org.opensearch.core.rest.RestStatus;

/** Why there is no ranking: a word for the status, a sentence, and what it is as an error. */
final class Failure extends Exception {
    private static final long serialVersionUID = 1L;

    private final String reason;
    private final RestStatus status;
    private final String at;
    private final boolean isOfNoQuery;

    /**
     * @param reason a word of the closed set that {@code Rerank-Status} knows
     * @param status what the search is answered with where {@code on_failure} is {@code error}
     */
    Failure(String reason, RestStatus status, String message) {
        this(reason, status, message, null, false);
    }

    /** @param at the option that is wrong, such as {@code parameters.weight}; or null */
    Failure(String reason, RestStatus status, String message, String at) {
        this(reason, status, message, at, false);
    }

    private Failure(String reason, RestStatus status, String message, String at, boolean isOfNoQuery) {
        super(message, null, false, false);
        this.reason = reason;
        this.status = status;
        this.at = at;
        this.isOfNoQuery = isOfNoQuery;
    }

    /** The sidecar has nothing to look for: no token is left of the query. */
    static Failure noQuery(String message) {
        return new Failure("no-query", RestStatus.BAD_REQUEST, message, "query", true);
    }

    /** Whether there is no query, which leaves a search alone. */
    boolean isOfNoQuery() {
        return isOfNoQuery;
    }

    String reason() {
        return reason;
    }

    /** Whether the search itself is wrong: an error then, whatever {@code on_failure} says. */
    boolean isOfTheSearch() {
        return status == RestStatus.BAD_REQUEST;
    }

    /** Whether the sidecar refuses what options say. */
    boolean isOfOptions() {
        return isOfTheSearch() && Options.isOption(at);
    }

    /**
     * The same, with the blame where it belongs: the options that the sidecar refuses may be the pipeline's, which
     * whoever searches cannot mend.
     *
     * @param search what the search itself says
     */
    Failure blaming(Options search) {
        if (isOfTheSearch() == false || search.says(at)) {
            return this;
        }
        boolean options = Options.isOption(at);
        String message = options ? "what the pipeline says does not fit the policy: " + getMessage() : getMessage();
        return new Failure(options ? "rule" : reason, RestStatus.FAILED_DEPENDENCY, message, at);
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

    static Failure refusedByEngine(Exception cause) {
        return new Failure("upstream-status", RestStatus.BAD_GATEWAY, "the search for the window failed: " + cause);
    }

    static Failure shards(int failed) {
        String which = failed == 0 ? "shards ran out of time" : failed + " shards failed";
        return new Failure("upstream-shards", RestStatus.BAD_GATEWAY, which + " in the search for the window");
    }

    static Failure internal(Exception cause) {
        return new Failure("internal", RestStatus.INTERNAL_SERVER_ERROR, "reranking failed: " + cause);
    }
}
