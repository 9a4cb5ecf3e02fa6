package io.rerankd.opensearch;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What the node's settings, a pipeline or a search say of reranking. Each says some of it; what is
 * said later is above what was said before.
 */
final class Options {
    static final int DEFAULT_WINDOW = 100;
    static final int DEFAULT_MAX_WINDOW = 1000;

    /** Names whoever answers where nobody is named; the sidecar's operator says who that is. */
    static final String DEFAULT_POLICY = "_default";

    private static final Set<String> CALL_KEYS = Set.of(
        "url",
        "timeout_ms",
        "on_failure",
        "parameters",
        "signals",
        "keep_scores",
        "min_score",
        "max_concurrent_calls"
    );

    /** Those of a call that its options decide alone. */
    private static final Set<String> OPTION_KEYS = Set.of("parameters", "signals", "fields");

    private final Map<String, Object> values;

    /** @param values as {@link OptionReader} checked them */
    Options(Map<String, Object> values) {
        this.values = Map.copyOf(values);
    }

    /** These above {@code others}. */
    Options above(Options others) {
        Map<String, Object> merged = new HashMap<>(others.values);
        if (values.containsKey("policy") || values.containsKey("policies")) {
            // Who may be named and who is meant if nobody is are said together.
            if (values.containsKey("policies") || others.values.containsKey("policies") == false) {
                merged.remove("policy");
                merged.remove("policies");
            }
        }
        merged.putAll(values);
        return new Options(merged);
    }

    /** What of these is about the call of the sidecar and its answer, and not about the search. */
    Options ofCall() {
        Map<String, Object> call = new HashMap<>(values);
        call.keySet().retainAll(CALL_KEYS);
        return new Options(call);
    }

    /**
     * Whether something is said here that stands at a place of the call.
     *
     * @param at such as {@code parameters.weight}; or null
     */
    boolean says(String at) {
        if (at == null) {
            return false;
        }
        boolean fields = at.startsWith("parameters.fields") && values.containsKey("fields");
        return fields || values.containsKey(at.split("[.\\[]", 2)[0]);
    }

    /** Whether what stands at a place of the call is said by options. */
    static boolean isOption(String at) {
        return at != null && OPTION_KEYS.contains(at.split("[.\\[]", 2)[0]);
    }

    boolean isEmpty() {
        return values.isEmpty();
    }

    String url() {
        return (String) values.get("url");
    }

    /** The policy that a pipeline or the node names, or none. */
    String policy() {
        Object policy = values.get("policy");
        List<String> policies = policies();
        return policy == null && policies != null ? policies.get(0) : (String) policy;
    }

    /** The policies that a search may name, or null. */
    List<String> policies() {
        return names("policies");
    }

    List<String> fields() {
        return names("fields");
    }

    int window() {
        Integer window = (Integer) values.get("window");
        return window != null ? window : Math.min(DEFAULT_WINDOW, maxWindow());
    }

    int maxWindow() {
        Integer most = (Integer) values.get("max_window");
        return most != null ? most : DEFAULT_MAX_WINDOW;
    }

    String query() {
        return (String) values.get("query");
    }

    String queryPath() {
        return (String) values.get("query_path");
    }

    long timeoutMs() {
        return (Integer) values.get("timeout_ms");
    }

    boolean failsWithError() {
        return "error".equals(values.get("on_failure"));
    }

    Map<String, Object> parameters() {
        return object("parameters");
    }

    Map<String, Object> signals() {
        return object("signals");
    }

    String key() {
        return (String) values.get("key");
    }

    boolean keepsScores() {
        return Boolean.TRUE.equals(values.get("keep_scores"));
    }

    Double minScore() {
        return (Double) values.get("min_score");
    }

    int maxConcurrentCalls() {
        return (Integer) values.get("max_concurrent_calls");
    }

    /** Whether the order that the engine has rescored is the first stage. */
    boolean keepsRescored() {
        return "keep".equals(values.get("rescore"));
    }

    boolean isEnabled() {
        return Boolean.FALSE.equals(values.get("enabled")) == false;
    }

    /** The window that is said here, or null. */
    Integer saidWindow() {
        return (Integer) values.get("window");
    }

    /** The fields that the parameters name, as those of the bundled policies do. */
    List<String> fieldsOfParameters() {
        Map<String, Object> parameters = parameters();
        if (parameters != null && parameters.get("fields") instanceof List<?> names) {
            return names.stream().filter(String.class::isInstance).map(String.class::cast).toList();
        }
        return List.of();
    }

    @SuppressWarnings("unchecked")
    private List<String> names(String key) {
        return (List<String>) values.get(key);
    }

    @SuppressWarnings("unchecked")
    private Map<String, Object> object(String key) {
        return (Map<String, Object>) values.get(key);
    }
}
