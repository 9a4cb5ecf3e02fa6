package io.rerankd.opensearch;

import org.opensearch.OpenSearchStatusException;
import org.opensearch.core.rest.RestStatus;

/** An error of reranking; clients see it as {@code rerankd_exception}, as the search proxy's. */
public final class RerankdException extends OpenSearchStatusException {
    private static final long serialVersionUID = 1L;

    RerankdException(String message, RestStatus status) {
        // A message with braces would be taken for a pattern.
        super("{}", status, message);
    }
}
