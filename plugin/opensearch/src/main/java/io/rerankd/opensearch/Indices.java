package io.rerankd.opensearch;

import java.util.ArrayList;
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

    /**
     * What is known of the indices of a search.
     *
     * @param maxResultWindow how many hits they give at most: the smallest {@code index.max_result_window}
     * @param mapping the fields of all of them together; null where some of them are not known here, and where there
     *     are too many
     */
    record Known(int maxResultWindow, Mapping mapping) {}

    /** Looks at the indices of a search. */
    Known of(SearchRequest request) {
        ClusterState state = clusters.state();
        List<IndexMetadata> indices = new ArrayList<>();
        boolean isWhole = true;
        int smallest = OptionReader.MAX_RESULT_WINDOW;
        for (String name : names(state, request)) {
            // Those of other clusters are not known here.
            IndexMetadata index = isRemote(name) ? null : state.metadata().index(name);
            isWhole &= index != null;
            if (index != null) {
                indices.add(index);
                smallest = Math.min(smallest, IndexSettings.MAX_RESULT_WINDOW_SETTING.get(index.getSettings()));
            }
        }
        return new Known(smallest, isWhole ? mappings.of(indices) : null);
    }

    private static boolean isRemote(String name) {
        return name.contains(":");
    }

    /** The node that asks, as the parent of searches that belong to another one. */
    String localNode() {
        return clusters.localNode().getId();
    }

    private List<String> names(ClusterState state, SearchRequest request) {
        PointInTimeBuilder pit = request.pointInTimeBuilder();
        if (pit != null) {
            try {
                return List.of(SearchContextId.decode(registry, pit.getId()).getActualIndices());
            } catch (RuntimeException e) {
                // The engine says what is wrong with it.
                return List.of();
            }
        }
        List<String> names = new ArrayList<>();
        List<String> here = new ArrayList<>();
        for (String name : request.indices()) {
            (isRemote(name) ? names : here).add(name);
        }
        // No name is all indices.
        if (here.isEmpty() == false || names.isEmpty()) {
            IndicesOptions lenient = IndicesOptions.lenientExpandOpen();
            names.addAll(List.of(resolver.concreteIndexNames(state, lenient, true, here.toArray(String[]::new))));
        }
        return names;
    }
}
