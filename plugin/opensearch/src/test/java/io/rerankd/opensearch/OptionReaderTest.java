package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;
import org.opensearch.common.xcontent.LoggingDeprecationHandler;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.XContentParser;

class OptionReaderTest {
    private static Options search(Map<String, Object> said) {
        return OptionReader.SEARCH.take(new HashMap<>(said), (key, problem) -> new IllegalArgumentException(key + ": " + problem));
    }

    @Test
    void explanationsAreRefusedByName() {
        assertTrue(assertThrows(IllegalArgumentException.class, () -> search(Map.of("explain", true))).getMessage().contains("explain"));
        assertThrows(IllegalArgumentException.class, () -> search(Map.of("explain", "false")));
        search(Map.of("explain", false));
    }

    @Test
    void aPatternThatIsTooLongIsRefused() {
        search(Map.of("fields", List.of("*".repeat(1024), "a".repeat(2000))));
        List<String> fields = List.of("*".repeat(1025));
        assertTrue(assertThrows(IllegalArgumentException.class, () -> search(Map.of("fields", fields))).getMessage().contains("1024"));
    }

    @Test
    void optionsOfAnyDepthAreRefusedAndNothingElse() throws Exception {
        for (int depth : List.of(60, 70, 900)) {
            String json = "{\"parameters\":{\"a\":" + "[".repeat(depth) + "]".repeat(depth) + "}}";
            try (
                XContentParser parser = JsonXContent.jsonXContent.createParser(
                    NamedXContentRegistry.EMPTY,
                    LoggingDeprecationHandler.INSTANCE,
                    json
                )
            ) {
                parser.nextToken();
                if (depth == 60) {
                    RerankdExt.parse(parser);
                } else {
                    assertTrue(assertThrows(ParsingException.class, () -> RerankdExt.parse(parser)).getMessage().contains("deeper"));
                }
            }
        }
    }

    @Test
    void theBlameIsWhereTheOptionWasSaid() {
        Failure refused = new Failure("bad-request", RestStatus.BAD_REQUEST, "weight", "parameters.weight");
        assertTrue(refused.blaming(search(Map.of("parameters", Map.of("weight", 5)))).isOfTheSearch());
        Failure ofPipeline = refused.blaming(search(Map.of("key", "a")));
        assertFalse(ofPipeline.isOfTheSearch());
        assertEquals("rule", ofPipeline.reason());
        // The engine takes a query of any length.
        Failure query = new Failure("bad-request", RestStatus.BAD_REQUEST, "long", "query").blaming(search(Map.of()));
        assertFalse(query.isOfTheSearch());
        assertEquals("bad-request", query.reason());
    }
}
