package io.rerankd.opensearch;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.common.bytes.BytesArray;
import org.opensearch.core.xcontent.MediaTypeRegistry;

/** Which fields policies read, as the sidecar says; known for a minute. */
final class PolicyFields {
    private static final long FRESH_NANOSECONDS = 60_000_000_000L;
    private static final int MOST = 1000;

    /**
     * What a policy reads.
     *
     * @param fields those that it reads where nobody names any; null for all
     * @param kept those of them that it reads whatever is chosen for it; null where nothing can be
     * @param granted the only ones that can be chosen; null for any
     */
    record Read(List<String> fields, List<String> kept, List<String> granted) {
        /** The fields that it names itself. */
        List<String> own() {
            return fields == null ? List.of() : fields;
        }

        /** The fields that it reads besides those that are chosen for it. */
        List<String> others() {
            return kept == null ? own() : kept;
        }

        boolean grants(String name) {
            return granted == null || granted.contains(name);
        }
    }

    private record Known(Read read, long since) {}

    private final Map<String, Known> known = new ConcurrentHashMap<>();
    private final Sidecar sidecar;

    PolicyFields(Sidecar sidecar) {
        this.sidecar = sidecar;
    }

    /** Asks what a policy reads. The listener is called at once where it is known. */
    void of(String policy, Options options, ActionListener<Read> listener) {
        String key = options.url() + ' ' + policy;
        Known fresh = known.get(key);
        if (fresh != null && System.nanoTime() - fresh.since < FRESH_NANOSECONDS) {
            listener.onResponse(fresh.read);
            return;
        }
        sidecar.fields(policy, options, ActionListener.wrap(read -> {
            if (known.size() >= MOST) {
                known.clear();
            }
            known.put(key, new Known(read, System.nanoTime()));
            listener.onResponse(read);
        }, listener::onFailure));
    }

    /** Reads the answer of {@code GET /v1/models/{name}}. */
    static Read read(byte[] body) throws Failure, IOException {
        Map<String, Object> model = XContentHelper.convertToMap(new BytesArray(body), false, MediaTypeRegistry.JSON).v2();
        List<String> fields = names(model, "fields");
        boolean isAll = fields == null || fields.contains("*");
        if (isAll || (model.get("field_choice") instanceof Map<?, ?>) == false) {
            return new Read(isAll ? null : fields, null, null);
        }
        Map<?, ?> choice = (Map<?, ?>) model.get("field_choice");
        List<String> kept = names(choice, "kept");
        return new Read(fields, kept == null ? List.of() : kept, names(choice, "granted"));
    }

    private static List<String> names(Map<?, ?> model, String key) {
        return model.get(key) instanceof List<?> names ? names.stream().map(String.class::cast).toList() : null;
    }
}
