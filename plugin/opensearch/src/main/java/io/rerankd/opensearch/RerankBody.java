package io.rerankd.opensearch;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.http.HttpRequest;
import java.util.Collection;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchHit;

/** The body of {@code POST /v1/rerank/{policy}}: the window as documents. */
final class RerankBody {
    private static final int BYTES_OF_A_DOCUMENT = 1024;

    private RerankBody() {}

    /** Writes the first {@code documents} of the hits. */
    static HttpRequest.BodyPublisher of(Plan plan, SearchHit[] hits, int documents) throws IOException {
        Exposed bytes = new Exposed(documents * BYTES_OF_A_DOCUMENT);
        try (XContentBuilder json = XContentFactory.jsonBuilder(bytes)) {
            json.startObject();
            options(json, plan);
            documents(json, plan, hits, documents);
            json.endObject();
        }
        return bytes.publisher();
    }

    private static void options(XContentBuilder json, Plan plan) throws IOException {
        Options options = plan.options();
        json.field("query", plan.query());
        // The sidecar ends a little earlier, so that what it has by then is not lost.
        long left = plan.remainingMs();
        json.field("timeout_ms", Math.max(1, left - Math.max(5, left / 20)));
        // The fallback is made here, where the hits are.
        json.field("on_failure", "error");
        if (options.fields() != null && options.fields().contains("*") == false) {
            json.field("fields", options.fields());
        }
        if (options.parameters() != null) {
            json.field("parameters", options.parameters());
        }
        if (options.signals() != null) {
            json.field("signals", options.signals());
        }
        if (options.key() != null) {
            json.field("key", options.key());
        }
    }

    private static void documents(XContentBuilder json, Plan plan, SearchHit[] hits, int documents) throws IOException {
        boolean scored = true;
        for (int i = 0; i < documents; i++) {
            scored &= Float.isFinite(hits[i].getScore());
        }
        if (scored == false) {
            json.field("ordered", true);
        }
        Collection<String> needed = plan.needed() == null ? null : new HashSet<>(plan.needed());
        Set<String> missing = new HashSet<>(plan.options().fieldsOfParameters());
        if (plan.options().fields() != null) {
            missing.addAll(plan.options().fields());
        }
        json.startArray("documents");
        for (int i = 0; i < documents; i++) {
            json.startObject().field("id", hits[i].getId());
            if (scored) {
                json.field("score", hits[i].getScore());
            }
            Map<String, Object> fields = HitFields.of(hits[i], needed);
            json.startObject("fields");
            for (Map.Entry<String, Object> field : fields.entrySet()) {
                json.field(field.getKey(), field.getValue());
            }
            missing.removeAll(fields.keySet());
            if (i == documents - 1) {
                // A name that no document has is a slip of the pen to the sidecar; null says that it is not.
                for (String name : missing) {
                    json.nullField(name);
                }
            }
            json.endObject().endObject();
        }
        json.endArray();
    }

    /** Lends its bytes without a copy. */
    private static final class Exposed extends ByteArrayOutputStream {
        Exposed(int size) {
            super(size);
        }

        HttpRequest.BodyPublisher publisher() {
            return HttpRequest.BodyPublishers.ofByteArray(buf, 0, count);
        }
    }
}
