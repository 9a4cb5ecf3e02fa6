//! Which fields policies read, for those who fetch documents: the search proxy, and whoever asks
//! `GET /v1/models/{name}`.

use rerankd_policy::PolicyVersion;
use rerankd_wire::search::FieldChoice;
use serde_json::Value;

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

/// How the fields that a policy reads may be chosen for it: by its parameter `fields`, where neither the
/// operator has set that nor the policy wants to see all. `None` where they may not, for one of the
/// versions that may answer.
pub(crate) fn choice_of_policy(app: &App, name: &str) -> Option<FieldChoice> {
    let route = app.releases.catalog().route(name)?;
    let mut choice = FieldChoice::default();
    for version in route.versions() {
        let (manifest, options) = (version.manifest(), version.options());
        let is_all = |fields: &[String]| fields.iter().any(|field| field == "*");
        if is_all(&manifest.fields) || options.parameters.contains_key("fields") {
            return None;
        }
        let schema = manifest
            .parameters
            .as_ref()?
            .get("properties")?
            .get("fields")?;
        if !takes_any_names(schema) {
            return None;
        }
        let chosen: Vec<&str> = schema.get("default").map(names).unwrap_or_default();
        for field in &manifest.fields {
            if !chosen.contains(&field.as_str()) && !choice.kept.contains(field) {
                choice.kept.push(field.clone());
            }
        }
        if let Some(grants) = options.grants.as_ref().filter(|grants| !is_all(grants)) {
            match &mut choice.grants {
                Some(common) => common.retain(|field| grants.contains(field)),
                None => choice.grants = Some(grants.clone()),
            }
        }
    }
    Some(choice)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether a schema takes every list of a few names: whatever else it says of them is not weighed here.
fn takes_any_names(schema: &Value) -> bool {
    const OF_LIST: [&str; 8] = [
        "type",
        "items",
        "minItems",
        "maxItems",
        "uniqueItems",
        "default",
        "description",
        "title",
    ];
    const OF_NAME: [&str; 4] = ["type", "minLength", "description", "title"];
    let says_only = |schema: &Value, keys: &[&str]| {
        schema
            .as_object()
            .is_some_and(|schema| schema.keys().all(|key| keys.contains(&key.as_str())))
    };
    let number = |key: &str| schema.get(key).map(|number| number.as_u64().unwrap_or(0));
    schema.get("type").is_none_or(|kind| kind == "array")
        && says_only(schema, &OF_LIST)
        && number("minItems").is_none_or(|least| least <= 1)
        && number("maxItems").is_none_or(|most| most >= 4)
        && schema.get("items").is_none_or(|items| {
            let length = items
                .get("minLength")
                .map(|least| least.as_u64().unwrap_or(2));
            says_only(items, &OF_NAME)
                && items.get("type").is_none_or(|kind| kind == "string")
                && length.is_none_or(|least| least <= 1)
        })
}
