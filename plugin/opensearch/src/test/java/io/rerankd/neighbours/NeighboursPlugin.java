package io.rerankd.neighbours;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.plugins.ActionPlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.plugins.SearchPipelinePlugin;
import org.opensearch.plugins.SearchPlugin;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.pipeline.AbstractProcessor;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.ProcessorGenerationContext;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor;

/**
 * What other plugins do: it logs behaviour ({@code ext.ubi}), and generates processors at the places that {@code
 * ext.neighbours} names.
 */
public final class NeighboursPlugin extends Plugin implements ActionPlugin, SearchPlugin, SearchPipelinePlugin {
    private static final String NAME = "neighbours";

    @Override
    public List<ActionFilter> getActionFilters() {
        return List.of(new Logging());
    }

    @Override
    public List<SearchExtSpec<?>> getSearchExts() {
        List<SearchExtSpec<?>> specs = new ArrayList<>();
        for (String name : List.of(NAME, "ubi", "logged")) {
            specs.add(new SearchExtSpec<>(name, in -> Said.read(name, in), parser -> Said.parse(name, parser)));
        }
        return specs;
    }

    @Override
    public Map<String, SystemGeneratedProcessor.SystemGeneratedFactory<SearchRequestProcessor>> getSystemGeneratedRequestProcessors(
        Parameters parameters
    ) {
        return Map.of("request_first", new Factory<>("request_first"), "request_last", new Factory<>("request_last"));
    }

    @Override
    public Map<String, SystemGeneratedProcessor.SystemGeneratedFactory<SearchResponseProcessor>> getSystemGeneratedResponseProcessors(
        Parameters parameters
    ) {
        return Map.of("response_first", new Factory<>("response_first"), "response_last", new Factory<>("response_last"));
    }

    /** Makes a processor where {@code ext.neighbours} has its name. */
    private record Factory<T extends Processor>(String name) implements SystemGeneratedProcessor.SystemGeneratedFactory<T> {
        @Override
        public boolean shouldGenerate(ProcessorGenerationContext context) {
            for (SearchExtBuilder ext : context.searchRequest().source().ext()) {
                if (ext instanceof Said said && said.getWriteableName().equals(NAME)) {
                    return said.members().containsKey(name);
                }
            }
            return false;
        }

        @Override
        @SuppressWarnings("unchecked")
        public T create(
            Map<String, Processor.Factory<T>> others,
            String tag,
            String description,
            boolean ignoreFailure,
            Map<String, Object> config,
            Processor.PipelineContext context
        ) {
            return (T) new Neighbour(name);
        }
    }

    /** Does nothing, at its place. */
    private static final class Neighbour extends AbstractProcessor
        implements
            SearchRequestProcessor,
            SearchResponseProcessor,
            SystemGeneratedProcessor {
        private final String name;

        Neighbour(String name) {
            super(null, null, false);
            this.name = name;
        }

        @Override
        public ExecutionStage getExecutionStage() {
            return name.endsWith("first") ? ExecutionStage.PRE_USER_DEFINED : ExecutionStage.POST_USER_DEFINED;
        }

        @Override
        public String getType() {
            return name;
        }

        @Override
        public SearchRequest processRequest(SearchRequest request) {
            return request;
        }

        @Override
        public SearchResponse processResponse(SearchRequest request, SearchResponse response) {
            return response;
        }
    }
}
