package io.rerankd.opensearch;

import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.AccessController;
import java.security.PrivilegedAction;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;

import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.common.bytes.BytesArray;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.plugins.SearchPipelinePlugin;
import org.opensearch.threadpool.Scheduler;

/**
 * Calls of rerankd: one HTTP client for the node, a bound on calls in flight for each address, and an end to
 * each call. No thread waits for an answer.
 */
final class Sidecar {
    private static final long CHECK_MS = 1000;

    private final HttpClient client;
    private final NodeOptions node;
    private final SearchPipelinePlugin.Parameters parameters;
    private final Map<String, AtomicInteger> inFlight = new ConcurrentHashMap<>();

    Sidecar(HttpClient client, NodeOptions node, SearchPipelinePlugin.Parameters parameters) {
        this.client = client;
        this.node = node;
        this.parameters = parameters;
    }

    /**
     * Has a window ranked. The listener is called on a thread of the generic pool, in the context of the
     * search; at once, and on this thread, where there is no room.
     *
     * @param documents how many there are in the body
     */
    void rank(Plan plan, HttpRequest.BodyPublisher body, int documents, ActionListener<Ranking> listener) {
        HttpRequest.Builder request = request(plan.options(), "/v1/rerank/" + segment(plan.policy()));
        request.header("Content-Type", "application/json").POST(body);
        send(request, plan.options(), plan.remainingMs(), answer -> Ranking.read(answer, documents), listener);
    }

    /** Asks which fields a policy reads. */
    void fields(String policy, Options options, ActionListener<PolicyFields.Read> listener) {
        HttpRequest.Builder request = request(options, "/v1/models/" + segment(policy)).GET();
        send(request, options, options.timeoutMs(), PolicyFields::read, listener);
    }

    /**
     * What the sidecar has against the parameters of a pipeline; null where it has nothing, or does not answer in a
     * second. Waits for it: for those who make pipelines, not for searches.
     */
    Failure refusal(Options options) {
        String policy = options.policy() == null ? Options.DEFAULT_POLICY : options.policy();
        CompletableFuture<Failure> answer = new CompletableFuture<>();
        ActionListener<Boolean> listener = ActionListener.wrap(
            ok -> answer.complete(null),
            e -> answer.complete(e instanceof Failure failure && failure.isOfOptions() ? failure : null)
        );
        try {
            HttpRequest.Builder request = request(options, "/v1/rerank/" + segment(policy));
            request.header("Content-Type", "application/json").POST(RerankBody.trial(options));
            send(request, options, CHECK_MS, body -> true, listener);
            return answer.get(2 * CHECK_MS, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return null;
        } catch (IOException | ExecutionException | TimeoutException e) {
            return null;
        }
    }

    private static String segment(String name) {
        return URLEncoder.encode(name, StandardCharsets.UTF_8).replace("+", "%20");
    }

    private HttpRequest.Builder request(Options options, String path) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(options.url() + path));
        request.header("Accept", "application/json");
        // Whoever may write pipelines could otherwise send the node's secret anywhere.
        if (node.token() != null && options.url().equals(node.url())) {
            request.header("Authorization", "Bearer " + node.token());
        }
        return request;
    }

    /** Reads the body of an answer with the status 200. */
    private interface Reader<T> {
        T read(byte[] body) throws Failure, IOException;
    }

    private <T> void send(HttpRequest.Builder request, Options options, long timeoutMs, Reader<T> reader, ActionListener<T> listener) {
        AtomicInteger calls = inFlight.computeIfAbsent(options.url(), url -> new AtomicInteger());
        if (calls.incrementAndGet() > options.maxConcurrentCalls()) {
            calls.decrementAndGet();
            listener.onFailure(Failure.overloaded(options.maxConcurrentCalls(), options.url()));
            return;
        }
        CompletableFuture<HttpResponse<byte[]>> answer = null;
        AtomicBoolean late = new AtomicBoolean();
        Scheduler.ScheduledCancellable end;
        try {
            answer = start(request.build());
            CompletableFuture<HttpResponse<byte[]>> started = answer;
            end = parameters.scheduler.apply(timeoutMs, () -> {
                late.set(true);
                started.cancel(true);
            });
        } catch (RuntimeException e) {
            calls.decrementAndGet();
            if (answer != null) {
                answer.cancel(true);
            }
            listener.onFailure(Failure.internal(e));
            return;
        }
        Supplier<ThreadContext.StoredContext> context = parameters.threadContext.newRestorableContext(true);
        // Without an executor this would run where Java pleases: in the pool that all share.
        answer.whenCompleteAsync((response, thrown) -> {
            calls.decrementAndGet();
            end.cancel();
            try (ThreadContext.StoredContext ignored = context.get()) {
                T read;
                try {
                    if (thrown != null) {
                        throw late.get() ? Failure.deadline(options.timeoutMs()) : broken(options.url(), thrown);
                    }
                    read = read(response, options, reader);
                } catch (Failure failure) {
                    listener.onFailure(failure);
                    return;
                } catch (RuntimeException e) {
                    // Nobody else would hear of it, and the search would wait for ever.
                    listener.onFailure(Failure.notUnderstood(e.getClass().getSimpleName()));
                    return;
                }
                listener.onResponse(read);
            }
        }, parameters.genericExecutor::accept);
    }

    /** OpenSearch 2 has a security manager, before which the plugin answers for itself alone. */
    @SuppressWarnings("removal")
    private CompletableFuture<HttpResponse<byte[]>> start(HttpRequest request) {
        return AccessController.doPrivileged(
            (PrivilegedAction<CompletableFuture<HttpResponse<byte[]>>>) () -> client.sendAsync(request, head -> new BoundedBody())
        );
    }

    private static Failure broken(String url, Throwable thrown) {
        Throwable cause = thrown instanceof CompletionException && thrown.getCause() != null ? thrown.getCause() : thrown;
        for (Throwable inner = cause; inner != null; inner = inner.getCause()) {
            if (inner instanceof BoundedBody.TooLarge) {
                return Failure.notUnderstood(inner.getMessage());
            }
        }
        return cause instanceof RejectedExecutionException ? Failure.internal((Exception) cause) : Failure.unavailable(url, cause);
    }

    private static <T> T read(HttpResponse<byte[]> response, Options options, Reader<T> reader) throws Failure {
        if (response.statusCode() != 200) {
            throw refused(response, options.url());
        }
        try {
            return reader.read(response.body());
        } catch (IOException | IllegalArgumentException | ClassCastException e) {
            throw Failure.notUnderstood(String.valueOf(e.getMessage()));
        }
    }

    /** What an answer with another status says. */
    private static Failure refused(HttpResponse<byte[]> response, String url) {
        String type = null;
        String words = null;
        String at = null;
        try {
            Map<String, Object> body = XContentHelper.convertToMap(new BytesArray(response.body()), false, MediaTypeRegistry.JSON).v2();
            if (body.get("error") instanceof Map<?, ?> error) {
                type = error.get("type") instanceof String text ? text : null;
                words = error.get("message") instanceof String text ? text : null;
                at = error.get("at") instanceof String text ? text : null;
            }
        } catch (RuntimeException e) {
            // Whatever stands there, it is no error of rerankd's: the status says enough.
            words = null;
        }
        int status = response.statusCode();
        String message = words == null ? "rerankd at " + url + " answered " + status : words;
        return switch (status) {
            case 400 -> "empty".equals(type) && (at == null || at.equals("query"))
                ? Failure.noQuery(message)
                : new Failure("bad-request", RestStatus.BAD_REQUEST, message, at);
            // The documents are the engine's, and their number the pipeline's.
            case 413 -> new Failure("too-large", RestStatus.FAILED_DEPENDENCY, message);
            // Not 404: clients of a search take that for an index that is not there.
            case 404 -> new Failure("unknown-policy", RestStatus.FAILED_DEPENDENCY, message);
            case 424 -> new Failure(
                "deadline_exceeded".equals(type) ? "deadline" : "policy-fault",
                RestStatus.FAILED_DEPENDENCY,
                message
            );
            case 429 -> new Failure("overloaded", RestStatus.TOO_MANY_REQUESTS, message);
            default -> new Failure("sidecar-status", RestStatus.BAD_GATEWAY, message);
        };
    }
}
