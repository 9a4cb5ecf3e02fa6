package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The words of a text in the query language of {@code query_string} or {@code simple_query_string}, where it says
 * nothing else: operators, wildcards and ranges have no text that could be read as one. The same rules as the search
 * proxy's ({@code host/wire/src/search/syntax.rs}).
 *
 * @param field the field that stands before them ({@code title:watch}); null where none does
 * @param text the words, without escapes, with one space between two
 */
record Words(String field, String text) {
    enum Syntax {
        /** {@code query_string} and {@code q}. */
        QUERY_STRING("\"()^~*?[]{}/<>", List.of("&&", "||"), Set.of("AND", "OR", "NOT", "TO"), true),
        /** {@code simple_query_string}. */
        SIMPLE("\"()~*|+", List.of(), Set.of(), false);

        private final String operators;
        private final List<String> pairs;
        private final Set<String> words;
        private final boolean hasFields;

        Syntax(String operators, List<String> pairs, Set<String> words, boolean hasFields) {
            this.operators = operators;
            this.pairs = pairs;
            this.words = words;
            this.hasFields = hasFields;
        }

        private boolean isOperator(String word) {
            boolean isSigned = "+-!".indexOf(word.charAt(0)) >= 0 && (word.length() > 1 || this == SIMPLE);
            return isSigned || words.contains(word) || pairs.stream().anyMatch(word::contains);
        }
    }

    /**
     * The words of a text by field, in the order in which the fields are met; null where it has operators. Words in
     * fields of the engine's own ({@code _exists_:price}) are no text and left out.
     */
    static List<Words> of(String text, Syntax syntax) {
        Map<String, StringBuilder> all = new LinkedHashMap<>();
        String field = null;
        for (String raw : split(text)) {
            Words word = word(raw, syntax);
            if (word == null || word.field != null && field != null) {
                return null;
            }
            field = word.field == null ? field : word.field;
            // A field may stand before a space: `title: watch`.
            if (word.text.isEmpty() == false) {
                if (field == null || field.startsWith("_") == false) {
                    StringBuilder words = all.computeIfAbsent(field, name -> new StringBuilder());
                    words.append(words.isEmpty() ? "" : " ").append(word.text);
                }
                field = null;
            }
        }
        List<Words> read = new ArrayList<>();
        all.forEach((name, words) -> read.add(new Words(name, words.toString())));
        return field == null ? read : null;
    }

    /** Parts a text at the white space that is not escaped. */
    private static List<String> split(String text) {
        List<String> words = new ArrayList<>();
        int start = 0;
        boolean escaped = false;
        for (int at = 0; at < text.length(); at++) {
            char c = text.charAt(at);
            if (Character.isWhitespace(c) && escaped == false) {
                words.add(text.substring(start, at));
                start = at + 1;
            }
            escaped = c == '\\' && escaped == false;
        }
        words.add(text.substring(start));
        words.removeIf(String::isEmpty);
        return words;
    }

    /** One word, with an empty text where it is a field alone; null where it is more than a word. */
    private static Words word(String raw, Syntax syntax) {
        if (syntax.isOperator(raw)) {
            return null;
        }
        String field = null;
        StringBuilder text = new StringBuilder();
        for (int at = 0; at < raw.length(); at++) {
            char c = raw.charAt(at);
            if (c == '\\') {
                if (++at == raw.length()) {
                    return null;
                }
                text.append(raw.charAt(at));
            } else if (c == ':' && syntax.hasFields) {
                boolean isSigned = at + 1 < raw.length() && "+-!".indexOf(raw.charAt(at + 1)) >= 0;
                if (field != null || text.isEmpty() || isSigned) {
                    return null;
                }
                field = text.toString();
                text.setLength(0);
            } else if (syntax.operators.indexOf(c) >= 0) {
                return null;
            } else {
                text.append(c);
            }
        }
        return new Words(field, text.toString());
    }
}
