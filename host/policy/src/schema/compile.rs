//! From JSON to a graph of rules, and what is refused on the way.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Number, Value};

use super::pattern::{self, Patterns};
use super::{Bound, MAX_NESTING, MAX_VALUE_STEPS, Node, NodeId, Properties, Rule, Schema, words};
use crate::chores::{Budget, Undone};
use crate::parameters::Counts;

/// Why there is no graph: the sentence, or the budget.
pub(crate) type Refused = Result<String, Undone>;

impl Schema {
    /// Compiles a schema whose size and depth were checked.
    ///
    /// # Errors
    /// What is wrong and where, or that the budget is used up.
    pub(crate) fn compile(root: &Value, counts: Counts, budget: &Budget) -> Result<Self, Refused> {
        let patterns = pattern::compile_all(all_patterns(root).into_iter(), counts, budget)?;
        let mut compiler = Compiler {
            root,
            patterns,
            anchors: anchors(root).map_err(Ok)?,
            known: HashMap::new(),
            places: Vec::new(),
            todo: Vec::new(),
            budget,
        };
        compiler.node(root, None, "");
        let mut nodes: Vec<Node> = Vec::new();
        while let Some((id, value)) = compiler.todo.pop() {
            budget.charge(1).map_err(Err)?;
            let rules = compiler
                .rules(id, value)
                .map_err(|refused| refused.map(|problem| compiler.at(id, &problem)))?;
            if nodes.len() <= id {
                nodes.resize_with(id + 1, Node::default);
            }
            nodes[id] = Node { rules };
        }
        let places = compiler.places;
        if let Some((id, problem)) = beyond_bounds(&nodes) {
            return Err(Ok(shown(&places, id, &problem)));
        }
        Ok(Self { nodes })
    }
}

/// Finds a node for which one value takes too much, or whose references go round. Each node is looked at
/// once, without recursion.
fn beyond_bounds(nodes: &[Node]) -> Option<(NodeId, String)> {
    let next: Vec<Vec<NodeId>> = nodes
        .iter()
        .map(|node| node.rules.iter().flat_map(Rule::same_value).collect())
        .collect();
    let mut waits_for: Vec<usize> = next.iter().map(Vec::len).collect();
    let mut asked_by: Vec<Vec<NodeId>> = vec![Vec::new(); nodes.len()];
    for (id, next) in next.iter().enumerate() {
        for &inner in next {
            asked_by[inner].push(id);
        }
    }
    let mut ready: Vec<NodeId> = (0..nodes.len()).filter(|&id| waits_for[id] == 0).collect();
    let (mut steps, mut nesting) = (vec![0_u64; nodes.len()], vec![0_u64; nodes.len()]);
    let mut done = 0;
    while let Some(id) = ready.pop() {
        done += 1;
        let own = 1 + u64::try_from(nodes[id].rules.len()).unwrap_or(u64::MAX);
        steps[id] = next[id]
            .iter()
            .fold(own, |sum, &inner| sum.saturating_add(steps[inner]));
        nesting[id] = 1 + next[id]
            .iter()
            .map(|&inner| nesting[inner])
            .max()
            .unwrap_or(0);
        if steps[id] > MAX_VALUE_STEPS {
            let problem = format!(
                "to check one value may take more than {MAX_VALUE_STEPS} steps: schemas that name others several times, one in the other, multiply"
            );
            return Some((id, problem));
        }
        if nesting[id] > MAX_NESTING {
            let problem = format!(
                "more than {MAX_NESTING} schemas apply to one value, one in the other (`$ref`, `allOf` and the like)"
            );
            return Some((id, problem));
        }
        for &outer in &asked_by[id] {
            waits_for[outer] -= 1;
            if waits_for[outer] == 0 {
                ready.push(outer);
            }
        }
    }
    if done == nodes.len() {
        return None;
    }
    let id = waits_for.iter().position(|&left| left > 0)?;
    let problem = "it leads back to itself without a look into the value".to_owned();
    Some((id, problem))
}

struct Compiler<'a> {
    root: &'a Value,
    patterns: Patterns,
    anchors: HashMap<&'a str, &'a Value>,
    /// By the address of the JSON, which is borrowed for as long as this lives.
    known: HashMap<*const Value, NodeId>,
    /// Where each node is: the one that it stands in, and how.
    places: Vec<(Option<NodeId>, String)>,
    todo: Vec<(NodeId, &'a Value)>,
    budget: &'a Budget,
}

impl<'a> Compiler<'a> {
    /// The node of a schema; it is compiled later.
    fn node(&mut self, schema: &'a Value, within: Option<NodeId>, way: &str) -> NodeId {
        if let Some(&id) = self.known.get(&std::ptr::from_ref(schema)) {
            return id;
        }
        let id = self.places.len();
        let way: String = way.chars().take(80).collect();
        self.places.push((within, way));
        self.known.insert(std::ptr::from_ref(schema), id);
        self.todo.push((id, schema));
        id
    }

    fn at(&self, id: NodeId, problem: &str) -> String {
        shown(&self.places, id, problem)
    }

    fn rules(&mut self, id: NodeId, schema: &'a Value) -> Result<Vec<Rule>, Refused> {
        let object = match schema {
            Value::Bool(true) => return Ok(Vec::new()),
            Value::Bool(false) => return Ok(vec![Rule::Nothing]),
            Value::Object(object) => object,
            other => {
                let problem = format!(
                    "a schema must be an object, `true` or `false`, got {}",
                    brief(other)
                );
                return Err(Ok(problem));
            }
        };
        let mut rules = Vec::new();
        for (key, value) in object {
            self.budget.charge(1).map_err(Err)?;
            self.rule(id, object, key, value, &mut rules)?;
        }
        // What is cheap comes first, and what asks what the others have seen comes last.
        rules.sort_by_key(|rule| match rule {
            Rule::Nothing | Rule::Types(_) => 0,
            Rule::Enum(_) | Rule::Const(_) => 1,
            Rule::UnevaluatedItems(_) | Rule::UnevaluatedProperties(_) => 4,
            rule if rule.same_value().is_empty() => 2,
            _ => 3,
        });
        rules.shrink_to_fit();
        Ok(rules)
    }

    fn rule(
        &mut self,
        id: NodeId,
        object: &'a Map<String, Value>,
        key: &'a str,
        value: &'a Value,
        rules: &mut Vec<Rule>,
    ) -> Result<(), Refused> {
        let one =
            |compiler: &mut Self, key: &str, value: &'a Value| compiler.node(value, Some(id), key);
        let rule = match key {
            "$ref" | "$dynamicRef" => {
                let target = self.target(key, value).map_err(Ok)?;
                Rule::Ref(self.node(target, None, value.as_str().unwrap_or_default()))
            }
            "type" => Rule::Types(types(value).map_err(Ok)?),
            "enum" => Rule::Enum(array(key, value).map_err(Ok)?.clone()),
            "const" => Rule::Const(value.clone()),
            "minimum" => Rule::Bound(Bound::Minimum, number(key, value)?),
            "maximum" => Rule::Bound(Bound::Maximum, number(key, value)?),
            "exclusiveMinimum" => Rule::Bound(Bound::ExclusiveMinimum, number(key, value)?),
            "exclusiveMaximum" => Rule::Bound(Bound::ExclusiveMaximum, number(key, value)?),
            "multipleOf" => match number(key, value)? {
                of if of.as_f64().is_some_and(|of| of > 0.0) => Rule::MultipleOf(of),
                _ => return must(key, "be a number greater than 0", value),
            },
            "minLength" => Rule::MinLength(count(key, value)?),
            "maxLength" => Rule::MaxLength(count(key, value)?),
            "pattern" => {
                let Some(source) = value.as_str() else {
                    return must(key, "be a string", value);
                };
                Rule::Pattern(self.patterns[source].clone().map_err(Ok)?)
            }
            "minItems" => Rule::MinItems(count(key, value)?),
            "maxItems" => Rule::MaxItems(count(key, value)?),
            "uniqueItems" => match value {
                Value::Bool(true) => Rule::UniqueItems,
                Value::Bool(false) => return Ok(()),
                _ => return must(key, "be `true` or `false`", value),
            },
            // With `items`.
            "prefixItems" if object.contains_key("items") => {
                array(key, value).map_err(Ok)?;
                return Ok(());
            }
            "items" | "prefixItems" => Rule::Items {
                first: match object.get("prefixItems") {
                    Some(first) => self.several(id, "prefixItems", first)?,
                    None => Vec::new(),
                },
                rest: object.get("items").map(|rest| one(self, "items", rest)),
            },
            "contains" => Rule::Contains {
                what: one(self, key, value),
                least: match object.get("minContains") {
                    Some(least) => count("minContains", least)?,
                    None => 1,
                },
                most: match object.get("maxContains") {
                    Some(most) => count("maxContains", most)?,
                    None => u64::MAX,
                },
            },
            "minContains" | "maxContains" => return count(key, value).map(drop),
            "minProperties" => Rule::MinProperties(count(key, value)?),
            "maxProperties" => Rule::MaxProperties(count(key, value)?),
            "required" => Rule::Required(strings(key, value).map_err(Ok)?),
            "dependentRequired" => {
                let each = members(key, value).map_err(Ok)?.iter();
                let all = each.map(|(name, value)| Ok((name.clone(), strings(key, value)?)));
                Rule::DependentRequired(all.collect::<Result<_, String>>().map_err(Ok)?)
            }
            "dependentSchemas" => Rule::DependentSchemas(self.named(id, key, value)?),
            // Not of this draft any more, and still taken.
            "dependencies" => {
                let (mut required, mut schemas) = (Vec::new(), Vec::new());
                for (name, value) in members(key, value).map_err(Ok)? {
                    match value {
                        Value::Array(_) => {
                            required.push((name.clone(), strings(key, value).map_err(Ok)?));
                        }
                        _ => schemas.push((name.clone(), one(self, name, value))),
                    }
                }
                rules.push(Rule::DependentRequired(required));
                Rule::DependentSchemas(schemas)
            }
            "propertyNames" => Rule::PropertyNames(one(self, key, value)),
            "properties" | "patternProperties" | "additionalProperties" => {
                // The first of them that is there stands for all.
                let order = ["additionalProperties", "patternProperties", "properties"];
                if order.into_iter().find(|own| object.contains_key(*own)) != Some(key) {
                    return Ok(());
                }
                Rule::Properties(Box::new(self.properties(id, object)?))
            }
            "allOf" => Rule::AllOf(self.several(id, key, value)?),
            "anyOf" => Rule::AnyOf(self.several(id, key, value)?),
            "oneOf" => Rule::OneOf(self.several(id, key, value)?),
            "not" => Rule::Not(one(self, key, value)),
            "if" => Rule::If {
                condition: one(self, key, value),
                then: object.get("then").map(|then| one(self, "then", then)),
                otherwise: object.get("else").map(|other| one(self, "else", other)),
            },
            // With `if`; without it they are only looked at.
            "then" | "else" => {
                one(self, key, value);
                return Ok(());
            }
            "unevaluatedItems" => Rule::UnevaluatedItems(one(self, key, value)),
            "unevaluatedProperties" => Rule::UnevaluatedProperties(one(self, key, value)),
            "$defs" | "definitions" => return self.named(id, key, value).map(drop),
            _ => return Ok(()),
        };
        rules.push(rule);
        Ok(())
    }

    fn properties(
        &mut self,
        id: NodeId,
        object: &'a Map<String, Value>,
    ) -> Result<Properties, Refused> {
        let mut properties = Properties::default();
        if let Some(named) = object.get("properties") {
            properties.named = self
                .named(id, "properties", named)?
                .into_iter()
                .collect::<BTreeMap<_, _>>();
        }
        if let Some(patterns) = object.get("patternProperties") {
            for (source, node) in self.named(id, "patternProperties", patterns)? {
                let pattern = self.patterns[&source].clone().map_err(Ok)?;
                properties.patterns.push((pattern, node));
            }
        }
        if let Some(others) = object.get("additionalProperties") {
            properties.others = Some(self.node(others, Some(id), "additionalProperties"));
        }
        Ok(properties)
    }

    fn several(&mut self, id: NodeId, key: &str, value: &'a Value) -> Result<Vec<NodeId>, Refused> {
        let schemas = array(key, value).map_err(Ok)?;
        if schemas.is_empty() {
            return must(key, "have at least one schema", value);
        }
        let way = |index| format!("{key}/{index}");
        let each = schemas.iter().enumerate();
        Ok(each
            .map(|(index, schema)| self.node(schema, Some(id), &way(index)))
            .collect())
    }

    fn named(
        &mut self,
        id: NodeId,
        key: &str,
        value: &'a Value,
    ) -> Result<Vec<(String, NodeId)>, Refused> {
        let schemas = members(key, value).map_err(Ok)?;
        Ok(schemas
            .iter()
            .map(|(name, schema)| {
                let node = self.node(schema, Some(id), &format!("{key}/{name}"));
                (name.clone(), node)
            })
            .collect())
    }

    /// What a reference names. There is one resource only, so that a dynamic one is as good as any.
    fn target(&self, key: &str, value: &'a Value) -> Result<&'a Value, String> {
        let Some(reference) = value.as_str() else {
            return Err(format!("`{key}` must be a string, got {}", brief(value)));
        };
        let Some(fragment) = reference.strip_prefix('#') else {
            return Err(format!(
                "`{key}` to {}: only `#..` is allowed",
                brief(value)
            ));
        };
        let nothing = || format!("`{key}`: there is nothing at {}", brief(value));
        let fragment = percent_encoding::percent_decode_str(fragment).decode_utf8();
        let fragment = fragment.map_err(|_| nothing())?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&fragment).ok_or_else(nothing);
        }
        self.anchors.get(&*fragment).copied().ok_or_else(nothing)
    }
}

fn shown(places: &[(Option<NodeId>, String)], id: NodeId, problem: &str) -> String {
    const LONGEST: usize = 200;
    let mut ways = Vec::new();
    let mut next = Some(id);
    while let Some(id) = next {
        let (within, way) = &places[id];
        if !way.is_empty() {
            ways.push(way.trim_start_matches("#/"));
        }
        next = *within;
    }
    ways.reverse();
    let place: String = ways.join("/").chars().take(LONGEST).collect();
    format!("at `#/{place}`: {problem}")
}

/// Every pattern, wherever it stands: some of them may be data.
fn all_patterns(root: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    each_object(root, &mut |object| {
        found.extend(object.get("pattern").and_then(Value::as_str));
        let named = object.get("patternProperties").and_then(Value::as_object);
        found.extend(named.into_iter().flat_map(Map::keys).map(String::as_str));
    });
    found
}

fn anchors(root: &Value) -> Result<HashMap<&str, &Value>, String> {
    let mut found = HashMap::new();
    let mut twice = None;
    let mut todo = vec![root];
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(object) => {
                for key in ["$anchor", "$dynamicAnchor"] {
                    if let Some(name) = object.get(key).and_then(Value::as_str)
                        && let Some(other) = found.insert(name, value)
                        && !std::ptr::eq(other, value)
                    {
                        twice = Some(name);
                    }
                }
                todo.extend(object.values());
            }
            Value::Array(values) => todo.extend(values),
            _ => {}
        }
    }
    match twice {
        Some(name) => Err(format!(
            "two schemas have the anchor `{}`",
            name.chars().take(80).collect::<String>()
        )),
        None => Ok(found),
    }
}

fn each_object<'a>(root: &'a Value, look: &mut impl FnMut(&'a Map<String, Value>)) {
    let mut todo = vec![root];
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(object) => {
                look(object);
                todo.extend(object.values());
            }
            Value::Array(values) => todo.extend(values),
            _ => {}
        }
    }
}

fn types(value: &Value) -> Result<u8, String> {
    let names = match value {
        Value::Array(names) if !names.is_empty() => names.as_slice(),
        name => std::slice::from_ref(name),
    };
    let kind = |name: &Value| name.as_str().and_then(words::kinds::from_name);
    let mut all = 0;
    for name in names {
        all |= kind(name).ok_or_else(|| {
            format!(
                "`type` must be {}, or an array of these, got {}",
                words::kinds::NAMES
                    .map(|(name, _)| format!("`{name}`"))
                    .join(", "),
                brief(name)
            )
        })?;
    }
    Ok(all)
}

fn must<T>(key: &str, what: &str, value: &Value) -> Result<T, Refused> {
    Err(Ok(format!("`{key}` must {what}, got {}", brief(value))))
}

fn number(key: &str, value: &Value) -> Result<Number, Refused> {
    match value {
        Value::Number(number) => Ok(number.clone()),
        _ => must(key, "be a number", value),
    }
}

fn count(key: &str, value: &Value) -> Result<u64, Refused> {
    let whole = value.as_number().and_then(super::equal::integer);
    match whole.map(|whole| (whole, u64::try_from(whole))) {
        Some((_, Ok(count))) => Ok(count),
        Some((whole, Err(_))) if whole > 0 => Ok(u64::MAX),
        _ => must(key, "be a whole number of at least 0", value),
    }
}

fn array<'a>(key: &str, value: &'a Value) -> Result<&'a Vec<Value>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("`{key}` must be an array, got {}", brief(value)))
}

fn members<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("`{key}` must be an object, got {}", brief(value)))
}

fn strings(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let all: Option<Vec<String>> = array(key, value)?.iter().map(text).collect();
    all.ok_or_else(|| format!("`{key}` must have strings only, got {}", brief(value)))
}

fn brief(value: &Value) -> String {
    words::shown(value, 80)
}
