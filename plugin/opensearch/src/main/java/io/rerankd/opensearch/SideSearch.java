package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ContextPreservingActionListener;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.action.ActionListener;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.collapse.CollapseBuilder;
import org.opensearch.threadpool.Scheduler;

/** Searches beside one that is reranked: other hits of the same order, or the same with other contents. */
final class SideSearch {
    /** What behaviour logging reads: only what is shown is logged. */
    private static final String LOGGED = "ubi";

    private final RerankdPlugin.Handles handles;
    private final SearchRequest request;

    /** @param request as the engine ran it */
    SideSearch(RerankdPlugin.Handles handles, SearchRequest request) {
        this.handles = handles;
        this.request = request;
    }

    /** The hits of the window with the texts that the policy reads, and nothing else in them. */
    void window(Plan plan, ActionListener<SearchHit[]> listener) {
        SearchSourceBuilder search = request.source();
        boolean derives = search.getDerivedFieldsObject() != null || search.getDerivedFields() != null;
        // There is no way to copy derived fields alone.
        SearchSourceBuilder lean = derives ? search.shallowCopy().highlighter(null).suggest(null) : like(search);
        lean.from(0).size(plan.hits().window()).fetchSource(plan.texts()).trackTotalHits(false);
        run(plan, lean, ActionListener.wrap(found -> listener.onResponse(found.getHits().getHits()), listener::onFailure));
    }

    /** What decides which hits there are, and in which order. */
    private static SearchSourceBuilder like(SearchSourceBuilder search) {
        SearchSourceBuilder lean = new SearchSourceBuilder().query(search.query());
        if (search.postFilter() != null) {
            lean.postFilter(search.postFilter());
        }
        if (search.minScore() != null) {
            lean.minScore(search.minScore());
        }
        if (search.collapse() != null) {
            lean.collapse(new CollapseBuilder(search.collapse().getField()));
        }
        if (search.rescores() != null) {
            search.rescores().forEach(lean::addRescorer);
        }
        search.indexBoosts().forEach(boost -> lean.indexBoost(boost.getIndex(), boost.getBoost()));
        if (search.timeout() != null) {
            lean.timeout(search.timeout());
        }
        lean.terminateAfter(search.terminateAfter());
        if (search.pointInTimeBuilder() != null) {
            lean.pointInTimeBuilder(search.pointInTimeBuilder());
        }
        return lean;
    }

    /** More of the engine's hits, as the client wants them. */
    void more(Plan plan, Page.Range range, ActionListener<SearchResponse> listener) {
        SearchSourceBuilder search = request.source().shallowCopy().from(range.from()).size(range.size());
        if (plan.cut().isNeeded()) {
            search.fetchSource(plan.cut().client());
        }
        run(plan, search, listener);
    }

    private void run(Plan plan, SearchSourceBuilder search, ActionListener<SearchResponse> whenDone) {
        ActionListener<SearchResponse> listener = inTime(plan, whenDone);
        List<SearchExtBuilder> exts = new ArrayList<>(search.ext());
        exts.removeIf(ext -> ext instanceof RerankdExt || ext.getWriteableName().equals(LOGGED));
        search.ext(exts).verbosePipeline(false);
        SearchRequest beside = new SearchRequest(request).source(search);
        // The processors of the pipeline have had this search already.
        beside.pipeline("_none");
        handles.search(beside, Attempt.of(handles.threadContext()), ActionListener.wrap(response -> {
            if (response.getFailedShards() > 0 || response.isTimedOut()) {
                listener.onFailure(Failure.shards(response.getFailedShards()));
            } else {
                listener.onResponse(response);
            }
        }, e -> listener.onFailure(Failure.refusedByEngine(e))));
    }

    /** Calls the listener once: with the answer, or when what is left of the timeout is over. */
    private ActionListener<SearchResponse> inTime(Plan plan, ActionListener<SearchResponse> listener) {
        ThreadContext context = handles.threadContext();
        ActionListener<SearchResponse> once = ActionListener.notifyOnce(
            new ContextPreservingActionListener<>(context.newRestorableContext(true), listener)
        );
        Scheduler.ScheduledCancellable end = handles.schedule(
            plan.remainingMs(),
            () -> once.onFailure(Failure.deadline(plan.options().timeoutMs()))
        );
        return ActionListener.runBefore(once, end::cancel);
    }

    /** The hits of {@code window} in the order of {@code hits}; a hit that is not there stands for itself. */
    static SearchHit[] inOrder(SearchHit[] window, SearchHit[] hits, int most) {
        Map<String, SearchHit> found = new HashMap<>();
        for (SearchHit hit : window) {
            found.put(key(hit), hit);
        }
        SearchHit[] ordered = new SearchHit[Math.min(most, hits.length)];
        for (int place = 0; place < ordered.length; place++) {
            ordered[place] = found.getOrDefault(key(hits[place]), hits[place]);
        }
        return ordered;
    }

    private static String key(SearchHit hit) {
        return hit.getIndex() + ' ' + (hit.getShard() == null ? "" : hit.getShard().getShardId().id()) + ' ' + hit.getId();
    }
}
