package io.rerankd.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.opensearch.common.document.DocumentField;
import org.opensearch.common.xcontent.LoggingDeprecationHandler;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.search.SearchHit;

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

    /**
     * The names that count.
     *
     * @param names null for all
     * @param above the names of the objects in which they are
     */
    record Needed(Set<String> names, Set<String> above) {
        /** These names; null for all. */
        static Needed of(Collection<String> names) {
            Set<String> above = new HashSet<>();
            for (String name : names == null ? List.<String>of() : names) {
                for (int dot = name.indexOf('.'); dot >= 0 && dot <= MAX_NAME_LENGTH; dot = name.indexOf('.', dot + 1)) {
                    above.add(name.substring(0, dot));
                }
            }
            return new Needed(names == null ? null : Set.copyOf(names), above);
        }

        private boolean has(String name) {
            return names == null || names.contains(name);
        }

        /** Whether this name counts, or one below it. */
        private boolean isAbove(String name) {
            return has(name) || above.contains(name);
        }
    }

    private final Needed needed;
    private final Map<String, Leaf> leaves = new LinkedHashMap<>();

    private HitFields(Needed needed) {
        this.needed = needed;
    }

    /** The values of a hit by name: a scalar, or a list where there may be several. */
    static Map<String, Object> of(SearchHit hit, Needed needed) throws IOException {
        HitFields found = new HitFields(needed);
        BytesReference source = hit.getSourceRef();
        if (source != null) {
            found.readSource(source);
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
            boolean ours = field.getName().startsWith("_") == false && needed.has(field.getName());
            if (ours && fields.containsKey(field.getName()) == false && field.getValues().isEmpty() == false) {
                List<Object> values = field.getValues();
                fields.put(field.getName(), values.size() == 1 ? values.get(0) : values);
            }
        }
        return fields;
    }

    /** What is not needed is passed over as it stands: of a large document that is most of it. */
    private void readSource(BytesReference source) throws IOException {
        try (
            XContentParser parser = XContentHelper.createParser(
                NamedXContentRegistry.EMPTY,
                LoggingDeprecationHandler.INSTANCE,
                source,
                SourceCut.typeOf(source)
            )
        ) {
            if (parser.nextToken() == XContentParser.Token.START_OBJECT) {
                read(parser, "", 0, false);
            }
        }
    }

    /** Reads the value at which the parser stands, to its end. */
    private void read(XContentParser parser, String path, int depth, boolean inList) throws IOException {
        switch (parser.currentToken()) {
            case START_OBJECT -> {
                while (parser.nextToken() != XContentParser.Token.END_OBJECT) {
                    String name = path.isEmpty() ? parser.currentName() : path + '.' + parser.currentName();
                    parser.nextToken();
                    if (depth < MAX_DEPTH && name.length() <= MAX_NAME_LENGTH && needed.isAbove(name)) {
                        read(parser, name, depth + 1, inList);
                    } else {
                        parser.skipChildren();
                    }
                }
            }
            case START_ARRAY -> {
                boolean isEmpty = true;
                while (parser.nextToken() != XContentParser.Token.END_ARRAY) {
                    isEmpty = false;
                    if (depth < MAX_DEPTH) {
                        read(parser, path, depth + 1, true);
                    } else {
                        parser.skipChildren();
                    }
                }
                if (isEmpty) {
                    leaf(path, true);
                }
            }
            case VALUE_STRING -> add(path, parser.text(), inList);
            case VALUE_BOOLEAN -> add(path, parser.booleanValue(), inList);
            case VALUE_NUMBER -> {
                Number number = parser.numberValue();
                if (Double.isFinite(number.doubleValue())) {
                    add(path, number, inList);
                }
            }
            default -> {
            }
        }
    }

    private void add(String path, Object value, boolean inList) {
        Leaf leaf = leaf(path, inList);
        if (leaf != null) {
            leaf.values.add(value);
        }
    }

    /** The leaf of that name; null where it is not needed, or there is no room. */
    private Leaf leaf(String name, boolean inList) {
        Leaf leaf = leaves.get(name);
        if (leaf == null && needed.has(name) && leaves.size() < MAX_NAMES) {
            leaf = new Leaf();
            leaf.isList = inList;
            leaves.put(name, leaf);
        }
        return leaf;
    }
}
