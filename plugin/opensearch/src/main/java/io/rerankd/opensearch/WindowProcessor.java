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
        Plan.State state = Plan.State.begin(context);
        if (Groups.isGroup(handles.threadContext(), request)) {
            state.finish();
            next.onResponse(request);
            return;
        }
        ActionListener<SearchRequest> listener = Groups.marking(handles.threadContext(), next);
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
            int widened = planner.widenedSize(handles.limits());
            String query = planner.query();
            widen(request, state, planner, query, widened, unchanged);
        } catch (Skip skip) {
            state.leave(Outcome.skipped(skip.reason()));
            listener.onResponse(request);
        } catch (Exception e) {
            unchanged.onFailure(e);
        }
    }

    private void widen(
        SearchRequest request,
        Plan.State state,
        Planner planner,
        String query,
        int widened,
        ActionListener<SearchRequest> listener
    ) {
        Options options = planner.options();
        long started = System.nanoTime();
        ActionListener<List<String>> withFields = ActionListener.wrap(ofPolicy -> {
            List<String> needed = planner.needed(ofPolicy);
            SearchSourceBuilder search = request.source();
            try {
                SourceCut cut = SourceCut.of(search, needed);
                long spent = (System.nanoTime() - started) / 1_000_000;
                int from = planner.from();
                int size = planner.size();
                state.rerank(planner.plan(query, from, size, needed, cut, spent));
                search.from(0).size(widened);
                if (cut.isNeeded()) {
                    search.fetchSource(cut.asks());
                }
            } catch (Skip skip) {
                state.leave(Outcome.skipped(skip.reason()));
            }
            withoutOptions(search);
            listener.onResponse(request);
        }, listener::onFailure);
        if (options.fields() != null) {
            withFields.onResponse(options.fields());
        } else {
            handles.fields().of(planner.policy(), options, withFields);
        }
    }

    /** The options are nobody's business where the documents are. */
    private static void withoutOptions(SearchSourceBuilder search) {
        if (search.ext() != null) {
            List<SearchExtBuilder> others = new ArrayList<>(search.ext());
            others.removeIf(RerankdExt.class::isInstance);
            search.ext(others);
        }
    }

    /** The same for a search that has options and names no pipeline. */
    static final class Auto extends WindowProcessor implements SystemGeneratedProcessor {
        Auto(RerankdPlugin.Handles handles, Options configured) {
            super(null, "reranks what asks for it", false, handles, configured);
        }

        @Override
        public String getType() {
            return RerankProcessor.AUTO;
        }
    }
}
