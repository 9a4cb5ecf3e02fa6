package io.rerankd.neighbours;

import java.io.IOException;
import java.util.Map;

import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.search.SearchExtBuilder;

/** A member of {@code ext} with an object in it. */
public final class Said extends SearchExtBuilder {
    private final String name;
    private final Map<String, Object> members;

    Said(String name, Map<String, Object> members) {
        this.name = name;
        this.members = members;
    }

    static Said read(String name, StreamInput in) throws IOException {
        return new Said(name, in.readMap());
    }

    static Said parse(String name, XContentParser parser) throws IOException {
        return new Said(name, parser.map());
    }

    Map<String, Object> members() {
        return members;
    }

    @Override
    public String getWriteableName() {
        return name;
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeMap(members);
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, ToXContent.Params params) throws IOException {
        return builder.field(name, members);
    }

    @Override
    public int hashCode() {
        return members.hashCode();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Said said && said.name.equals(name) && said.members.equals(members);
    }
}
