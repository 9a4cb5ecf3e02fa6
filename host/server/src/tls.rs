//! TLS for a listener, out of two PEM files: rustls with `ring`, HTTP/1.1 only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rerankd_inference::files;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig, crypto};
use tokio_rustls::TlsAcceptor;

use crate::fresh::{Fresh, Lapse};
use crate::secret_file::{self, Group};

/// Longest time for a handshake; [`Limits::idle_timeout`](rerankd_core::Limits) if that is shorter.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Far more than any chain of certificates.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// The files of one listener, and the flags that name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to its root; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM.
    pub key: PathBuf,
    /// `--tls-cert` or `--admin-tls-cert`.
    pub certificate_flag: &'static str,
    /// `--tls-key` or `--admin-tls-key`.
    pub key_flag: &'static str,
}

impl TlsFiles {
    /// Reads and checks both. They are read anew when they change: the next handshake uses what is there
    /// then. What is wrong then replaces nothing: that revokes no certificate, and the log says it.
    ///
    /// # Errors
    /// A sentence that names the file and its flag.
    pub fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let files = self.clone();
        let paths = vec![self.certificate.clone(), self.key.clone()];
        let certificate = Fresh::new(self.certificate_flag, paths, Lapse::Keeps, move || {
            files.read()
        })?;
        let provider = Arc::new(crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Current(certificate)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn read(&self) -> Result<CertifiedKey, String> {
        let (certificate, key) = (&self.certificate, &self.key);
        let wrong_certificate = |problem: &str| {
            format!(
                "`{}` ({}): {problem}",
                certificate.display(),
                self.certificate_flag
            )
        };
        let wrong_key =
            |problem: &str| format!("`{}` ({}): {problem}", key.display(), self.key_flag);
        let pem = files::read_at_most(certificate, MAX_PEM_BYTES)
            .map_err(|error| wrong_certificate(&error.to_string()))?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong_certificate(&said(error, "certificate")))?;
        if chain.is_empty() {
            return Err(wrong_certificate(&said(
                pem::Error::NoItemsFound,
                "certificate",
            )));
        }
        let pem = secret_file::read(key, Group::Reads, MAX_PEM_BYTES)
            .map_err(|problem| wrong_key(&problem))?;
        let secret = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| wrong_key(&said(error, "private key")))?;
        let provider = crypto::ring::default_provider();
        let signing = provider
            .key_provider
            .load_private_key(secret)
            .map_err(|error| wrong_key(&format!("the key cannot be used: {error}")))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // Some kinds of keys do not say what their public half is.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(certified)
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(wrong_key(&format!(
                "it is not the key of the certificate `{}` ({})",
                certificate.display(),
                self.certificate_flag
            ))),
            Err(error) => Err(wrong_certificate(&format!(
                "the certificate cannot be used: {error}"
            ))),
        }
    }
}

/// Shows every client the certificate of now.
#[derive(Debug)]
struct Current(Fresh<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get()
    }
}

fn said(error: pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {wanted} in it; PEM is expected"),
        pem::Error::Io(error) => error.to_string(),
        error => format!("no PEM: {error}"),
    }
}
