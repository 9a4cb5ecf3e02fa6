package io.rerankd.opensearch;

import java.io.IOException;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.common.xcontent.LoggingDeprecationHandler;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.XContentParser;

/** The sidecar's answer, checked as a whole: what is here can be trusted to fit the window. */
final class Ranking {
    /** The reason of documents that the model cannot read. */
    private static final String UNREAD = "unread";

    private final String status;
    private final String reason;
    private final String policy;
    private final String version;
    private final int documents;
    private int[] order = {};
    private double[] scores = {};
    private int unscored;
    private final Map<String, Integer> counts = new LinkedHashMap<>();
    private final boolean queryTruncated;

    private Ranking(Map<String, Object> answer, int documents) throws Failure {
        this.documents = documents;
        status = text(answer, "status");
        policy = text(answer, "policy");
        version = text(answer, "version");
        queryTruncated = Boolean.TRUE.equals(answer.get("query_truncated"));
        if (answer.get("results") instanceof List<?> results) {
            // Where the query is what was not read, nobody knows of the documents.
            boolean isOfQuery = Boolean.TRUE.equals(answer.get("query_unread"));
            count(UNREAD, isOfQuery ? 0 : results.stream().filter(one -> has(one, "unscored", UNREAD)).count());
            count("truncated", results.stream().filter(one -> has(one, "truncated", true)).count());
        }
        switch (status) {
            case "applied" -> {
                read(answer);
                reason = null;
            }
            case "partial" -> reason = read(answer);
            case "skipped", "failed" -> reason = text(answer, "reason");
            default -> throw Failure.notUnderstood("the status `" + status + "` is not known");
        }
    }

    private static boolean has(Object result, String key, Object value) {
        return result instanceof Map<?, ?> members && value.equals(members.get(key));
    }

    /** How many documents something is said of: where it is said of some. */
    private void count(String name, long documents) {
        if (documents > 0) {
            counts.put(name, Math.toIntExact(documents));
        }
    }

    /**
     * Reads an answer.
     *
     * @param documents how many were asked about
     */
    static Ranking read(byte[] body, int documents) throws Failure, IOException {
        try (
            XContentParser parser = JsonXContent.jsonXContent.createParser(
                NamedXContentRegistry.EMPTY,
                LoggingDeprecationHandler.INSTANCE,
                body
            )
        ) {
            Map<String, Object> answer = parser.map();
            if (parser.nextToken() != null) {
                throw Failure.notUnderstood("something follows the JSON object");
            }
            return new Ranking(answer, documents);
        }
    }

    /** Reads the results; returns the commonest reason for which documents have no score. */
    private String read(Map<String, Object> answer) throws Failure {
        if ((answer.get("results") instanceof List<?>) == false) {
            throw Failure.notUnderstood("`results` is no array");
        }
        List<?> results = (List<?>) answer.get("results");
        int filtered = answer.containsKey("filtered") ? count(answer, "filtered") : 0;
        if (results.size() + filtered != documents) {
            throw Failure.notUnderstood(
                results.size() + " results and " + filtered + " filtered documents for " + documents + " documents"
            );
        }
        order = new int[results.size()];
        scores = new double[results.size()];
        boolean[] seen = new boolean[documents];
        Map<String, Integer> reasons = new HashMap<>();
        double last = Double.POSITIVE_INFINITY;
        for (int place = 0; place < order.length; place++) {
            if ((results.get(place) instanceof Map<?, ?>) == false) {
                throw Failure.notUnderstood("results[" + place + "] is no object");
            }
            Map<?, ?> result = (Map<?, ?>) results.get(place);
            if ((result.get("index") instanceof Integer index && index >= 0 && index < documents) == false) {
                throw Failure.notUnderstood("results[" + place + "].index is no index of a document: " + result.get("index"));
            }
            int index = (Integer) result.get("index");
            if (seen[index]) {
                throw Failure.notUnderstood("results[" + place + "].index repeats " + index);
            }
            seen[index] = true;
            order[place] = index;
            if (result.get("score") instanceof Number score && Double.isFinite(score.doubleValue()) && unscored == 0) {
                scores[place] = score.doubleValue();
            } else if (result.get("score") == null && result.get("unscored") instanceof String why) {
                scores[place] = Double.NaN;
                unscored++;
                reasons.merge(why, 1, Integer::sum);
            } else {
                throw Failure.notUnderstood("results[" + place + "] has no finite score in its place");
            }
            if (scores[place] > last) {
                throw Failure.notUnderstood("results[" + place + "].score is higher than the one before it");
            }
            last = scores[place];
        }
        if (count(answer, "unscored") != unscored) {
            throw Failure.notUnderstood("`unscored` is not the number of results without a score");
        }
        // Ties go to the word that comes first in the alphabet.
        Comparator<Map.Entry<String, Integer>> commonest = Map.Entry.<String, Integer>comparingByValue()
            .thenComparing(Map.Entry.<String, Integer>comparingByKey().reversed());
        return reasons.entrySet().stream().max(commonest).map(Map.Entry::getKey).orElse(null);
    }

    private static String text(Map<String, Object> answer, String key) throws Failure {
        if (answer.get(key) instanceof String text) {
            return text;
        }
        throw Failure.notUnderstood("`" + key + "` is no string");
    }

    private static int count(Map<String, Object> answer, String key) throws Failure {
        if (answer.get(key) instanceof Integer count && count >= 0) {
            return count;
        }
        throw Failure.notUnderstood("`" + key + "` is no count");
    }

    /** Whether there is an order other than the engine's. */
    boolean isRanked() {
        return status.equals("applied") || status.equals("partial");
    }

    /** How many hits are the window. */
    int documents() {
        return documents;
    }

    /** The hits that are kept: the scored ones, best first, then those without a score. */
    int[] order() {
        return Arrays.copyOf(order, order.length);
    }

    /** The score of the hit at a place of the order; NaN where it has none. */
    double score(int place) {
        return scores[place];
    }

    Outcome outcome(double milliseconds) {
        return new Outcome(status, reason, policy, version, documents, unscored, counts, queryTruncated, milliseconds, null, true, null);
    }
}
