package io.rerankd.opensearch;

import java.net.URI;
import java.net.URISyntaxException;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BiFunction;
import java.util.regex.Pattern;

/** Reads options from JSON, and says of each that is wrong what would be right. */
final class OptionReader {
    /** More hits than this no engine gives by default ({@code index.max_result_window}). */
    static final int MAX_RESULT_WINDOW = 10_000;

    private static final int MAX_TIMEOUT_MS = 60_000;
    private static final int MAX_CONCURRENT_CALLS = 10_000;
    private static final int MAX_NAMES = 1000;

    private static final Pattern POLICY = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,200}(@[A-Za-z0-9._+-]{1,100})?");
    private static final String POLICY_FORM = "a policy, such as `semantic-blend` or `semantic-blend@030cd242`";

    private enum Kind {
        URL,
        TEXT,
        POLICY,
        POLICIES,
        NAMES,
        WINDOW,
        TIMEOUT,
        CALLS,
        NUMBER,
        BOOLEAN,
        OBJECT,
        ON_FAILURE,
        RESCORE,
        NO_EXPLANATION
    }

    private static final Map<String, Kind> SHARED = Map.ofEntries(
        Map.entry("policy", Kind.POLICY),
        Map.entry("fields", Kind.NAMES),
        Map.entry("window", Kind.WINDOW),
        Map.entry("query_path", Kind.TEXT),
        Map.entry("timeout_ms", Kind.TIMEOUT),
        Map.entry("on_failure", Kind.ON_FAILURE),
        Map.entry("parameters", Kind.OBJECT),
        Map.entry("signals", Kind.OBJECT),
        Map.entry("keep_scores", Kind.BOOLEAN),
        Map.entry("min_score", Kind.NUMBER)
    );

    /** The options of a pipeline. */
    static final OptionReader PIPELINE = new OptionReader(
        Map.of(
            "url",
            Kind.URL,
            "policies",
            Kind.POLICIES,
            "max_window",
            Kind.WINDOW,
            "max_concurrent_calls",
            Kind.CALLS,
            "rescore",
            Kind.RESCORE
        )
    );

    /** The options of a search. */
    static final OptionReader SEARCH = new OptionReader(
        Map.of("enabled", Kind.BOOLEAN, "query", Kind.TEXT, "key", Kind.TEXT, "explain", Kind.NO_EXPLANATION)
    );

    private final Map<String, Kind> kinds;

    private OptionReader(Map<String, Kind> own) {
        kinds = new HashMap<>(SHARED);
        kinds.putAll(own);
    }

    /** The keys of these options, in alphabetical order. */
    List<String> keys() {
        return kinds.keySet().stream().sorted().toList();
    }

    /**
     * Takes the options out of {@code raw}; what is left is not known. A null is the same as no key.
     *
     * @param error makes the error of a key and what is wrong with its value
     */
    Options take(Map<String, Object> raw, BiFunction<String, String, RuntimeException> error) {
        Map<String, Object> values = new HashMap<>();
        for (Map.Entry<String, Kind> known : kinds.entrySet()) {
            String key = known.getKey();
            Object value = raw.remove(key);
            if (value == null) {
                continue;
            }
            Object read = read(known.getValue(), value);
            if (read instanceof Problem problem) {
                throw error.apply(key, problem.text);
            }
            values.put(key, read);
        }
        Options options = new Options(values);
        if (options.saidWindow() != null && kinds.containsKey("max_window") && options.window() > options.maxWindow()) {
            throw error.apply("window", options.window() + " is more than `max_window`, " + options.maxWindow());
        }
        if (options.policies() != null && values.containsKey("policy") && options.policies().contains(options.policy()) == false) {
            throw error.apply("policy", "`" + options.policy() + "` is not among `policies`");
        }
        return options;
    }

    /** What is wrong with a value. */
    private record Problem(String text) {}

    private static Object read(Kind kind, Object value) {
        return switch (kind) {
            case URL -> url(value);
            case TEXT -> value instanceof String text && text.isBlank() == false
                ? text.strip()
                : expected("a string that is not empty", value);
            case POLICY -> isPolicy(value) ? value : expected(POLICY_FORM, value);
            case POLICIES -> policies(value);
            case NAMES -> names(value);
            case WINDOW -> count(value, MAX_RESULT_WINDOW);
            case TIMEOUT -> count(value, MAX_TIMEOUT_MS);
            case CALLS -> count(value, MAX_CONCURRENT_CALLS);
            case NUMBER -> value instanceof Number number && Double.isFinite(number.doubleValue())
                ? (Object) number.doubleValue()
                : expected("a finite number", value);
            case BOOLEAN -> value instanceof Boolean ? value : expected("`true` or `false`", value);
            case OBJECT -> value instanceof Map<?, ?> ? value : expected("an object", value);
            // Nothing would show it: a key without effect is a silent mistake.
            case NO_EXPLANATION -> Boolean.FALSE.equals(value)
                ? value
                : value instanceof Boolean
                    ? new Problem("rankings cannot be explained yet; expected `false`, or no key. The engine's own `explain` is beside `query`")
                    : expected("`false`", value);
            case ON_FAILURE -> "first-stage".equals(value) || "error".equals(value)
                ? value
                : expected("`first-stage` or `error`", value);
            case RESCORE -> "pass".equals(value) || "keep".equals(value) ? value : expected("`pass` or `keep`", value);
        };
    }

    private static Object count(Object value, int most) {
        if ((value instanceof Integer || value instanceof Long || value instanceof java.math.BigInteger) == false) {
            return expected("an integer of 1 to " + most, value);
        }
        Number number = (Number) value;
        boolean fits = value instanceof Integer && number.intValue() >= 1 && number.intValue() <= most;
        return fits ? value : expected("an integer of 1 to " + most, value);
    }

    private static Object names(Object value) {
        Set<String> names = new LinkedHashSet<>();
        if (value instanceof List<?> items) {
            for (Object item : items) {
                if ((item instanceof String name && name.isBlank() == false && names.add(name)) == false) {
                    return expected("names that are not empty, each once", item);
                }
                if (item instanceof String name && Mapping.isPattern(name) && name.length() > Mapping.MOST_OF_PATTERN) {
                    return expected("patterns of at most " + Mapping.MOST_OF_PATTERN + " characters", item);
                }
            }
        }
        boolean fits = names.isEmpty() == false && names.size() <= MAX_NAMES;
        return fits ? List.copyOf(names) : expected("an array of 1 to " + MAX_NAMES + " strings", value);
    }

    private static Object policies(Object value) {
        if (names(value) instanceof List<?> names) {
            for (Object name : names) {
                if (isPolicy(name) == false) {
                    return expected(POLICY_FORM, name);
                }
            }
        }
        return names(value);
    }

    private static boolean isPolicy(Object value) {
        return value instanceof String name && POLICY.matcher(name).matches();
    }

    private static Object url(Object value) {
        return value instanceof String text && isUrl(text)
            ? withoutSlashes(text)
            : expected("an address such as `http://127.0.0.1:9500`", value);
    }

    private static String withoutSlashes(String url) {
        int end = url.length();
        while (url.charAt(end - 1) == '/') {
            end--;
        }
        return url.substring(0, end);
    }

    /** Whether this is the address of a sidecar. */
    static boolean isUrl(String text) {
        try {
            URI uri = new URI(text);
            boolean http = "http".equals(uri.getScheme()) || "https".equals(uri.getScheme());
            return http && uri.getHost() != null && uri.getUserInfo() == null && uri.getQuery() == null && uri.getFragment() == null;
        } catch (URISyntaxException e) {
            return false;
        }
    }

    private static Problem expected(String wanted, Object got) {
        String shown = got instanceof Map ? "an object" : got instanceof List ? "an array" : "`" + got + "`";
        if (shown.length() > 100) {
            shown = shown.substring(0, 100) + "…`";
        }
        return new Problem("expected " + wanted + ", got " + shown);
    }
}
