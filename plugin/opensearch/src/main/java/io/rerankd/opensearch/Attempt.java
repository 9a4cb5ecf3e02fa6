package io.rerankd.opensearch;

import java.util.HashSet;
import java.util.List;
import java.util.Set;

import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.search.ShardSearchFailure;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.tasks.Task;

/**
 * One run of a search through the engine: the first, with what the processors make of it, or the second, as the
 * search was sent. It stands in the thread context of its run, where {@link AttemptFilter} puts it.
 */
final class Attempt {
    private static final String KEY = "rerankd.attempt";

    private final Attempt first;
    private volatile boolean generated;
    private volatile boolean changed;
    private volatile boolean ended;
    private volatile Attempt second;
    private volatile long task;
    private volatile Failure failure;
    private volatile Outcome outcome;
    private volatile Plan plan;
    private volatile SearchResponse widened;

    private Attempt(Attempt first) {
        this.first = first;
    }

    /** The run in whose context this is called, or null. */
    static Attempt of(ThreadContext context) {
        return context.getTransient(KEY);
    }

    /**
     * The run that begins now.
     *
     * @param before the run in whose context it begins, or null. A search that ended may have left it there.
     */
    static Attempt beginning(Attempt before) {
        boolean again = before != null && before.second != null && before.ended == false;
        return again ? before.second : new Attempt(null);
    }

    /** Opens the context of this run. */
    ThreadContext.StoredContext open(ThreadContext context) {
        ThreadContext.StoredContext stored = context.newStoredContext(true, List.of(KEY));
        context.putTransient(KEY, this);
        return stored;
    }

    /** The run before this one; null for the first. */
    Attempt first() {
        return first;
    }

    /** The task of the search on this node. */
    long task() {
        return task;
    }

    void belongTo(Task one) {
        task = one.getId();
    }

    /** The engine made a processor for it. */
    void generate() {
        generated = true;
    }

    /** The search that the engine runs is another one than was sent. */
    void change(Plan by) {
        plan = by;
        changed = true;
    }

    /** Whether the processors had any part in this run. */
    boolean isTouched() {
        return changed || generated;
    }

    /** Whether the engine refused the processors that it had made. */
    boolean isRefused() {
        return generated && changed == false;
    }

    /**
     * The search is to be sent as it was.
     *
     * @param because why its answer cannot be used
     * @param response this answer, if there is one
     */
    void fail(Failure because, SearchResponse response) {
        failure = because;
        widened = response;
    }

    /** There is no ranking, and this response cannot tell what the engine's own page is. */
    void leave(Outcome as) {
        outcome = as;
    }

    /** What is to be said of the search as it was sent, or null. */
    Outcome outcome() {
        return outcome;
    }

    /** Why the search is to be sent as it was, or null. */
    Failure failure() {
        return failure;
    }

    /** The plan of this run; null where there was none. */
    Plan plan() {
        return plan;
    }

    /** Makes ready for the second run. */
    void repeat() {
        second = new Attempt(this);
    }

    /** The search is over. */
    void end() {
        ended = true;
    }

    /** The answer of this run, if the search as it was sent fails on the same shards; or null. */
    SearchResponse answerWithFailuresOf(SearchResponse own) {
        boolean same = widened != null && failedShards(widened).equals(failedShards(own));
        return same ? widened : null;
    }

    private static Set<String> failedShards(SearchResponse response) {
        Set<String> shards = new HashSet<>();
        for (ShardSearchFailure failure : response.getShardFailures()) {
            shards.add(failure.index() + '/' + failure.shardId());
        }
        if (response.isTimedOut()) {
            shards.add("timed out");
        }
        return shards;
    }
}
