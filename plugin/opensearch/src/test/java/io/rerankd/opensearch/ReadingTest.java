package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;

class ReadingTest {
    private static final PolicyFields.Read POLICY = new PolicyFields.Read(List.of("title", "text", "price"), List.of("price"), null);

    @Test
    void theFieldsThatAreSearchedComeFirstByBoost() {
        List<QueryText.Searched> searched = List.of(new QueryText.Searched("description", 1), new QueryText.Searched("name.stem", 3));
        Reading reading = Reading.chosen(POLICY, MappingTest.SHOP, searched);
        assertEquals(List.of("name", "description", "label", "seller.about"), reading.choices());
        assertEquals(List.of("name", "description", "label", "seller.about", "title", "text", "price"), reading.fetched());
    }

    @Test
    void onlyWhatTheHitsHaveAsTextIsRead() {
        Reading reading = Reading.chosen(POLICY, MappingTest.SHOP, List.of());
        List<Map<String, Object>> documents = List.of(Map.of("description", " ", "name", "a"), Map.of("seller.about", List.of("b"), "price", 5));
        assertEquals(List.of("name", "seller.about"), reading.read(documents));
        assertEquals(Map.of("seller.about", List.of("b"), "price", 5), reading.sent(documents.get(1), List.of("name", "seller.about")));
        assertEquals(List.of(), reading.read(List.of(Map.of("price", 5))));
    }

    @Test
    void aPolicySeesNothingThatItIsNotGranted() {
        PolicyFields.Read limited = new PolicyFields.Read(List.of("title"), List.of(), List.of("title", "description"));
        assertEquals(List.of("description"), Reading.chosen(limited, MappingTest.SHOP, List.of()).choices());
    }

    @Test
    void patternsStandForFullText() {
        Reading reading = Reading.ofPatterns(List.of("na*", "brand"), List.of(), POLICY, MappingTest.SHOP);
        assertEquals(List.of("name", "brand"), reading.choices());
        Reading unknown = Reading.ofPatterns(List.of("*"), List.of(), POLICY, null);
        assertNull(unknown.fetched());
        assertEquals(List.of("a", "b", "a.b"), unknown.read(List.of(Map.of("b", "x", "a.b", "y", "a", "z", "n", 5))));
    }

    @Test
    void textIsCutAtACharacterWhereADocumentHasTooMuch() {
        String most = "é".repeat(32 << 10);
        Reading reading = Reading.chosen(POLICY, MappingTest.SHOP, List.of());
        Map<String, Object> document = Map.of("description", "a" + most, "name", "b");
        Map<String, Object> sent = reading.sent(document, List.of("description", "name"));
        assertEquals(Map.of("description", "a" + most.substring(1)), sent);
    }
}
