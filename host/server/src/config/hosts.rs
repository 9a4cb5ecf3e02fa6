//! The part of the configuration that is about names in `Host`.

use crate::host_names::without_port;

/// Names under which a plane may be called, each of which must be one.
pub(super) fn allowed(
    flag: &str,
    given: &[String],
    file: Option<Vec<String>>,
    faults: &mut Vec<String>,
) -> Vec<String> {
    let hosts = super::first_given(given, file, Vec::new);
    for host in &hosts {
        if host.contains(['*', '?']) {
            faults.push(format!(
                "`{host}` ({flag}) is a pattern, and would match nothing: give each name, such as search.internal"
            ));
        } else if !is_host(host) {
            faults.push(format!(
                "`{host}` ({flag}) must be a name or an address, with or without a port, such as search.internal:9600"
            ));
        }
    }
    hosts
}

/// Whether a text can stand in a `Host` header.
fn is_host(text: &str) -> bool {
    let parsed = text.parse::<http::uri::Authority>();
    let port = text.strip_prefix(without_port(text)).unwrap_or_default();
    let port = port.strip_prefix(':').unwrap_or_default();
    parsed.is_ok_and(|host| !host.as_str().contains('@') && !host.host().is_empty())
        && (port.is_empty() || port.parse::<u16>().is_ok())
        && !text.ends_with(':')
}
