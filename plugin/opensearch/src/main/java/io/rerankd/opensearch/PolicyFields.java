package io.rerankd.opensearch;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;

import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.common.bytes.BytesArray;

/** Which fields policies read, as the sidecar says; known for a minute. */
final class PolicyFields {
    private static final long FRESH_NANOSECONDS = 60_000_000_000L;
    private static final int MOST = 1000;

    private record Known(Optional<List<String>> fields, long since) {}

    private final Map<String, Known> known = new ConcurrentHashMap<>();
    private final Sidecar sidecar;

    PolicyFields(Sidecar sidecar) {
        this.sidecar = sidecar;
    }

    /** The listener gets null for all fields. It is called at once where they are known. */
    void of(String policy, Options options, ActionListener<List<String>> listener) {
        String key = options.url() + ' ' + policy;
        Known fresh = known.get(key);
        if (fresh != null && System.nanoTime() - fresh.since < FRESH_NANOSECONDS) {
            listener.onResponse(fresh.fields.orElse(null));
            return;
        }
        sidecar.fields(policy, options, ActionListener.wrap(fields -> {
            if (known.size() >= MOST) {
                known.clear();
            }
            known.put(key, new Known(Optional.ofNullable(fields), System.nanoTime()));
            listener.onResponse(fields);
        }, listener::onFailure));
    }

    /** Reads the answer of {@code GET /v1/models/{name}}. */
    static List<String> read(byte[] body) throws Failure, IOException {
        Map<String, Object> model = XContentHelper.convertToMap(new BytesArray(body), false, MediaTypeRegistry.JSON).v2();
        if ((model.get("fields") instanceof List<?>) == false) {
            return null;
        }
        List<String> fields = ((List<?>) model.get("fields")).stream().map(String.class::cast).toList();
        return fields.contains("*") ? null : fields;
    }
}
