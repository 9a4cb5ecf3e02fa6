//! Routes of the admin plane that release policies and give them their roles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rerankd_inference::name::check_model_name;
use rerankd_policy::compiler::Priority;
use rerankd_policy::parameters::MAX_PARAMETERS_BYTES;
use rerankd_policy::release::{Changed, Upload};
use rerankd_policy::store::StoreError;
use rerankd_policy::traffic::Words;
use rerankd_policy::{ReleaseError, VersionSelector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Map;
use utoipa::ToSchema;

use super::bodies::{self, Most, too_many_uploads};
use super::views::{ActivatedView, PolicyDetail, PolicyList, PolicySummary, ReleasedView, Roles};
use super::{AdminError, Identity, Right};
use crate::admission::Permit;
use crate::app::App;
use crate::config::Config;

/// Longest time for an upload to arrive.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Largest JSON body of a change of roles, bytes.
const MAX_JSON_BYTES: usize = 64 << 10;

/// What may stand beside the component in an upload, bytes.
const UPLOAD_EXTRA_BYTES: usize = 1 << 20;

type Answer<T> = Result<Json<T>, AdminError>;
type Caller = Extension<Identity>;

/// Which version; exactly one of the two.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({"version": "0.1.0"}))]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The digest, or its first 8 digits or more.
    digest: Option<String>,
    /// The version string of its manifest.
    version: Option<String>,
}

/// Which version, and its share.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"version": "0.1.0", "percent": 10}))]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    /// The digest, or its first 8 digits or more.
    digest: Option<String>,
    /// The version string of its manifest.
    version: Option<String>,
    /// 0 to 100; 0 ends the canary.
    percent: f64,
}

/// Which version, or `null` in one of the two for none.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({"version": "0.1.0"}))]
#[serde(deny_unknown_fields)]
pub(super) struct WhichOrNone {
    /// The digest, or its first 8 digits or more; `null` for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    digest: Option<Option<String>>,
    /// The version string of its manifest; `null` for none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    version: Option<Option<String>>,
}

/// `null` as a value, and not as a key that is not there.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// Nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A component with what belongs to it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes a form, which is read part by part")]
pub(super) struct UploadForm {
    /// The component.
    #[schema(value_type = String, format = Binary, content_media_type = "application/wasm")]
    component: Bytes,
    /// Values for parameters, a JSON object.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, serde_json::Value>>,
    /// The fields that the policy may see, a JSON array.
    grants: Option<Vec<String>>,
    /// Cases in place of those that the component carries, JSON.
    #[schema(value_type = Option<Object>)]
    cases: Option<String>,
}

/// A component alone.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary, content_media_type = "application/wasm")]
#[expect(dead_code, reason = "it describes a body, which is read as it is")]
pub(super) struct ComponentBody(Bytes);

impl Which {
    fn wanted(self) -> Result<VersionSelector, AdminError> {
        match (self.digest, self.version) {
            (Some(digest), None) => Ok(VersionSelector::digest(&digest)),
            (None, Some(version)) => Ok(VersionSelector::version(&version)),
            _ => Err(AdminError::bad_request(
                "the body must have either `digest` or `version`",
            )),
        }
    }
}

impl WhichOrNone {
    fn wanted(self) -> Result<Option<VersionSelector>, AdminError> {
        match (self.digest, self.version) {
            (Some(digest), None) => Ok(digest.map(|digest| VersionSelector::digest(&digest))),
            (None, Some(version)) => Ok(version.map(|version| VersionSelector::version(&version))),
            _ => Err(AdminError::bad_request(
                "the body must have either `digest` or `version`; `null` ends the shadow",
            )),
        }
    }
}

/// All policies that the token may read.
#[utoipa::path(get, path = "/v1/policies", tag = "policies",
    responses((status = 200, body = PolicyList), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Caller,
) -> Answer<PolicyList> {
    let mut policies = Vec::new();
    for name in app.releases.names().await.map_err(refused)? {
        if identity.may(Right::Read, &name.name) {
            let versions = app.releases.versions(&name.name).await.map_err(refused)?;
            let roles = Roles {
                name: &name,
                versions: &versions,
            };
            policies.push(roles.summary());
        }
    }
    Ok(Json(PolicyList { policies }))
}

/// One policy: its versions, what decides them, and what became of their calls. What a policy says
/// (messages, log lines) is shown to tokens with the right `texts`.
#[utoipa::path(get, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend")),
    responses((status = 200, body = PolicyDetail), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn detail(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Extension(identity): Caller,
) -> Answer<PolicyDetail> {
    let versions = app.releases.versions(&name).await.map_err(refused)?;
    if versions.is_empty() {
        return Err(refused(ReleaseError::UnknownPolicy(name)));
    }
    let record = app.releases.name(&name).await.map_err(refused)?;
    let mut record = record.unwrap_or_default();
    record.name.clone_from(&name);
    let roles = Roles {
        name: &record,
        versions: &versions,
    };
    let words = if identity.may(Right::Texts, &name) {
        Words::Shown
    } else {
        Words::Withheld
    };
    Ok(Json(roles.detail(|digest| {
        let Some(traffic) = app.releases.traffic().known(digest) else {
            return (None, None);
        };
        let calls = serde_json::to_value(traffic.snapshot(words)).ok();
        let shadow = traffic.shadow.snapshot();
        (
            calls,
            shadow.and_then(|shadow| serde_json::to_value(shadow).ok()),
        )
    })))
}

/// Releases a component: the body is the component, or a form with the parts `component`,
/// `parameters`, `grants` and `cases`.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = String, Path, description = "The policy's name, as in its manifest", example = "semantic-blend"),
        ("activate" = Option<bool>, Query, description = "Whether it becomes active if all goes well"),
        ("parameters" = Option<String>, Query, description = "A JSON object"),
        ("grant" = Option<Vec<String>>, Query, description = "A field that the policy may see; may be repeated"),
        ("model" = Option<Vec<String>>, Query, description = "SLOT:MODEL; may be repeated"),
    ),
    request_body(content((ComponentBody = "application/wasm"),
        (UploadForm = "multipart/form-data", encoding(
            ("parameters" = (content_type = "application/json")),
            ("grants" = (content_type = "application/json")),
            ("cases" = (content_type = "application/json")))))),
    responses(
        (status = 201, body = ReleasedView), (status = 200, body = ReleasedView),
        (status = "4XX", body = super::error::ErrorBody), (status = "5XX", body = super::error::ErrorBody)))]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Extension(identity): Caller,
    request: Request,
) -> Result<(StatusCode, Json<ReleasedView>), AdminError> {
    let Ok(Query(query)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Err(AdminError::bad_request("the query cannot be read"));
    };
    // Who sends slowly takes no place from others, but what would find none is not read.
    if app.uploads.available_permits() == 0 {
        return Err(too_many_uploads());
    }
    rerankd_policy::manifest::check_name("name", &name).map_err(AdminError::bad_request)?;
    let mut upload = Upload {
        name,
        component: Vec::new(),
        parameters: Map::new(),
        models: BTreeMap::new(),
        grants: None,
        cases: None,
        activate: false,
        who: identity.name().to_owned(),
        source: "upload".to_owned(),
        priority: Priority::Background,
    };
    for (key, value) in query {
        read_query(&mut upload, &key, &value)?;
    }
    if upload.activate {
        identity.require(Right::Activate, &upload.name)?;
    }
    let _room = read_body(&app, &mut upload, request).await?;
    let _place = app.uploads.try_acquire().map_err(|_| too_many_uploads())?;
    let name = upload.name.clone();
    let released = app.releases.upload(upload).await.map_err(refused)?;
    let versions = app.releases.versions(&name).await.map_err(refused)?;
    let record = app.releases.name(&name).await.map_err(refused)?;
    let roles = Roles {
        name: &record.unwrap_or_default(),
        versions: &versions,
    };
    let previous = released.activated.and_then(|changed| changed.previous);
    let view = ReleasedView {
        state: roles.state(&released.version.digest),
        previous: previous.map(|digest| roles.version(&digest)),
        name,
        digest: released.version.digest,
        version: released.version.version,
        created: released.created,
        cases: released.version.cases,
    };
    let status = if view.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(view)))
}

/// Largest body of an upload.
pub(crate) fn max_upload_bytes(config: &Config) -> usize {
    config.releases.max_component_bytes + UPLOAD_EXTRA_BYTES
}

fn read_query(upload: &mut Upload, key: &str, value: &str) -> Result<(), AdminError> {
    match key {
        "activate" => match value {
            "true" => upload.activate = true,
            "false" => upload.activate = false,
            _ => {
                return Err(AdminError::bad_request(
                    "`activate` must be `true` or `false`",
                ));
            }
        },
        "parameters" => upload.parameters = json_part(key, value.as_bytes())?,
        "grant" => upload
            .grants
            .get_or_insert_with(Vec::new)
            .push(value.to_owned()),
        "model" => {
            let Some((slot, model)) = value.split_once(':') else {
                return Err(AdminError::bad_request(format!(
                    "`model` must be SLOT:MODEL, got `{value}`"
                )));
            };
            check_model_name("`model`", model).map_err(AdminError::bad_request)?;
            upload.models.insert(slot.to_owned(), model.to_owned());
        }
        _ => {
            return Err(AdminError::bad_request(format!(
                "no query key `{key}`; there are: `activate`, `parameters`, `grant`, `model`"
            )));
        }
    }
    Ok(())
}

/// Reads an upload. Its bytes have room until the permit is dropped.
async fn read_body(app: &App, upload: &mut Upload, request: Request) -> Result<Permit, AdminError> {
    let media = request.headers().get(header::CONTENT_TYPE).cloned();
    let form = media.is_some_and(|media| {
        let media = media.as_bytes();
        media.len() >= 10 && media[..10].eq_ignore_ascii_case(b"multipart/")
    });
    let most = Most {
        bytes: max_upload_bytes(&app.config),
        time: UPLOAD_TIMEOUT,
        too_large: body_error(StatusCode::PAYLOAD_TOO_LARGE, ""),
    };
    let (parts, whole, mut room) = bodies::whole(app, request, &most).await?;
    if !form {
        upload.component = whole.into();
        return Ok(room);
    }
    // The parts are copies.
    bodies::take_room(app, parts.extensions.get(), &mut room, whole.len())?;
    let request = Request::from_parts(parts, axum::body::Body::from(whole));
    let wrong = |error: axum::extract::multipart::MultipartError| {
        body_error(error.status(), &error.body_text())
    };
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| body_error(error.status(), &error.body_text()))?;
    let mut seen = Vec::new();
    while let Some(part) = form.next_field().await.map_err(wrong)? {
        let name = part.name().unwrap_or_default().to_owned();
        if seen.contains(&name) {
            return Err(AdminError::bad_request(format!(
                "the part `{name}` is there twice"
            )));
        }
        let content = part.bytes().await.map_err(wrong)?;
        match name.as_str() {
            "component" => upload.component = content.into(),
            "parameters" => upload.parameters = json_part(&name, &content)?,
            "grants" => upload.grants = Some(json_part(&name, &content)?),
            "cases" => {
                let cases = String::from_utf8(content.into());
                let not_text = |_| AdminError::bad_request("the part `cases` is not UTF-8");
                upload.cases = Some(cases.map_err(not_text)?);
            }
            _ => {
                return Err(AdminError::bad_request(format!(
                    "no part `{name}`; there are: `component`, `parameters`, `grants`, `cases`"
                )));
            }
        }
        seen.push(name);
    }
    if seen.iter().any(|name| name == "component") {
        Ok(room)
    } else {
        Err(AdminError::bad_request("the part `component` is missing"))
    }
}

fn body_error(status: StatusCode, text: &str) -> AdminError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => AdminError::too_large(
            "the body is larger than a component may be (--max-component-mib)",
        )
        .with_step("inspect"),
        _ => AdminError::bad_request(format!("the body: {}", text.to_lowercase())),
    }
}

fn json_part<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, AdminError> {
    if text.len() > MAX_PARAMETERS_BYTES {
        return Err(AdminError::too_large(format!(
            "`{name}`: {} bytes; at most {MAX_PARAMETERS_BYTES} are taken",
            text.len()
        )));
    }
    serde_json::from_slice(text)
        .map_err(|error| AdminError::bad_request(format!("`{name}`: {error}")))
}

/// Makes a version the active one.
#[utoipa::path(post, path = "/v1/policies/{name}/activate", tag = "roles",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend")), request_body = Which,
    responses((status = 200, body = ActivatedView), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn activate(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Extension(identity): Caller,
    request: Request,
) -> Answer<ActivatedView> {
    let wanted = json::<Which>(&app, request).await?.wanted()?;
    let changed = app
        .releases
        .activate(&name, &wanted, identity.name())
        .await
        .map_err(refused)?;
    activated(&app, changed).await
}

/// Makes the version that was active before the active one again.
#[utoipa::path(post, path = "/v1/policies/{name}/rollback", tag = "roles",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend")), request_body = Nothing,
    responses((status = 200, body = ActivatedView), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Extension(identity): Caller,
    request: Request,
) -> Answer<ActivatedView> {
    let Nothing {} = json(&app, request).await?;
    known(&app, &name).await?;
    let changed = app
        .releases
        .rollback(&name, identity.name())
        .await
        .map_err(refused)?;
    activated(&app, changed).await
}

/// Gives a version a share of the requests.
#[utoipa::path(post, path = "/v1/policies/{name}/canary", tag = "roles",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend")), request_body = Share,
    responses((status = 200, body = PolicySummary), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn canary(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Extension(identity): Caller,
    request: Request,
) -> Answer<PolicySummary> {
    let share: Share = json(&app, request).await?;
    if !(0.0..=100.0).contains(&share.percent) {
        return Err(AdminError::bad_request(format!(
            "`percent` must be 0 to 100, got {}",
            share.percent
        )));
    }
    let which = Which {
        digest: share.digest,
        version: share.version,
    };
    let changed = app
        .releases
        .canary(&name, &which.wanted()?, share.percent, identity.name())
        .await
        .map_err(refused)?;
    summary(&app, changed).await
}

/// Has a version run beside the answers, and compared; `null` in place of the version ends it.
#[utoipa::path(post, path = "/v1/policies/{name}/shadow", tag = "roles",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend")), request_body = WhichOrNone,
    responses((status = 200, body = PolicySummary), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn shadow(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Extension(identity): Caller,
    request: Request,
) -> Answer<PolicySummary> {
    let wanted = json::<WhichOrNone>(&app, request).await?.wanted()?;
    known(&app, &name).await?;
    let changed = app
        .releases
        .shadow(&name, wanted.as_ref(), identity.name())
        .await
        .map_err(refused)?;
    summary(&app, changed).await
}

/// Deletes a version that has no role.
#[utoipa::path(delete, path = "/v1/policies/{name}/versions/{digest}", tag = "policies",
    params(("name" = String, Path, description = "The policy's name", example = "semantic-blend"),
        ("digest" = String, Path, description = "The version's digest, its first 8 digits or more, or the version string of its manifest", example = "3f2a91c0")),
    responses((status = 204), (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path((name, digest)): Path<(String, String)>,
    Extension(identity): Caller,
) -> Result<StatusCode, AdminError> {
    app.releases
        .delete(&name, &VersionSelector::any(&digest), identity.name())
        .await
        .map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn known(app: &App, name: &str) -> Result<(), AdminError> {
    let versions = app.releases.versions(name).await.map_err(refused)?;
    if versions.is_empty() {
        return Err(refused(ReleaseError::UnknownPolicy(name.to_owned())));
    }
    Ok(())
}

async fn json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, AdminError> {
    let most = Most {
        bytes: MAX_JSON_BYTES,
        time: app.config.limits.body_timeout,
        too_large: AdminError::too_large(format!("the body: more than {MAX_JSON_BYTES} bytes")),
    };
    let bytes = bodies::small(app, request, &most).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| AdminError::bad_request(format!("the body: {error}")))
}

async fn activated(app: &App, changed: Changed) -> Answer<ActivatedView> {
    let versions = app.releases.versions(&changed.name.name).await;
    let roles = Roles {
        name: &changed.name,
        versions: &versions.map_err(refused)?,
    };
    Ok(Json(roles.activated(changed.previous.as_deref())))
}

async fn summary(app: &App, changed: Changed) -> Answer<PolicySummary> {
    let versions = app.releases.versions(&changed.name.name).await;
    let roles = Roles {
        name: &changed.name,
        versions: &versions.map_err(refused)?,
    };
    Ok(Json(roles.summary()))
}

/// A release that was refused, as an answer.
pub(super) fn refused(error: ReleaseError) -> AdminError {
    use ReleaseError as E;
    let message = error.to_string();
    let step = error.step().name();
    match error {
        E::TooLarge { .. } => AdminError::too_large(message).with_step(step),
        E::UnknownPolicy(_) | E::UnknownVersion { .. } => AdminError::not_found(message),
        E::Store(StoreError::Unknown { .. }) => AdminError::not_found(message),
        E::Store(
            StoreError::Conflict { .. }
            | StoreError::LooksLikeDigest { .. }
            | StoreError::TooManyVersions { .. },
        ) => AdminError::conflict(message).with_step(step),
        E::Store(StoreError::InRole { .. }) | E::Refused(_) => AdminError::conflict(message),
        E::Store(StoreError::NoSpace { .. } | StoreError::ReadOnly { .. }) => AdminError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "insufficient_storage",
            message,
        )
        .with_step(step),
        E::ShuttingDown => {
            AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
        }
        E::Busy(_) => AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
            .with_step(step)
            .with_header(header::RETRY_AFTER, header::HeaderValue::from_static("1")),
        E::Host(_) | E::Store(_) => {
            tracing::error!(error = message, "release failed on the host");
            AdminError::internal(message).with_step(step)
        }
        _ => AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", message).with_step(step),
    }
}

/// The document that describes all of this.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "about",
    responses((status = 200, content_type = "application/json", body = Object),
        (status = "4XX", body = super::error::ErrorBody)))]
pub(super) async fn openapi() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    match super::openapi::document() {
        Ok(text) => (headers, text).into_response(),
        Err(error) => {
            AdminError::internal(format!("the document cannot be written: {error}")).into_response()
        }
    }
}
