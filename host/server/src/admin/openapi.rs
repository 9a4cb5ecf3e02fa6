//! The admin plane described for programs: OpenAPI 3.1, generated from the routes.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rerankd, admin plane",
        description = "Releases policies and gives them their roles."
    ),
    paths(
        super::policies::list,
        super::policies::detail,
        super::policies::put,
        super::policies::activate,
        super::policies::rollback,
        super::policies::canary,
        super::policies::shadow,
        super::warm::warm,
        super::policies::delete,
        super::events::events,
        super::models,
        super::metrics,
        super::policies::openapi,
    ),
    components(schemas(super::events::EventView)),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The text of `admin-token`, or of a token of `rerankd token new`",
            ));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// The document, JSON.
pub(super) fn document() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json()
}
