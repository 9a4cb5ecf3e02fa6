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

/** The client's page, cut from the hits of the widened search. Everything else of the response stays. */
final class Page {
    private static final String FIRST_STAGE_SCORE = "_first_stage_score";

    /** A hit and the score that it gets; NaN to keep its own. */
    private record Row(int hit, float score) {}

    private final SearchResponse response;
    private final SearchHit[] hits;
    private final Plan plan;

    Page(SearchResponse response, Plan plan) {
        this.response = response;
        this.hits = response.getHits().getHits();
        this.plan = plan;
    }

    /** The engine's own page. */
    SearchResponse own(Outcome outcome) throws IOException {
        List<Row> rows = new ArrayList<>();
        for (int hit = plan.from(); hit < Math.min(end(), hits.length); hit++) {
            rows.add(new Row(hit, Float.NaN));
        }
        return cut(rows, response.getHits().getMaxScore(), false, outcome);
    }

    /**
     * The page in the policy's order.
     *
     * <p>The window keeps its places: where hits of it are left out, its last pages are shorter, and the hits
     * behind it stay on the pages where the engine has them. So pages never repeat a hit.
     */
    SearchResponse reranked(Ranking ranking, Outcome outcome) throws IOException {
        boolean keepsScores = plan.options().keepsScores();
        List<Row> window = new ArrayList<>();
        Double minScore = plan.options().minScore();
        float last = Float.POSITIVE_INFINITY;
        int[] order = ranking.order();
        for (int place = 0; place < order.length; place++) {
            double score = ranking.score(place);
            if (Double.isNaN(score)) {
                window.add(follower(order[place], last, keepsScores));
            } else if (minScore == null || score >= minScore) {
                last = (float) score;
                window.add(new Row(order[place], last));
            }
        }
        int documents = ranking.documents();
        List<Row> rows = new ArrayList<>();
        for (int place = plan.from(); place < Math.min(end(), window.size()); place++) {
            rows.add(window.get(place));
        }
        for (int hit = Math.max(documents, plan.from()); hit < Math.min(end(), hits.length); hit++) {
            rows.add(follower(hit, last, keepsScores));
        }
        Row top = window.isEmpty() == false ? window.get(0) : documents < hits.length ? follower(documents, last, keepsScores) : null;
        float maxScore = top == null ? Float.NaN : Float.isNaN(top.score) ? hits[top.hit].getScore() : top.score;
        return cut(rows, maxScore, keepsScores, outcome);
    }

    private long end() {
        return (long) plan.from() + plan.size();
    }

    /** A hit behind the scored ones, whose score must not be higher than theirs. */
    private Row follower(int hit, float last, boolean keepsScores) {
        boolean isHigher = hits[hit].getScore() > last;
        return new Row(hit, isHigher && keepsScores == false ? last : Float.NaN);
    }

    private SearchResponse cut(List<Row> rows, float maxScore, boolean keepsScores, Outcome outcome) throws IOException {
        SearchHits all = response.getHits();
        SearchHit[] page = new SearchHit[rows.size()];
        Object[] collapsed = all.getCollapseValues() == null ? null : new Object[rows.size()];
        for (int place = 0; place < page.length; place++) {
            Row row = rows.get(place);
            SearchHit hit = hits[row.hit];
            plan.cut().cut(hit);
            if (keepsScores && Float.isNaN(hit.getScore()) == false) {
                hit.setDocumentField(FIRST_STAGE_SCORE, new DocumentField(FIRST_STAGE_SCORE, List.of(hit.getScore())));
            }
            if (Float.isNaN(row.score) == false) {
                hit.score(row.score);
            }
            page[place] = hit;
            if (collapsed != null) {
                collapsed[place] = all.getCollapseValues()[row.hit];
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
