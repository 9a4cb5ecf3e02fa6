package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.opensearch.action.search.SearchContextId;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.support.IndicesOptions;
import org.opensearch.cluster.ClusterState;
import org.opensearch.cluster.metadata.IndexMetadata;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.index.IndexSettings;
import org.opensearch.search.builder.PointInTimeBuilder;

/** What the cluster state says of the indices of a search. */
final class Indices {
    private final ClusterService clusters;
    private final IndexNameExpressionResolver resolver;
    private final NamedWriteableRegistry registry;
    private final Mappings mappings = new Mappings();

    Indices(ClusterService clusters, IndexNameExpressionResolver resolver, NamedWriteableRegistry registry) {
        this.clusters = clusters;
        this.resolver = resolver;
        this.registry = registry;
    }

    /** How many hits the indices give at most: the smallest {@code index.max_result_window}. */
    int maxResultWindow(SearchRequest request) {
        // A point in time is not bound by it.
        if (request.pointInTimeBuilder() != null) {
            return OptionReader.MAX_RESULT_WINDOW;
        }
        List<IndexMetadata> indices = of(request);
        if (indices == null) {
            return OptionReader.MAX_RESULT_WINDOW;
        }
        int smallest = Integer.MAX_VALUE;
        for (IndexMetadata index : indices) {
            smallest = Math.min(smallest, IndexSettings.MAX_RESULT_WINDOW_SETTING.get(index.getSettings()));
        }
        return smallest;
    }

    /** The fields of all indices of a search together; null where some of them are not known here. */
    Mapping mapping(SearchRequest request) {
        List<IndexMetadata> indices = of(request);
        return indices == null ? null : mappings.of(indices);
    }

    /** The node that asks, as the parent of searches that belong to another one. */
    String localNode() {
        return clusters.localNode().getId();
    }

    /** The indices of a search; null where some of them are in another cluster. */
    private List<IndexMetadata> of(SearchRequest request) {
        ClusterState state = clusters.state();
        List<IndexMetadata> found = new ArrayList<>();
        for (String name : names(state, request)) {
            IndexMetadata index = name.contains(":") ? null : state.metadata().index(name);
            if (index == null) {
                return null;
            }
            found.add(index);
        }
        return found;
    }

    private String[] names(ClusterState state, SearchRequest request) {
        PointInTimeBuilder pit = request.pointInTimeBuilder();
        if (pit != null) {
            try {
                return SearchContextId.decode(registry, pit.getId()).getActualIndices();
            } catch (RuntimeException e) {
                // The engine says what is wrong with it.
                return new String[0];
            }
        }
        if (Arrays.stream(request.indices()).anyMatch(name -> name.contains(":"))) {
            return request.indices();
        }
        return resolver.concreteIndexNames(state, IndicesOptions.lenientExpandOpen(), true, request.indices());
    }
}
