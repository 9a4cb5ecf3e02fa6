package io.rerankd.opensearch;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.search.TransportSearchAction;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.action.support.ContextPreservingActionListener;
import org.opensearch.common.inject.Module;
import org.opensearch.common.lifecycle.LifecycleComponent;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.action.ActionListener;
import org.opensearch.ingest.ConfigurationUtils;
import org.opensearch.plugins.ActionPlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.plugins.SearchPipelinePlugin;
import org.opensearch.plugins.SearchPlugin;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.SearchPipelineService;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor.SystemGeneratedFactory;
import org.opensearch.threadpool.Scheduler;

/** What the engine loads: settings, the options of a search, and the processors of search pipelines. */
public final class RerankdPlugin extends Plugin implements ActionPlugin, SearchPlugin, SearchPipelinePlugin {
    private final Handles handles;

    /** Called by the node. */
    public RerankdPlugin(Settings settings, Path configuration) throws IOException {
        Path ca = NodeOptions.CA_FILE.get(settings).isBlank() ? null : configuration.resolve(NodeOptions.CA_FILE.get(settings));
        handles = new Handles(new NodeOptions(settings), Connections.trusting(ca));
    }

    @Override
    public List<Setting<?>> getSettings() {
        return NodeOptions.ALL;
    }

    @Override
    public List<SearchExtSpec<?>> getSearchExts() {
        return List.of(new SearchExtSpec<>(RerankdExt.NAME, RerankdExt::new, RerankdExt::parse));
    }

    @Override
    public Collection<Module> createGuiceModules() {
        return List.of(binder -> binder.bind(Handles.class).toInstance(handles));
    }

    @Override
    public Collection<Class<? extends LifecycleComponent>> getGuiceServiceClasses() {
        return List.of(EngineService.class);
    }

    @Override
    public Map<String, Processor.Factory<SearchRequestProcessor>> getRequestProcessors(Parameters parameters) {
        handles.start(parameters);
        return Map.of(WindowProcessor.TYPE, (others, tag, description, ignoreFailure, config, context) -> {
            Options said = configured(WindowProcessor.TYPE, tag, config, context);
            return new WindowProcessor(tag, description, ignoreFailure, handles, said.above(handles.node().options()));
        });
    }

    @Override
    public Map<String, Processor.Factory<SearchResponseProcessor>> getResponseProcessors(Parameters parameters) {
        handles.start(parameters);
        return Map.of(RerankProcessor.TYPE, (others, tag, description, ignoreFailure, config, context) -> {
            Options said = configured(RerankProcessor.TYPE, tag, config, context);
            return new RerankProcessor(tag, description, ignoreFailure, handles, said);
        });
    }

    private Options configured(String type, String tag, Map<String, Object> config, Processor.PipelineContext context) {
        Options said = OptionReader.PIPELINE.take(
            config,
            (key, problem) -> ConfigurationUtils.newConfigurationException(type, tag, key, problem)
        );
        boolean isInline = context.getPipelineSource() == Processor.PipelineSource.SEARCH_REQUEST;
        if (isInline && said.url() != null && said.url().equals(handles.node().url()) == false) {
            // Whoever may search must not choose whom the node calls.
            throw ConfigurationUtils.newConfigurationException(
                type,
                tag,
                "url",
                "a pipeline in a search may name no address but that of the setting `rerankd.url`"
            );
        }
        if (context.getPipelineSource() == Processor.PipelineSource.VALIDATE_PIPELINE && said.parameters() != null) {
            Failure refusal = handles.sidecar().refusal(said.above(handles.node().options()));
            if (refusal != null) {
                throw ConfigurationUtils.newConfigurationException(type, tag, "parameters", refusal.getMessage());
            }
        }
        return said;
    }

    @Override
    public Map<String, SystemGeneratedFactory<SearchRequestProcessor>> getSystemGeneratedRequestProcessors(Parameters parameters) {
        handles.start(parameters);
        return Map.of(RerankProcessor.AUTO, AutoFactory.ofRequests(handles));
    }

    @Override
    public Map<String, SystemGeneratedFactory<SearchResponseProcessor>> getSystemGeneratedResponseProcessors(Parameters parameters) {
        handles.start(parameters);
        return Map.of(RerankProcessor.AUTO, AutoFactory.ofResponses(handles));
    }

    @Override
    public List<ActionFilter> getActionFilters() {
        return List.of(new AttemptFilter(handles));
    }

    /** What the node has one of, for all processors: they are made anew with each change of a pipeline. */
    static final class Handles {
        private final NodeOptions node;
        private final Connections connections;
        private SearchPipelineService pipelines;
        private BiFunction<Long, Runnable, Scheduler.ScheduledCancellable> scheduler;
        private ThreadContext threadContext;
        private Sidecar sidecar;
        private PolicyFields fields;
        private volatile Indices indices;
        private volatile TransportSearchAction searches;

        private Handles(NodeOptions node, Connections connections) {
            this.node = node;
            this.connections = connections;
        }

        /** The node calls this while it starts, several times. */
        private synchronized void start(Parameters parameters) {
            if (sidecar == null) {
                pipelines = parameters.searchPipelineService;
                scheduler = parameters.scheduler;
                threadContext = parameters.threadContext;
                sidecar = new Sidecar(connections.client(parameters.genericExecutor::accept), node, parameters);
                fields = new PolicyFields(sidecar);
            }
        }

        NodeOptions node() {
            return node;
        }

        /** The node hands these over when it has made them, before any search. */
        void connect(Indices indices, TransportSearchAction searches) {
            this.searches = searches;
            this.indices = indices;
        }

        /** Whether the node is ready for searches. */
        boolean isConnected() {
            return indices != null && threadContext != null;
        }

        Indices indices() {
            return indices;
        }

        /**
         * Asks the engine, in the context in which this is called.
         *
         * @param attempt the search that it belongs to, or null
         */
        void search(SearchRequest request, Attempt attempt, ActionListener<SearchResponse> listener) {
            if (attempt != null) {
                // A search that is cancelled takes those with it that belong to it.
                request.setParentTask(indices.localNode(), attempt.task());
            }
            searches.execute(request, new ContextPreservingActionListener<>(threadContext.newRestorableContext(true), listener));
        }

        /** Runs something later, on a thread of the generic pool. */
        Scheduler.ScheduledCancellable schedule(long milliseconds, Runnable what) {
            return scheduler.apply(milliseconds, what);
        }

        SearchPipelineService pipelines() {
            return pipelines;
        }

        ThreadContext threadContext() {
            return threadContext;
        }

        Sidecar sidecar() {
            return sidecar;
        }

        PolicyFields fields() {
            return fields;
        }
    }
}
