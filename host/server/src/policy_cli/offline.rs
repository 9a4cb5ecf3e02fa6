//! `rerankd policy check` and `policy test`: a component on this machine's engine and models, without
//! a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use rerankd_inference::name::check_model_name;
use rerankd_inference::{CacheSettings, Inference, InferenceConfig};
use rerankd_policy::artifact::Artifact;
use rerankd_policy::compiler::Priority;
use rerankd_policy::error::Step;
use rerankd_policy::release::{Releases, Upload};
use rerankd_policy::version::CompiledPolicy;
use rerankd_policy::{PolicyEngine, PolicyOptions, PolicyVersion, ReleaseError, TrafficBook};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::args::{CheckArgs, OfflineArgs, ReleaseArgs, TestArgs};
use super::build::read;
use super::outcome::{Failure, Outcome, size, table};
use super::release::policy_name;
use super::scratch::Scratch;
use crate::app::open_releases;
use crate::cases::{self, Cases, Report};
use crate::checkout;
use crate::cli::ServeFlags;
use crate::config::{Config, ReleaseFlags};

/// One policy is called by one caller.
const INSTANCES: usize = 4;

/// The steps of a release that need no server, in their order.
const STEPS: [Step; 5] = [
    Step::Inspect,
    Step::Compile,
    Step::Describe,
    Step::Models,
    Step::Cases,
];

/// What a step came to.
#[derive(Debug, Serialize)]
struct StepResult {
    step: &'static str,
    /// `ok`, `failed`, or `not reached`.
    result: &'static str,
    detail: String,
}

/// Where versions run.
struct Host {
    config: Config,
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
    runtime: tokio::runtime::Runtime,
}

/// Says of each step what the server would: by its very pipeline, on a store that is thrown away.
pub(super) fn check(flags: &CheckArgs) -> Result<Outcome, Failure> {
    let component = read(&flags.file)?;
    let name = policy_name(flags.name.as_deref(), &flags.file)?;
    let sha256 = hex::encode(Sha256::digest(&component));
    let bytes = component.len();
    let mut config = config(
        &flags.offline,
        ReleaseFlags {
            max_component_mib: flags.max_component_mib,
            compile_timeout_ms: flags.compile_timeout_ms,
            compile_memory_mib: flags.compile_memory_mib,
            ..ReleaseFlags::default()
        },
    )?;
    config.policies.entry(name.clone()).or_default().allow_wasi |= flags.offline.allow_wasi;
    let options = options(&flags.release, false)?;
    let cases = flags.cases.as_deref().map(Cases::read).transpose();
    let cases = cases.map_err(Failure::Usage)?;
    let upload = Upload {
        name,
        component,
        parameters: options.parameters,
        models: options.models,
        grants: options.grants,
        cases: cases.map(|cases| cases.text().to_owned()),
        activate: false,
        who: "check".to_owned(),
        source: flags.file.display().to_string(),
        priority: Priority::Start,
    };
    let inspected = Artifact::inspect(upload.component.clone(), usize::MAX);
    let imports = inspected.map(|artifact| artifact.imports().to_vec());
    let host = Host::start(config)?;
    let (_scratch, releases) = host.releases()?;
    let checked = host.runtime.block_on(Arc::new(releases).check(upload));

    let failed_at = checked.as_ref().err().map(ReleaseError::step);
    let failed_at = failed_at.and_then(|step| STEPS.iter().position(|other| *other == step));
    let detail = |step: Step| match (step, &checked) {
        (Step::Inspect, _) => {
            let imports = listed(imports.as_deref().unwrap_or_default());
            format!("{}, imports {imports}", size(bytes as u64))
        }
        (Step::Describe, Ok((version, _))) => describe(version),
        (Step::Models, Ok((version, _))) => models_of(version),
        (Step::Cases, Ok((_, report))) => match report {
            Some(report) => format!("{} passed", report["passed"]),
            None => "none".to_owned(),
        },
        _ => String::new(),
    };
    let step = |(index, step): (usize, &Step)| {
        let (result, detail) = match (&checked, failed_at) {
            (Err(_), Some(failed)) if index > failed => ("not reached", String::new()),
            (Err(error), Some(failed)) if index == failed => ("failed", error.to_string()),
            _ => ("ok", detail(*step)),
        };
        StepResult {
            step: step.name(),
            result,
            detail,
        }
    };
    let steps: Vec<StepResult> = STEPS.iter().enumerate().map(step).collect();
    let label = checked.as_ref().ok().map(|(version, _)| version.label());
    let summary = match &checked {
        Err(error) => format!(
            "no: the server would refuse it at step `{}`",
            error.step().name()
        ),
        Ok((version, _)) => format!("good: {}", version.label()),
    };
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|step| {
            vec![
                step.step.to_owned(),
                step.result.to_owned(),
                step.detail.clone(),
            ]
        })
        .collect();
    Ok(Outcome {
        good: checked.is_ok(),
        text: format!("{}\n{summary}\n", table(&["STEP", "RESULT", ""], &rows)),
        json: json!({
            "file": flags.file, "bytes": bytes, "sha256": sha256, "good": checked.is_ok(),
            "label": label, "steps": steps,
        }),
    })
}

/// What a policy says of itself.
fn describe(version: &PolicyVersion) -> String {
    let manifest = version.manifest();
    let takes = manifest.parameters.as_ref().and_then(|schema| {
        let names = schema.get("properties")?.as_object()?.keys();
        Some(names.cloned().collect::<Vec<_>>())
    });
    format!(
        "{} {}: {}; parameters {}; fields {}",
        manifest.name,
        manifest.version,
        manifest.description,
        listed(&takes.unwrap_or_default()),
        listed(&manifest.fields)
    )
}

fn models_of(version: &PolicyVersion) -> String {
    let model = |(slot, model): (&String, &Arc<rerankd_inference::Model>)| {
        format!("{slot}={}@{}", model.name(), &model.digest()[..8])
    };
    let models: Vec<String> = version.models().iter().map(model).collect();
    listed(&models)
}

/// Runs the cases of a component, or others.
pub(super) fn test(flags: &TestArgs) -> Result<Outcome, Failure> {
    let bytes = read(&flags.file)?;
    let options = options(&flags.release, flags.offline.allow_wasi)?;
    let config = config(&flags.offline, ReleaseFlags::default())?;
    let cases = match &flags.cases {
        Some(path) => Cases::read(path).map_err(Failure::Usage)?,
        None => embedded(&bytes).map_err(Failure::refused)?.ok_or_else(|| {
            Failure::Usage(format!(
                "`{0}` has no cases inside: build it with `rerankd policy build`, or name a file: rerankd policy test {0} CASES",
                flags.file.display()
            ))
        })?,
    };
    if cases.is_empty() {
        return Err(Failure::Usage("there are no cases to run".to_owned()));
    }
    let host = Host::start(config)?;
    let version = host.compile(bytes, options).map_err(|error| {
        Failure::refused(format!(
            "`{}`: step `{}`: {error}",
            flags.file.display(),
            error.step().name(),
        ))
    })?;
    let version = Arc::new(version);
    let report = host.run(&version, &cases);
    let row = |result: &cases::CaseResult| {
        vec![
            if result.passed { "ok" } else { "FAILED" }.to_owned(),
            result.name.clone(),
            result.message.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = report.results.iter().map(row).collect();
    let text = format!(
        "{}\n{}: {} of {} cases passed\n",
        table(&["RESULT", "CASE", ""], &rows),
        version.label(),
        report.passed,
        report.total
    );
    let mut json = json!(report);
    json["label"] = json!(version.label());
    Ok(Outcome {
        good: report.failed == 0,
        text,
        json,
    })
}

/// The cases inside a component, read.
fn embedded(component: &[u8]) -> Result<Option<Cases>, String> {
    let artifact =
        Artifact::inspect(component.to_vec(), usize::MAX).map_err(|error| error.to_string())?;
    artifact.cases().map(Cases::parse).transpose()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

impl Host {
    fn start(config: Config) -> Result<Self, Failure> {
        let cannot = |what: &str, error: String| Failure::Usage(format!("{what}: {error}"));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = PolicyEngine::new(&config.limits, threads)
            .map_err(|error| cannot("wasmtime cannot start", format!("{error:#}")))?;
        let inference = Inference::start(&InferenceConfig {
            onnxruntime: config.onnxruntime.clone(),
            openvino: config.openvino.clone(),
            model_folders: config.model_folders.clone(),
            models: Vec::new(),
            check_file: checkout::check_owner,
            workers: config.workers,
            // Its cases run once, and the file is the server's.
            caches: CacheSettings::OFF,
        });
        let inference = inference.map_err(|error| Failure::Usage(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| cannot("no runtime", error.to_string()))?;
        Ok(Self {
            engine: Arc::new(engine),
            inference: Arc::new(inference),
            config,
            runtime,
        })
    }

    /// The server's pipeline, on a store of its own.
    fn releases(&self) -> Result<(Scratch, Releases), Failure> {
        let scratch = Scratch::new().map_err(|error| {
            let folder = std::env::temp_dir();
            Failure::Usage(format!("cannot write to `{}`: {error}", folder.display()))
        })?;
        let releases = open_releases(&self.config, scratch.path(), &self.engine, &self.inference)
            .map_err(|error| Failure::Usage(format!("{error:#}")))?;
        Ok((scratch, releases))
    }

    /// Compiles a component here, where it may take as long as it likes, and loads its models.
    fn compile(
        &self,
        bytes: Vec<u8>,
        options: PolicyOptions,
    ) -> Result<PolicyVersion, ReleaseError> {
        let artifact = Artifact::inspect(bytes, usize::MAX)?;
        let limits = &self.config.limits;
        let compiled = CompiledPolicy::compile_here(&self.engine, &artifact, options, limits)?;
        compiled.bind(&TrafficBook::default(), |_, name| self.inference.load(name))
    }

    fn run(&self, version: &Arc<PolicyVersion>, cases: &Cases) -> Report {
        let (engine, inference) = (&self.engine, &self.inference);
        let running = cases::run(engine, inference, version, cases, &self.config.limits);
        self.runtime.block_on(running)
    }
}

fn options(flags: &ReleaseArgs, allow_wasi: bool) -> Result<PolicyOptions, Failure> {
    Ok(PolicyOptions {
        parameters: parameters(flags)?,
        models: models(flags)?,
        allow_wasi,
        grants: (!flags.grant.is_empty()).then(|| flags.grant.clone()),
    })
}

/// `--parameters`, read.
pub(super) fn parameters(
    flags: &ReleaseArgs,
) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
    let Some(text) = &flags.parameters else {
        return Ok(serde_json::Map::new());
    };
    serde_json::from_str(text).map_err(|error| {
        Failure::Usage(format!(
            "`{text}` (--parameters) must be a JSON object: {error}"
        ))
    })
}

/// `--model`, read: models by slot.
pub(super) fn models(flags: &ReleaseArgs) -> Result<BTreeMap<String, String>, Failure> {
    let one = |binding: &String| match binding.split_once('=') {
        Some((slot, model)) if !slot.is_empty() && !model.is_empty() => {
            check_model_name("--model", model).map_err(Failure::Usage)?;
            Ok((slot.to_owned(), model.to_owned()))
        }
        _ => Err(Failure::Usage(format!(
            "`{binding}` (--model) must be SLOT=NAME, such as bi-encoder=my-model"
        ))),
    };
    flags.model.iter().map(one).collect()
}

/// What a server with these flags would have.
fn config(flags: &OfflineArgs, releases: ReleaseFlags) -> Result<Config, Failure> {
    let flags = ServeFlags {
        config: flags.config.clone(),
        models: flags.models.clone(),
        onnxruntime: flags.onnxruntime.clone(),
        openvino: flags.openvino.clone(),
        guest: flags.guest.clone(),
        releases,
        ..ServeFlags::default()
    };
    let mut config =
        Config::resolve(Box::new(flags)).map_err(|faults| Failure::Usage(faults.join("\n")))?;
    config.limits.max_instances = INSTANCES;
    Ok(config)
}
