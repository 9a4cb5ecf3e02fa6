package io.rerankd.opensearch;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.common.settings.SecureSetting;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.core.common.settings.SecureString;

/** What the node's settings say: {@code opensearch.yml} and the keystore. */
final class NodeOptions {
    static final Setting<String> URL = new Setting<>("rerankd.url", "http://127.0.0.1:9500", text -> {
        if (OptionReader.isUrl(text) == false) {
            throw new IllegalArgumentException("`rerankd.url`: expected an address such as `http://127.0.0.1:9500`, got `" + text + "`");
        }
        return text.replaceAll("/+$", "");
    }, Setting.Property.NodeScope);

    static final Setting<String> POLICY = Setting.simpleString("rerankd.policy", Setting.Property.NodeScope);

    static final Setting<List<String>> POLICIES = Setting.listSetting("rerankd.policies", List.of(), text -> text, Setting.Property.NodeScope);

    static final Setting<List<String>> FIELDS = Setting.listSetting("rerankd.fields", List.of(), text -> text, Setting.Property.NodeScope);

    static final Setting<Integer> TIMEOUT_MS = Setting.intSetting("rerankd.timeout_ms", 1000, 1, 60_000, Setting.Property.NodeScope);

    static final Setting<Integer> MAX_CONCURRENT_CALLS = Setting.intSetting(
        "rerankd.max_concurrent_calls",
        64,
        1,
        10_000,
        Setting.Property.NodeScope
    );

    static final Setting<String> CA_FILE = Setting.simpleString("rerankd.ca_file", Setting.Property.NodeScope);

    static final Setting<SecureString> TOKEN = SecureSetting.secureString("rerankd.token", null);

    /** All of them. */
    static final List<Setting<?>> ALL = List.of(URL, POLICY, POLICIES, FIELDS, TIMEOUT_MS, MAX_CONCURRENT_CALLS, CA_FILE, TOKEN);

    private final Options options;
    private final String token;

    NodeOptions(Settings settings) {
        Map<String, Object> said = new HashMap<>();
        said.put("url", URL.get(settings));
        said.put("timeout_ms", TIMEOUT_MS.get(settings));
        said.put("max_concurrent_calls", MAX_CONCURRENT_CALLS.get(settings));
        if (POLICY.get(settings).isBlank() == false) {
            said.put("policy", POLICY.get(settings));
        }
        if (POLICIES.get(settings).isEmpty() == false) {
            said.put("policies", POLICIES.get(settings));
        }
        if (FIELDS.get(settings).isEmpty() == false) {
            said.put("fields", FIELDS.get(settings));
        }
        options = new Options(said);
        try (SecureString secret = TOKEN.get(settings)) {
            token = secret.length() == 0 ? null : secret.toString();
        }
    }

    Options options() {
        return options;
    }

    String url() {
        return options.url();
    }

    /** What the sidecar of {@code rerankd.url} wants to see, or null. */
    String token() {
        return token;
    }
}
