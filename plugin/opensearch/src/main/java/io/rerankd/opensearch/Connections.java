package io.rerankd.opensearch;

import java.io.IOException;
import java.io.InputStream;
import java.net.http.HttpClient;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.AccessController;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.PrivilegedAction;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.concurrent.Executor;

import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** How the node connects to sidecars. */
final class Connections {
    /** The end of a call comes earlier, but leaves an attempt to connect as it is. */
    private static final Duration CONNECT_TIMEOUT = Duration.ofSeconds(5);

    private final SSLContext trusted;

    private Connections(SSLContext trusted) {
        this.trusted = trusted;
    }

    /** @param ca certificates that are trusted in place of the system's, or null */
    static Connections trusting(Path ca) throws IOException {
        return new Connections(ca == null ? null : contextOf(ca));
    }

    /**
     * One client for the node, which keeps connections open.
     *
     * @param executor threads for its work; with those of its own, OpenSearch 2 would not let it
     */
    @SuppressWarnings("removal")
    HttpClient client(Executor executor) {
        HttpClient.Builder builder = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .followRedirects(HttpClient.Redirect.NEVER)
            .proxy(HttpClient.Builder.NO_PROXY)
            .connectTimeout(CONNECT_TIMEOUT)
            .executor(executor);
        if (trusted != null) {
            builder.sslContext(trusted);
        }
        return AccessController.doPrivileged((PrivilegedAction<HttpClient>) builder::build);
    }

    private static SSLContext contextOf(Path ca) throws IOException {
        try (InputStream pem = Files.newInputStream(ca)) {
            KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
            trusted.load(null, null);
            int count = 0;
            for (Certificate certificate : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                trusted.setCertificateEntry("ca-" + count++, certificate);
            }
            if (count == 0) {
                throw new IllegalArgumentException("`rerankd.ca_file`: there is no certificate in " + ca);
            }
            TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            managers.init(trusted);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, managers.getTrustManagers(), null);
            return context;
        } catch (GeneralSecurityException | IOException e) {
            throw new IllegalArgumentException("`rerankd.ca_file`: " + ca + " cannot be read as certificates in PEM: " + e, e);
        }
    }
}
