package io.rerankd.opensearch;

import java.io.IOException;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;

/** Collects the body of an answer, and gives up where it is larger than any ranking. */
final class BoundedBody implements HttpResponse.BodySubscriber<byte[]> {
    /** A ranking of 10,000 documents has about a tenth of this. */
    static final int MAX_BYTES = 16 << 20;

    private final HttpResponse.BodySubscriber<byte[]> all = HttpResponse.BodySubscribers.ofByteArray();
    private Flow.Subscription subscription;
    private long bytes;

    @Override
    public CompletionStage<byte[]> getBody() {
        return all.getBody();
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
        this.subscription = subscription;
        all.onSubscribe(subscription);
    }

    @Override
    public void onNext(List<ByteBuffer> buffers) {
        for (ByteBuffer buffer : buffers) {
            bytes += buffer.remaining();
        }
        if (bytes > MAX_BYTES) {
            subscription.cancel();
            all.onError(new TooLarge());
        } else {
            all.onNext(buffers);
        }
    }

    @Override
    public void onError(Throwable throwable) {
        all.onError(throwable);
    }

    @Override
    public void onComplete() {
        all.onComplete();
    }

    /** The body is larger than the limit. */
    static final class TooLarge extends IOException {
        private static final long serialVersionUID = 1L;

        TooLarge() {
            super("the body has more than " + MAX_BYTES + " bytes");
        }
    }
}
