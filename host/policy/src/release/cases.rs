//! The step **cases**: whose they are decides what they must hold for.
//!
//! Cases that come beside a component are for the version that is released: one that fails refuses it.
//! Cases in a component tell of the component: they hold for the models that its manifest names and the
//! defaults of its parameters, and run over these. Where the operator has bound another model, or set
//! parameters, they run over those as well, and what fails there is told, but refuses nothing: a model of
//! another language answers other queries.

use std::sync::Arc;

use serde_json::Value;
use wasmtime::component::Component;

use super::{Releases, TestReport, Upload};
use crate::artifact::Artifact;
use crate::error::ReleaseError;
use crate::parameters::Counts;
use crate::store::VersionRecord;
use crate::version::{CompiledPolicy, PolicyOptions, PolicyVersion};

impl Releases {
    /// Runs the cases, unless the same version passed them before.
    pub(super) async fn run_cases(
        &self,
        upload: &Upload,
        artifact: &Artifact,
        component: Component,
        version: &Arc<PolicyVersion>,
        known: Option<&VersionRecord>,
    ) -> Result<Option<Value>, ReleaseError> {
        if let Some(known) = known.filter(|known| known.case_source == upload.cases) {
            return Ok(known.cases.clone());
        }
        if let Some(cases) = &upload.cases {
            return self.must_pass(version, cases).await.map(Some);
        }
        let Some(cases) = artifact.cases() else {
            return Ok(None);
        };
        if has_defaults(version) {
            return self.must_pass(version, cases).await.map(Some);
        }
        match self.with_defaults(version, component).await {
            Ok(plain) => {
                self.must_pass(&plain, cases).await?;
            }
            // Who has bound a model of their own need not have the one that was replaced.
            Err(ReleaseError::Model { .. }) => {}
            Err(error) => return Err(error),
        }
        let report = self.run_on(version, cases).await?;
        if report.failed > 0 {
            tracing::warn!(
                policy = version.name(),
                version = version.short_digest(),
                failed = report.failed,
                cases = report.total,
                "cases in the component fail with the models or parameters that are configured; the version's `cases` on the admin plane say which"
            );
        }
        Ok(Some(report.json))
    }

    async fn must_pass(
        &self,
        version: &Arc<PolicyVersion>,
        cases: &str,
    ) -> Result<Value, ReleaseError> {
        let report = self.run_on(version, cases).await?;
        if report.failed > 0 {
            return Err(ReleaseError::CasesFailed {
                failed: report.failed,
                total: report.total,
                first: report.first_failure.unwrap_or_default(),
                report: report.json,
            });
        }
        Ok(report.json)
    }

    async fn run_on(
        &self,
        version: &Arc<PolicyVersion>,
        cases: &str,
    ) -> Result<TestReport, ReleaseError> {
        let run = self.self_test.run(Arc::clone(version), cases.to_owned());
        run.await
    }

    /// The same component with the models and parameters of its manifest; it is kept nowhere.
    async fn with_defaults(
        &self,
        version: &PolicyVersion,
        component: Component,
    ) -> Result<Arc<PolicyVersion>, ReleaseError> {
        let options = PolicyOptions {
            allow_wasi: version.options().allow_wasi,
            grants: version.options().grants.clone(),
            ..PolicyOptions::default()
        };
        let compiled = CompiledPolicy::describe(
            &self.engine,
            component,
            version.component(),
            options,
            version.limits(),
            Counts::Bounded,
        );
        self.bind(compiled.await?, None).await
    }
}

/// Whether a version has the models and parameters of its manifest.
fn has_defaults(version: &PolicyVersion) -> bool {
    let options = version.options();
    let slots = &version.manifest().models;
    let is_default = |slot: &String, model: &String| {
        slots
            .iter()
            .any(|own| own.name == *slot && own.default == *model)
    };
    options.parameters.is_empty()
        && options
            .models
            .iter()
            .all(|(slot, model)| is_default(slot, model))
}
