package io.rerankd.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

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
import org.opensearch.search.fetch.subphase.FetchSourceContext;
import org.opensearch.search.internal.SearchContext;
import org.opensearch.search.rescore.RescorerBuilder;
import org.opensearch.search.sort.ScoreSortBuilder;
import org.opensearch.search.sort.SortBuilder;
import org.opensearch.search.sort.SortOrder;

/** Decides what to do with a search: whether it is reranked, by which text, and for which page. */
final class Planner {
    private static final int DEFAULT_SIZE = 10;

    /** The engine's own. */
    private static final int DEFAULT_RESCORE_WINDOW = RescorerBuilder.DEFAULT_WINDOW_SIZE;

    /** Members of {@code ext} by which other plugins rerank, or have a model read the hits in the engine's order. */
    private static final Set<String> RERANKING_EXT = Set.of(
        "mmr",
        "search_configuration",
        "personalize_request_parameters",
        "generative_qa_parameters"
    );

    private final SearchRequest request;
    private final Options configured;
    private final Options search;
    private final Options options;
    private QueryText clauses;
    private Mapping mapping;

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

    /**
     * A plan.
     *
     * @param reading the fields to send
     * @param limit how many hits the engine gives
     */
    Plan plan(String query, Reading reading, int limit, long spentMs) throws Skip {
        SourceCut cut = SourceCut.of(request.source(), reading.fetched());
        int window = window();
        int end = from() + size();
        // Where much of the page is behind the window, a search of its own has the texts: documents may be large.
        if (from() >= window) {
            Plan.Hits hits = new Plan.Hits(from(), size(), window, from(), size(), limit);
            return plan(query, hits, reading, SourceCut.NOTHING, SourceCut.texts(reading.fetched()), spentMs);
        }
        Plan.Hits hits = new Plan.Hits(from(), size(), window, 0, Math.max(window, end), limit);
        boolean isLong = end > 2 * window && cut.isNeeded();
        return isLong
            ? plan(query, hits, reading, SourceCut.NOTHING, SourceCut.texts(reading.fetched()), spentMs)
            : plan(query, hits, reading, cut, null, spentMs);
    }

    /** How many hits are ranked. */
    private int window() {
        int rescored = Integer.MAX_VALUE;
        for (RescorerBuilder<?> rescorer : isRescored() ? request.source().rescores() : List.<RescorerBuilder<?>>of()) {
            // What is behind has scores of another kind.
            rescored = Math.min(rescored, rescorer.windowSize() == null ? DEFAULT_RESCORE_WINDOW : rescorer.windowSize());
        }
        return Math.min(rescored, Math.min(options.window(), clauses.fused()));
    }

    private boolean isRescored() {
        return request.source().rescores() != null && request.source().rescores().isEmpty() == false;
    }

    /** A plan for the page that there is. */
    Plan planOfPage(String query, Reading reading, int hits) {
        return plan(query, Plan.Hits.page(hits, options.window()), reading, SourceCut.NOTHING, null, 0);
    }

    private Plan plan(
        String query,
        Plan.Hits hits,
        Reading reading,
        SourceCut cut,
        FetchSourceContext texts,
        long spentMs
    ) {
        return new Plan(search, options, policy(), query, hits, reading, cut, texts, clauses.sizeMatters(), mapping != null, spentMs);
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
        if (isRescored() && options.keepsRescored() == false) {
            throw new Skip("rescore");
        }
        if (source.ext() != null && source.ext().stream().anyMatch(ext -> RERANKING_EXT.contains(ext.getWriteableName()))) {
            throw new Skip("reranked-already");
        }
        Integer counted = source.trackTotalHitsUpTo();
        boolean skips = counted != null && counted != SearchContext.TRACK_TOTAL_HITS_ACCURATE;
        if (source.terminateAfter() > 0 && skips) {
            // It stops after so many hits, while it skips those that cannot be among the first.
            throw new Skip("size-dependent");
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

    /** How many hits the engine gives of this search. */
    int limit(int maxResultWindow) throws Skip {
        int window = window();
        long end = (long) from() + size();
        if (clauses.isOnePage() && from() > 0) {
            // The engine says what is wrong with it.
            throw new Skip("unparsable");
        }
        boolean isBeyond = end > Math.min(OptionReader.MAX_RESULT_WINDOW, clauses.fused());
        if (window <= 0 || isBeyond || clauses.isOnePage() && end > window) {
            throw new Skip("window-exceeded");
        }
        if (Math.max(window, from() >= window ? 0 : end) > maxResultWindow) {
            throw new Skip("result-window");
        }
        return Math.min(maxResultWindow, clauses.fused());
    }

    /** Reads the query, with what is known of the fields of its indices; null where nothing is. */
    void read(Mapping known) throws IOException {
        mapping = known;
        SearchSourceBuilder source = request.source();
        Set<String> declared = new HashSet<>();
        if (source != null && source.getDerivedFieldsObject() != null) {
            declared.addAll(source.getDerivedFieldsObject().keySet());
        }
        if (source != null && source.getDerivedFields() != null) {
            source.getDerivedFields().forEach(field -> declared.add(field.getName()));
        }
        Object query = source == null || source.query() == null ? null : json(source.query());
        clauses = QueryText.read(query, known, declared::contains);
    }

    /** What is said of a search that is left alone. */
    Outcome skipped(Skip skip) {
        boolean byMapping = skip.reason().equals("no-query") || skip.reason().equals("ambiguous-query");
        return Outcome.skipped(skip.reason()).withMapping(byMapping == false || clauses == null || mapping != null);
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
        return clauses.text();
    }

    private static Map<String, Object> json(ToXContent of) throws IOException {
        try (XContentBuilder builder = XContentFactory.jsonBuilder()) {
            of.toXContent(builder, ToXContent.EMPTY_PARAMS);
            return XContentHelper.convertToMap(BytesReference.bytes(builder), true, MediaTypeRegistry.JSON).v2();
        }
    }

    /** Whether it has to be known what the policy reads. */
    boolean needsPolicy() {
        return options.fields() == null || options.fields().stream().anyMatch(Mapping::isPattern);
    }

    /**
     * The fields to send.
     *
     * @param policy what the policy reads; null where that is not needed, or not known
     */
    Reading reading(PolicyFields.Read policy, String query) {
        List<String> ofParameters = options.fieldsOfParameters();
        List<String> named = options.fields();
        if (named != null && policy != null && named.stream().anyMatch(Mapping::isPattern)) {
            return Reading.ofPatterns(named, ofParameters, policy, mapping);
        }
        boolean free = named == null && ofParameters.isEmpty() && mapping != null;
        if (free && policy != null && policy.kept() != null) {
            return Reading.chosen(policy, mapping, clauses.fieldsOf(query));
        }
        List<String> all = named != null ? named : policy == null ? null : policy.fields();
        if (all == null || all.contains("*")) {
            return Reading.of(null);
        }
        List<String> needed = new ArrayList<>(all);
        for (String name : ofParameters) {
            if (needed.contains(name) == false) {
                needed.add(name);
            }
        }
        return Reading.of(needed);
    }
}
