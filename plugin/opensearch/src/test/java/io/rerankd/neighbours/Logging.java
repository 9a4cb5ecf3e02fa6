package io.rerankd.neighbours;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import org.opensearch.action.ActionRequest;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.action.support.ActionFilterChain;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.internal.InternalSearchResponse;
import org.opensearch.tasks.Task;

/**
 * Logs behaviour as User Behavior Insights does: at the same place, by the same member of {@code ext}, the hits of the
 * response and the text of the search, in a response of its own class. Its log comes back in {@code ext.logged}.
 */
final class Logging implements ActionFilter {
    private final Map<Object, List<Object>> log = new ConcurrentHashMap<>();

    @Override
    public int order() {
        return Integer.MAX_VALUE;
    }

    /** The form that the real one has, too. */
    @Override
    @SuppressWarnings("removal")
    public <Request extends ActionRequest, Response extends ActionResponse> void apply(
        Task task,
        String action,
        Request request,
        ActionListener<Response> listener,
        ActionFilterChain<Request, Response> chain
    ) {
        chain.proceed(task, action, request, ActionListener.wrap(response -> listener.onResponse(logged(request, response)), listener::onFailure));
    }

    @SuppressWarnings("unchecked")
    private <Response> Response logged(ActionRequest request, Response response) {
        if ((request instanceof SearchRequest && response instanceof SearchResponse) == false) {
            return response;
        }
        SearchRequest search = (SearchRequest) request;
        for (SearchExtBuilder ext : search.source() == null ? List.<SearchExtBuilder>of() : search.source().ext()) {
            if (ext instanceof Said said && said.getWriteableName().equals("ubi")) {
                List<String> ids = new ArrayList<>();
                for (SearchHit hit : ((SearchResponse) response).getHits()) {
                    ids.add(hit.getId());
                }
                List<Object> entries = log.computeIfAbsent(said.members().get("query_id"), id -> new ArrayList<>());
                entries.add(Map.of("hits", ids, "query", search.source().toString()));
                return (Response) new Logged((SearchResponse) response, entries);
            }
        }
        return response;
    }

    /** A response of another class. */
    private static final class Logged extends SearchResponse {
        Logged(SearchResponse response, List<Object> entries) {
            super(
                with(response.getInternalResponse(), entries),
                response.getScrollId(),
                response.getTotalShards(),
                response.getSuccessfulShards(),
                response.getSkippedShards(),
                response.getTook().millis(),
                response.getShardFailures(),
                response.getClusters()
            );
        }

        private static InternalSearchResponse with(org.opensearch.action.search.SearchResponseSections sections, List<Object> entries) {
            List<SearchExtBuilder> exts = new ArrayList<>(sections.getSearchExtBuilders());
            exts.add(new Said("logged", new HashMap<>(Map.of("entries", List.copyOf(entries)))));
            return new InternalSearchResponse(
                sections.hits(),
                (org.opensearch.search.aggregations.InternalAggregations) sections.aggregations(),
                sections.suggest(),
                null,
                sections.timedOut(),
                sections.terminatedEarly(),
                sections.getNumReducePhases(),
                exts,
                List.of()
            );
        }
    }
}
