package io.rerankd.opensearch;

import org.opensearch.common.util.concurrent.ThreadContext;

/** What becomes of a search without a ranking. */
final class Fallback {
    private final ThreadContext context;
    private final boolean mayNotFail;

    /** @param mayNotFail whether the engine would go on after an error, with whatever there is */
    Fallback(RerankdPlugin.Handles handles, boolean mayNotFail) {
        this.context = handles.threadContext();
        this.mayNotFail = mayNotFail;
    }

    /** Whether the search is answered with the error. */
    boolean isAnError(Failure failure, Options options) {
        return mayNotFail == false && (failure.isTheSearchs() || options.failsWithError());
    }

    /** The error, which says in the header what it is. */
    RerankdException error(Failure failure) {
        context.addResponseHeader(Outcome.HEADER, Outcome.errorHeader(failure));
        return failure.error();
    }
}
