package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.List;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.core.action.ActionListener;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.pipeline.AbstractProcessor;
import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor;

/** The request's side: decides whether and how a search is reranked, and widens it to the window. */
class WindowProcessor extends AbstractProcessor implements SearchRequestProcessor {
    static final String TYPE = "rerankd_window";

    private final RerankdPlugin.Handles handles;
    private final Options configured;

    WindowProcessor(String tag, String description, boolean ignoreFailure, RerankdPlugin.Handles handles, Options configured) {
        super(tag, description, ignoreFailure);
        this.handles = handles;
        this.configured = configured;
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
    public SearchRequest processRequest(SearchRequest request) {
        throw new UnsupportedOperationException("a search is widened with the context of its pipeline");
    }

    @Override
    public void processRequestAsync(
        SearchRequest request,
        PipelineProcessingContext context,
        ActionListener<SearchRequest> next
    ) {
        if (Plan.State.of(context) != null) {
            next.onResponse(request);
            return;
        }
        Plan.State state = Plan.State.begin(context, isGenerated());
        if (Groups.isGroup(handles.threadContext(), request)) {
            state.finish();
            next.onResponse(request);
            return;
        }
        ActionListener<SearchRequest> listener = Groups.marking(handles.threadContext(), next);
        Attempt attempt = Attempt.of(handles.threadContext());
        if (attempt != null && attempt.first() != null) {
            state.repeat(attempt.first());
            withoutOptions(request);
            listener.onResponse(request);
            return;
        }
        Fallback fallback = new Fallback(handles, RerankProcessor.mayNotFail(request, this));
        Planner planner = new Planner(request, configured);
        // Whoever goes on without an answer goes on with the search as it was sent.
        ActionListener<SearchRequest> unchanged = ActionListener.wrap(listener::onResponse, e -> {
            Failure failure = e instanceof Failure known ? known : Failure.internal(e);
            if (fallback.isAnError(failure, planner.options())) {
                state.leave(Outcome.failed(failure));
                listener.onFailure(fallback.error(failure));
            } else {
                // The response's side may have another opinion on what to do then.
                state.fail(failure, planner);
                listener.onResponse(request);
            }
        });
        try {
            planner.check();
            planner.checkKind();
            Indices.Known known = handles.indices().of(request);
            planner.read(known.mapping());
            int limit = planner.limit(known.maxResultWindow());
            String query = planner.query();
            widen(request, new Decision(state, planner, attempt), query, limit, unchanged);
        } catch (Skip skip) {
            state.leave(planner.skipped(skip));
            listener.onResponse(request);
        } catch (Exception e) {
            unchanged.onFailure(e);
        }
    }

    /** What is decided about a search, by whom, and in which run. */
    private record Decision(Plan.State state, Planner planner, Attempt attempt) {}

    private void widen(SearchRequest request, Decision by, String query, int limit, ActionListener<SearchRequest> listener) {
        Planner planner = by.planner;
        long started = System.nanoTime();
        ActionListener<PolicyFields.Read> withFields = ActionListener.wrap(policy -> {
            try {
                long spent = (System.nanoTime() - started) / 1_000_000;
                Plan plan = planner.plan(query, planner.reading(policy, query), limit, spent);
                by.state.rerank(plan);
                if (plan.isWidened()) {
                    // Others may hold the search that was sent.
                    SearchSourceBuilder search = request.source().shallowCopy();
                    search.searchPipelineSource(request.source().searchPipelineSource());
                    search.from(plan.hits().first()).size(plan.hits().asked());
                    if (plan.cut().isNeeded()) {
                        search.fetchSource(plan.cut().asks());
                    }
                    request.source(search);
                }
                if (by.attempt != null) {
                    by.attempt.change(plan);
                }
            } catch (Skip skip) {
                by.state.leave(planner.skipped(skip));
            }
            withoutOptions(request);
            listener.onResponse(request);
        }, listener::onFailure);
        if (planner.needsPolicy()) {
            handles.fields().of(planner.policy(), planner.options(), withFields);
        } else {
            withFields.onResponse(null);
        }
    }

    /** The options are nobody's business where the documents are. */
    private static void withoutOptions(SearchRequest request) {
        SearchSourceBuilder search = request.source();
        if (Planner.ext(search) != null) {
            List<SearchExtBuilder> others = new ArrayList<>(search.ext());
            others.removeIf(RerankdExt.class::isInstance);
            SearchSourceBuilder without = search.shallowCopy();
            without.searchPipelineSource(search.searchPipelineSource());
            request.source(without.ext(others));
        }
    }

    /** The same for a search that has options and names no pipeline. */
    static final class Auto extends WindowProcessor implements SystemGeneratedProcessor {
        private final ExecutionStage stage;

        Auto(RerankdPlugin.Handles handles, Options configured, ExecutionStage stage) {
            super(null, "reranks what asks for it", false, handles, configured);
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
            return RerankProcessor.AUTO;
        }
    }
}
