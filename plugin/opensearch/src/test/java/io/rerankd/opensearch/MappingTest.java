package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;

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
            assertEquals(Mapping.Kind.FULL_TEXT, Mapping.of(order).kind("brand"));
        }
    }

    @Test
    void starsStandForAnyCharacters() {
        assertTrue(Mapping.matches("*", ""));
        assertTrue(Mapping.matches("*.en", "title.en"));
        assertTrue(Mapping.matches("t*t*e", "title"));
        assertFalse(Mapping.matches("t*x", "title"));
        assertFalse(Mapping.matches("title", "titles"));
    }
}
