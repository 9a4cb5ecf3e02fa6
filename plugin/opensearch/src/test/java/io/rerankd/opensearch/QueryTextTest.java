package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.common.bytes.BytesArray;
import org.opensearch.core.xcontent.MediaTypeRegistry;

class QueryTextTest {
    private static QueryText read(String json, Mapping mapping) {
        Map<String, Object> query = XContentHelper.convertToMap(new BytesArray(json.replace('\'', '"')), true, MediaTypeRegistry.JSON).v2();
        return QueryText.read(query, mapping, name -> name.equals("derived"));
    }

    private static String text(String json) throws Skip {
        return read(json, MappingTest.SHOP).text();
    }

    private static String reason(String json) {
        return assertThrows(Skip.class, () -> text(json)).reason();
    }

    @Test
    void aClauseOnWhatIsNoFullTextIsNoText() throws Skip {
        assertEquals("no-query", reason("{'match':{'in_stock':{'query':'true'}}}"));
        assertEquals("no-query", reason("{'match':{'brand':'Acme'}}"));
        assertEquals("no-query", reason("{'multi_match':{'query':'Acme','fields':['brand^2.0','name.raw']}}"));
        assertEquals("no-query", reason("{'match':{'derived':'Acme'}}"));
        assertEquals("watch", text("{'bool':{'must':[{'match':{'name':'watch'}},{'match':{'brand':'Acme'}}]}}"));
        assertEquals("watch", text("{'multi_match':{'query':'watch','fields':['brand','name']}}"));
        assertEquals("watch", text("{'match':{'not_there':'watch'}}"));
        assertEquals("true", read("{'match':{'in_stock':'true'}}", null).text());
    }

    @Test
    void textsThatDifferAreAmbiguous() {
        assertEquals("ambiguous-query", reason("{'bool':{'should':[{'match':{'name':'a'}},{'match':{'description':'b'}}]}}"));
    }

    @Test
    void wordsOfAQueryStringAreThoseOfItsFullTextFields() throws Skip {
        assertEquals("watch", text("{'query_string':{'query':'name:watch'}}"));
        assertEquals("watch", text("{'query_string':{'query':'name:watch brand:Acme watch'}}"));
        assertEquals("ambiguous-query", reason("{'query_string':{'query':'name:watch red'}}"));
        assertEquals("no-query", reason("{'query_string':{'query':'brand:Acme'}}"));
        assertEquals("no-query", reason("{'query_string':{'query':'Acme','default_field':'brand','fields':[]}}"));
        assertEquals("wi-fi shoes", text("{'query_string':{'query':'wi\\\\-fi shoes'}}"));
        assertEquals("a b", text("{'query_string':{'query':' a  b '}}"));
    }

    @Test
    void aWrappedQueryIsUnwrapped() throws Skip {
        String inner = Base64.getEncoder().encodeToString("{\"match\":{\"name\":\"watch\"}}".getBytes(StandardCharsets.UTF_8));
        assertEquals("watch", text("{'wrapper':{'query':'" + inner + "'}}"));
        assertEquals("no-query", reason("{'wrapper':{'query':'%%%'}}"));
    }

    @Test
    void aMeaningIsSearchedInAnyField() throws Skip {
        QueryText found = read("{'neural':{'brand':{'query_text':'watch','k':5}}}", MappingTest.SHOP);
        assertEquals("watch", found.text());
        assertTrue(found.sizeMatters());
        assertEquals("watch", text("{'agentic':{'query_text':'watch'}}"));
        assertFalse(read("{'match':{'name':'watch'}}", null).sizeMatters());
    }

    @Test
    void boostsAreMultiplied() {
        String json = "{'bool':{'boost':2,'must':[{'multi_match':{'query':'a','fields':['name^3','description'],'boost':5}}]}}";
        List<QueryText.Searched> expected = List.of(new QueryText.Searched("name", 30), new QueryText.Searched("description", 10));
        assertEquals(expected, read(json, MappingTest.SHOP).fieldsOf("a"));
    }

    @Test
    @Timeout(10)
    void aHostileQueryTakesNoTime() throws Skip {
        String stars = "*".repeat(17) + "x";
        assertEquals("no-query", reason("{'multi_match':{'query':'a','fields':['" + stars + "']}}"));
        assertEquals("a", text("{'multi_match':{'query':'a','fields':['" + "*".repeat(20_000) + "x']}}"));
        // Beyond so many patterns each may be anything.
        String fields = IntStream.range(0, 65).mapToObj(each -> "'none" + each + "*'").collect(Collectors.joining(","));
        assertEquals("a", text("{'multi_match':{'query':'a','fields':[" + fields + "]}}"));
        assertEquals("no-query", reason("{'multi_match':{'query':'a','fields':[" + fields.substring(0, fields.lastIndexOf(',')) + "]}}"));
        String words = IntStream.range(0, 200_000).mapToObj(each -> "a" + each + ":x ").collect(Collectors.joining());
        assertEquals("x", text("{'query_string':{'query':'" + words + "'}}"));
        assertEquals("x", text("{'multi_match':{'query':'x','fields':['" + "a.".repeat(500_000) + "a']}}"));
        String deep = "{'match':{'name':{'query':'watch','boost':" + "[".repeat(900) + "]".repeat(900) + "}}}";
        assertEquals(1, read(deep, MappingTest.SHOP).fieldsOf("watch").get(0).boost());
        String inner = "{\"match\":{\"name\":\"watch\"}}";
        for (int depth = 0; depth < 40; depth++) {
            byte[] json = inner.getBytes(StandardCharsets.UTF_8);
            inner = "{\"wrapper\":{\"query\":\"" + Base64.getEncoder().encodeToString(json) + "\"}}";
        }
        assertEquals("no-query", reason(inner));
    }

    @Test
    void aDeepQueryHasNoText() {
        String json = "{'match':{'name':'a'}}";
        for (int depth = 0; depth < 40; depth++) {
            json = "{'bool':{'must':" + json + "}}";
        }
        assertEquals("no-query", reason(json));
    }
}
