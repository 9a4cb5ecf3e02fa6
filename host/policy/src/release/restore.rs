//! After a restart: the roles are what the store says. What it says of a version is written and read here.

use std::collections::BTreeMap;
use std::sync::Arc;

use rerankd_core::Limits;
use wasmtime::component::Component;

use super::{Prepared, Releases, Upload, blocking, now_ms};
use crate::compiler::Priority;
use crate::error::ReleaseError;
use crate::parameters::Counts;
use crate::selector::short;
use crate::store::{ModelRef, VersionRecord};
use crate::version::{
    CONTRACT, CompiledPolicy, PolicyOptions, PolicyVersion, guest_limits, with_guest_limits,
};

impl Releases {
    /// Gives every name its route. A version that cannot be loaded any more is left out, and the log
    /// says why; where it was the active one, the latest of its predecessors that can be answers.
    ///
    /// # Errors
    /// [`ReleaseError::Store`] if the store cannot be read.
    pub async fn restore(self: &Arc<Self>) -> Result<(), ReleaseError> {
        let (store, engine_key) = (Arc::clone(&self.store), self.engine_key.clone());
        let garbage = blocking(move || store.collect_garbage(&engine_key)).await??;
        tracing::debug!(?garbage, "store swept");
        for name in self.names().await? {
            let releases = Arc::clone(self);
            // What it says now, since somebody may have changed it meanwhile.
            let restored = async move {
                if let Some(roles) = releases.name(&name.name).await? {
                    releases.route(&roles, Priority::Start).await;
                }
                Ok::<(), ReleaseError>(())
            };
            self.changing.take(restored).await??;
        }
        Ok(())
    }

    /// The version of a record, loaded unless it is.
    ///
    /// # Errors
    /// What is missing or does not fit any more.
    pub(super) async fn load(
        &self,
        record: &VersionRecord,
        priority: Priority,
    ) -> Result<Arc<PolicyVersion>, ReleaseError> {
        let loaded = self
            .loaded()
            .by_digest
            .get(&record.digest)
            .and_then(std::sync::Weak::upgrade);
        if let Some(version) = loaded {
            return Ok(version);
        }
        let component = match self.kept_code(&record.component).await {
            Some(component) => component,
            None => self.compile_again(record, priority).await?,
        };
        let limits = with_guest_limits(&self.rules.limits, &record.limits);
        if !self.has_limits_of_now(record) {
            tracing::warn!(
                policy = record.name,
                version = short(&record.digest),
                "policy runs under the limits of its release, not those of the configuration: release it again to change them"
            );
        }
        let options = PolicyOptions {
            parameters: record.parameters.clone(),
            models: record
                .models
                .iter()
                .map(|(slot, model)| (slot.clone(), model.name.clone()))
                .collect(),
            allow_wasi: record.allow_wasi,
            grants: record.grants.clone(),
        };
        let compiled = CompiledPolicy::describe(
            &self.engine,
            component,
            &record.component,
            options,
            &limits,
            Counts::AsRecorded,
        )
        .await?;
        let version = self.bind(compiled, Some(record)).await?;
        if version.digest() != record.digest {
            return Err(ReleaseError::Host(format!(
                "version {} would now be {}: a limit, a model or rerankd itself has changed; release it again",
                short(&record.digest),
                version.short_digest()
            )));
        }
        Ok(version)
    }

    /// Whether a stored version runs under the limits that the configuration gives.
    fn has_limits_of_now(&self, record: &VersionRecord) -> bool {
        let now = &self.rules.limits;
        let limits = with_guest_limits(now, &record.limits);
        // Of CPU time it has what the configuration gives, where that is more.
        let in_force = Limits {
            guest_cpu: limits.guest_cpu.max(now.guest_cpu),
            ..limits
        };
        guest_limits(&in_force) == guest_limits(now)
    }

    /// Whether a stored version is what releasing `version` would give, but for limits that make no
    /// difference, since those in force for it are the same: the defaults of a newer rerankd alone make
    /// no other version.
    pub(super) fn is_release_of(&self, record: &VersionRecord, version: &PolicyVersion) -> bool {
        let options = version.options();
        record.digest == version.digest()
            || record.contract == CONTRACT
                && record.component == version.component()
                && record.parameters == options.parameters
                && record.grants == options.grants
                && record.allow_wasi == options.allow_wasi
                && record.models == model_refs(version)
                && self.has_limits_of_now(record)
    }

    /// What the store has of a version that was just made.
    pub(super) async fn known(
        self: &Arc<Self>,
        version: &Arc<PolicyVersion>,
    ) -> Result<Option<VersionRecord>, ReleaseError> {
        let (releases, version) = (Arc::clone(self), Arc::clone(version));
        let find = move || -> Result<_, ReleaseError> {
            let (store, name) = (&releases.store, version.name());
            let is_it = |record: &VersionRecord| releases.is_release_of(record, &version);
            Ok(match store.version(name, version.digest())? {
                Some(known) => Some(known),
                None => store.find_version(name, version.component(), is_it)?,
            })
        };
        blocking(find).await?
    }

    /// The store has the component, but no code for this engine.
    async fn compile_again(
        &self,
        record: &VersionRecord,
        priority: Priority,
    ) -> Result<Component, ReleaseError> {
        let (store, sha256) = (Arc::clone(&self.store), record.component.clone());
        let bytes = blocking(move || store.component(&sha256)).await??;
        let code = self.compiler.compile(&bytes, priority).await?;
        let (code, component) = self.loaded_code(code).await?;
        let (store, sha256) = (Arc::clone(&self.store), record.component.clone());
        let engine_key = self.engine_key.clone();
        let kept = blocking(move || store.put_compiled(&engine_key, &sha256, &code)).await?;
        // Without the cache the policy works as well.
        if let Err(error) = kept {
            tracing::warn!(%error, "compiled code could not be kept");
        }
        Ok(component)
    }
}

/// What the store keeps of a version that went through the pipeline: all that [`Releases::load`] needs.
pub(super) fn record(upload: &Upload, prepared: &Prepared) -> VersionRecord {
    let version = &prepared.version;
    let options = version.options();
    VersionRecord {
        digest: version.digest().to_owned(),
        name: version.name().to_owned(),
        version: version.manifest().version.clone(),
        component: version.component().to_owned(),
        component_bytes: prepared.artifact.bytes().len() as u64,
        contract: CONTRACT.to_owned(),
        imports: prepared.artifact.imports().to_vec(),
        manifest: serde_json::from_str(version.manifest_json()).unwrap_or_default(),
        models: model_refs(version),
        parameters: options.parameters.clone(),
        grants: options.grants.clone(),
        allow_wasi: options.allow_wasi,
        limits: guest_limits(version.limits()),
        cases: prepared.report.clone(),
        case_source: upload.cases.clone(),
        created_at_ms: now_ms(),
        by: upload.who.clone(),
        source: upload.source.clone(),
    }
}

fn model_refs(version: &PolicyVersion) -> BTreeMap<String, ModelRef> {
    let models = version.models().iter().map(|(slot, model)| {
        let model = ModelRef {
            name: model.name().to_owned(),
            digest: model.digest().to_owned(),
        };
        (slot.clone(), model)
    });
    models.collect()
}
