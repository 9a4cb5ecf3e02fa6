package io.rerankd.opensearch;

import java.util.List;

/**
 * How a search is reranked.
 *
 * @param search what the search itself says
 * @param options all that is said of it, resolved
 * @param policy whom to ask
 * @param query the text that was searched for
 * @param from where the client's page begins, in hits of the widened search
 * @param size how long the page is
 * @param needed the fields to send; null for all that the hits have
 * @param cut what to take out of the hits again
 * @param spentMs the part of the timeout that is over
 */
record Plan(Options search, Options options, String policy, String query, int from, int size, List<String> needed, SourceCut cut, long spentMs) {
    /** The key of a search's {@link State} in the context of its pipeline. */
    private static final String ATTRIBUTE = "rerankd";

    /** What is left of the timeout. */
    long remainingMs() {
        return Math.max(1, options.timeoutMs() - spentMs);
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
        return new Plan(search, all, asked, query, from, size, needed, cut, spentMs);
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
        private boolean done;

        /** The state of a search that was looked at already, or null. */
        static State of(org.opensearch.search.pipeline.PipelineProcessingContext context) {
            return (State) context.getAttribute(ATTRIBUTE);
        }

        /** The state of a search that nobody has looked at. */
        static State begin(org.opensearch.search.pipeline.PipelineProcessingContext context) {
            State state = new State();
            context.setAttribute(ATTRIBUTE, state);
            return state;
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
