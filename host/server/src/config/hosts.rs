//! The part of the configuration that is about names in `Host`.

/// Names under which a plane may be called, each of which must be one.
pub(super) fn allowed(
    flag: &str,
    given: &[String],
    file: Option<Vec<String>>,
    faults: &mut Vec<String>,
) -> Vec<String> {
    let hosts = super::first_given(given, file, Vec::new);
    for host in hosts.iter().filter(|host| !is_host(host)) {
        faults.push(format!(
            "`{host}` ({flag}) must be a name or an address, with or without a port, such as search.internal:9600"
        ));
    }
    hosts
}

/// Whether a text can stand in a `Host` header.
fn is_host(text: &str) -> bool {
    let parsed = text.parse::<http::uri::Authority>();
    parsed.is_ok_and(|host| !host.as_str().contains('@') && !host.host().is_empty())
}
