package io.rerankd.opensearch;

import java.util.HashMap;
import java.util.Map;
import java.util.function.Function;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.plugins.SearchPipelinePlugin.SystemGeneratedSearchPipelineConfigKeys;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.ProcessorGenerationContext;
import org.opensearch.search.pipeline.SearchPipelineService;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor.ExecutionStage;
import org.opensearch.search.pipeline.SystemGeneratedProcessor.SystemGeneratedFactory;

/** Makes a processor for each search that has options and names no pipeline. */
final class AutoFactory<T extends Processor> implements SystemGeneratedFactory<T> {
    private final RerankdPlugin.Handles handles;
    private final Function<ExecutionStage, T> processors;

    private AutoFactory(RerankdPlugin.Handles handles, Function<ExecutionStage, T> processors) {
        this.handles = handles;
        this.processors = processors;
    }

    static SystemGeneratedFactory<SearchRequestProcessor> ofRequests(RerankdPlugin.Handles handles) {
        return new AutoFactory<>(handles, stage -> new WindowProcessor.Auto(handles, handles.node().options(), stage));
    }

    static SystemGeneratedFactory<SearchResponseProcessor> ofResponses(RerankdPlugin.Handles handles) {
        return new AutoFactory<>(handles, stage -> new RerankProcessor.Auto(handles, new Options(Map.of()), stage));
    }

    @Override
    public boolean shouldGenerate(ProcessorGenerationContext context) {
        Attempt attempt = Attempt.of(handles.threadContext());
        boolean isRefused = attempt != null && attempt.first() != null && attempt.first().isRefused();
        return isRefused == false && Planner.ext(context.searchRequest().source()) != null;
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
        Attempt attempt = Attempt.of(handles.threadContext());
        if (attempt != null) {
            attempt.generate();
        }
        boolean isTaken = false;
        for (Map.Entry<String, Processor.Factory<T>> other : others.entrySet()) {
            isTaken |= isLast(other.getKey(), other.getValue(), others, tag, config, context);
        }
        return processors.apply(isTaken ? ExecutionStage.PRE_USER_DEFINED : ExecutionStage.POST_USER_DEFINED);
    }

    /** Whether another factory makes a processor for the end of this search: the engine takes one for each place. */
    private boolean isLast(
        String name,
        Processor.Factory<T> factory,
        Map<String, Processor.Factory<T>> others,
        String tag,
        Map<String, Object> config,
        Processor.PipelineContext context
    ) {
        boolean isOther = factory != this && factory instanceof SystemGeneratedFactory<?>;
        SearchPipelineService pipelines = handles.pipelines();
        Object request = config.get(SystemGeneratedSearchPipelineConfigKeys.SEARCH_REQUEST);
        if (isOther == false || pipelines.isSystemGeneratedFactoryEnabled(name) == false) {
            return false;
        }
        try {
            if (((SystemGeneratedFactory<?>) factory).shouldGenerate(new ProcessorGenerationContext((SearchRequest) request)) == false) {
                return false;
            }
            Processor made = factory.create(others, tag, "", false, new HashMap<>(config), context);
            return made instanceof SystemGeneratedProcessor one && one.getExecutionStage() == ExecutionStage.POST_USER_DEFINED;
        } catch (Exception e) {
            // The engine asks it too, and says so.
            return false;
        }
    }
}
