package io.rerankd.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

import org.opensearch.action.search.SearchResponse;
import org.opensearch.common.document.DocumentField;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.aggregations.InternalAggregations;
import org.opensearch.search.internal.InternalSearchResponse;
import org.opensearch.search.profile.SearchProfileShardResults;

/**
 * The client's page. Everything else of the response stays.
 *
 * <p>All pages are cut from one list: the scored hits, best first; the hits of the window that have no score; the
 * hits behind the window, as the engine has them. What is left out leaves no hole: what follows moves up.
 */
final class Page {
    private static final String FIRST_STAGE_SCORE = "_first_stage_score";

    /** A hit, what it is collapsed by, and the score that it gets; NaN to keep its own. */
    private record Row(SearchHit hit, Object collapsedBy, float score) {
        float shownScore() {
            return Float.isNaN(score) ? hit.getScore() : score;
        }
    }

    /** Hits of the engine by their places. */
    record Range(int from, int size) {}

    private final SearchResponse response;
    private final Plan plan;
    private final int documents;
    private final List<Row> window = new ArrayList<>();
    private float last = Float.POSITIVE_INFINITY;

    /**
     * The page in the policy's order.
     *
     * @param ranked the hits that were ranked
     */
    Page(SearchResponse response, Plan plan, SearchHit[] ranked, Ranking ranking) {
        this.response = response;
        this.plan = plan;
        this.documents = ranking.documents();
        boolean isThere = plan.hits().first() == 0;
        SearchHit[] hits = isThere ? response.getHits().getHits() : ranked;
        Object[] collapsed = isThere ? response.getHits().getCollapseValues() : null;
        Double minScore = plan.options().minScore();
        int[] order = ranking.order();
        for (int place = 0; place < order.length; place++) {
            double score = ranking.score(place);
            SearchHit hit = hits[order[place]];
            Object collapsedBy = collapsed == null ? null : collapsed[order[place]];
            if (Double.isNaN(score)) {
                window.add(follower(hit, collapsedBy));
            } else if (minScore == null || score >= minScore) {
                last = (float) score;
                window.add(new Row(hit, collapsedBy, last));
            }
        }
    }

    /** The engine's own page. */
    static SearchResponse own(SearchResponse response, Plan plan, Outcome outcome) throws IOException {
        Plan.Hits wanted = plan.hits();
        List<Row> rows = rows(response.getHits(), wanted.from() - wanted.first(), wanted.end() - wanted.first());
        return cut(response, plan, rows, response.getHits().getMaxScore(), false, outcome);
    }

    private static List<Row> rows(SearchHits hits, int from, long end) {
        List<Row> rows = new ArrayList<>();
        Object[] collapsed = hits.getCollapseValues();
        for (int hit = Math.max(0, from); hit < Math.min(end, hits.getHits().length); hit++) {
            rows.add(new Row(hits.getHits()[hit], collapsed == null ? null : collapsed[hit], Float.NaN));
        }
        return rows;
    }

    /** How many hits of the window are left out; what is behind it moves up by so many. */
    private int leftOut() {
        return documents - window.size();
    }

    /** What of the engine's hits stands on the page behind the window. */
    private Range tail() {
        Plan.Hits wanted = plan.hits();
        int from = Math.max(wanted.from(), window.size()) + leftOut();
        long end = Math.min(wanted.end() + leftOut(), wanted.limit());
        return new Range(from, (int) Math.max(0, end - from));
    }

    /** What belongs on the page and is not in the response; null where nothing is missing. */
    Range missing() {
        Plan.Hits wanted = plan.hits();
        int count = response.getHits().getHits().length;
        Range tail = tail();
        int from = Math.max(tail.from, wanted.first() + count);
        int size = tail.from + tail.size - from;
        return leftOut() > 0 && count >= wanted.asked() && size > 0 ? new Range(from, size) : null;
    }

    /**
     * The page.
     *
     * @param more the hits that were {@link #missing}, or null
     */
    SearchResponse reranked(SearchHits more, Outcome outcome) throws IOException {
        Plan.Hits wanted = plan.hits();
        List<Row> rows = new ArrayList<>();
        for (int place = wanted.from(); place < Math.min(wanted.end(), window.size()); place++) {
            rows.add(window.get(place));
        }
        Range tail = tail();
        int from = tail.from - wanted.first();
        List<Row> behind = rows(response.getHits(), from, (long) from + tail.size);
        if (more != null) {
            behind.addAll(rows(more, 0, tail.size - behind.size()));
        }
        Row top = window.isEmpty() ? null : window.get(0);
        for (Row row : behind) {
            Row follower = follower(row.hit, row.collapsedBy);
            rows.add(follower);
            top = top == null ? follower : top;
        }
        return cut(response, plan, rows, top == null ? Float.NaN : top.shownScore(), plan.options().keepsScores(), outcome);
    }

    /** A hit behind the scored ones, whose score must not be higher than that of the hit before it. */
    private Row follower(SearchHit hit, Object collapsedBy) {
        if (plan.options().keepsScores() || (hit.getScore() > last) == false) {
            last = Float.isFinite(hit.getScore()) && plan.options().keepsScores() == false ? hit.getScore() : last;
            return new Row(hit, collapsedBy, Float.NaN);
        }
        return new Row(hit, collapsedBy, last);
    }

    private static SearchResponse cut(
        SearchResponse response,
        Plan plan,
        List<Row> rows,
        float maxScore,
        boolean keepsScores,
        Outcome outcome
    ) throws IOException {
        SearchHits all = response.getHits();
        SearchHit[] page = new SearchHit[rows.size()];
        Object[] collapsed = all.getCollapseValues() == null ? null : new Object[rows.size()];
        for (int place = 0; place < page.length; place++) {
            Row row = rows.get(place);
            SearchHit hit = row.hit;
            plan.cut().cut(hit);
            if (keepsScores && Float.isNaN(hit.getScore()) == false) {
                hit.setDocumentField(FIRST_STAGE_SCORE, new DocumentField(FIRST_STAGE_SCORE, List.of(hit.getScore())));
            }
            if (Float.isNaN(row.score) == false) {
                hit.score(row.score);
            }
            page[place] = hit;
            if (collapsed != null) {
                collapsed[place] = row.collapsedBy;
            }
        }
        SearchHits shown = new SearchHits(page, all.getTotalHits(), maxScore, all.getSortFields(), all.getCollapseField(), collapsed);
        return with(response, shown, outcome);
    }

    /** The response with nothing changed but what it says of its reranking. */
    static SearchResponse marked(SearchResponse response, Outcome outcome) {
        return with(response, response.getHits(), outcome);
    }

    private static SearchResponse with(SearchResponse response, SearchHits hits, Outcome outcome) {
        List<SearchExtBuilder> exts = new ArrayList<>();
        for (SearchExtBuilder ext : response.getInternalResponse().getSearchExtBuilders()) {
            if ((ext instanceof RerankdExt) == false) {
                exts.add(ext);
            }
        }
        exts.add(RerankdExt.of(outcome));
        InternalSearchResponse sections = new InternalSearchResponse(
            hits,
            (InternalAggregations) response.getAggregations(),
            response.getSuggest(),
            response.getProfileResults().isEmpty() ? null : new SearchProfileShardResults(response.getProfileResults()),
            response.isTimedOut(),
            response.isTerminatedEarly(),
            response.getNumReducePhases(),
            exts,
            response.getInternalResponse().getProcessorResult()
        );
        return new SearchResponse(
            sections,
            response.getScrollId(),
            response.getTotalShards(),
            response.getSuccessfulShards(),
            response.getSkippedShards(),
            response.getTook().millis(),
            response.getPhaseTook(),
            response.getShardFailures(),
            response.getClusters(),
            response.pointInTimeId()
        );
    }
}
