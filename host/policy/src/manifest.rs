//! A policy's manifest: what `describe` returns. The format is documented in `wit/policy.wit`.

use rerankd_core::{FirstStage, ScoreKind, UnitMap};
use rerankd_inference::ModelKind;
use serde::Deserialize;
use serde_json::Value;

use crate::parameters::Counts;

/// Largest manifest, bytes: room for a schema of the largest size and some text.
const MAX_MANIFEST_BYTES: usize = 128 << 10;

/// Most entries of `fields`.
const MAX_FIELDS: usize = 1024;

/// Most entries of `models`, of `score_kind_if` and of `set_relative`.
const MAX_ENTRIES: usize = 64;

/// What a policy says about itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyManifest {
    /// The format of this object: 1.
    pub manifest_version: u32,
    /// Under which name the policy wants to be served.
    pub name: String,
    /// For people.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// What a score is: a [`ScoreKind`] by name.
    score_kind: String,
    /// Exceptions to `score_kind`; the first that holds counts.
    #[serde(default)]
    score_kind_if: Vec<ScoreKindRule>,
    /// How a score of kind `blend` gets into `[0, 1]`: `identity` (the default: it is there), `sigmoid`
    /// (it has no bounds) or `cosine` (it is in `[-1, 1]`).
    blend_map: Option<String>,
    /// First stages with which a score depends on the other documents, by name.
    #[serde(default)]
    set_relative: Vec<String>,
    /// Document fields that it reads; `*` is all.
    pub fields: Vec<String>,
    /// Every model that it may load.
    #[serde(default)]
    pub models: Vec<ModelSlot>,
    /// Whether it may leave documents out.
    #[serde(default)]
    pub filters: bool,
    /// JSON Schema of its parameters; `None` means that it takes none.
    pub parameters: Option<Value>,
}

/// A model that a policy may load.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSlot {
    /// The name that the policy uses for it.
    pub name: String,
    /// What it must compute.
    pub kind: ModelKind,
    /// The model that is taken unless the operator binds another.
    pub default: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreKindRule {
    first_stage: Option<String>,
    parameter: Option<String>,
    is: Option<Value>,
    then: String,
}

impl PolicyManifest {
    /// Reads and checks what `describe` returned.
    ///
    /// # Errors
    /// The problem, naming the key.
    pub fn parse(json: &str) -> Result<Self, String> {
        Self::parse_with(json, Counts::Bounded)
    }

    /// Like [`parse`](Self::parse), with or without bounds on counts.
    pub(crate) fn parse_with(json: &str, counts: Counts) -> Result<Self, String> {
        Self::check_size(json)?;
        let manifest: Self =
            serde_json::from_str(json).map_err(|error| brief(&error.to_string()).to_owned())?;
        manifest.check(counts)?;
        Ok(manifest)
    }

    /// Whether what `describe` returned is worth a look.
    ///
    /// # Errors
    /// It is too large.
    pub(crate) fn check_size(json: &str) -> Result<(), String> {
        match json.len() {
            bytes if bytes > MAX_MANIFEST_BYTES => Err(format!(
                "{bytes} bytes; at most {MAX_MANIFEST_BYTES} are read"
            )),
            _ => Ok(()),
        }
    }

    /// What the scores of a request are.
    pub fn score_kind(&self, first_stage: FirstStage, parameters: &Value) -> ScoreKind {
        let holds = |rule: &&ScoreKindRule| {
            let first_stage_holds = rule
                .first_stage
                .as_deref()
                .is_none_or(|wanted| wanted == first_stage.name());
            let parameter_holds = rule
                .parameter
                .as_deref()
                .is_none_or(|name| parameters.get(name) == rule.is.as_ref());
            first_stage_holds && parameter_holds
        };
        let name = self
            .score_kind_if
            .iter()
            .find(holds)
            .map_or(&self.score_kind, |rule| &rule.then);
        ScoreKind::from_name(name).expect("`check` allows known kinds only")
    }

    /// How a score of this kind gets into `[0, 1]`.
    pub fn unit_map(&self, score_kind: ScoreKind) -> UnitMap {
        let declared = self.blend_map.as_deref().and_then(UnitMap::from_name);
        match declared {
            Some(map) if score_kind == ScoreKind::Blend => map,
            _ => score_kind.unit_map(),
        }
    }

    /// The parameter and its value by which scores become the model's logits, if there is one.
    pub fn raw_scores_parameter(&self) -> Option<(&str, &Value)> {
        let mut rules = self.score_kind_if.iter();
        let rule = rules.find(|rule| {
            rule.then == ScoreKind::Logit.name() && rule.first_stage.is_none() && rule.is.is_some()
        })?;
        Some((rule.parameter.as_deref()?, rule.is.as_ref()?))
    }

    /// Whether, with this first stage, a document's score depends on the other documents.
    pub fn is_set_relative(&self, first_stage: FirstStage) -> bool {
        self.set_relative
            .iter()
            .any(|name| name == first_stage.name())
    }

    fn check(&self, counts: Counts) -> Result<(), String> {
        if self.manifest_version != 1 {
            return Err(format!(
                "`manifest_version` is {}; this host reads 1",
                self.manifest_version
            ));
        }
        check_name("name", &self.name)?;
        if self.version.is_empty() || self.version.len() > 64 {
            return Err("`version` must have 1 to 64 characters".to_owned());
        }
        let entries = [
            ("fields", self.fields.len(), MAX_FIELDS),
            ("models", self.models.len(), MAX_ENTRIES),
            ("score_kind_if", self.score_kind_if.len(), MAX_ENTRIES),
            ("set_relative", self.set_relative.len(), MAX_ENTRIES),
        ];
        for (key, count, most) in entries {
            if count > most && counts == Counts::Bounded {
                return Err(format!(
                    "`{key}` has {count} entries; at most {most} are read"
                ));
            }
        }
        let kinds = std::iter::once(&self.score_kind)
            .chain(self.score_kind_if.iter().map(|rule| &rule.then));
        for kind in kinds {
            if ScoreKind::from_name(kind).is_none() {
                return Err(format!(
                    "`score_kind` must be `logit`, `probability`, `cosine` or `blend`, got `{}`",
                    brief(kind)
                ));
            }
        }
        if let Some(map) = &self.blend_map
            && UnitMap::from_name(map).is_none()
        {
            return Err(format!(
                "`blend_map` must be `identity`, `sigmoid` or `cosine`, got `{}`",
                brief(map)
            ));
        }
        let stages = self.set_relative.iter().chain(
            self.score_kind_if
                .iter()
                .filter_map(|rule| rule.first_stage.as_ref()),
        );
        for stage in stages {
            if !matches!(stage.as_str(), "scored" | "ranked" | "none") {
                return Err(format!(
                    "a first stage must be `scored`, `ranked` or `none`, got `{}`",
                    brief(stage)
                ));
            }
        }
        for slot in &self.models {
            check_name("models.name", &slot.name)?;
        }
        Ok(())
    }
}

/// The head of what a policy said.
fn brief(text: &str) -> &str {
    crate::imports::log::cut(text, 200)
}

/// Whether `name` can be a policy's or a slot's name: lower-case letters, digits and `-`, at most 64.
///
/// # Errors
/// A sentence that names `what`.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=64).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-') {
        Ok(())
    } else {
        Err(format!(
            "`{what}` must have 1 to 64 lower-case letters, digits and `-`, got `{}`",
            name.chars().take(80).collect::<String>()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(more: &str) -> Result<PolicyManifest, String> {
        PolicyManifest::parse(&format!(
            r#"{{"manifest_version":1,"name":"p","version":"1","description":"d","fields":[],{more}}}"#
        ))
    }

    #[test]
    fn a_blend_may_declare_its_way_into_the_unit_interval() {
        let map = |more| {
            let manifest = manifest(more).expect("it is right");
            manifest.unit_map(ScoreKind::Blend)
        };
        assert_eq!(map(r#""score_kind":"blend""#), UnitMap::Identity);
        let sigmoid = r#""score_kind":"blend","blend_map":"sigmoid""#;
        assert_eq!(map(sigmoid), UnitMap::Sigmoid);
        let manifest_of = manifest(sigmoid).expect("it is right");
        assert_eq!(manifest_of.unit_map(ScoreKind::Cosine), UnitMap::Cosine);
        let problem = manifest(r#""score_kind":"blend","blend_map":"log""#).expect_err("no map");
        assert!(
            problem.contains("`blend_map`") && problem.contains("`log`"),
            "{problem}"
        );
    }

    #[test]
    fn a_parameter_that_gives_logits_gives_raw_scores() {
        let rules = r#""score_kind":"probability","score_kind_if":
            [{"first_stage":"none","then":"logit"},{"parameter":"activation","is":"raw","then":"logit"}]"#;
        let rules = manifest(rules).expect("it is right");
        let raw = Value::from("raw");
        assert_eq!(rules.raw_scores_parameter(), Some(("activation", &raw)));
        let none = manifest(r#""score_kind":"cosine""#).expect("it is right");
        assert_eq!(none.raw_scores_parameter(), None);
    }
}
