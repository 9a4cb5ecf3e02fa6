package io.rerankd.opensearch;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * What became of a search: {@code ext.rerankd} of the response, and the header {@code Rerank-Status}, a
 * list of RFC 8941 as everywhere in rerankd.
 *
 * @param reason a word, or null
 * @param policy who ranked, or null
 * @param window how many hits were given to the policy; negative where none were
 * @param unscored how many of them have no score
 * @param counts how many of them were not read or cut, by name; none where none were
 * @param queryTruncated whether the model saw a part of the query only
 * @param milliseconds what the search waited for the ranking
 * @param fields those that were read, where nobody had named them; or null
 * @param hasMapping whether the fields of the indices were known
 * @param message a sentence on what went wrong, or null
 */
record Outcome(
    String status,
    String reason,
    String policy,
    String version,
    int window,
    int unscored,
    Map<String, Integer> counts,
    boolean queryTruncated,
    double milliseconds,
    List<String> fields,
    boolean hasMapping,
    String message
) {
    /** Characters of the names of fields in the header, as in the search proxy's. */
    private static final int MOST_OF_NAMES = 256;

    static final String HEADER = "Rerank-Status";

    /** The member that each has. */
    static final String STATUS = "status";

    static Outcome skipped(String reason) {
        return new Outcome("skipped", reason, null, null, -1, 0, Map.of(), false, 0, null, true, null);
    }

    static Outcome failed(Failure failure) {
        return new Outcome("failed", failure.reason(), null, null, -1, 0, Map.of(), false, 0, null, true, failure.getMessage());
    }

    Outcome withFields(List<String> read) {
        return new Outcome(status, reason, policy, version, window, unscored, counts, queryTruncated, milliseconds, read, hasMapping, message);
    }

    Outcome withMapping(boolean known) {
        return new Outcome(status, reason, policy, version, window, unscored, counts, queryTruncated, milliseconds, fields, known, message);
    }

    /** The header of an error. */
    static String errorHeader(Failure failure) {
        return NAME + ";status=error;reason=" + failure.reason();
    }

    private static final String NAME = "rerankd";

    Map<String, Object> members() {
        Map<String, Object> members = new LinkedHashMap<>();
        members.put(STATUS, status);
        putIfThere(members, "reason", reason);
        putIfThere(members, "policy", policy);
        putIfThere(members, "version", version);
        if (window >= 0) {
            members.put("window", window);
            if (unscored > 0) {
                members.put("unscored", unscored);
            }
            members.putAll(counts);
            if (queryTruncated) {
                members.put("query_truncated", true);
            }
            members.put("time", Math.round(milliseconds * 1e3) / 1e3);
        }
        if (fields != null) {
            members.put("fields", fields);
        }
        if (hasMapping == false) {
            members.put("mapping", "unknown");
        }
        putIfThere(members, "message", message);
        return members;
    }

    private static void putIfThere(Map<String, Object> members, String key, String value) {
        if (value != null) {
            members.put(key, value);
        }
    }

    String header() {
        StringBuilder text = new StringBuilder(NAME).append(";status=").append(status);
        if (reason != null) {
            text.append(";reason=").append(token(reason));
        }
        appendString(text, "policy", policy);
        appendString(text, "version", version);
        if (window >= 0) {
            text.append(";window=").append(window);
            if (unscored > 0) {
                text.append(";unscored=").append(unscored);
            }
            counts.forEach((name, count) -> text.append(';').append(name).append('=').append(count));
            text.append(queryTruncated ? ";query-truncated" : "");
            // A decimal of RFC 8941 has one to three digits behind its point.
            String time = String.format(Locale.ROOT, "%.3f", milliseconds);
            text.append(";time=").append(time.replaceFirst("0{1,2}$", ""));
        }
        appendString(text, "fields", names());
        if (hasMapping == false) {
            text.append(";mapping=unknown");
        }
        return text.toString();
    }

    /** The names of the fields as far as a header takes them; null where there are none. */
    private String names() {
        StringBuilder names = new StringBuilder();
        for (String name : fields == null ? List.<String>of() : fields) {
            if (names.length() + name.length() < MOST_OF_NAMES && name.matches("[\\x21-\\x7e]+")) {
                names.append(names.isEmpty() ? "" : ",").append(name);
            }
        }
        return names.isEmpty() ? null : names.toString();
    }

    /** A policy's own reason need not be a token. */
    private static String token(String word) {
        return word.matches("[A-Za-z*][-A-Za-z0-9!#$%&'*+.^_`|~:/]*") ? word : "other";
    }

    private static void appendString(StringBuilder text, String key, String value) {
        if (value != null && value.matches("[\\x20-\\x7e]*")) {
            text.append(';').append(key).append("=\"");
            text.append(value.replace("\\", "\\\\").replace("\"", "\\\"")).append('"');
        }
    }
}
