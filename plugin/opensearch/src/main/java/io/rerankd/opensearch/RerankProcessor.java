package io.rerankd.opensearch;

import java.io.IOException;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.core.action.ActionListener;
import org.opensearch.search.SearchHit;
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

    /** Whether the engine made it for a search. OpenSearch 2, which makes none, cannot load the class of those. */
    boolean isGenerated() {
        return false;
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
        boolean isGenerated = isGenerated();
        if (known != null && isGenerated && known.isGenerated() == false) {
            // The pipeline has processors of its own for that.
            listener.onResponse(response);
            return;
        }
        Plan.State state = known == null ? Plan.State.begin(context, isGenerated) : known;
        if (state.isFirstTime() == false) {
            listener.onResponse(response);
            return;
        }
        Fallback fallback = new Fallback(handles, mayNotFail(request, this));
        Search search = new Search(request, response, fallback, listener);
        if (known == null) {
            decideAlone(request, search);
        } else if (state.first() != null) {
            search.repeat(state.first());
        } else if (state.failure() != null) {
            search.fail(state.failure(), state.options(said));
        } else if (state.plan() == null) {
            search.mark(state.outcome() == null ? Outcome.skipped("disabled") : state.outcome());
        } else {
            search.rerank(state.plan().with(said));
        }
    }

    /** A pipeline without {@code rerankd_window}: the page that there is gets reranked, as it is. */
    private void decideAlone(SearchRequest request, Search search) {
        Planner planner = new Planner(request, said.above(handles.node().options()));
        ActionListener<PolicyFields.Read> withFields = ActionListener.wrap(
            policy -> search.rerankPage(planner, policy),
            e -> search.fail(e instanceof Failure known ? known : Failure.internal(e), planner.options())
        );
        try {
            planner.check();
            planner.checkKind();
            planner.read(handles.indices().of(request).mapping());
            planner.query();
            if (planner.needsPolicy()) {
                handles.fields().of(planner.policy(), planner.options(), withFields);
            } else {
                withFields.onResponse(null);
            }
        } catch (Skip skip) {
            search.mark(planner.skipped(skip));
        } catch (Exception e) {
            withFields.onFailure(e);
        }
    }

    /** One response on its way. */
    private final class Search {
        private final SearchRequest request;
        private final SearchResponse response;
        private final Fallback fallback;
        private final ActionListener<SearchResponse> listener;
        private final Attempt attempt;

        Search(SearchRequest request, SearchResponse response, Fallback fallback, ActionListener<SearchResponse> listener) {
            this.request = request;
            this.response = response;
            this.fallback = fallback;
            this.listener = listener;
            this.attempt = Attempt.of(handles.threadContext());
        }

        /** The page that there is. */
        void rerankPage(Planner planner, PolicyFields.Read policy) throws Skip, IOException {
            String query = planner.query();
            rank(planner.planOfPage(query, planner.reading(policy, query), response.getHits().getHits().length));
        }

        void rerank(Plan plan) {
            boolean incomplete = response.getFailedShards() > 0 || response.isTimedOut();
            if (incomplete && plan.isWidened()) {
                Failure failure = Failure.shards(response.getFailedShards());
                if (mayRepeat()) {
                    repeatAfter(failure, response);
                } else {
                    fail(failure, plan);
                }
                return;
            }
            rank(plan);
        }

        /** This is the search as it was sent, after one that was widened. */
        void repeat(Attempt first) {
            SearchResponse widened = first.answerWithFailuresOf(response);
            if (widened != null) {
                // It is no fault of the window's.
                Search before = new Search(request, widened, fallback, listener);
                before.rank(first.plan().with(said));
            } else if (first.outcome() != null) {
                mark(first.outcome());
            } else {
                Options options = first.plan() == null ? handles.node().options() : first.plan().with(said).options();
                fail(first.failure(), options);
            }
        }

        /** Whether the search can be sent as it was. */
        private boolean mayRepeat() {
            return attempt != null && attempt.first() == null && handles.isConnected();
        }

        /** Gives up this answer. Whoever waits for it has the search sent as it was. */
        private void repeatAfter(Failure failure, SearchResponse widened) {
            attempt.fail(failure, widened);
            listener.onFailure(failure.error());
        }

        private void rank(Plan plan) {
            SearchHit[] hits = response.getHits().getHits();
            if (plan.texts() == null || hits.length == 0) {
                rank(plan, hits);
                return;
            }
            long started = System.nanoTime();
            ActionListener<SearchHit[]> found = ActionListener.wrap(window -> {
                Plan later = plan.later((System.nanoTime() - started) / 1_000_000);
                boolean isThere = plan.hits().first() == 0;
                rank(later, isThere ? SideSearch.inOrder(window, hits, plan.hits().window()) : window);
            }, e -> fail(e instanceof Failure known ? known : Failure.internal(e), plan));
            new SideSearch(handles, request).window(plan, found);
        }

        /** @param hits those of the window, with their texts, and maybe more */
        private void rank(Plan plan, SearchHit[] hits) {
            int documents = Math.min(hits.length, plan.hits().window());
            if (documents == 0) {
                leave(plan, Outcome.skipped("no-documents"));
                return;
            }
            long started = System.nanoTime();
            try {
                RerankBody body = RerankBody.of(plan, hits, documents);
                ActionListener<Ranking> ranked = ActionListener.wrap(ranking -> {
                    double spent = (System.nanoTime() - started) / 1e6;
                    Outcome outcome = ranking.outcome(spent).withFields(body.fields()).withMapping(plan.hasMapping());
                    if (ranking.isRanked()) {
                        show(new Page(response, plan, hits, ranking), plan.later((long) spent), outcome);
                    } else {
                        leave(plan, outcome);
                    }
                }, e -> fail(e instanceof Failure known ? known : Failure.internal(e), plan));
                handles.sidecar().rank(plan, body.publisher(), documents, ranked);
            } catch (Exception e) {
                fail(Failure.internal(e), plan);
            }
        }

        private void show(Page page, Plan plan, Outcome outcome) {
            Page.Range missing = page.missing();
            if (missing == null) {
                finish(outcome, () -> page.reranked(null, outcome));
                return;
            }
            ActionListener<SearchResponse> more = ActionListener.wrap(
                found -> finish(outcome, () -> page.reranked(found.getHits(), outcome)),
                e -> fail(e instanceof Failure known ? known : Failure.internal(e), plan)
            );
            new SideSearch(handles, request).more(plan, missing, more);
        }

        /** The engine's own page. */
        private void leave(Plan plan, Outcome outcome) {
            if (plan.sizeMatters() && plan.isWidened() && mayRepeat()) {
                attempt.leave(outcome);
                repeatAfter(Failure.internal(new IllegalStateException("the page is not the engine's own")), null);
                return;
            }
            finish(outcome, () -> Page.own(response, plan, outcome));
        }

        private void fail(Failure cause, Plan plan) {
            if (cause.isOfNoQuery()) {
                leave(plan, Outcome.skipped(cause.reason()).withMapping(plan.hasMapping()));
                return;
            }
            Failure failure = cause.blaming(plan.search());
            if (fallback.isAnError(failure, plan.options())) {
                listener.onFailure(fallback.error(failure));
            } else {
                leave(plan, Fallback.outcome(failure));
            }
        }

        /** There is nothing to cut. */
        void fail(Failure failure, Options options) {
            if (fallback.isAnError(failure, options)) {
                listener.onFailure(fallback.error(failure));
            } else {
                mark(Fallback.outcome(failure));
            }
        }

        /** The response as it is. */
        void mark(Outcome outcome) {
            finish(outcome, () -> Page.marked(response, outcome));
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
        private final ExecutionStage stage;

        Auto(RerankdPlugin.Handles handles, Options said, ExecutionStage stage) {
            super(null, "reranks what asks for it", false, handles, said);
            this.stage = stage;
        }

        @Override
        boolean isGenerated() {
            return true;
        }

        @Override
        public ExecutionStage getExecutionStage() {
            return stage;
        }

        @Override
        public String getType() {
            return AUTO;
        }
    }
}
