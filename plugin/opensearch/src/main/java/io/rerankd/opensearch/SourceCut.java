package io.rerankd.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;

import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.xcontent.MediaType;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.fetch.StoredFieldsContext;
import org.opensearch.search.fetch.subphase.FetchSourceContext;
import org.opensearch.search.lookup.SourceLookup;

/**
 * How the text that the policy reads gets into the hits, and out again.
 *
 * <p>The search asks for more of {@code _source} than the client does. The hits of the client's page are then
 * cut by the engine's own filter, as the engine would have done where the documents are.
 *
 * @param asks what to ask the engine for; null where the client's part has everything
 * @param client what the client wants; not to be fetched where it wants nothing
 */
record SourceCut(FetchSourceContext asks, FetchSourceContext client) {
    static final SourceCut NOTHING = new SourceCut(null, null);

    /**
     * Decides how to get the fields.
     *
     * @param needed their names; null for all that there are
     */
    static SourceCut of(SearchSourceBuilder search, List<String> needed) throws Skip {
        FetchSourceContext client = clients(search);
        if (isWhole(client) || (needed != null && needed.isEmpty())) {
            return NOTHING;
        }
        StoredFieldsContext stored = search.storedFields();
        if (stored != null && stored.fetchFields() == false) {
            throw new Skip("stored-fields");
        }
        if (needed == null || needed.stream().anyMatch(name -> name.contains("*"))) {
            return new SourceCut(FetchSourceContext.FETCH_SOURCE, client);
        }
        String[] names = needed.toArray(String[]::new);
        if (client.fetchSource() == false) {
            return new SourceCut(new FetchSourceContext(true, names, null), client);
        }
        if (client.excludes().length > 0) {
            return new SourceCut(FetchSourceContext.FETCH_SOURCE, client);
        }
        List<String> includes = new ArrayList<>(Arrays.asList(client.includes()));
        if (new HashSet<>(includes).containsAll(needed)) {
            return NOTHING;
        }
        includes.addAll(needed);
        return new SourceCut(new FetchSourceContext(true, includes.toArray(String[]::new), null), client);
    }

    /** What a search for the texts alone is to fetch. */
    static FetchSourceContext texts(List<String> needed) {
        boolean all = needed == null || needed.stream().anyMatch(name -> name.contains("*"));
        return all ? FetchSourceContext.FETCH_SOURCE : new FetchSourceContext(true, needed.toArray(String[]::new), null);
    }

    /** Whether the search has to be widened. */
    boolean isNeeded() {
        return asks != null;
    }

    /** What of {@code _source} the client gets, by the engine's rules. */
    private static FetchSourceContext clients(SearchSourceBuilder search) {
        FetchSourceContext said = search.fetchSource();
        StoredFieldsContext stored = search.storedFields();
        boolean storesSource = stored != null && stored.fieldNames() != null && stored.fieldNames().contains("_source");
        if (storesSource) {
            return said == null ? FetchSourceContext.FETCH_SOURCE : new FetchSourceContext(true, said.includes(), said.excludes());
        }
        if (said != null) {
            return said;
        }
        boolean scripts = search.scriptFields() != null && search.scriptFields().isEmpty() == false;
        return stored != null || scripts ? FetchSourceContext.DO_NOT_FETCH_SOURCE : FetchSourceContext.FETCH_SOURCE;
    }

    private static boolean isWhole(FetchSourceContext client) {
        return client.fetchSource() && client.includes().length == 0 && client.excludes().length == 0;
    }

    /** Documents do not say in which form they are stored; there is no other way that 2.19 has too. */
    @SuppressWarnings("deprecation")
    static MediaType typeOf(BytesReference source) {
        return MediaTypeRegistry.xContentType(source);
    }

    /** Gives the hit the part of {@code _source} that the client wants. */
    void cut(SearchHit hit) throws IOException {
        if (asks == null || hit.getSourceRef() == null) {
            return;
        }
        if (client.fetchSource() == false) {
            hit.sourceRef(null);
            return;
        }
        BytesReference whole = hit.getSourceRef();
        MediaType type = typeOf(whole);
        Map<String, Object> members = SourceLookup.sourceAsMap(whole);
        try (XContentBuilder builder = XContentBuilder.builder(type.xContent())) {
            builder.value(client.getFilter().apply(members));
            hit.sourceRef(BytesReference.bytes(builder));
        }
    }
}
