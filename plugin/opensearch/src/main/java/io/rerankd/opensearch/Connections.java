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

import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** How the node connects to sidecars. */
final class Connections {
    /** The end of a call comes earlier, but leaves an attempt to connect as it is. */
    private static final Duration CONNECT_TIMEOUT = Duration.ofSeconds(5);

    private Connections() {}

    /**
     * One client for the node, which keeps connections open.
     *
     * @param ca certificates that are trusted in place of the system's, or null
     */
    @SuppressWarnings("removal")
    static HttpClient client(Path ca) throws IOException {
        HttpClient.Builder builder = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .followRedirects(HttpClient.Redirect.NEVER)
            .proxy(HttpClient.Builder.NO_PROXY)
            .connectTimeout(CONNECT_TIMEOUT);
        if (ca != null) {
            builder.sslContext(trusting(ca));
        }
        return AccessController.doPrivileged((PrivilegedAction<HttpClient>) builder::build);
    }

    private static SSLContext trusting(Path ca) throws IOException {
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
