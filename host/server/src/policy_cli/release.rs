//! The commands that change or show what a server serves.

use std::path::Path;

use http::Method;
use rerankd_policy::artifact::Artifact;
use rerankd_policy::manifest::check_name;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::args::{CanaryArgs, DeleteArgs, ListArgs, NameArgs, PushArgs, ShadowArgs, VersionArgs};
use super::client::{Client, Sent, percent_encoded, progress, query, selectors};
use super::offline::{models, parameters};
use super::outcome::{Failure, Outcome, size, table};
use crate::cases::Cases;
use crate::terminal;

/// Uploads a component.
pub(super) fn push(flags: &PushArgs) -> Result<Outcome, Failure> {
    let component = super::build::read(&flags.file)?;
    // What the server would say as well, after the upload.
    Artifact::inspect(component.clone(), usize::MAX)
        .map_err(|error| Failure::refused(format!("`{}` is {error}", flags.file.display())))?;
    let name = policy_name(flags.name.as_deref(), &flags.file)?;
    let mut pairs = Vec::new();
    if flags.activate {
        pairs.push(("activate", "true".to_owned()));
    }
    pairs.extend(
        flags
            .release
            .grant
            .iter()
            .map(|field| ("grant", field.clone())),
    );
    let models = models(&flags.release)?;
    pairs.extend(
        models
            .iter()
            .map(|(slot, model)| ("model", format!("{slot}:{model}"))),
    );
    let parameters = parameters(&flags.release)?;
    let cases = flags.cases.as_deref().map(Cases::read).transpose();
    let cases = cases.map_err(Failure::Usage)?;

    let client = Client::new(&flags.server)?;
    progress(&format!(
        "pushing `{name}` ({}) to {}",
        size(component.len() as u64),
        client.base()
    ));
    let sent = match (flags.release.parameters.is_some(), &cases) {
        (false, None) => Sent::Bytes("application/wasm".to_owned(), component),
        (with_parameters, cases) => {
            let parameters = with_parameters.then(|| Value::Object(parameters).to_string());
            multipart(&component, parameters.as_deref(), cases.as_ref())
        }
    };
    let path = format!("/v1/policies/{name}{}", query(&pairs));
    let answer = client.call(Method::PUT, &path, sent)?;
    let state = text(&answer["state"]);
    let mut said = format!(
        "{}: {} is {state}{}\n",
        name,
        shown(&answer),
        if answer["created"] == json!(false) {
            " (it was there)"
        } else {
            ""
        }
    );
    if !answer["previous"].is_null() {
        said.push_str(&format!("before: {}\n", shown(&answer["previous"])));
    }
    let cases = &answer["cases"];
    if !cases.is_null() {
        // A release that was refused for its cases does not come here.
        let why = match cases["failed"].as_u64() {
            None | Some(0) => "",
            Some(_) => {
                "; the others hold for the component's defaults, not with the models or parameters of this release"
            }
        };
        said.push_str(&format!(
            "cases: {} of {} passed{why}\n",
            cases["passed"], cases["total"]
        ));
    }
    Ok(Outcome::good(said, answer))
}

/// The name under which a file is released: one that was given, else the file's own.
pub(super) fn policy_name(given: Option<&str>, file: &Path) -> Result<String, Failure> {
    let name = given.map_or_else(
        || {
            let stem = file.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        },
        str::to_owned,
    );
    check_name("--name", &name).map_err(Failure::Usage)?;
    Ok(name)
}

fn multipart(component: &[u8], parameters: Option<&str>, cases: Option<&Cases>) -> Sent {
    let parts = [
        ("component", "application/wasm", Some(component)),
        (
            "parameters",
            "application/json",
            parameters.map(str::as_bytes),
        ),
        (
            "cases",
            "application/json",
            cases.map(|cases| cases.text().as_bytes()),
        ),
    ];
    // Nothing that is sent holds its own digest.
    let mut hash = Sha256::new();
    for (_, _, content) in &parts {
        hash.update(content.unwrap_or_default());
    }
    let boundary = hex::encode(hash.finalize());
    let mut body = Vec::new();
    for (name, content_type, content) in parts {
        let Some(content) = content else { continue };
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             content-type: {content_type}\r\n\r\n"
        );
        body.extend(head.into_bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    Sent::Bytes(format!("multipart/form-data; boundary={boundary}"), body)
}

/// Policies, or the versions of one.
pub(super) fn list(flags: &ListArgs) -> Result<Outcome, Failure> {
    let path = match &flags.name {
        Some(name) => path_of(name, "")?,
        None => "/v1/policies".to_owned(),
    };
    let answer = Client::new(&flags.server)?.call(Method::GET, &path, Sent::Nothing)?;
    let text = match flags.name {
        Some(_) => versions(&answer),
        None => policies(&answer),
    };
    Ok(Outcome::good(text, answer))
}

fn policies(answer: &Value) -> String {
    let row = |policy: &Value| {
        let canary = match &policy["canary"] {
            Value::Null => "-".to_owned(),
            canary => format!("{} {} %", shown(canary), number(&canary["percent"])),
        };
        vec![
            text(&policy["name"]),
            shown(&policy["active"]),
            canary,
            shown(&policy["shadow"]),
            text(&policy["versions"]),
        ]
    };
    let rows: Vec<Vec<String>> = items(&answer["policies"]).iter().map(row).collect();
    table(&["NAME", "ACTIVE", "CANARY", "SHADOW", "VERSIONS"], &rows)
}

fn versions(answer: &Value) -> String {
    let row = |version: &Value| {
        let cases = match &version["cases"] {
            Value::Null => "-".to_owned(),
            cases => format!("{}/{}", cases["passed"], cases["total"]),
        };
        vec![
            text(&version["version"]),
            short(&version["digest"]),
            text(&version["state"]),
            version["component"]["bytes"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), size),
            cases,
            text(&version["created_at"]),
            text(&version["by"]),
        ]
    };
    let rows: Vec<Vec<String>> = items(&answer["versions"]).iter().map(row).collect();
    let head = [
        "VERSION", "DIGEST", "STATE", "SIZE", "CASES", "CREATED", "BY",
    ];
    table(&head, &rows)
}

/// Has a version answer from now on.
pub(super) fn activate(flags: &VersionArgs) -> Result<Outcome, Failure> {
    let client = Client::new(&flags.server)?;
    let path = path_of(&flags.name, "/activate")?;
    let answer = select(&client, &path, &flags.version, &Map::new())?;
    Ok(Outcome::good(now_active(&flags.name, &answer), answer))
}

/// Goes back to the version before.
pub(super) fn rollback(flags: &NameArgs) -> Result<Outcome, Failure> {
    let client = Client::new(&flags.server)?;
    let path = path_of(&flags.name, "/rollback")?;
    let answer = client.call(Method::POST, &path, Sent::Json(json!({})))?;
    Ok(Outcome::good(now_active(&flags.name, &answer), answer))
}

fn now_active(name: &str, answer: &Value) -> String {
    let active = shown(&answer["active"]);
    match &answer["previous"] {
        Value::Null => format!("{name}: {active} is active\n"),
        previous => format!("{name}: {active} is active; before: {}\n", shown(previous)),
    }
}

/// Gives a version a share of the requests.
pub(super) fn canary(flags: &CanaryArgs) -> Result<Outcome, Failure> {
    let client = Client::new(&flags.server)?;
    let path = path_of(&flags.name, "/canary")?;
    let mut extra = Map::new();
    extra.insert("percent".to_owned(), json!(flags.percent));
    let answer = select(&client, &path, &flags.version, &extra)?;
    let text = match &answer["canary"] {
        Value::Null => format!("{}: no canary\n", flags.name),
        canary => format!(
            "{}: {} gets {} % of the requests\n",
            flags.name,
            shown(canary),
            number(&canary["percent"])
        ),
    };
    Ok(Outcome::good(text, answer))
}

/// Runs a version beside the active one, or ends that.
pub(super) fn shadow(flags: &ShadowArgs) -> Result<Outcome, Failure> {
    let client = Client::new(&flags.server)?;
    let path = path_of(&flags.name, "/shadow")?;
    let answer = match &flags.version {
        Some(version) => select(&client, &path, version, &Map::new())?,
        None => client.call(Method::POST, &path, Sent::Json(json!({"digest": null})))?,
    };
    let text = match &answer["shadow"] {
        Value::Null => format!("{}: no shadow\n", flags.name),
        shadow => format!("{}: {} runs as shadow\n", flags.name, shown(shadow)),
    };
    Ok(Outcome::good(text, answer))
}

/// Deletes a version.
pub(super) fn delete(flags: &DeleteArgs) -> Result<Outcome, Failure> {
    let client = Client::new(&flags.server)?;
    // Digests are in lower case; a version need not be.
    let is_hex = flags.version.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = flags.version.to_ascii_lowercase();
    let call = |version: &str| {
        let version = percent_encoded(version);
        let path = path_of(&flags.name, &format!("/versions/{version}"))?;
        client.call(Method::DELETE, &path, Sent::Nothing)
    };
    match call(&flags.version) {
        Err(Failure::Refused {
            not_found: true, ..
        }) if is_hex && digest != flags.version => call(&digest)?,
        result => result?,
    };
    Ok(Outcome::good(
        format!("{}: {} is deleted\n", flags.name, flags.version),
        json!({"name": flags.name, "deleted": flags.version}),
    ))
}

/// Posts a version, as a digest or else as a version.
fn select(
    client: &Client,
    path: &str,
    version: &str,
    extra: &Map<String, Value>,
) -> Result<Value, Failure> {
    let mut first = None;
    for mut body in selectors(version) {
        body.extend(extra.clone());
        match client.call(Method::POST, path, Sent::Json(Value::Object(body))) {
            Err(
                failure @ Failure::Refused {
                    not_found: true, ..
                },
            ) => {
                first.get_or_insert(failure);
            }
            result => return result,
        }
    }
    Err(first.unwrap_or_else(|| Failure::Usage(format!("`{version}` is no version"))))
}

fn path_of(name: &str, rest: &str) -> Result<String, Failure> {
    check_name("NAME", name).map_err(Failure::Usage)?;
    Ok(format!("/v1/policies/{name}{rest}"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `0.1.0@3f2a91c0`.
fn shown(version: &Value) -> String {
    if version.is_null() {
        return "-".to_owned();
    }
    format!(
        "{}@{}",
        text(&version["version"]),
        short(&version["digest"])
    )
}

fn short(digest: &Value) -> String {
    text(digest).chars().take(8).collect()
}

/// `10` for 10.0.
fn number(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| text(value), |number| number.to_string())
}

/// What stands in a table for a value; what a server says cannot steer the terminal.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => terminal::one_line(text).into_owned(),
        other => other.to_string(),
    }
}
