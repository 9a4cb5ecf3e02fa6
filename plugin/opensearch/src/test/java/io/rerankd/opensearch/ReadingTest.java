package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

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
    void aFieldBesideAPatternStaysWhateverItsValuesAre() {
        List<Map<String, Object>> documents = List.of(Map.of("name", "a", "price", 5, "brand", " "), Map.of("name", "b"));
        for (Mapping mapping : Arrays.asList(MappingTest.SHOP, null)) {
            Reading reading = Reading.ofPatterns(List.of("price", "na*", "none"), List.of("rank"), POLICY, mapping);
            assertEquals(List.of("price", "name", "none"), reading.read(documents));
            assertEquals(Map.of("name", "a", "price", 5), reading.sent(documents.get(0), reading.read(documents)));
        }
        List<String> fetched = Reading.ofPatterns(List.of("*"), List.of("rank"), POLICY, MappingTest.SHOP).fetched();
        assertTrue(fetched.contains("rank") && fetched.contains("price"), fetched.toString());
        // They take no place of what patterns stand for.
        List<String> many = new ArrayList<>(IntStream.range(0, 40).mapToObj(each -> "n" + each).toList());
        many.add("na*");
        assertEquals(41, Reading.ofPatterns(many, List.of(), POLICY, MappingTest.SHOP).read(documents).size());
    }

    @Test
    void aNumberStaysWhereTheTextBeforeItFillsADocument() {
        Reading reading = Reading.ofPatterns(List.of("name", "price", "description", "*"), List.of(), POLICY, null);
        Map<String, Object> document = Map.of("name", "a".repeat(100_000), "price", 5, "description", "b");
        Map<String, Object> sent = reading.sent(document, reading.read(List.of(document)));
        assertEquals(Map.of("name", "a".repeat(64 << 10), "price", 5), sent);
    }

    @Test
    @Timeout(10)
    void whatIsNamedInPatternsTakesNoTime() {
        List<String> patterns = IntStream.range(0, 1000).mapToObj(each -> "*a".repeat(30) + each + "*").toList();
        Map<String, Object> document = new HashMap<>();
        IntStream.range(0, 1000).forEach(each -> document.put("a".repeat(200) + each, "x"));
        assertEquals(32, Reading.ofPatterns(patterns, List.of(), POLICY, null).read(Collections.nCopies(1000, document)).size());
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
