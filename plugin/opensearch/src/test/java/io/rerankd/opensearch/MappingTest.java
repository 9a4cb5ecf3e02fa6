package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class MappingTest {
    static final Mapping SHOP = Mapping.of(
        Map.of(
            "properties",
            Map.of(
                "name", Map.of("type", "text", "fields", Map.of("raw", Map.of("type", "keyword"), "stem", Map.of("type", "text"))),
                "description", Map.of("type", "text"),
                "brand", Map.of("type", "keyword", "fields", Map.of("words", Map.of("type", "text"))),
                "in_stock", Map.of("type", "boolean"),
                "label", Map.of("type", "alias", "path", "name"),
                "attributes", Map.of("type", "flat_object"),
                "seller", Map.of("properties", Map.of("about", Map.of("type", "text")))
            )
        ),
        List.of("*")
    );

    @Test
    void kindsAreThoseOfTheMapping() {
        assertEquals(Mapping.Kind.FULL_TEXT, SHOP.kind("name"));
        assertEquals(Mapping.Kind.FULL_TEXT, SHOP.kind("name.stem"));
        assertEquals(Mapping.Kind.FULL_TEXT, SHOP.kind("label"));
        assertEquals(Mapping.Kind.OTHER, SHOP.kind("name.raw"));
        assertEquals(Mapping.Kind.OTHER, SHOP.kind("attributes.colour"));
        assertEquals(Mapping.Kind.OBJECT, SHOP.kind("seller"));
        assertEquals(Mapping.Kind.UNKNOWN, SHOP.kind("seller.name"));
        assertEquals(Mapping.Kind.UNKNOWN, SHOP.kind("colour"));
    }

    @Test
    void aPatternIsTextWhereItFindsText() {
        assertTrue(SHOP.mayBeText("na*"));
        assertFalse(SHOP.mayBeText("in_*"));
        assertFalse(SHOP.mayBeText("colou*"));
        assertTrue(SHOP.mayBeText("colour"));
    }

    @Test
    void aMultiFieldStandsForItsParent() {
        assertEquals(List.of("name"), SHOP.sources("name.stem", List.of()));
        assertEquals(List.of("brand"), SHOP.sources("brand.words", List.of()));
        assertEquals(List.of(), SHOP.sources("brand", List.of()));
        assertEquals(List.of("brand", "name"), SHOP.sources("*s*e*m*", List.of()).isEmpty() ? List.of() : SHOP.sources("*.*", List.of()).subList(0, 2));
    }

    @Test
    void textsComeByDepthThenAsThePolicyHasThemThenByName() {
        assertEquals(List.of("description", "label", "name", "seller.about"), SHOP.texts("*", List.of()));
        assertEquals(List.of("name", "description", "label", "seller.about"), SHOP.texts("*", List.of("name")));
        assertEquals(List.of("name"), SHOP.texts("na*", List.of()));
    }

    @Test
    void aFieldOfSeveralIndicesIsTextWhereOneHasItSo() {
        Mapping other = Mapping.of(Map.of("properties", Map.of("brand", Map.of("type", "text"))), List.of("brand"));
        for (List<Mapping> order : List.of(List.of(SHOP, other), List.of(other, SHOP))) {
            assertEquals(Mapping.Kind.FULL_TEXT, Mapping.of(order, 100).kind("brand"));
        }
        assertNull(Mapping.of(List.of(SHOP, other), 5));
        assertNull(Mapping.of(List.of(SHOP), 5));
        assertSame(SHOP, Mapping.of(List.of(SHOP), 100));
    }

    @Test
    void starsStandForAnyCharacters() {
        assertTrue(Mapping.matches("*", ""));
        assertTrue(Mapping.matches("*.en", "title.en"));
        assertTrue(Mapping.matches("t*t*e", "title"));
        assertFalse(Mapping.matches("t*x", "title"));
        assertFalse(Mapping.matches("title", "titles"));
        assertTrue(Mapping.matches("a*a", "aa"));
        assertFalse(Mapping.matches("a*a", "a"));
        assertFalse(Mapping.matches("xy*yx", "xyx"));
        assertTrue(Mapping.matches("**t**e*", "title"));
        assertTrue(Mapping.matches("*ab*ab", "abcabab"));
        assertFalse(Mapping.matches("*ab*abc", "ababab"));
    }

    @Test
    @Timeout(10)
    void aPatternCostsWhatItsLengthDoes() {
        String name = "a".repeat(5000);
        assertFalse(Mapping.matches("*".repeat(20_000) + "x", name));
        assertFalse(Mapping.matches("*a".repeat(2000) + "x", name));
        assertTrue(Mapping.matches("*a".repeat(2000), name));
        for (String pattern : List.of("*".repeat(17) + "x", "*".repeat(1000) + "x", "*a".repeat(500) + "x")) {
            assertFalse(SHOP.mayBeText(pattern));
            assertEquals(List.of(), SHOP.texts(pattern, List.of()));
        }
        // What is longer may be anything, and chooses nothing.
        assertTrue(SHOP.mayBeText("*".repeat(20_000) + "x"));
        assertEquals(List.of(), SHOP.sources("*".repeat(20_000) + "x", List.of()));
    }

    @Test
    @Timeout(10)
    void aNameCostsWhatTheNamesOfTheMappingDo() {
        assertEquals(Mapping.Kind.UNKNOWN, SHOP.kind("a.".repeat(1_000_000)));
        assertEquals(Mapping.Kind.OTHER, SHOP.kind("attributes" + ".a".repeat(1_000_000)));
    }

    @Test
    void whatIsDeeperThanObjectsAreIsNotKnown() {
        Map<String, Object> object = Map.of("properties", Map.of("a", Map.of("type", "keyword")));
        String name = "a";
        for (int depth = 0; depth < 900; depth++) {
            object = Map.of("properties", Map.of("a", object));
            name += ".a";
        }
        assertEquals(Mapping.Kind.UNKNOWN, Mapping.of(object, List.of()).kind(name));
    }

    @Test
    void mappingsAreKeptUpToTheirSize() {
        Mappings.Kept<Integer> kept = new Mappings.Kept<>(3 * SHOP.heldBytes());
        for (int key = 0; key < 4; key++) {
            kept.put(key, SHOP);
            kept.put(key, SHOP);
            kept.get(0);
        }
        assertSame(SHOP, kept.get(0));
        assertNull(kept.get(1));
        assertSame(SHOP, kept.get(3));
        Map<String, Object> large = Map.of("n".repeat((int) (3 * SHOP.heldBytes())), Map.of("type", "text"));
        kept.put(4, Mapping.of(Map.of("properties", large), List.of()));
        assertNull(kept.get(4));
        assertSame(SHOP, kept.get(2));
    }
}
