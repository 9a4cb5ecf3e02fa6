package io.rerankd.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.stream.Collectors;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The cases of the search proxy, which has the same rules. */
class WordsTest {
    /** The words as {@code field:text}, or {@code NONE} where there are operators. */
    private static String shown(String text, Words.Syntax syntax) {
        List<Words> all = Words.of(text, syntax);
        return all == null
            ? "NONE"
            : all.stream().map(words -> words.field() == null ? words.text() : words.field() + ":" + words.text()).collect(Collectors.joining(" & "));
    }

    @ParameterizedTest
    @CsvSource({
        "running  shoes,running shoes",
        "wi\\-fi running shoes,wi-fi running shoes",
        "what is this\\?,what is this?",
        "\\+plus \\(x\\),+plus (x)",
        "two\\ words,two words",
        "title:watch,title:watch",
        "title:watch title:strap,title:watch strap",
        "title: watch,title:watch",
        "title:watch brand:acme,title:watch & brand:acme",
        "title:smart watch,title:smart & watch",
        "title\\:watch,title:watch",
        "_exists_:price shoe,shoe",
        "_id:5,''",
        "'',''",
        "a - b,a - b",
        "wi-fi,wi-fi" })
    void wordsAreReadByField(String text, String expected) {
        assertEquals(expected, shown(text, Words.Syntax.QUERY_STRING));
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "title:", ":watch", "a:b:c", "a: b:c", "price:-5", "end\\", "title:(a b)", "a AND b", "a && b", "a||b", "wat*", "a?", "-a b", "+a",
        "!a", "\"a b\"", "a^2", "a~", "[a TO b]", "/a/", "a:>5" })
    void operatorsAreNoText(String text) {
        assertEquals("NONE", shown(text, Words.Syntax.QUERY_STRING));
    }

    @ParameterizedTest
    @CsvSource({ "title:watch,title:watch", "wi\\-fi,wi-fi", "a AND b,a AND b", "12:30,12:30", "a -b,NONE", "a | b,NONE", "a - b,NONE" })
    void theSimpleLanguageHasNoFields(String text, String expected) {
        assertEquals(expected, shown(text, Words.Syntax.SIMPLE));
    }
}
