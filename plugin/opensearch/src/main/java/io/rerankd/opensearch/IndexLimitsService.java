package io.rerankd.opensearch;

import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.inject.Inject;
import org.opensearch.common.lifecycle.AbstractLifecycleComponent;

/**
 * Gives {@link IndexLimits} what it reads. {@code Plugin.createComponents} would do so too, but names a class
 * that is another one in OpenSearch 2.
 */
public final class IndexLimitsService extends AbstractLifecycleComponent {
    /** Called by the node. */
    @Inject
    public IndexLimitsService(RerankdPlugin.Handles handles, ClusterService clusters, IndexNameExpressionResolver resolver) {
        handles.limits().connect(clusters, resolver);
    }

    @Override
    protected void doStart() {}

    @Override
    protected void doStop() {}

    @Override
    protected void doClose() {}
}
