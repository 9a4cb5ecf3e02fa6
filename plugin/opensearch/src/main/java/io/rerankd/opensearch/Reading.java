package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Which fields of the hits a policy reads: those that are named, or the best of what the mapping has. The same
 * rules as the search proxy's.
 *
 * @param fetched the fields that the hits must have; null for all of them
 * @param choices full-text fields, best first, of which those are read that the hits have; null where nothing is
 *     chosen
 * @param patterns what names the choices where no mapping does
 * @param most how many of the choices are read
 * @param others fields that are sent whatever is chosen
 */
record Reading(List<String> fetched, List<String> choices, List<String> patterns, int most, List<String> others) {
    /** Choices that are read where nobody names fields. */
    static final int MOST_READ = 4;

    /** Choices that are fetched where nobody names fields. */
    private static final int MOST_FETCHED = 8;

    /** Fields that patterns stand for. */
    private static final int MOST_NAMED = 32;

    /** Text of a document in fields that are chosen here, in bytes. */
    private static final int MOST_BYTES = 64 << 10;

    /** These fields, as they are named; null for all that the hits have. */
    static Reading of(List<String> fields) {
        return new Reading(fields, null, List.of(), 0, List.of());
    }

    /**
     * Resolves names of which some are patterns.
     *
     * @param mapping null where it is not known
     */
    static Reading ofPatterns(List<String> named, List<String> parameters, PolicyFields.Read policy, Mapping mapping) {
        List<String> others = union(policy.others(), parameters);
        if (mapping == null) {
            return new Reading(null, List.of(), named, MOST_NAMED, others);
        }
        Set<String> found = new LinkedHashSet<>();
        for (String name : named) {
            found.addAll(Mapping.isPattern(name) ? mapping.texts(name, policy.own()) : List.of(name));
        }
        List<String> choices = found.stream().limit(MOST_NAMED).toList();
        return new Reading(union(choices, others), choices, List.of(), MOST_NAMED, others);
    }

    /** Chooses where nobody names fields. */
    static Reading chosen(PolicyFields.Read policy, Mapping mapping, List<QueryText.Searched> searched) {
        Map<String, Double> boosts = new LinkedHashMap<>();
        for (QueryText.Searched field : searched) {
            for (String source : mapping.sources(field.name(), policy.own())) {
                boosts.merge(source, field.boost(), Math::max);
            }
        }
        List<String> best = new ArrayList<>(boosts.keySet());
        // Ties keep the order of the query.
        best.sort((a, b) -> Double.compare(boosts.get(b), boosts.get(a)));
        Collection<String> all = union(best, mapping.texts("*", policy.own()));
        List<String> choices = all.stream().filter(policy::grants).limit(MOST_FETCHED).toList();
        List<String> others = policy.others();
        return new Reading(union(choices, policy.own()), choices, List.of(), MOST_READ, others);
    }

    private static List<String> union(Collection<String> some, Collection<String> more) {
        Set<String> all = new LinkedHashSet<>(some);
        all.addAll(more);
        return List.copyOf(all);
    }

    /** Whether the fields are chosen by what the hits have. */
    boolean isChosen() {
        return choices != null;
    }

    /**
     * The fields that are read of these documents, best first.
     *
     * @param documents their fields by name
     */
    List<String> read(List<Map<String, Object>> documents) {
        Collection<String> names = choices;
        if (patterns.isEmpty() == false) {
            Set<String> matching = new LinkedHashSet<>();
            for (Map<String, Object> document : documents) {
                document.keySet().stream().filter(name -> patterns.stream().anyMatch(p -> Mapping.matches(p, name))).forEach(matching::add);
            }
            names = Mapping.ordered(matching, List.of());
        }
        return names.stream().filter(name -> documents.stream().anyMatch(document -> isText(document.get(name)))).limit(most).toList();
    }

    private static boolean isText(Object value) {
        if (value instanceof List<?> values) {
            return values.stream().anyMatch(Reading::isText);
        }
        return value instanceof String text && text.isBlank() == false;
    }

    /** What is sent of a document of which these fields are read. */
    Map<String, Object> sent(Map<String, Object> document, List<String> read) {
        Map<String, Object> sent = new LinkedHashMap<>();
        int left = MOST_BYTES;
        for (String name : read) {
            Object value = document.get(name);
            if (value == null || left <= 0) {
                continue;
            }
            List<Object> kept = new ArrayList<>();
            for (Object one : value instanceof List<?> values ? values : List.of(value)) {
                if (one instanceof String text && left > 0) {
                    String fits = fitting(text, left);
                    left -= bytes(fits);
                    // What was cut is the last.
                    left = fits.length() < text.length() ? 0 : left;
                    kept.add(fits);
                } else if ((one instanceof String) == false) {
                    kept.add(one);
                }
            }
            sent.put(name, value instanceof List<?> ? kept : kept.get(0));
        }
        for (String name : others) {
            if (document.containsKey(name) && sent.containsKey(name) == false) {
                sent.put(name, document.get(name));
            }
        }
        return sent;
    }

    /** The beginning of a text that has at most so many bytes. */
    private static String fitting(String text, int bytes) {
        if (text.length() <= bytes / 3 || bytes(text) <= bytes) {
            return text;
        }
        int end = 0;
        int taken = 0;
        while (end < text.length()) {
            int character = text.codePointAt(end);
            int size = character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
            if (taken + size > bytes) {
                break;
            }
            taken += size;
            end += Character.charCount(character);
        }
        return text.substring(0, end);
    }

    private static int bytes(String text) {
        return text.getBytes(java.nio.charset.StandardCharsets.UTF_8).length;
    }
}
