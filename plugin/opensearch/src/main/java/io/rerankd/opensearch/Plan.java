package io.rerankd.opensearch;

import org.opensearch.search.fetch.subphase.FetchSourceContext;
import org.opensearch.search.pipeline.PipelineProcessingContext;

/**
 * How a search is reranked.
 *
 * @param search what the search itself says
 * @param options all that is said of it, resolved
 * @param policy whom to ask
 * @param query the text that was searched for
 * @param hits which hits the client wants, and which the response has
 * @param reading the fields to send
 * @param cut what to take out of the hits again
 * @param texts what a search beside this one is to fetch for the window; null where the response has its texts
 * @param sizeMatters whether the first hits depend on how many are asked for
 * @param hasMapping whether the fields of the indices are known
 * @param spentMs the part of the timeout that is over
 */
record Plan(
    Options search,
    Options options,
    String policy,
    String query,
    Hits hits,
    Reading reading,
    SourceCut cut,
    FetchSourceContext texts,
    boolean sizeMatters,
    boolean hasMapping,
    long spentMs
) {
    /** The key of a search's {@link State} in the context of its pipeline. */
    private static final String ATTRIBUTE = "rerankd";

    /**
     * Which hits.
     *
     * @param from where the client's page begins, in the engine's order
     * @param size how long the page is
     * @param window how many hits are ranked
     * @param first where the hits of the response begin, in the engine's order
     * @param asked how many hits the response has at most
     * @param limit how many hits the engine gives
     */
    record Hits(int from, int size, int window, int first, int asked, int limit) {
        /** The page that is there, whatever is around it. */
        static Hits page(int size, int window) {
            return new Hits(0, size, window, 0, Integer.MAX_VALUE, size);
        }

        long end() {
            return (long) from + size;
        }

        boolean isChanged() {
            return first != from || asked != size;
        }
    }

    /** What is left of the timeout. */
    long remainingMs() {
        return Math.max(1, options.timeoutMs() - spentMs);
    }

    /** Whether the engine is asked for something else than the client asks for. */
    boolean isWidened() {
        return hits.isChanged() || cut.isNeeded();
    }

    /** The plan when so much more time is over. */
    Plan later(long milliseconds) {
        return new Plan(search, options, policy, query, hits, reading, cut, texts, sizeMatters, hasMapping, spentMs + milliseconds);
    }

    /**
     * The plan with what the response's side says of calls: above what the request's side says, below what the
     * search does.
     */
    Plan with(Options said) {
        if (said.isEmpty()) {
            return this;
        }
        Options all = all(search, options, said);
        String asked = search.policy() == null && said.policy() != null ? said.policy() : policy;
        return new Plan(search, all, asked, query, hits, reading, cut, texts, sizeMatters, hasMapping, spentMs);
    }

    /** What the search says, above what the response's side says of calls, above what the request's side says. */
    static Options all(Options search, Options options, Options said) {
        return search.above(said.ofCall().above(options));
    }

    /** What the request's side leaves for the response's. */
    static final class State {
        private Plan plan;
        private Outcome outcome;
        private Failure failure;
        private Planner planner;
        private Attempt first;
        private final boolean generated;
        private boolean done;

        private State(boolean generated) {
            this.generated = generated;
        }

        /** The state of a search that was looked at already, or null. */
        static State of(PipelineProcessingContext context) {
            return (State) context.getAttribute(ATTRIBUTE);
        }

        /**
         * The state of a search that nobody has looked at.
         *
         * @param generated whether the engine made the processor that looks at it
         */
        static State begin(PipelineProcessingContext context, boolean generated) {
            State state = new State(generated);
            context.setAttribute(ATTRIBUTE, state);
            return state;
        }

        /** Whether it belongs to a processor that the engine made. */
        boolean isGenerated() {
            return generated;
        }

        /** The plan, or null where nothing is to be reranked. */
        Plan plan() {
            return plan;
        }

        /** What became of the search, if that is known before any ranking. */
        Outcome outcome() {
            return outcome;
        }

        /** Why there can be no ranking, if that is known before any was asked for. */
        Failure failure() {
            return failure;
        }

        /** The run before this one, where this is the second. */
        Attempt first() {
            return first;
        }

        /** What holds for a search without a plan; {@code said} is what the response's side says. */
        Options options(Options said) {
            return planner.options(said);
        }

        void fail(Failure because, Planner by) {
            failure = because;
            planner = by;
        }

        void rerank(Plan by) {
            plan = by;
        }

        void repeat(Attempt before) {
            first = before;
        }

        void leave(Outcome as) {
            outcome = as;
        }

        /** There is nothing to do to the response, and nothing to say. */
        void finish() {
            done = true;
        }

        /** Whether the response is still to be reranked; true once. */
        boolean isFirstTime() {
            boolean first = done == false;
            done = true;
            return first;
        }
    }
}
