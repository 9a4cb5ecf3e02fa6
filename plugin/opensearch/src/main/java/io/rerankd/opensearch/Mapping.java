package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Predicate;

/**
 * The fields of the indices of a search: which of them are full text. The same rules as the search proxy's.
 *
 * <p>A field that several indices have is full text if it is in one of them.
 */
final class Mapping {
    private static final Set<String> FULL_TEXT = Set.of(
        "text",
        "match_only_text",
        "search_as_you_type",
        "annotated_text",
        "pattern_text",
        "semantic_text",
        "semantic"
    );

    /** Characters of a pattern. A longer one may stand for any field; no name of a field is so long. */
    static final int MOST_OF_PATTERN = 1024;

    /** What a field takes beside the characters of its name, in bytes, and a mapping beside its fields. */
    private static final int BESIDE_NAME = 120;
    private static final int BESIDE_MAPPING = 1000;

    /** Objects in objects. What is deeper counts as not known; the engine's own default is 20. */
    private static final int MAX_DEPTH = 100;

    /** What a name is in the mapping. */
    enum Kind {
        FULL_TEXT,
        OBJECT,
        OTHER,
        /** The mapping does not have it. */
        UNKNOWN
    }

    /** @param parent the field that this one is a multi-field of, or null */
    private record Field(Kind kind, String parent) {}

    private final Map<String, Field> fields;
    private final List<String> defaults;
    private final int longest;
    private final long bytes;

    private Mapping(Map<String, Field> fields, List<String> defaults) {
        this.fields = fields;
        this.defaults = defaults;
        this.longest = fields.keySet().stream().mapToInt(String::length).max().orElse(0);
        this.bytes = BESIDE_MAPPING + fields.keySet().stream().mapToLong(name -> BESIDE_NAME + name.length()).sum();
    }

    /**
     * Reads the mapping of one index.
     *
     * @param source as the index has it, with {@code properties}
     * @param defaults {@code index.query.default_field}
     */
    static Mapping of(Map<?, ?> source, List<String> defaults) {
        Map<String, Field> fields = new TreeMap<>();
        Map<String, String> aliases = new HashMap<>();
        read(source.get("properties"), "", 0, fields, aliases);
        if (source.get("derived") instanceof Map<?, ?> derived) {
            derived.keySet().forEach(name -> fields.putIfAbsent((String) name, new Field(Kind.OTHER, null)));
        }
        aliases.forEach((name, path) -> {
            Field target = fields.get(path);
            fields.put(name, new Field(target == null ? Kind.OTHER : target.kind, null));
        });
        return new Mapping(fields, List.copyOf(defaults));
    }

    private static void read(Object properties, String prefix, int depth, Map<String, Field> fields, Map<String, String> aliases) {
        if (depth > MAX_DEPTH || (properties instanceof Map<?, ?>) == false) {
            return;
        }
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) properties).entrySet()) {
            String name = prefix + entry.getKey();
            if ((entry.getValue() instanceof Map<?, ?>) == false) {
                continue;
            }
            Map<?, ?> field = (Map<?, ?>) entry.getValue();
            Object type = field.get("type");
            if (type == null || "object".equals(type) || "nested".equals(type)) {
                fields.put(name, new Field(Kind.OBJECT, null));
                read(field.get("properties"), name + '.', depth + 1, fields, aliases);
            } else if ("alias".equals(type) && field.get("path") instanceof String path) {
                aliases.put(name, path);
            } else {
                fields.put(name, new Field(kindOf(type), null));
                if (field.get("fields") instanceof Map<?, ?> inner) {
                    inner.forEach((key, value) -> {
                        if (value instanceof Map<?, ?> said) {
                            fields.put(name + '.' + key, new Field(kindOf(said.get("type")), name));
                        }
                    });
                }
            }
        }
    }

    private static Kind kindOf(Object type) {
        return type instanceof String && FULL_TEXT.contains(type) ? Kind.FULL_TEXT : Kind.OTHER;
    }

    /**
     * Those of several indices together.
     *
     * @param most how many fields there may be
     * @return null where there are more
     */
    static Mapping of(Collection<Mapping> each, int most) {
        Map<String, Field> fields = new TreeMap<>();
        Set<String> defaults = new LinkedHashSet<>();
        for (Mapping one : each) {
            if (each.size() == 1) {
                return one.size() > most ? null : one;
            }
            one.fields.forEach((name, field) -> fields.merge(name, field, (a, b) -> a.kind == Kind.FULL_TEXT ? a : b));
            if (fields.size() > most) {
                return null;
            }
            defaults.addAll(one.defaults);
        }
        return new Mapping(fields, List.copyOf(defaults));
    }

    /** Whether no index of the search has any field. */
    boolean isEmpty() {
        return fields.isEmpty();
    }

    /** How many fields there are. */
    int size() {
        return fields.size();
    }

    /** About how many bytes it takes in memory. */
    long heldBytes() {
        return bytes;
    }

    /** What clauses search that name no field. */
    List<String> defaults() {
        return defaults;
    }

    /** What a name is. */
    Kind kind(String name) {
        Field field = fields.get(name);
        if (field != null) {
            return field.kind;
        }
        // The keys in a field such as `flat_object`. No field has a longer name than the longest.
        for (int dot = name.lastIndexOf('.', longest); dot > 0; dot = name.lastIndexOf('.', dot - 1)) {
            Field above = fields.get(name.substring(0, dot));
            if (above != null) {
                return above.kind == Kind.OTHER ? Kind.OTHER : Kind.UNKNOWN;
            }
        }
        return Kind.UNKNOWN;
    }

    /** Whether a clause that searches this name, or pattern of names, may search full text. */
    boolean mayBeText(String name) {
        if (isPattern(name)) {
            Predicate<String> fits = fitting(name);
            boolean isAny = isEmpty() || name.length() > MOST_OF_PATTERN;
            return isAny || fields.entrySet().stream().anyMatch(field -> isText(field) && fits.test(field.getKey()));
        }
        Kind kind = kind(name);
        return kind == Kind.FULL_TEXT || kind == Kind.UNKNOWN;
    }

    private static boolean isText(Map.Entry<String, Field> field) {
        return field.getValue().kind == Kind.FULL_TEXT && field.getKey().startsWith("_") == false;
    }

    /**
     * The fields of {@code _source} in which the text of a name, or pattern of names, stands: full text alone, and
     * for a multi-field the field that it belongs to.
     *
     * @param own the names that the policy itself has, which go first among those of a pattern
     */
    List<String> sources(String name, List<String> own) {
        if (isPattern(name) == false) {
            Field field = fields.get(name);
            boolean counts = field != null && field.kind == Kind.FULL_TEXT;
            return counts ? List.of(field.parent == null ? name : field.parent) : List.of();
        }
        Set<String> found = new LinkedHashSet<>();
        Predicate<String> fits = fitting(name);
        for (Map.Entry<String, Field> field : fields.entrySet()) {
            if (isText(field) && fits.test(field.getKey())) {
                found.add(field.getValue().parent == null ? field.getKey() : field.getValue().parent);
            }
        }
        return ordered(found, own);
    }

    /** All full-text fields that match a pattern, without multi-fields, in the order in which they are read. */
    List<String> texts(String pattern, List<String> own) {
        List<String> found = new ArrayList<>();
        Predicate<String> fits = fitting(pattern);
        for (Map.Entry<String, Field> field : fields.entrySet()) {
            if (isText(field) && field.getValue().parent == null && fits.test(field.getKey())) {
                found.add(field.getKey());
            }
        }
        return ordered(found, own);
    }

    /** Fewest dots first, then as the policy has them, then by name. */
    static List<String> ordered(Collection<String> names, List<String> own) {
        Comparator<String> byDots = Comparator.comparingLong(name -> name.chars().filter(c -> c == '.').count());
        Map<String, Integer> places = new HashMap<>();
        own.forEach(name -> places.putIfAbsent(name, places.size()));
        Comparator<String> byPolicy = Comparator.comparingInt(name -> places.getOrDefault(name, own.size()));
        return names.stream().sorted(byDots.thenComparing(byPolicy).thenComparing(Comparator.naturalOrder())).toList();
    }

    /** Whether this stands for several names. */
    static boolean isPattern(String name) {
        return name.indexOf('*') >= 0;
    }

    /** What a pattern stands for; nothing where it is too long. */
    static Predicate<String> fitting(String pattern) {
        if (pattern.length() > MOST_OF_PATTERN) {
            return name -> false;
        }
        String once = pattern.replaceAll("\\*{2,}", "*");
        return name -> matches(once, name);
    }

    /** Whether a pattern with {@code *} for any characters fits a name. */
    static boolean matches(String pattern, String name) {
        int star = pattern.indexOf('*');
        if (star < 0) {
            return pattern.equals(name);
        }
        if (pattern.regionMatches(0, name, 0, star) == false) {
            return false;
        }
        int at = star;
        int start = star + 1;
        for (int next = pattern.indexOf('*', start); next >= 0; next = pattern.indexOf('*', start)) {
            // The earliest place leaves the most for what follows.
            int found = name.indexOf(pattern.substring(start, next), at);
            if (found < 0) {
                return false;
            }
            at = found + next - start;
            start = next + 1;
        }
        return name.length() - at >= pattern.length() - start && name.endsWith(pattern.substring(start));
    }
}
