package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

/**
 * Which fields of the hits a policy reads: those that are named, or the best of what the mapping has. The same
 * rules as the search proxy's.
 *
 * @param fetched the fields that the hits must have; null for all of them
 * @param choices fields, best first, of which those are read that the hits have as text; patterns stand among them
 *     where no mapping says what these are; null where nothing is chosen
 * @param named those of the choices that are read whatever the hits have: somebody named them
 * @param most how many of the others are read
 * @param others fields that are sent whatever is chosen
 */
record Reading(List<String> fetched, List<String> choices, Set<String> named, int most, List<String> others) {
    /** Choices that are read where nobody names fields. */
    static final int MOST_READ = 4;

    /** Choices that are fetched where nobody names fields. */
    private static final int MOST_FETCHED = 8;

    /** Fields that patterns stand for, and patterns. */
    private static final int MOST_OF_PATTERNS = 32;

    /** Text of a document in fields that are chosen here, in bytes. */
    private static final int MOST_BYTES = 64 << 10;

    /** These fields, as they are named; null for all that the hits have. */
    static Reading of(List<String> fields) {
        return new Reading(fields, null, Set.of(), 0, List.of());
    }

    /**
     * Resolves names of which some are patterns.
     *
     * @param mapping null where it is not known
     */
    static Reading ofPatterns(List<String> all, List<String> parameters, PolicyFields.Read policy, Mapping mapping) {
        List<String> others = union(policy.others(), parameters);
        Set<String> named = new LinkedHashSet<>();
        Set<String> choices = new LinkedHashSet<>();
        int patterns = 0;
        int found = 0;
        for (String name : all) {
            if (Mapping.isPattern(name) == false) {
                named.add(name);
                choices.add(name);
            } else if (++patterns <= MOST_OF_PATTERNS) {
                for (String text : mapping == null ? List.of(name) : mapping.texts(name, policy.own())) {
                    found += found < MOST_OF_PATTERNS && choices.add(text) ? 1 : 0;
                }
            }
        }
        List<String> fetched = mapping == null ? null : union(choices, others);
        return new Reading(fetched, List.copyOf(choices), named, MOST_OF_PATTERNS, others);
    }

    /** Chooses where nobody names fields. */
    static Reading chosen(PolicyFields.Read policy, Mapping mapping, List<QueryText.Searched> searched) {
        Map<String, Double> boosts = new LinkedHashMap<>();
        Map<String, List<String>> patterns = new HashMap<>();
        for (QueryText.Searched field : searched) {
            String name = field.name();
            List<String> sources = patterns.get(name);
            if (sources == null && (Mapping.isPattern(name) == false || patterns.size() < QueryText.MOST_PATTERNS)) {
                sources = mapping.sources(name, policy.own());
                if (Mapping.isPattern(name)) {
                    patterns.put(name, sources);
                }
            }
            for (String source : sources == null ? List.<String>of() : sources) {
                boosts.merge(source, field.boost(), Math::max);
            }
        }
        List<String> best = new ArrayList<>(boosts.keySet());
        // Ties keep the order of the query.
        best.sort((a, b) -> Double.compare(boosts.get(b), boosts.get(a)));
        Collection<String> all = union(best, mapping.texts("*", policy.own()));
        List<String> choices = all.stream().filter(policy::grants).limit(MOST_FETCHED).toList();
        List<String> others = policy.others();
        return new Reading(union(choices, policy.own()), choices, Set.of(), MOST_READ, others);
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
        Set<String> texts = new HashSet<>();
        for (Map<String, Object> document : documents) {
            document.forEach((name, value) -> {
                if (texts.contains(name) == false && isText(value)) {
                    texts.add(name);
                }
            });
        }
        boolean hasPatterns = choices.stream().anyMatch(Mapping::isPattern);
        List<String> ordered = hasPatterns ? Mapping.ordered(texts, List.of()) : List.of();
        Set<String> read = new LinkedHashSet<>();
        int left = most;
        for (String choice : choices) {
            if (named.contains(choice)) {
                read.add(choice);
            } else if (Mapping.isPattern(choice)) {
                Predicate<String> fits = Mapping.fitting(choice);
                for (String name : left > 0 ? ordered : List.<String>of()) {
                    left -= left > 0 && fits.test(name) && read.add(name) ? 1 : 0;
                }
            } else if (left > 0 && texts.contains(choice)) {
                left -= read.add(choice) ? 1 : 0;
            }
        }
        return List.copyOf(read);
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
            if (value == null) {
                continue;
            }
            List<?> values = value instanceof List<?> several ? several : List.of(value);
            List<Object> kept = new ArrayList<>();
            for (Object one : values) {
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
            if (kept.isEmpty() == false || values.isEmpty()) {
                sent.put(name, value instanceof List<?> ? kept : kept.get(0));
            }
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
