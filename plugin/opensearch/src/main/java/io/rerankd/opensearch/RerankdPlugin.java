package io.rerankd.opensearch;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Map;

import org.opensearch.common.inject.Module;
import org.opensearch.common.lifecycle.LifecycleComponent;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.ingest.ConfigurationUtils;
import org.opensearch.plugins.Plugin;
import org.opensearch.plugins.SearchPipelinePlugin;
import org.opensearch.plugins.SearchPlugin;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.ProcessorGenerationContext;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor.SystemGeneratedFactory;

/** What the engine loads: settings, the options of a search, and the processors of search pipelines. */
public final class RerankdPlugin extends Plugin implements SearchPlugin, SearchPipelinePlugin {
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
        return List.of(IndexLimitsService.class);
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
        return said;
    }

    @Override
    public Map<String, SystemGeneratedFactory<SearchRequestProcessor>> getSystemGeneratedRequestProcessors(Parameters parameters) {
        handles.start(parameters);
        return Map.of(
            RerankProcessor.AUTO,
            new AutoFactory<SearchRequestProcessor>(() -> new WindowProcessor.Auto(handles, handles.node().options()))
        );
    }

    @Override
    public Map<String, SystemGeneratedFactory<SearchResponseProcessor>> getSystemGeneratedResponseProcessors(Parameters parameters) {
        handles.start(parameters);
        return Map.of(
            RerankProcessor.AUTO,
            new AutoFactory<SearchResponseProcessor>(() -> new RerankProcessor.Auto(handles, new Options(Map.of())))
        );
    }

    /** Makes a processor for each search that has options. */
    private record AutoFactory<T extends Processor>(java.util.function.Supplier<T> processors) implements SystemGeneratedFactory<T> {
        @Override
        public boolean shouldGenerate(ProcessorGenerationContext context) {
            return Planner.ext(context.searchRequest().source()) != null;
        }

        @Override
        public T create(
            Map<String, Processor.Factory<T>> others,
            String tag,
            String description,
            boolean ignoreFailure,
            Map<String, Object> config,
            Processor.PipelineContext context
        ) {
            return processors.get();
        }
    }

    /** What the node has one of, for all processors: they are made anew with each change of a pipeline. */
    static final class Handles {
        private final NodeOptions node;
        private final Connections connections;
        private final IndexLimits limits = new IndexLimits();
        private ThreadContext threadContext;
        private Sidecar sidecar;
        private PolicyFields fields;

        private Handles(NodeOptions node, Connections connections) {
            this.node = node;
            this.connections = connections;
        }

        /** The node calls this while it starts, several times. */
        private synchronized void start(Parameters parameters) {
            if (sidecar == null) {
                threadContext = parameters.threadContext;
                sidecar = new Sidecar(connections.client(parameters.genericExecutor::accept), node, parameters);
                fields = new PolicyFields(sidecar);
            }
        }

        NodeOptions node() {
            return node;
        }

        IndexLimits limits() {
            return limits;
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
