package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The text that was searched for: from clauses that score, and never guessed. The same rules as the search
 * proxy's ({@code host/wire/src/search/query_text.rs}).
 *
 * <p>Clauses that a policy cannot read as a text (term, range, knn) say nothing. A query of several texts
 * that differ is ambiguous.
 */
final class QueryText {
    /** Queries that are nested deeper have no text; the engine itself stops at 20. */
    private static final int MAX_DEPTH = 32;

    private final List<String> texts = new ArrayList<>();

    private QueryText() {}

    /** The one text of a query. */
    static String of(Object query) throws Skip {
        QueryText found = new QueryText();
        found.ofQueries(query, 0);
        if (found.texts.isEmpty()) {
            throw new Skip("no-query");
        }
        String first = found.texts.get(0);
        if (found.texts.stream().anyMatch(text -> text.equals(first) == false)) {
            throw new Skip("ambiguous-query");
        }
        return first;
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

    private void add(Object value) {
        if (value instanceof String text && text.isBlank() == false) {
            texts.add(text.strip());
        }
    }

    /** One query or an array of them. */
    private void ofQueries(Object queries, int depth) {
        if (queries instanceof List<?> items) {
            items.forEach(item -> ofQuery(item, depth));
        } else {
            ofQuery(queries, depth);
        }
    }

    private void ofQuery(Object query, int depth) {
        if (depth > MAX_DEPTH || (query instanceof Map) == false) {
            return;
        }
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) query).entrySet()) {
            ofClause((String) entry.getKey(), entry.getValue(), depth);
        }
    }

    private void ofClause(String kind, Object clause, int depth) {
        switch (kind) {
            case "bool" -> {
                ofQueries(member(clause, "must"), depth + 1);
                ofQueries(member(clause, "should"), depth + 1);
            }
            case "dis_max", "hybrid" -> ofQueries(member(clause, "queries"), depth + 1);
            case "function_score", "script_score", "nested" -> ofQueries(member(clause, "query"), depth + 1);
            case "constant_score" -> ofQueries(member(clause, "filter"), depth + 1);
            case "boosting" -> ofQueries(member(clause, "positive"), depth + 1);
            case "match", "match_phrase", "match_phrase_prefix", "match_bool_prefix" -> {
                if (clause instanceof Map<?, ?> fields) {
                    fields.values().forEach(field -> add(field instanceof Map ? member(field, "query") : field));
                }
            }
            case "multi_match", "combined_fields", "semantic" -> add(member(clause, "query"));
            case "query_string" -> addIfPlain(member(clause, "query"), Syntax.QUERY_STRING);
            case "simple_query_string" -> addIfPlain(member(clause, "query"), Syntax.SIMPLE);
            case "neural", "neural_sparse" -> {
                if (clause instanceof Map<?, ?> fields) {
                    fields.values().forEach(field -> add(member(field, "query_text")));
                }
            }
            default -> {
            }
        }
    }

    private enum Syntax {
        QUERY_STRING("\"():^~*?[]{}\\/<>", List.of("&&", "||"), List.of("AND", "OR", "NOT", "TO")),
        SIMPLE("\"()~*|+\\", List.of(), List.of());

        private final String anywhere;
        private final List<String> pairs;
        private final List<String> words;

        Syntax(String anywhere, List<String> pairs, List<String> words) {
            this.anywhere = anywhere;
            this.pairs = pairs;
            this.words = words;
        }
    }

    private void addIfPlain(Object query, Syntax syntax) {
        if (query instanceof String text && isPlain(text, syntax)) {
            add(text);
        }
    }

    /** Whether a text says nothing in the query language but its words. */
    private static boolean isPlain(String text, Syntax syntax) {
        if (text.chars().anyMatch(c -> syntax.anywhere.indexOf(c) >= 0) || syntax.pairs.stream().anyMatch(text::contains)) {
            return false;
        }
        for (String word : text.strip().split("\\s+")) {
            boolean begins = word.isEmpty() == false && "+-!".indexOf(word.charAt(0)) >= 0;
            if (begins && (word.length() > 1 || syntax == Syntax.SIMPLE) || syntax.words.contains(word)) {
                return false;
            }
        }
        return true;
    }
}
