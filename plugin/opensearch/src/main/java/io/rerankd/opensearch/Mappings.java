package io.rerankd.opensearch;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.opensearch.cluster.metadata.IndexMetadata;
import org.opensearch.cluster.metadata.MappingMetadata;
import org.opensearch.index.IndexSettings;

/**
 * Mappings that were read already. They are in the engine's heap: how much of it they take is bounded, whatever the
 * number of indices.
 */
final class Mappings {
    /** Fields of the indices of a search; of more than these nothing is known. The same as in the search proxy. */
    static final int MOST_FIELDS = 20_000;

    /** Bytes of the mappings of indices, and as many of those of sets. */
    private static final long MOST_BYTES = 16 << 20;

    /** What stands for a set that has too many fields. */
    private static final Mapping TOO_MANY = Mapping.of(Map.of(), List.of());

    private final Kept<Content> indices = new Kept<>(MOST_BYTES);
    private final Kept<ByteBuffer> sets = new Kept<>(MOST_BYTES);

    /**
     * What a mapping is made of. Indices that were made alike share it.
     *
     * @param source as the cluster state has it, compressed; null where there is none
     * @param defaults {@code index.query.default_field}
     */
    private record Content(Object source, List<String> defaults) {}

    /** The fields of some indices together; null where there are more than {@link #MOST_FIELDS}. */
    Mapping of(List<IndexMetadata> all) {
        ByteBuffer key = key(all);
        Mapping known = sets.get(key);
        if (known == null) {
            Set<Mapping> each = new LinkedHashSet<>();
            all.forEach(index -> each.add(of(index)));
            Mapping together = Mapping.of(each, MOST_FIELDS);
            known = together == null ? TOO_MANY : together;
            sets.put(key, known);
        }
        return known == TOO_MANY ? null : known;
    }

    private Mapping of(IndexMetadata index) {
        MappingMetadata mapping = index.mapping();
        List<String> defaults = List.copyOf(IndexSettings.DEFAULT_FIELD_SETTING.get(index.getSettings()));
        Content key = new Content(mapping == null ? null : mapping.source(), defaults);
        Mapping one = indices.get(key);
        if (one == null) {
            one = Mapping.of(mapping == null ? Map.of() : mapping.sourceAsMap(), defaults);
            indices.put(key, one);
        }
        return one;
    }

    /** A digest of what tells the mappings of these indices; the settings have the default fields. */
    private static ByteBuffer key(List<IndexMetadata> all) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            ByteBuffer versions = ByteBuffer.allocate(2 * Long.BYTES);
            for (IndexMetadata index : all) {
                digest.update(index.getIndexUUID().getBytes(StandardCharsets.UTF_8));
                versions.clear().putLong(index.getMappingVersion()).putLong(index.getSettingsVersion());
                digest.update(versions.array());
            }
            return ByteBuffer.wrap(digest.digest());
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    /** Mappings by what tells them, those that were used last. */
    static final class Kept<K> {
        private final long most;
        private final Map<K, Mapping> known = new LinkedHashMap<>(16, 0.75f, true);
        private long bytes;

        /** @param most how many bytes all of them take together */
        Kept(long most) {
            this.most = most;
        }

        synchronized Mapping get(K key) {
            return known.get(key);
        }

        /** Keeps a mapping, unless it is too large alone. */
        synchronized void put(K key, Mapping mapping) {
            if (mapping.heldBytes() > most) {
                return;
            }
            Mapping before = known.put(key, mapping);
            bytes += mapping.heldBytes() - (before == null ? 0 : before.heldBytes());
            for (Iterator<Mapping> eldest = known.values().iterator(); bytes > most;) {
                bytes -= eldest.next().heldBytes();
                eldest.remove();
            }
        }
    }
}
