package io.rerankd.opensearch;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.http.HttpRequest;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchHit;

/** The body of {@code POST /v1/rerank/{policy}}: the window as documents. */
final class RerankBody {
    private static final int BYTES_OF_A_DOCUMENT = 1024;

    private final Plan plan;
    private final SearchHit[] hits;
    private final List<Map<String, Object>> documents = new ArrayList<>();
    private final List<String> fields;
    private final Exposed bytes;

    private RerankBody(Plan plan, SearchHit[] hits, int count) throws IOException {
        this.plan = plan;
        this.hits = hits;
        Reading reading = plan.reading();
        HitFields.Needed needed = HitFields.Needed.of(reading.fetched());
        for (int i = 0; i < count; i++) {
            documents.add(HitFields.of(hits[i], needed));
        }
        List<String> read = reading.isChosen() ? reading.read(documents) : List.of();
        fields = read.isEmpty() ? null : read;
        if (fields != null) {
            documents.replaceAll(document -> reading.sent(document, fields));
        }
        bytes = new Exposed(count * BYTES_OF_A_DOCUMENT);
        try (XContentBuilder json = XContentFactory.jsonBuilder(bytes)) {
            json.startObject();
            options(json);
            documents(json);
            json.endObject();
        }
    }

    /** Writes the first {@code documents} of the hits. */
    static RerankBody of(Plan plan, SearchHit[] hits, int documents) throws IOException {
        return new RerankBody(plan, hits, documents);
    }

    /** A body with one small document, by which the sidecar can tell what it thinks of options. */
    static HttpRequest.BodyPublisher trial(Options options) throws IOException {
        Exposed bytes = new Exposed(BYTES_OF_A_DOCUMENT);
        try (XContentBuilder json = XContentFactory.jsonBuilder(bytes)) {
            json.startObject().field("query", "a").field("on_failure", "error").field("parameters", options.parameters());
            json.startArray("documents").startObject().startObject("fields");
            Set<String> names = new HashSet<>(options.fieldsOfParameters());
            // Those of the bundled policies: without any text no policy is asked.
            names.addAll(List.of("title", "text"));
            for (String name : names) {
                json.field(name, "a");
            }
            json.endObject().endObject().endArray().endObject();
        }
        return bytes.publisher();
    }

    HttpRequest.BodyPublisher publisher() {
        return bytes.publisher();
    }

    /** The fields that were chosen; null where none were. */
    List<String> fields() {
        return fields;
    }

    /** The fields that are named to the policy; null where it has its own. */
    private List<String> named() {
        List<String> said = plan.options().fields();
        boolean names = said != null && said.stream().noneMatch(Mapping::isPattern);
        return names ? said : fields;
    }

    private void options(XContentBuilder json) throws IOException {
        Options options = plan.options();
        json.field("query", plan.query());
        // The sidecar ends a little earlier, so that what it has by then is not lost.
        long left = plan.remainingMs();
        json.field("timeout_ms", Math.max(1, left - Math.max(5, left / 20)));
        // The fallback is made here, where the hits are.
        json.field("on_failure", "error");
        if (named() != null) {
            json.field("fields", named());
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

    private void documents(XContentBuilder json) throws IOException {
        boolean scored = true;
        for (int i = 0; i < documents.size(); i++) {
            scored &= Float.isFinite(hits[i].getScore());
        }
        if (scored == false) {
            json.field("ordered", true);
        }
        Set<String> missing = new HashSet<>(plan.options().fieldsOfParameters());
        if (named() != null) {
            missing.addAll(named());
        }
        json.startArray("documents");
        for (int i = 0; i < documents.size(); i++) {
            json.startObject().field("id", hits[i].getId());
            if (scored) {
                json.field("score", hits[i].getScore());
            }
            Map<String, Object> document = documents.get(i);
            json.startObject("fields");
            for (Map.Entry<String, Object> field : document.entrySet()) {
                json.field(field.getKey(), field.getValue());
            }
            missing.removeAll(document.keySet());
            if (i == documents.size() - 1) {
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
