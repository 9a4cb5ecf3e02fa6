package io.rerankd.opensearch;

import java.io.IOException;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.core.action.ActionListener;
import org.opensearch.search.pipeline.AbstractProcessor;
import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor;

/** The response's side: has the window ranked, and cuts the client's page on every way out. */
class RerankProcessor extends AbstractProcessor implements SearchResponseProcessor {
    static final String TYPE = "rerankd";
    static final String AUTO = "rerankd_auto";

    private static final Logger LOGGER = LogManager.getLogger(RerankProcessor.class);

    private final RerankdPlugin.Handles handles;
    private final Options said;

    /** @param said what this processor's own configuration says */
    RerankProcessor(String tag, String description, boolean ignoreFailure, RerankdPlugin.Handles handles, Options said) {
        super(tag, description, ignoreFailure);
        this.handles = handles;
        this.said = said;
    }

    @Override
    public String getType() {
        return TYPE;
    }

    @Override
    public SearchResponse processResponse(SearchRequest request, SearchResponse response) {
        throw new UnsupportedOperationException("a response is reranked with the context of its pipeline");
    }

    /** Whether the engine goes on after an error of a processor, with whatever there is: an uncut window. */
    static boolean mayNotFail(SearchRequest request, Processor processor) {
        return processor.isIgnoreFailure() || (request.source() != null && Boolean.TRUE.equals(request.source().verbosePipeline()));
    }

    @Override
    public void processResponseAsync(
        SearchRequest request,
        SearchResponse response,
        PipelineProcessingContext context,
        ActionListener<SearchResponse> listener
    ) {
        Plan.State known = Plan.State.of(context);
        Plan.State state = known == null ? Plan.State.begin(context) : known;
        if (state.isFirstTime() == false) {
            listener.onResponse(response);
            return;
        }
        Fallback fallback = new Fallback(handles, mayNotFail(request, this));
        Search search = new Search(response, fallback, listener);
        try {
            if (known == null) {
                decideAlone(request, response, state);
            }
        } catch (Failure failure) {
            search.fail(failure, handles.node().options());
            return;
        } catch (Exception e) {
            search.fail(Failure.internal(e), handles.node().options());
            return;
        }
        if (state.failure() != null) {
            search.fail(state.failure(), state.options(said));
            return;
        }
        if (state.plan() == null) {
            Outcome outcome = state.outcome() == null ? Outcome.skipped("disabled") : state.outcome();
            search.finish(outcome, () -> Page.marked(response, outcome));
            return;
        }
        search.rerank(known == null ? state.plan() : state.plan().with(said));
    }

    /** A pipeline without {@code rerankd_window}: the page that there is gets reranked, as it is. */
    private void decideAlone(SearchRequest request, SearchResponse response, Plan.State state) throws Failure, IOException {
        Planner planner = new Planner(request, said.above(handles.node().options()));
        try {
            planner.check();
            planner.checkKind();
            String query = planner.query();
            int hits = response.getHits().getHits().length;
            state.rerank(planner.plan(query, 0, hits, planner.needed(null), SourceCut.NOTHING, 0));
        } catch (Skip skip) {
            state.leave(Outcome.skipped(skip.reason()));
        }
    }

    /** One response on its way. */
    private final class Search {
        private final SearchResponse response;
        private final Fallback fallback;
        private final ActionListener<SearchResponse> listener;

        Search(SearchResponse response, Fallback fallback, ActionListener<SearchResponse> listener) {
            this.response = response;
            this.fallback = fallback;
            this.listener = listener;
        }

        void rerank(Plan plan) {
            int documents = Math.min(response.getHits().getHits().length, plan.options().window());
            if (documents == 0) {
                leave(plan, Outcome.skipped("no-documents"));
                return;
            }
            long started = System.nanoTime();
            ActionListener<Ranking> ranked = ActionListener.wrap(ranking -> {
                Outcome outcome = ranking.outcome((System.nanoTime() - started) / 1e6);
                if (ranking.isRanked()) {
                    finish(outcome, () -> new Page(response, plan).reranked(ranking, outcome));
                } else {
                    leave(plan, outcome);
                }
            }, e -> fail(e instanceof Failure known ? known : Failure.internal(e), plan));
            try {
                handles.sidecar().rank(plan, RerankBody.of(plan, response.getHits().getHits(), documents), documents, ranked);
            } catch (Exception e) {
                fail(Failure.internal(e), plan);
            }
        }

        /** The engine's own page. */
        private void leave(Plan plan, Outcome outcome) {
            finish(outcome, () -> new Page(response, plan).own(outcome));
        }

        private void fail(Failure failure, Plan plan) {
            if (fallback.isAnError(failure, plan.options())) {
                listener.onFailure(fallback.error(failure));
            } else {
                leave(plan, Fallback.outcome(failure));
            }
        }

        /** The search was not looked at before its response: there is nothing to cut. */
        void fail(Failure failure, Options options) {
            if (fallback.isAnError(failure, options)) {
                listener.onFailure(fallback.error(failure));
            } else {
                Outcome outcome = Fallback.outcome(failure);
                finish(outcome, () -> Page.marked(response, outcome));
            }
        }

        private void finish(Outcome outcome, Made made) {
            SearchResponse finished;
            try {
                finished = made.make();
            } catch (Exception e) {
                LOGGER.warn("a page could not be cut", e);
                listener.onFailure(fallback.error(Failure.internal(e)));
                return;
            }
            handles.threadContext().addResponseHeader(Outcome.HEADER, outcome.header());
            listener.onResponse(finished);
        }
    }

    private interface Made {
        SearchResponse make() throws IOException;
    }

    /** The same for a search that has options and names no pipeline. */
    static final class Auto extends RerankProcessor implements SystemGeneratedProcessor {
        Auto(RerankdPlugin.Handles handles, Options said) {
            super(null, "reranks what asks for it", false, handles, said);
        }

        @Override
        public String getType() {
            return AUTO;
        }
    }
}
