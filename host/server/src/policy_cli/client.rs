//! The way to a server's admin plane: HTTP with a token.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use rerankd_inference::files;
use serde_json::{Map, Value, json};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider};

use super::args::ServerArgs;
use super::outcome::Failure;
use crate::listener::LACKS_TLS;
use crate::{data_folder, terminal};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for an answer: a release is compiled and tested meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Longest time for the body of an answer to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Where systems keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// A server's admin plane.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
    /// Where a token was looked for.
    token_file: Option<PathBuf>,
}

/// What goes along with a call.
pub(super) enum Sent {
    /// Nothing.
    Nothing,
    /// A JSON body.
    Json(Value),
    /// A body of some content type.
    Bytes(String, Vec<u8>),
}

impl Client {
    /// For answers that end.
    pub(super) fn new(flags: &ServerArgs) -> Result<Self, Failure> {
        Self::with_body_timeout(flags, Some(BODY_TIMEOUT))
    }

    /// For answers that go on as long as the server does.
    pub(super) fn endless(flags: &ServerArgs) -> Result<Self, Failure> {
        Self::with_body_timeout(flags, None)
    }

    fn with_body_timeout(
        flags: &ServerArgs,
        body_timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        let wrong = |problem: &str| {
            Failure::Usage(format!(
                "`{}` (--to) {problem}; it must be a URL such as http://127.0.0.1:9600",
                flags.to
            ))
        };
        let url: Uri = flags
            .to
            .parse()
            .map_err(|error| wrong(&format!("is no URL ({error})")))?;
        let host = url.host().ok_or_else(|| wrong("names no host"))?;
        let secure = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("is neither http nor https")),
        };
        let local = is_loopback(host);
        let (token, token_file) = token(flags, local)?;
        if !secure && !local && token.is_some() {
            terminal::warn(&format!(
                "rerankd: warning: the token goes to `{host}` in the clear: use https"
            ));
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A token goes to the server that was named, and no other.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(body_timeout)
            .user_agent(concat!("rerankd/", env!("CARGO_PKG_VERSION")));
        if local {
            config = config.proxy(None);
        }
        if secure {
            config = config.tls_config(tls(flags.ca.as_deref(), "--ca")?);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            base: flags.to.trim_end_matches('/').to_owned(),
            token,
            token_file,
        })
    }

    /// The URL that was named.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// A call whose answer is JSON; nothing (204) is null.
    pub(super) fn call(&self, method: Method, path: &str, sent: Sent) -> Result<Value, Failure> {
        let mut response = self.send(method, path, sent, &[])?;
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_vec()
            .map_err(|error| self.unreachable(&error))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.stranger(response.status()))
    }

    /// A call whose answer is good; its body is not read yet.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        sent: Sent,
        headers: &[(&str, &str)],
    ) -> Result<http::Response<ureq::Body>, Failure> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if matches!(sent, Sent::Bytes(..)) {
            // A server that refuses it says so before it gets it, and may close the connection then.
            request = request.header("expect", "100-continue");
        }
        let (content_type, body) = match sent {
            Sent::Nothing => (None, None),
            Sent::Json(value) => (
                Some("application/json".to_owned()),
                Some(value.to_string().into_bytes()),
            ),
            Sent::Bytes(content_type, bytes) => (Some(content_type), Some(bytes)),
        };
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let malformed = |error: http::Error| {
            Failure::Usage(format!("this cannot be asked of a server: {error}"))
        };
        let response = match body {
            Some(body) => self.agent.run(request.body(body).map_err(malformed)?),
            None => self.agent.run(request.body(()).map_err(malformed)?),
        };
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response))
        }
    }

    fn refusal(&self, mut response: http::Response<ureq::Body>) -> Failure {
        let status = response.status();
        if status.is_redirection() {
            return Failure::Unreachable(format!(
                "`{}` answers with a redirect ({status}), which is not followed: --to must be the admin address itself",
                self.base
            ));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(1 << 20)
            .read_to_vec();
        let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
        let error = &body["error"];
        let Some(message) = error["message"].as_str() else {
            return self.stranger(status);
        };
        if body["status"] == "error" {
            return Failure::Unreachable(format!(
                "`{}` is the data plane; the admin plane has an address of its own (--admin-listen, by default 127.0.0.1:9600)",
                self.base
            ));
        }
        if message == LACKS_TLS {
            let https = self.base.replacen("http://", "https://", 1);
            return Failure::Unreachable(format!(
                "`{}` speaks HTTPS alone: it is `{https}` (--to)",
                self.base
            ));
        }
        let mut sentence = match error["step"].as_str() {
            Some(step) => format!("step `{step}`: {message}"),
            None => message.to_owned(),
        };
        if status == StatusCode::UNAUTHORIZED {
            sentence.push_str(&self.where_tokens_are());
        }
        Failure::Refused {
            message: sentence,
            error: Some(error.clone()),
            not_found: status == StatusCode::NOT_FOUND,
        }
    }

    /// An answer that rerankd would not give.
    pub(super) fn stranger(&self, status: StatusCode) -> Failure {
        Failure::Unreachable(format!(
            "what listens at `{}` is not rerankd's admin plane: it answered {status}",
            self.base
        ))
    }

    fn where_tokens_are(&self) -> String {
        match (&self.token, &self.token_file) {
            (None, Some(file)) => format!(
                " (there is no token at `{}`: name one with --token or RERANKD_TOKEN, or the server's folder with --data-dir)",
                file.display()
            ),
            (None, None) => " (a server elsewhere needs --token or RERANKD_TOKEN)".to_owned(),
            (Some(_), Some(file)) => format!(" (the token is that of `{}`)", file.display()),
            (Some(_), None) => String::new(),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let base = &self.base;
        Failure::Unreachable(match error {
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => format!(
                "nothing listens at `{base}`: start the server with `rerankd serve`, or name another with --to"
            ),
            ureq::Error::Timeout(_) => format!("`{base}` does not answer in time ({error})"),
            ureq::Error::HostNotFound => format!("there is no host of `{base}` (--to)"),
            ureq::Error::Io(io) if is_untrusted(io) => {
                format!("`{base}` cannot be trusted ({io}): --ca names the certificates to trust")
            }
            _ => format!("`{base}` cannot be asked: {error}"),
        })
    }
}

fn is_untrusted(error: &std::io::Error) -> bool {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token, and the file that it was looked for in. That of a server on this machine is not sent to
/// another one, unless the folder is named.
fn token(flags: &ServerArgs, local: bool) -> Result<(Option<String>, Option<PathBuf>), Failure> {
    if let Some(token) = &flags.token {
        let token = token.trim();
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Failure::Usage(
                "the token (--token, RERANKD_TOKEN) is empty or has characters that no token has"
                    .to_owned(),
            ));
        }
        return Ok((Some(token.to_owned()), None));
    }
    let folder = match &flags.data_dir {
        Some(folder) => Some(folder.clone()),
        None if local => Some(data_folder::default_path()),
        None => None,
    };
    let Some(file) = folder.map(|folder| folder.join("admin-token")) else {
        return Ok((None, None));
    };
    match files::read_to_string(&file) {
        Ok(text) => Ok((Some(text.trim().to_owned()), Some(file))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((None, Some(file))),
        Err(error) => Err(Failure::Usage(format!(
            "cannot read the token in `{}`: {error}",
            file.display()
        ))),
    }
}

/// TLS that trusts the certificates of a file, which `flag` names, or the system's.
pub(super) fn tls(ca: Option<&Path>, flag: &str) -> Result<TlsConfig, Failure> {
    let file = match ca {
        Some(file) => file.to_owned(),
        None => SYSTEM_CERTIFICATES
            .iter()
            .map(PathBuf::from)
            .find(|file| file.is_file())
            .ok_or_else(|| {
                Failure::Usage(format!(
                    "this system keeps no certificates in a known place: name a file with {flag}"
                ))
            })?,
    };
    let wrong =
        |problem: String| Failure::Usage(format!("`{}` ({flag}): {problem}", file.display()));
    let pem = std::fs::read(&file).map_err(|error| wrong(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate.to_owned()),
            Ok(_) => {}
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

/// A query of a URL: `?a=1&b=2`, or nothing.
pub(super) fn query(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", percent_encoded(value)))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

/// All but the unreserved characters of RFC 3986, as `%XX`.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A step of long work, for people who watch.
pub(super) fn progress(text: &str) {
    if terminal::is_watched() {
        terminal::warn(&format!("{text} .."));
    }
}

/// A version as the API wants it named: candidates, the likeliest first. Eight or more hex digits are
/// a digest, or else a version that looks like one (`20260131`).
pub(super) fn selectors(version: &str) -> Vec<Map<String, Value>> {
    let length = version.len();
    let is_hex = version.chars().all(|c| c.is_ascii_hexdigit());
    let member = |key: &str, value: &str| {
        let value = json!({ key: value });
        value.as_object().cloned().unwrap_or_default()
    };
    let (digest, version) = (
        member("digest", &version.to_ascii_lowercase()),
        member("version", version),
    );
    match is_hex {
        true if length == 64 => vec![digest],
        true if length >= 8 => vec![digest, version],
        _ => vec![version],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let pairs = [
            ("grant", "brand.name".to_owned()),
            ("model", "a:b c&d".to_owned()),
        ];
        assert_eq!(query(&pairs), "?grant=brand.name&model=a%3Ab%20c%26d");
        assert_eq!(query(&[]), "");
    }

    #[test]
    fn loopback_has_many_names() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "10.0.0.1",
            "127.0.0.1.example.org",
            "[2001:db8::1]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_date_may_be_a_version() {
        let keys = |version: &str| -> Vec<String> {
            let selectors = selectors(version);
            selectors.iter().flat_map(|s| s.keys().cloned()).collect()
        };
        assert_eq!(keys("0.1.0"), ["version"]);
        assert_eq!(keys("3f2a91c"), ["version"]);
        assert_eq!(keys("20260131"), ["digest", "version"]);
        assert_eq!(keys(&"a".repeat(64)), ["digest"]);
    }
}
