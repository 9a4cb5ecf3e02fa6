package io.rerankd.opensearch;

import java.io.IOException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentLocation;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.search.SearchExtBuilder;

/** {@code ext.rerankd}: in a search its options, in a response what became of it. */
public final class RerankdExt extends SearchExtBuilder {
    static final String NAME = "rerankd";

    /** Most bytes of all options of a search together. */
    private static final int MAX_BYTES = 64 << 10;

    /** Objects and arrays in one another. */
    private static final int MAX_DEPTH = 64;

    private static final Options NO_OPTIONS = new Options(Map.of());

    private final Map<String, Object> members;
    private final Options options;

    private RerankdExt(Map<String, Object> members, Options options) {
        this.members = members;
        this.options = options;
    }

    /** Reads what a node wrote; OpenSearch 2 copies each search in this way before its pipeline runs. */
    public RerankdExt(StreamInput in) throws IOException {
        this(in.readMap());
    }

    private RerankdExt(Map<String, Object> members) {
        this(members, members.containsKey(Outcome.STATUS) ? NO_OPTIONS : checked(members));
    }

    /** What became of a search. */
    static RerankdExt of(Outcome outcome) {
        return new RerankdExt(outcome.members(), NO_OPTIONS);
    }

    /** Reads and checks the options of a search. */
    static RerankdExt parse(XContentParser parser) throws IOException {
        XContentLocation place = parser.getTokenLocation();
        if (parser.currentToken() != XContentParser.Token.START_OBJECT) {
            throw new ParsingException(place, "`ext.rerankd`: expected an object, got " + parser.currentToken());
        }
        Map<String, Object> members = parser.map();
        if (isDeeper(members, MAX_DEPTH)) {
            throw new ParsingException(place, "`ext.rerankd`: nested deeper than the limit of " + MAX_DEPTH);
        }
        try (XContentBuilder builder = XContentFactory.jsonBuilder()) {
            if (BytesReference.bytes(builder.map(members)).length() > MAX_BYTES) {
                throw new ParsingException(place, "`ext.rerankd`: more than the limit of " + MAX_BYTES + " bytes");
            }
        }
        Map<String, Object> left = new LinkedHashMap<>(members);
        Options options = OptionReader.SEARCH.take(
            left,
            (key, problem) -> new ParsingException(place, "`ext.rerankd." + key + "`: " + problem)
        );
        for (String key : left.keySet()) {
            // A key that may be there, and is null, was taken as well.
            throw new ParsingException(
                place,
                "`ext.rerankd`: unknown key `" + key + "`; the known ones are " + String.join(", ", OptionReader.SEARCH.keys())
            );
        }
        return new RerankdExt(members, options);
    }

    private static boolean isDeeper(Object json, int depth) {
        Iterable<?> inner = json instanceof Map<?, ?> members ? members.values() : json instanceof List<?> items ? items : null;
        if (inner == null || depth == 0) {
            return inner != null;
        }
        for (Object one : inner) {
            if (isDeeper(one, depth - 1)) {
                return true;
            }
        }
        return false;
    }

    /** The options that {@link #parse} let through. */
    private static Options checked(Map<String, Object> members) {
        return OptionReader.SEARCH.take(
            new LinkedHashMap<>(members),
            (key, problem) -> new IllegalArgumentException("`ext.rerankd." + key + "`: " + problem)
        );
    }

    /** The options; none in a response. */
    Options options() {
        return options;
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeMap(members);
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, ToXContent.Params params) throws IOException {
        return builder.field(NAME, members);
    }

    @Override
    public int hashCode() {
        return Objects.hash(members);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof RerankdExt ext && members.equals(ext.members);
    }
}
