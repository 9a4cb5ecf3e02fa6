package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;

class RankingTest {
    private static Ranking read(String json, int documents) throws Exception {
        return Ranking.read(json.replace('\'', '"').getBytes(StandardCharsets.UTF_8), documents);
    }

    @Test
    void whatWasCutOrNotReadIsCounted() throws Exception {
        Ranking partial = read(
            "{'status':'partial','policy':'p','version':'v','unscored':1,'query_truncated':true,'results':["
                + "{'index':1,'score':0.5,'truncated':true},{'index':2,'score':0.4,'truncated':true},"
                + "{'index':0,'unscored':'unread'}]}",
            3
        );
        Outcome outcome = partial.outcome(1.5);
        assertEquals("unread", outcome.reason());
        assertEquals(Map.of("unread", 1, "truncated", 2), outcome.counts());
        String header = "rerankd;status=partial;reason=unread;policy=\"p\";version=\"v\";window=3;unscored=1;unread=1;truncated=2;query-truncated;time=1.5";
        assertEquals(header, outcome.header());
        assertEquals(true, outcome.members().get("query_truncated"));
    }

    @Test
    void aHeaderNamesFieldsAsFarAsTheyFit() {
        Outcome outcome = Outcome.skipped("unread").withFields(List.of("a", "n".repeat(50_000), "ü", "b"));
        assertEquals("rerankd;status=skipped;reason=unread;fields=\"a,b\"", outcome.header());
        assertEquals(4, ((List<?>) outcome.members().get("fields")).size());
    }

    @Test
    void aSearchWhoseTextsNobodyReadsSaysWhichTheyWere() throws Exception {
        String results = "'results':[{'index':0,'unscored':'unread'},{'index':1,'unscored':'unread'}]";
        String skipped = "{'status':'skipped','reason':'unread','policy':'p','version':'v','unscored':2," + results;
        Ranking documents = read(skipped + "}", 2);
        assertFalse(documents.isRanked());
        String usual = "rerankd;status=skipped;reason=unread;policy=\"p\";version=\"v\";window=2;";
        assertEquals(usual + "unread=2;time=0.0", documents.outcome(0).header());
        // Where it is the query, nobody knows of the documents.
        assertEquals(usual + "time=0.0", read(skipped + ",'query_unread':true}", 2).outcome(0).header());
    }

    @Test
    void anAnswerOfAnyDepthIsRefusedAndNothingElse() {
        assertThrows(IOException.class, () -> read("{'results':" + "[".repeat(1_000_000), 2));
        assertThrows(RuntimeException.class, () -> PolicyFields.read(("{\"fields\":" + "[".repeat(1_000_000)).getBytes(StandardCharsets.UTF_8)));
    }
}
