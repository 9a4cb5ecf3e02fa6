package io.rerankd.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.common.document.DocumentField;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.search.SearchHit;
import org.opensearch.search.lookup.SourceLookup;

/**
 * What a policy sees of a hit: the leaves of {@code _source} by their dotted paths, and the {@code fields}
 * section where {@code _source} lacks the name. The same rules as the search proxy's ({@code
 * host/wire/src/engine/document.rs}).
 */
final class HitFields {
    /** The engine's own default for mappings ({@code index.mapping.depth.limit}). */
    private static final int MAX_DEPTH = 20;

    /** The engine's own default for an index ({@code index.mapping.total_fields.limit}). */
    private static final int MAX_NAMES = 1000;

    private static final int MAX_NAME_LENGTH = 256;

    private static final class Leaf {
        private final List<Object> values = new ArrayList<>(1);
        private boolean isList;
    }

    private final Collection<String> needed;
    private final Map<String, Leaf> leaves = new LinkedHashMap<>();

    private HitFields(Collection<String> needed) {
        this.needed = needed;
    }

    /**
     * The values of a hit by name: a scalar, or a list where there may be several.
     *
     * @param needed the names that count; null for all
     */
    static Map<String, Object> of(SearchHit hit, Collection<String> needed) throws IOException {
        HitFields found = new HitFields(needed);
        BytesReference source = hit.getSourceRef();
        if (source != null) {
            found.add("", SourceLookup.sourceAsMap(source), 0, false);
        }
        Map<String, Object> fields = new LinkedHashMap<>();
        found.leaves.forEach((name, leaf) -> {
            if (leaf.isList == false && leaf.values.size() == 1) {
                fields.put(name, leaf.values.get(0));
            } else {
                fields.put(name, leaf.values);
            }
        });
        for (DocumentField field : hit.getFields().values()) {
            boolean ours = field.getName().startsWith("_") == false && found.isNeeded(field.getName());
            if (ours && fields.containsKey(field.getName()) == false && field.getValues().isEmpty() == false) {
                List<Object> values = field.getValues();
                fields.put(field.getName(), values.size() == 1 ? values.get(0) : values);
            }
        }
        return fields;
    }

    private boolean isNeeded(String name) {
        return needed == null || needed.contains(name);
    }

    private void add(String path, Object value, int depth, boolean inList) {
        if (depth > MAX_DEPTH || value == null) {
            return;
        }
        if (value instanceof Map<?, ?> members) {
            for (Map.Entry<?, ?> member : members.entrySet()) {
                String name = path.isEmpty() ? (String) member.getKey() : path + '.' + member.getKey();
                if (name.length() <= MAX_NAME_LENGTH) {
                    add(name, member.getValue(), depth + 1, inList);
                }
            }
        } else if (value instanceof List<?> items) {
            if (items.isEmpty()) {
                leaf(path, true);
            }
            for (Object item : items) {
                add(path, item, depth + 1, true);
            }
        } else if ((value instanceof Number number && Double.isFinite(number.doubleValue()) == false) == false) {
            Leaf leaf = leaf(path, inList);
            if (leaf != null) {
                leaf.values.add(value);
            }
        }
    }

    /** The leaf of that name; null where it is not needed, or there is no room. */
    private Leaf leaf(String name, boolean inList) {
        Leaf leaf = leaves.get(name);
        if (leaf == null && isNeeded(name) && leaves.size() < MAX_NAMES) {
            leaf = new Leaf();
            leaf.isList = inList;
            leaves.put(name, leaf);
        }
        return leaf;
    }
}
