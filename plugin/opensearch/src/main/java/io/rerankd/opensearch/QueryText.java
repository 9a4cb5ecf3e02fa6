package io.rerankd.opensearch;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.common.bytes.BytesArray;
import org.opensearch.core.xcontent.MediaTypeRegistry;

/**
 * The text that was searched for: from clauses that score and search full text, and never guessed. The same rules
 * as the search proxy's ({@code host/wire/src/search/query_text.rs}).
 *
 * <p>Clauses that a policy cannot read as a text (term, range, knn; match on a keyword) say nothing. A query of
 * several texts that differ is ambiguous.
 */
final class QueryText {
    /** Queries that are nested deeper have no text; the engine itself stops at 20. */
    private static final int MAX_DEPTH = 32;

    /** Patterns that are held against the mapping; those beyond may stand for any field. */
    static final int MOST_PATTERNS = 64;

    /** Clauses whose fields are looked at for what is read. */
    private static final int MOST_CLAUSES = 256;

    /** What finds by meaning, whatever the field is, and finds other hits where more are asked for. */
    private static final Set<String> BY_MEANING = Set.of("neural", "neural_sparse");

    /**
     * A field, or pattern of fields, that a clause searches.
     *
     * @param boost of the field, the clause, and all queries around it, multiplied
     */
    record Searched(String name, double boost) {}

    /** @param fields none where the index says which; null where a meaning is searched, and not words */
    private record Said(String text, List<Searched> fields) {}

    private final Mapping mapping;
    private final Predicate<String> declared;
    private final List<Said> texts = new ArrayList<>();
    private final Map<String, Boolean> patterns = new HashMap<>();
    private final boolean searchesDefaults;
    private boolean sizeMatters;
    private int fused = Integer.MAX_VALUE;
    private boolean isOnePage;

    private QueryText(Mapping mapping, Predicate<String> declared) {
        this.mapping = mapping == null || mapping.isEmpty() ? null : mapping;
        this.declared = declared;
        this.searchesDefaults = this.mapping == null || mapping.defaults().stream().anyMatch(name -> mapping.mayBeText(searched(name, 1).name));
    }

    /**
     * Reads a query.
     *
     * @param mapping of the indices that are searched; without it any field may be full text
     * @param declared tells the fields that the search itself defines: they are no full text
     */
    static QueryText read(Object query, Mapping mapping, Predicate<String> declared) {
        QueryText found = new QueryText(mapping, declared);
        found.ofQueries(query, 0, 1);
        return found;
    }

    /** The one text. */
    String text() throws Skip {
        if (texts.isEmpty()) {
            throw new Skip("no-query");
        }
        String first = texts.get(0).text;
        if (texts.stream().anyMatch(said -> said.text.equals(first) == false)) {
            throw new Skip("ambiguous-query");
        }
        return first;
    }

    /** The fields that are searched for a text, by name or pattern, in their order. */
    List<Searched> fieldsOf(String text) {
        List<Searched> defaults = defaults();
        List<Searched> fields = new ArrayList<>();
        texts.stream()
            .filter(said -> said.fields != null && said.text.equals(text))
            .limit(MOST_CLAUSES)
            .forEach(said -> fields.addAll(said.fields.isEmpty() ? defaults : said.fields));
        return fields;
    }

    /** The index's default fields, unless they are all fields. */
    private List<Searched> defaults() {
        List<String> names = mapping == null ? List.of() : mapping.defaults();
        return names.contains("*") ? List.of() : names.stream().map(name -> searched(name, 1)).toList();
    }

    /** Whether the first hits depend on how many are wanted. */
    boolean sizeMatters() {
        return sizeMatters;
    }

    /** The most hits that a fusion of several queries gives. */
    int fused() {
        return fused;
    }

    /**
     * Whether queries are fused that each give as many hits as are wanted: only first pages are good then, and a
     * longer answer has another order.
     */
    boolean isOnePage() {
        return isOnePage;
    }

    /** The text that the engine's own rerank pipelines are given: {@code ext.rerank.query_context}; or null. */
    static String ofContext(Map<String, Object> search) {
        Object context = member(member(member(search, "ext"), "rerank"), "query_context");
        if (member(context, "query_text") instanceof String text) {
            return stripped(text);
        }
        return member(context, "query_text_path") instanceof String path ? atPath(search, path) : null;
    }

    /**
     * The text at a path such as {@code query.bool.must[0].match.title.query}, or null. A part of a path may
     * be a key with dots in it. The engine writes queries in their long form, so that a path to the short
     * one ({@code query.match.title}) leads to an object with a {@code query}.
     */
    static String atPath(Object json, String path) {
        return atPath(json, path, 0);
    }

    private static String atPath(Object json, String path, int depth) {
        // Each step may take a key and an item.
        if (depth > 2 * MAX_DEPTH) {
            return null;
        }
        if (path.isEmpty()) {
            Object text = json instanceof Map ? member(json, "query") : json;
            return text instanceof String string ? stripped(string) : null;
        }
        if (path.startsWith("[")) {
            int end = path.indexOf(']');
            if (end < 0 || path.substring(1, end).matches("\\d{1,6}") == false) {
                return null;
            }
            int index = Integer.parseInt(path.substring(1, end));
            String rest = path.substring(end + 1);
            boolean there = json instanceof List<?> items && index < items.size();
            return there ? atPath(((List<?>) json).get(index), rest.startsWith(".") ? rest.substring(1) : rest, depth + 1) : null;
        }
        if (json instanceof Map<?, ?> members) {
            for (Map.Entry<?, ?> entry : members.entrySet()) {
                String key = (String) entry.getKey();
                if (path.startsWith(key) == false) {
                    continue;
                }
                String rest = path.substring(key.length());
                boolean ends = rest.isEmpty() || rest.startsWith("[");
                String found = ends || rest.startsWith(".") ? atPath(entry.getValue(), ends ? rest : rest.substring(1), depth + 1) : null;
                if (found != null) {
                    return found;
                }
            }
        }
        return null;
    }

    private static Object member(Object json, String name) {
        return json instanceof Map<?, ?> members ? members.get(name) : null;
    }

    private static String stripped(String text) {
        return text.isBlank() ? null : text.strip();
    }

    /** @param fields where it is searched; null for a meaning */
    private void add(Object value, List<Searched> fields) {
        if (value instanceof String text && text.isBlank() == false && searchesText(fields)) {
            texts.add(new Said(text.strip(), fields));
        }
    }

    private boolean searchesText(List<Searched> fields) {
        if (mapping == null || fields == null) {
            return true;
        }
        return fields.isEmpty()
            ? searchesDefaults
            : fields.stream().anyMatch(field -> mayBeText(field.name));
    }

    private boolean mayBeText(String field) {
        if (mapping == null || declared.test(field)) {
            return mapping == null;
        }
        if (Mapping.isPattern(field) == false) {
            return mapping.mayBeText(field);
        }
        Boolean known = patterns.get(field);
        if (known == null && patterns.size() < MOST_PATTERNS) {
            known = mapping.mayBeText(field);
            patterns.put(field, known);
        }
        return known == null || known;
    }

    /** One query or an array of them. */
    private void ofQueries(Object queries, int depth, double boost) {
        if (queries instanceof List<?> items) {
            items.forEach(item -> ofQuery(item, depth, boost));
        } else {
            ofQuery(queries, depth, boost);
        }
    }

    private void ofQuery(Object query, int depth, double boost) {
        if (depth > MAX_DEPTH || (query instanceof Map) == false) {
            return;
        }
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) query).entrySet()) {
            ofClause((String) entry.getKey(), entry.getValue(), depth, boost);
        }
    }

    private void ofClause(String kind, Object clause, int depth, double around) {
        double boost = around * boostOf(clause);
        switch (kind) {
            case "bool" -> {
                ofQueries(member(clause, "must"), depth + 1, boost);
                ofQueries(member(clause, "should"), depth + 1, boost);
            }
            case "dis_max" -> ofQueries(member(clause, "queries"), depth + 1, boost);
            case "hybrid" -> {
                sizeMatters = true;
                if (member(clause, "pagination_depth") instanceof Number most) {
                    fused = Math.min(fused, most.intValue());
                } else {
                    isOnePage = true;
                }
                ofQueries(member(clause, "queries"), depth + 1, boost);
            }
            case "function_score", "script_score", "nested" -> ofQueries(member(clause, "query"), depth + 1, boost);
            case "constant_score" -> ofQueries(member(clause, "filter"), depth + 1, boost);
            case "boosting" -> ofQueries(member(clause, "positive"), depth + 1, boost);
            case "wrapper" -> ofQueries(unwrapped(member(clause, "query")), depth + 1, boost);
            case "match", "match_phrase", "match_phrase_prefix", "match_bool_prefix" -> {
                if (clause instanceof Map<?, ?> fields) {
                    fields.forEach((name, field) -> {
                        List<Searched> searched = List.of(new Searched((String) name, around * boostOf(field)));
                        add(field instanceof Map ? member(field, "query") : field, searched);
                    });
                }
            }
            case "multi_match", "combined_fields" -> add(member(clause, "query"), fieldsOf(clause, boost));
            case "query_string" -> addWords(clause, Words.Syntax.QUERY_STRING, boost);
            case "simple_query_string" -> addWords(clause, Words.Syntax.SIMPLE, boost);
            case "semantic" -> {
                sizeMatters = true;
                add(member(clause, "query"), null);
            }
            // Translated by a pipeline, which has the engine ask in another way each time.
            case "agentic" -> {
                sizeMatters = true;
                add(member(clause, "query_text"), null);
            }
            case "knn" -> sizeMatters = true;
            default -> {
                if (BY_MEANING.contains(kind) && clause instanceof Map<?, ?> fields) {
                    sizeMatters = true;
                    fields.values().forEach(field -> add(member(field, "query_text"), null));
                }
            }
        }
    }

    private void addWords(Object clause, Words.Syntax syntax, double boost) {
        List<Words> all = member(clause, "query") instanceof String text ? Words.of(text, syntax) : null;
        for (Words words : all == null ? List.<Words>of() : all) {
            boolean own = words.field() != null;
            add(words.text(), own ? List.of(new Searched(words.field(), boost)) : fieldsOf(clause, boost));
        }
    }

    /** A query in base64, as clients send what they have as text. */
    private static Object unwrapped(Object query) {
        try {
            byte[] json = query instanceof String text ? Base64.getDecoder().decode(text.getBytes(StandardCharsets.UTF_8)) : new byte[0];
            return json.length == 0 ? null : XContentHelper.convertToMap(new BytesArray(json), true, MediaTypeRegistry.JSON).v2();
        } catch (RuntimeException e) {
            // The engine says what is wrong with it.
            return null;
        }
    }

    /** The fields that a clause names; none where the index says which. */
    private static List<Searched> fieldsOf(Object clause, double boost) {
        List<Searched> fields = new ArrayList<>();
        // The engine writes an empty list where there are none.
        for (String key : List.of("fields", "default_field")) {
            Object named = fields.isEmpty() ? member(clause, key) : null;
            for (Object name : named instanceof List<?> names ? names : named == null ? List.of() : List.of(named)) {
                if (name instanceof String text) {
                    fields.add(searched(text, boost));
                }
            }
        }
        return fields;
    }

    /** {@code title^3} and a boost around it. */
    static Searched searched(String name, double around) {
        int caret = name.lastIndexOf('^');
        return caret < 0 ? new Searched(name, around) : new Searched(name.substring(0, caret), around * number(name.substring(caret + 1)));
    }

    private static double boostOf(Object clause) {
        Object boost = member(clause, "boost");
        return boost instanceof Number || boost instanceof String ? number(boost.toString()) : 1;
    }

    private static double number(String text) {
        try {
            double number = Double.parseDouble(text.strip());
            return Double.isFinite(number) ? number : 1;
        } catch (NumberFormatException e) {
            return 1;
        }
    }
}
