//! Which fields policies read, for those who fetch documents: the search proxy, and whoever asks
//! `GET /v1/models/{name}`.

use rerankd_policy::PolicyVersion;

use crate::app::App;

/// The fields of every version that may answer under a name: which one does is not known before a
/// request. `None` where there is no such policy. `*` is all fields.
pub(crate) fn of_policy(app: &App, name: &str) -> Option<Vec<String>> {
    let route = app.releases.catalog().route(name)?;
    let mut fields: Vec<String> = Vec::new();
    for version in route.versions() {
        for field in of_version(version) {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
    }
    Some(fields)
}

/// The fields of one version: its manifest's and its parameters', within what it is granted.
pub(crate) fn of_version(version: &PolicyVersion) -> Vec<String> {
    let options = version.options();
    let named = options.parameters.get("fields");
    let named = named.and_then(|fields| fields.as_array());
    let named = named.into_iter().flatten();
    let mut fields = version.manifest().fields.clone();
    fields.extend(named.filter_map(|field| field.as_str()).map(str::to_owned));
    let is_all = |fields: &[String]| fields.iter().any(|field| field == "*");
    match &options.grants {
        Some(grants) if !is_all(grants) && is_all(&fields) => grants.clone(),
        Some(grants) if !is_all(grants) => {
            fields.retain(|field| grants.contains(field));
            fields
        }
        _ => fields,
    }
}
