package io.rerankd.opensearch;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.cluster.metadata.IndexMetadata;
import org.opensearch.cluster.metadata.MappingMetadata;
import org.opensearch.index.IndexSettings;

/** Mappings that were read already, by index and version. */
final class Mappings {
    /** Indices, and sets of them, whose mappings are kept. */
    private static final int MOST = 500;

    private final Map<String, Mapping> known = new LinkedHashMap<>(16, 0.75f, true) {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Mapping> eldest) {
            return size() > MOST;
        }
    };

    /** The fields of some indices together. */
    Mapping of(List<IndexMetadata> indices) {
        StringBuilder key = new StringBuilder();
        for (IndexMetadata index : indices) {
            key.append(key(index)).append(' ');
        }
        Mapping all = get(key.toString());
        if (all == null) {
            List<Mapping> each = new ArrayList<>();
            for (IndexMetadata index : indices) {
                each.add(of(index));
            }
            all = Mapping.of(each);
            put(key.toString(), all);
        }
        return all;
    }

    private Mapping of(IndexMetadata index) {
        Mapping one = get(key(index));
        if (one == null) {
            MappingMetadata mapping = index.mapping();
            Map<?, ?> source = mapping == null ? Map.of() : mapping.sourceAsMap();
            one = Mapping.of(source, IndexSettings.DEFAULT_FIELD_SETTING.get(index.getSettings()));
            put(key(index), one);
        }
        return one;
    }

    /** The settings have the default fields. */
    private static String key(IndexMetadata index) {
        return index.getIndexUUID() + '/' + index.getMappingVersion() + '/' + index.getSettingsVersion();
    }

    private synchronized Mapping get(String key) {
        return known.get(key);
    }

    private synchronized void put(String key, Mapping mapping) {
        known.put(key, mapping);
    }
}
