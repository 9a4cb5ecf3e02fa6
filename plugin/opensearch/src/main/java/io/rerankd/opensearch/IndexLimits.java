package io.rerankd.opensearch;

import java.util.Arrays;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.support.IndicesOptions;
import org.opensearch.cluster.ClusterState;
import org.opensearch.cluster.metadata.IndexMetadata;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.index.IndexSettings;

/** How many hits the indices of a search give at most: {@code index.max_result_window}. */
final class IndexLimits {
    private volatile ClusterService clusterService;
    private volatile IndexNameExpressionResolver resolver;

    /** The node hands these over when it has made them, before any search. */
    void connect(ClusterService clusterService, IndexNameExpressionResolver resolver) {
        this.resolver = resolver;
        this.clusterService = clusterService;
    }

    /** The smallest limit of the indices; the usual one where they are not known here. */
    int maxResultWindow(SearchRequest request) {
        // A point in time carries its indices in itself; those of other clusters are not known here.
        if (clusterService == null || request.pointInTimeBuilder() != null) {
            return OptionReader.MAX_RESULT_WINDOW;
        }
        String[] here = Arrays.stream(request.indices()).filter(name -> name.contains(":") == false).toArray(String[]::new);
        if (here.length == 0 && request.indices().length > 0) {
            return OptionReader.MAX_RESULT_WINDOW;
        }
        ClusterState state = clusterService.state();
        int smallest = Integer.MAX_VALUE;
        for (String name : resolver.concreteIndexNames(state, IndicesOptions.lenientExpandOpen(), true, here)) {
            IndexMetadata index = state.metadata().index(name);
            if (index != null) {
                smallest = Math.min(smallest, IndexSettings.MAX_RESULT_WINDOW_SETTING.get(index.getSettings()));
            }
        }
        return smallest;
    }
}
