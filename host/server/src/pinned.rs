//! Certificates that were given to be trusted, shown by a server as its own.
//!
//! `openssl req -x509` makes a certificate that says of itself that it is an authority. Trusted as a root
//! it serves for those that it has signed, but rustls refuses it as a server's own. Whoever names the very
//! certificate of a server trusts it as what it is: if the name fits, and it has not expired.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Checks certificates against those that were given, as roots and as servers' own.
#[derive(Debug)]
pub(crate) struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<WebPkiServerVerifier>,
}

impl Pinned {
    /// # Errors
    /// There is no certificate among `roots`.
    pub(crate) fn new(
        certificates: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, VerifierBuilderError> {
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Arc::new(Self {
            certificates,
            roots,
        }))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.certificates.iter().any(|given| given == end_entity) {
            return self.roots.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let (not_before, not_after) = validity(end_entity).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > not_after {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// From when to when a certificate is valid, Unix seconds (RFC 5280, section 4.1).
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (mut signed, _) = element(whole, SEQUENCE)?;
    if let Some((_, rest)) = element(signed, VERSION) {
        signed = rest;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, signed) = element(signed, tag)?;
    }
    let (validity, _) = element(signed, SEQUENCE)?;
    let (not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    Some((not_before, not_after))
}

/// The content of the DER element at the beginning, if it has that tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        let length = bytes
            .iter()
            .fold(0, |length, &byte| length << 8 | usize::from(byte));
        (length, rest)
    };
    (found == tag)
        .then(|| rest.split_at_checked(length))
        .flatten()
}

/// A time, Unix seconds, and what follows it.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (digits, century, rest) = match element(der, UTC_TIME) {
        Some((text, rest)) => (text, None, rest),
        None => {
            let (text, rest) = element(der, GENERALIZED_TIME)?;
            let (century, text) = text.split_at_checked(2)?;
            (text, Some(century), rest)
        }
    };
    let two = |at: usize| -> Option<i64> {
        std::str::from_utf8(digits.get(at..at + 2)?)
            .ok()?
            .parse()
            .ok()
    };
    let year = two(0)?
        + match century {
            Some(century) => 100 * std::str::from_utf8(century).ok()?.parse::<i64>().ok()?,
            None if two(0)? < 50 => 2000,
            None => 1900,
        };
    let days = days_since_1970(year, two(2)?, two(4)?);
    let seconds = 3600 * two(6)? + 60 * two(8)? + two(10)?;
    (digits.get(12..) == Some(b"Z")).then_some((86_400 * days + seconds, rest))
}

/// Days of the Gregorian calendar: years begin in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let of = |tag: u8, text: &str| {
            let mut der = vec![tag, u8::try_from(text.len()).expect("it is short")];
            der.extend_from_slice(text.as_bytes());
            time(&der).map(|(seconds, _)| seconds)
        };
        assert_eq!(of(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(of(UTC_TIME, "000229120000Z"), Some(951_825_600));
        assert_eq!(of(UTC_TIME, "991231235959Z"), Some(946_684_799));
        assert_eq!(of(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(of(GENERALIZED_TIME, "20261128061500Z"), Some(1_795_846_500));
        assert_eq!(of(UTC_TIME, "7001010000Z"), None);
        assert_eq!(of(UTC_TIME, "7001010000000"), None);
        assert_eq!(of(INTEGER, "700101000000Z"), None);
        assert_eq!(validity(&[SEQUENCE, 0x82, 1]), None);
    }
}
