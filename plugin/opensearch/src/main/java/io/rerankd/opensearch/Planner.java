package io.rerankd.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.sort.ScoreSortBuilder;
import org.opensearch.search.sort.SortBuilder;
import org.opensearch.search.sort.SortOrder;

/** Decides what to do with a search: whether it is reranked, by which text, and for which page. */
final class Planner {
    private static final int DEFAULT_SIZE = 10;

    private final SearchRequest request;
    private final Options configured;
    private final Options search;
    private final Options options;

    /** @param configured what node and pipeline say */
    Planner(SearchRequest request, Options configured) {
        this.request = request;
        this.configured = configured;
        RerankdExt ext = ext(request.source());
        search = ext == null ? new Options(Map.of()) : ext.options();
        options = search.above(configured);
    }

    /** The options of a search, or null. */
    static RerankdExt ext(SearchSourceBuilder search) {
        if (search != null && search.ext() != null) {
            for (SearchExtBuilder ext : search.ext()) {
                if (ext instanceof RerankdExt ours) {
                    return ours;
                }
            }
        }
        return null;
    }

    /** A plan for the page of which the client's begins at {@code from}. */
    Plan plan(String query, int from, int size, List<String> needed, SourceCut cut, long spentMs) {
        return new Plan(search, options, policy(), query, from, size, needed, cut, spentMs);
    }

    /** All that is said of this search. */
    Options options() {
        return options;
    }

    /** The same with what the response's side says of calls. */
    Options options(Options said) {
        return Plan.all(search, options, said);
    }

    /** Refuses options of the search that go beyond what is allowed. */
    void check() throws Failure {
        Integer window = search.saidWindow();
        if (window != null && window > configured.maxWindow()) {
            throw refused("window", window + " is more than `max_window`, " + configured.maxWindow());
        }
        String policy = search.policy();
        if (policy == null) {
            return;
        }
        List<String> allowed = new ArrayList<>();
        if (configured.policies() != null) {
            allowed.addAll(configured.policies());
        }
        if (configured.policy() != null && allowed.contains(configured.policy()) == false) {
            allowed.add(configured.policy());
        }
        if (allowed.isEmpty() == false && allowed.stream().noneMatch(name -> grants(name, policy))) {
            throw refused("policy", "`" + policy + "` is not allowed here; allowed: " + String.join(", ", allowed));
        }
    }

    private static Failure refused(String key, String problem) {
        return new Failure("bad-request", RestStatus.BAD_REQUEST, "`ext.rerankd." + key + "`: " + problem);
    }

    /** A policy that is granted without a version is granted in each. */
    private static boolean grants(String granted, String asked) {
        return granted.equals(asked) || (granted.contains("@") == false && asked.startsWith(granted + "@"));
    }

    /** Whom to ask. */
    String policy() {
        return options.policy() == null ? Options.DEFAULT_POLICY : options.policy();
    }

    /** Rules out what is not to be reranked, whatever its query is. */
    void checkKind() throws Skip {
        if (options.isEnabled() == false) {
            throw new Skip("disabled");
        }
        SearchSourceBuilder source = request.source();
        if (source == null) {
            throw new Skip("no-query");
        }
        if (size() == 0) {
            throw new Skip("size-zero");
        }
        if (request.scroll() != null) {
            throw new Skip("scroll");
        }
        if (source.searchAfter() != null && source.searchAfter().length > 0) {
            throw new Skip("search-after");
        }
        if (source.slice() != null) {
            throw new Skip("slice");
        }
        if (isByScore(source.sorts()) == false) {
            throw new Skip("sort");
        }
        if (source.rescores() != null && source.rescores().isEmpty() == false) {
            throw new Skip("rescore");
        }
    }

    /** Where the client's page begins. */
    int from() {
        return Math.max(0, request.source().from());
    }

    /** How long the client's page is. */
    int size() {
        int size = request.source().size();
        return size < 0 ? DEFAULT_SIZE : size;
    }

    /** Whether a sort is what searches have without one: no hit has values then that could contradict. */
    private static boolean isByScore(List<SortBuilder<?>> sorts) {
        if (sorts == null || sorts.isEmpty()) {
            return true;
        }
        return sorts.size() == 1 && sorts.get(0) instanceof ScoreSortBuilder sort && sort.order() == SortOrder.DESC;
    }

    /** How many hits the widened search asks for. */
    int widenedSize(IndexLimits limits) throws Skip {
        int window = options.window();
        long end = (long) from() + size();
        if (from() >= window || end > OptionReader.MAX_RESULT_WINDOW) {
            throw new Skip("window-exceeded");
        }
        int widened = Math.max(window, (int) end);
        if (widened > limits.maxResultWindow(request)) {
            throw new Skip("result-window");
        }
        return widened;
    }

    /** The text that was searched for. */
    String query() throws Skip, IOException {
        if (options.query() != null) {
            return options.query();
        }
        SearchSourceBuilder source = request.source();
        if (options.queryPath() != null) {
            String text = QueryText.atPath(json(source), options.queryPath());
            if (text == null) {
                throw new Skip("no-query");
            }
            return text;
        }
        if (source.ext() != null && source.ext().stream().anyMatch(ext -> ext.getWriteableName().equals("rerank"))) {
            String text = QueryText.ofContext(json(source));
            if (text != null) {
                return text;
            }
        }
        if (source.query() == null) {
            throw new Skip("no-query");
        }
        return QueryText.of(json(source.query()));
    }

    private static Map<String, Object> json(ToXContent of) throws IOException {
        try (XContentBuilder builder = XContentFactory.jsonBuilder()) {
            of.toXContent(builder, ToXContent.EMPTY_PARAMS);
            return XContentHelper.convertToMap(BytesReference.bytes(builder), true, MediaTypeRegistry.JSON).v2();
        }
    }

    /** The fields to send: those that are named, else those of the policy; null for all. */
    List<String> needed(List<String> ofPolicy) {
        List<String> named = options.fields() == null ? ofPolicy : options.fields();
        if (named == null || named.contains("*")) {
            return null;
        }
        List<String> needed = new ArrayList<>(named);
        for (String name : options.fieldsOfParameters()) {
            if (needed.contains(name) == false) {
                needed.add(name);
            }
        }
        return needed;
    }
}
