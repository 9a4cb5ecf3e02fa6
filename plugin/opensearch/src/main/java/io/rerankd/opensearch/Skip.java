package io.rerankd.opensearch;

/** There is nothing to rerank in a search, for a reason that is one word. */
final class Skip extends Exception {
    private static final long serialVersionUID = 1L;

    private final String reason;

    Skip(String reason) {
        super(reason, null, false, false);
        this.reason = reason;
    }

    String reason() {
        return reason;
    }
}
