package io.rerankd.opensearch;

import java.util.List;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.action.ActionListener;
import org.opensearch.index.query.BoolQueryBuilder;
import org.opensearch.index.query.ExistsQueryBuilder;
import org.opensearch.index.query.MatchQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.search.builder.SearchSourceBuilder;

/**
 * The engine's own searches for the inner hits of collapsed groups. They run through the default pipeline of the
 * index as any search does, one for each group; they are left alone.
 */
final class Groups {
    private static final String COLLAPSED_BY = "rerankd.collapsed_by";

    private Groups() {}

    /** Whether this is the search for a group of the search in whose context it runs. */
    static boolean isGroup(ThreadContext context, SearchRequest request) {
        String field = context.getTransient(COLLAPSED_BY);
        // The context alone does not say: the next search of an `_msearch` may begin where one has ended.
        if (field == null || request.source() == null || (request.source().query() instanceof BoolQueryBuilder) == false) {
            return false;
        }
        BoolQueryBuilder query = (BoolQueryBuilder) request.source().query();
        return has(query.filter(), field) || has(query.mustNot(), field);
    }

    /** The engine asks for the groups with one such clause. */
    private static boolean has(List<QueryBuilder> clauses, String field) {
        return clauses.size() == 1
            && (clauses.get(0) instanceof MatchQueryBuilder match && match.fieldName().equals(field)
                || clauses.get(0) instanceof ExistsQueryBuilder exists && exists.fieldName().equals(field));
    }

    /** Goes on with a search in such a way that its groups are known. */
    static ActionListener<SearchRequest> marking(ThreadContext context, ActionListener<SearchRequest> next) {
        return ActionListener.wrap(request -> {
            SearchSourceBuilder search = request.source();
            if (search == null || search.collapse() == null || search.collapse().getInnerHits().isEmpty()) {
                next.onResponse(request);
                return;
            }
            try (ThreadContext.StoredContext ignored = context.newStoredContext(true, List.of(COLLAPSED_BY))) {
                context.putTransient(COLLAPSED_BY, search.collapse().getField());
                next.onResponse(request);
            }
        }, next::onFailure);
    }
}
