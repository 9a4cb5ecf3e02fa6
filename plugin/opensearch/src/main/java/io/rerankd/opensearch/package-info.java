/**
 * A search pipeline that hands the first hits of a search to rerankd, and takes back their order.
 *
 * <p>Models, policies and rules of ranking stay in the sidecar: a new policy needs no new plugin.
 *
 * <p>One search, in files:
 *
 * <ol>
 *   <li>{@link io.rerankd.opensearch.WindowProcessor}: {@link io.rerankd.opensearch.Options} of
 *       node, pipeline and search become a {@link io.rerankd.opensearch.Plan}, made by the {@link
 *       io.rerankd.opensearch.Planner}, and the search is widened to the window.
 *   <li>{@link io.rerankd.opensearch.RerankProcessor}: {@link io.rerankd.opensearch.RerankBody}
 *       writes the window, {@link io.rerankd.opensearch.Sidecar} sends it, {@link
 *       io.rerankd.opensearch.Ranking} checks what comes back, {@link
 *       io.rerankd.opensearch.Page} cuts the page, {@link io.rerankd.opensearch.Outcome} says what
 *       became of it.
 * </ol>
 *
 * <p>{@link io.rerankd.opensearch.AttemptFilter} is around both: where the engine fails on the widened search, the
 * search runs once more as it was sent.
 */
package io.rerankd.opensearch;
