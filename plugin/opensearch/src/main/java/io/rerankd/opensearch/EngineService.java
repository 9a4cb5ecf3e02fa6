package io.rerankd.opensearch;

import org.opensearch.action.search.TransportSearchAction;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.inject.Inject;
import org.opensearch.common.lifecycle.AbstractLifecycleComponent;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;

/**
 * Gives the plugin the services of the node. {@code Plugin.createComponents} would do so too, but names a class
 * that is another one in OpenSearch 2.
 */
public final class EngineService extends AbstractLifecycleComponent {
    /** Called by the node. */
    @Inject
    public EngineService(
        RerankdPlugin.Handles handles,
        ClusterService clusters,
        IndexNameExpressionResolver resolver,
        NamedWriteableRegistry registry,
        TransportSearchAction searches
    ) {
        handles.connect(new Indices(clusters, resolver, registry), searches);
    }

    @Override
    protected void doStart() {}

    @Override
    protected void doStop() {}

    @Override
    protected void doClose() {}
}
