package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.Map;

import org.junit.jupiter.api.Test;

class RankingTest {
    private static Ranking read(String json, int documents) throws Exception {
        return Ranking.read(json.replace('\'', '"').getBytes(StandardCharsets.UTF_8), documents);
    }

    @Test
    void reasonsAndCountsThatAreNewArePassedOn() throws Exception {
        Ranking partial = read(
            "{'status':'partial','policy':'p','version':'v','unscored':1,'unread':1,'truncated':2,'results':["
                + "{'index':1,'score':0.5},{'index':0,'score':null,'unscored':'unread'}]}",
            2
        );
        Outcome outcome = partial.outcome(1.5);
        assertEquals("unread", outcome.reason());
        assertEquals(Map.of("unread", 1, "truncated", 2), outcome.counts());
        String header = "rerankd;status=partial;reason=unread;policy=\"p\";version=\"v\";window=2;unscored=1;truncated=2;unread=1;time=1.5";
        assertEquals(header, outcome.header());
        Ranking skipped = read("{'status':'skipped','reason':'unread','policy':'p','version':'v','unread':2}", 2);
        assertFalse(skipped.isRanked());
        assertTrue(skipped.outcome(0).header().startsWith("rerankd;status=skipped;reason=unread;"));
    }
}
