package io.rerankd.opensearch;

import java.util.concurrent.atomic.AtomicLong;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.common.util.concurrent.ThreadContext;

/** What becomes of a search without a ranking. */
final class Fallback {
    private static final Logger LOGGER = LogManager.getLogger(Fallback.class);
    private static final long NANOSECONDS_BETWEEN_LINES = 10_000_000_000L;
    private static final AtomicLong LAST_LINE = new AtomicLong(System.nanoTime() - NANOSECONDS_BETWEEN_LINES);

    private final ThreadContext context;
    private final boolean mayNotFail;

    /** @param mayNotFail whether the engine would go on after an error, with whatever there is */
    Fallback(RerankdPlugin.Handles handles, boolean mayNotFail) {
        this.context = handles.threadContext();
        this.mayNotFail = mayNotFail;
    }

    /** What becomes of a search that goes on without a ranking. A line in ten seconds tells the operator. */
    static Outcome outcome(Failure failure) {
        long last = LAST_LINE.get();
        long now = System.nanoTime();
        if (now - last >= NANOSECONDS_BETWEEN_LINES && LAST_LINE.compareAndSet(last, now)) {
            LOGGER.warn("a search keeps the engine's order: {}: {}", failure.reason(), failure.getMessage());
        }
        return Outcome.failed(failure);
    }

    /** Whether the search is answered with the error. */
    boolean isAnError(Failure failure, Options options) {
        return mayNotFail == false && (failure.isOfTheSearch() || options.failsWithError());
    }

    /** The error, which says in the header what it is. */
    RerankdException error(Failure failure) {
        context.addResponseHeader(Outcome.HEADER, Outcome.errorHeader(failure));
        return failure.error();
    }
}
