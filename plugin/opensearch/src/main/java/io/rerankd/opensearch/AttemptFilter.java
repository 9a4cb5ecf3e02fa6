package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

import org.opensearch.ExceptionsHelper;
import org.opensearch.action.ActionRequest;
import org.opensearch.action.search.SearchAction;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.action.support.ActionFilterChain;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.tasks.Task;

/**
 * Sends a search once more, as it was sent, where the engine fails on what the processors made of it: no search
 * fails, or loses hits, that would not without them.
 *
 * <p>It stands before filters that log what is shown, so that they see the answer of the second run alone.
 */
final class AttemptFilter implements ActionFilter {
    private final RerankdPlugin.Handles handles;

    AttemptFilter(RerankdPlugin.Handles handles) {
        this.handles = handles;
    }

    @Override
    public int order() {
        return Integer.MAX_VALUE - 1000;
    }

    /** The form that is to replace this one names a class that OpenSearch 2 does not have. */
    @Override
    @SuppressWarnings("removal")
    public <Request extends ActionRequest, Response extends ActionResponse> void apply(
        Task task,
        String action,
        Request request,
        ActionListener<Response> listener,
        ActionFilterChain<Request, Response> chain
    ) {
        boolean ours = SearchAction.NAME.equals(action) && request instanceof SearchRequest && handles.isConnected();
        if (ours == false) {
            chain.proceed(task, action, request, listener);
            return;
        }
        ThreadContext context = handles.threadContext();
        Attempt attempt = Attempt.beginning(Attempt.of(context));
        ActionListener<Response> watched = attempt.first() == null
            ? new Watch<>((SearchRequest) request, attempt, listener, context)
            : listener;
        attempt.belongTo(task);
        try (ThreadContext.StoredContext ignored = attempt.open(context)) {
            chain.proceed(task, action, request, watched);
        }
    }

    /** Waits for the answer of a first run. */
    private final class Watch<Response extends ActionResponse> implements ActionListener<Response> {
        private final SearchRequest request;
        private final Attempt attempt;
        private final ActionListener<Response> listener;
        private final Supplier<ThreadContext.StoredContext> context;
        private final Map<String, Object> inlinePipeline;

        Watch(SearchRequest request, Attempt attempt, ActionListener<Response> listener, ThreadContext context) {
            this.request = request;
            this.attempt = attempt;
            this.listener = listener;
            this.context = context.newRestorableContext(true);
            // The engine takes it apart while it reads it.
            Map<String, Object> inline = request.source() == null ? null : request.source().searchPipelineSource();
            this.inlinePipeline = inline == null ? null : copy(inline);
        }

        @Override
        public void onResponse(Response response) {
            // Where a processor's failure is ignored, the engine goes on with what there is.
            if (attempt.failure() != null) {
                repeat();
            } else {
                listener.onResponse(response);
            }
        }

        @Override
        public void onFailure(Exception e) {
            if (attempt.failure() == null) {
                if (attempt.isTouched() == false || isFinal(e)) {
                    listener.onFailure(e);
                    return;
                }
                attempt.fail(Failure.refusedByEngine(e), null);
            }
            repeat();
        }

        private void repeat() {
            attempt.repeat();
            try (ThreadContext.StoredContext ignored = context.get(); ThreadContext.StoredContext own = attempt.open(handles.threadContext())) {
                if (inlinePipeline != null) {
                    request.source().searchPipelineSource(inlinePipeline);
                }
                handles.search(request, attempt, ActionListener.wrap(this::finish, e -> {
                    attempt.end();
                    listener.onFailure(e);
                }));
            } catch (Exception e) {
                attempt.end();
                listener.onFailure(e);
            }
        }

        @SuppressWarnings("unchecked")
        private void finish(SearchResponse response) {
            attempt.end();
            boolean unmarked = attempt.isRefused() && response.getClass() == SearchResponse.class;
            if (unmarked) {
                Outcome outcome = Outcome.skipped("search-pipeline");
                handles.threadContext().addResponseHeader(Outcome.HEADER, outcome.header());
                listener.onResponse((Response) Page.marked(response, outcome));
            } else {
                listener.onResponse((Response) response);
            }
        }
    }

    /** Whether a failure has nothing to do with what the processors did, or is what they mean. */
    private static boolean isFinal(Exception e) {
        if (ExceptionsHelper.unwrap(e, RerankdException.class, TaskCancelledException.class) != null) {
            return true;
        }
        RestStatus status = ExceptionsHelper.status(e);
        return status == RestStatus.UNAUTHORIZED || status == RestStatus.FORBIDDEN || status == RestStatus.NOT_FOUND;
    }

    @SuppressWarnings("unchecked")
    private static <T> T copy(T json) {
        if (json instanceof Map<?, ?> members) {
            Map<Object, Object> copied = new HashMap<>();
            for (Map.Entry<?, ?> member : members.entrySet()) {
                copied.put(member.getKey(), copy(member.getValue()));
            }
            return (T) copied;
        }
        if (json instanceof List<?> items) {
            // Few frames for each level: the parser takes a thousand of them.
            List<Object> copied = new ArrayList<>(items.size());
            for (Object item : items) {
                copied.add(copy(item));
            }
            return (T) copied;
        }
        return json;
    }
}
