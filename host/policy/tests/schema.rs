//! The schemas of the attack, and, for all others, the same verdict as a library that knows the draft.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use rerankd_policy::chores::{Budget, Undone};
use rerankd_policy::parameters::{ParameterSchema, Unchecked};

const STEPS: u64 = 200_000;

fn compile(schema: &Value) -> Result<ParameterSchema, String> {
    let compiled = ParameterSchema::compile(Some(schema), &Budget::steps(STEPS));
    compiled.map_err(|refused| refused.unwrap_or_else(|undone| undone.to_string()))
}

#[track_caller]
fn refused(schema: &Value, says: &str) {
    let started = Instant::now();
    let problem = compile(schema).err().expect("it is refused");
    assert!(problem.contains(says), "{problem}");
    assert!(problem.len() < 1000, "{problem}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// `levels` schemas, each of which is `of` the one before, twice.
fn doubling(levels: usize, of: impl Fn(Value) -> Value, leaf: Value) -> Value {
    let mut schemas = serde_json::Map::new();
    schemas.insert("l0".to_owned(), leaf);
    for level in 1..levels {
        let before = json!({"$ref": format!("#/$defs/l{}", level - 1)});
        schemas.insert(format!("l{level}"), of(before));
    }
    json!({"$defs": schemas, "$ref": format!("#/$defs/l{}", levels - 1)})
}

#[test]
fn an_empty_text_costs_what_its_pattern_does() {
    let items = json!({"items": {"pattern": "(?:a?){9000}"}});
    let schema = compile(&json!({"properties": {"a": items}})).expect("it is fine");
    let many = json!({"a": vec![""; 1000]});
    let exhausted = Err(Unchecked::Undone(Undone::Exhausted));
    assert_eq!(schema.check(&many, &Budget::steps(20_000)), exhausted);
    // However many steps there are, each match looks at the clock.
    let short = Budget::in_place(u64::MAX, Duration::from_millis(1));
    assert_eq!(schema.check(&many, &short), exhausted);
}

#[test]
fn schemas_that_multiply_are_refused() {
    let multiply = "may take more than 10000 steps";
    for key in ["allOf", "anyOf", "oneOf"] {
        let twice = |before: Value| json!({key: [before.clone(), before]});
        refused(&doubling(20, twice, json!({"type": "string"})), multiply);
        refused(&doubling(60, twice, json!(true)), "than");
        // Where only some values get to it.
        let mut behind = doubling(24, twice, json!(false));
        let last = behind["$ref"].take();
        behind.as_object_mut().expect("an object").remove("$ref");
        behind["if"] = json!({"required": ["boom"]});
        behind["then"] = json!({"$ref": last});
        refused(&behind, multiply);
    }
    let twice = |before: Value| json!({"if": before, "then": before, "else": before});
    refused(&doubling(16, twice, json!(true)), multiply);
    let twice = |before: Value| json!({"not": {"allOf": [before, before]}});
    refused(&doubling(16, twice, json!(true)), multiply);
    let twice = |before: Value| json!({"dependentSchemas": {"a": before, "b": before}});
    refused(&doubling(16, twice, json!(true)), multiply);
}

#[test]
fn schemas_that_go_round_are_refused() {
    let round = "leads back to itself";
    refused(&json!({"$ref": "#"}), round);
    refused(&json!({"allOf": [{"$ref": "#"}]}), round);
    refused(
        &json!({"$dynamicAnchor": "a", "anyOf": [{"$dynamicRef": "#a"}, true]}),
        round,
    );
    // A value that has an end is no way round.
    let tree = json!({"type": "object", "additionalProperties": {"$ref": "#"}});
    let tree = compile(&tree).expect("it is fine");
    let mut value = json!({});
    for _ in 0..100 {
        value = json!({"a": value});
    }
    assert_eq!(tree.check(&value, &Budget::steps(STEPS)), Ok(()));
    // A chain needs stack.
    let once = |before: Value| json!({"allOf": [before]});
    refused(&doubling(200, once, json!(true)), "more than 48 schemas");
}

/// They look into the value, and so are compiled; the value has them do too much.
#[test]
fn a_value_that_takes_too_much_ends_with_the_budget() {
    let check = |schema: &Value, value: &Value| {
        let schema = compile(schema).expect("it is fine");
        let started = Instant::now();
        let stopped = schema.check(value, &Budget::steps(STEPS));
        assert_eq!(stopped, Err(Unchecked::Undone(Undone::Exhausted)));
        assert!(started.elapsed() < Duration::from_secs(2));
    };
    let inner = json!({"properties": {"a": {"$ref": "#"}}});
    let twice = json!({"allOf": [inner, inner]});
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!({"a": deep});
    }
    check(&twice, &deep);
    check(&json!({"not": {"not": twice}}), &deep);
    let many: Vec<u32> = (0..250_000).collect();
    check(&json!({"uniqueItems": true}), &json!(many));
    check(&json!({"items": {"enum": many[..5_000]}}), &json!(many));
    check(
        &json!({"unevaluatedItems": false, "contains": {"minimum": 0}}),
        &json!(many),
    );
    let text = "01".repeat(50_000);
    check(&json!({"pattern": "[01]*1[01]{3000}$"}), &json!(text));
}

#[test]
fn an_error_says_little_of_a_large_value() {
    let value = json!(["x".repeat(20_000), "ä".repeat(20_000)]);
    for schema in [
        json!({"type": "string"}),
        json!({"items": {"type": "number"}}),
        json!({"enum": [1, "y".repeat(50_000)]}),
        json!({"const": "y".repeat(50_000)}),
        json!({"items": {"pattern": "y"}}),
        json!({"not": true}),
    ] {
        let compiled = compile(&schema).expect("it is fine");
        match compiled.check(&value, &Budget::steps(STEPS)) {
            Err(Unchecked::Wrong(problem)) => assert!(problem.message.len() < 600, "{problem:?}"),
            other => panic!("{schema}: {other:?}"),
        }
    }
}

#[test]
fn patterns_together_take_bounded_memory() {
    let large = r"\\p{L}{60}".replace("\\\\", "\\");
    refused(&json!({"pattern": large}), "bytes compiled");
    let some: Vec<Value> = (0..40)
        .map(|n| json!({"pattern": format!(r"\p{{L}}{{5}}{n}")}))
        .collect();
    refused(&json!({"anyOf": some}), "bytes compiled");
    refused(&json!({"pattern": "a".repeat(2000)}), "at most 1024");
    refused(&json!({"pattern": "(?=a)"}), "look-ahead");
    refused(&json!({"pattern": "["}), "the pattern `[`");
}

#[test]
fn what_is_no_schema_is_said_with_its_place() {
    for (schema, says) in [
        (json!({"type": 12}), "at `#/`: `type` must be `array`"),
        (
            json!({"properties": {"a": 7}}),
            "at `#/properties/a`: a schema must be",
        ),
        (
            json!({"$defs": {"a": {"minimum": "x"}}}),
            "at `#/$defs/a`: `minimum` must be a number",
        ),
        (
            json!({"allOf": []}),
            "`allOf` must have at least one schema",
        ),
        (
            json!({"required": [1]}),
            "`required` must have strings only",
        ),
        (json!({"multipleOf": 0}), "greater than 0"),
        (
            json!({"minLength": -1}),
            "`minLength` must be a whole number",
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            "there is nothing at \"#/$defs/a\"",
        ),
        (json!({"$ref": "#a"}), "there is nothing at"),
    ] {
        refused(&schema, says);
    }
}

/// Schemas of every keyword, small and deep enough to have them meet.
fn schemas() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(2.5)),
        Just(json!(1.0))
    ];
    let small = 0_u64..4;
    let name = || prop_oneof![Just("a"), Just("b"), Just("ab")];
    let kind = prop_oneof![
        Just("null"),
        Just("boolean"),
        Just("integer"),
        Just("number"),
        Just("string"),
        Just("array"),
        Just("object"),
    ];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        kind.prop_map(|kind| json!({"type": kind})),
        values().prop_map(|value| json!({"const": value})),
        prop::collection::vec(values(), 1..3).prop_map(|all| json!({"enum": all})),
        (
            prop_oneof![
                Just("minimum"),
                Just("maximum"),
                Just("exclusiveMinimum"),
                Just("exclusiveMaximum")
            ],
            number
        )
            .prop_map(|(key, limit)| json!({key: limit})),
        Just(json!({"multipleOf": 2})),
        Just(json!({"multipleOf": 0.5})),
        (
            prop_oneof![
                Just("minLength"),
                Just("maxLength"),
                Just("minItems"),
                Just("maxItems"),
                Just("minProperties"),
                Just("maxProperties")
            ],
            small
        )
            .prop_map(|(key, count)| json!({key: count})),
        prop_oneof![Just("^a"), Just("b$"), Just("^.?$")].prop_map(|text| json!({"pattern": text})),
        Just(json!({"uniqueItems": true})),
        prop::collection::btree_set(name(), 1..3).prop_map(|names| json!({"required": names})),
        (name(), name()).prop_map(|(one, other)| json!({"dependentRequired": {one: [other]}})),
        Just(json!({"$ref": "#/$defs/d"})),
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let several = || prop::collection::vec(inner.clone(), 1..3);
        let name = || prop_oneof![Just("a"), Just("b"), Just("ab")];
        let applied = prop_oneof![
            (
                prop_oneof![
                    Just("allOf"),
                    Just("anyOf"),
                    Just("oneOf"),
                    Just("prefixItems")
                ],
                several()
            )
                .prop_map(|(key, all)| json!({key: all})),
            (
                prop_oneof![
                    Just("not"),
                    Just("items"),
                    Just("propertyNames"),
                    Just("contains"),
                    Just("additionalProperties"),
                    Just("unevaluatedItems"),
                    Just("unevaluatedProperties")
                ],
                inner.clone()
            )
                .prop_map(|(key, one)| json!({key: one})),
            // Where one asks what the others have seen.
            (inner.clone(), any::<bool>())
                .prop_map(|(one, rest)| { json!({"contains": one, "unevaluatedItems": rest}) }),
            (several(), name(), inner.clone()).prop_map(|(all, name, one)| {
                json!({
                    "anyOf": all, "properties": {name: one},
                    "unevaluatedItems": false, "unevaluatedProperties": false,
                })
            }),
            (inner.clone(), 0_u64..3, 0_u64..3).prop_map(|(one, least, most)| {
                json!({"contains": one, "minContains": least, "maxContains": most})
            }),
            (name(), inner.clone()).prop_map(|(name, one)| json!({"properties": {name: one}})),
            (name(), inner.clone())
                .prop_map(|(name, one)| json!({"patternProperties": {name: one}})),
            (name(), inner.clone())
                .prop_map(|(name, one)| json!({"dependentSchemas": {name: one}})),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(one, two, three)| json!({"if": one, "then": two, "else": three})),
        ];
        // Several keywords in one schema: that is where they see each other's work.
        prop::collection::vec(applied, 1..4).prop_map(|parts| {
            let mut all = serde_json::Map::new();
            for part in parts {
                if let Value::Object(part) = part {
                    all.extend(part);
                }
            }
            Value::Object(all)
        })
    })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![
            Just(json!(0)),
            Just(json!(1)),
            Just(json!(1.0)),
            Just(json!(-0.0)),
            Just(json!(2.5)),
            Just(json!(u64::MAX)),
            Just(json!(i64::MIN)),
            Just(json!(1e300))
        ],
        prop_oneof![Just("a"), Just("b"), Just("ab"), Just("ä"), Just("")].prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let name = prop_oneof![
            Just("a".to_owned()),
            Just("b".to_owned()),
            Just("ab".to_owned())
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_is_that_of_a_library(
        schema in schemas(),
        inner in schemas(),
        values in prop::collection::vec(values(), 1..5),
    ) {
        let mut schema = match schema {
            Value::Object(schema) => schema,
            other => serde_json::Map::from_iter([("not".to_owned(), json!({"not": other}))]),
        };
        schema.insert("$defs".to_owned(), json!({"d": inner}));
        let schema = Value::Object(schema);
        let Ok(ours) = compile(&schema) else {
            // What goes round is refused by us alone.
            return Ok(());
        };
        let theirs = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .build(&schema);
        let theirs = theirs.expect("what we take is a schema");
        for value in values {
            let verdict = ours.check(&value, &Budget::steps(STEPS));
            prop_assert!(!matches!(verdict, Err(Unchecked::Undone(_))), "{schema} {value}");
            prop_assert_eq!(
                verdict.is_ok(), theirs.is_valid(&value),
                "{} {} {:?}", schema, value, verdict
            );
        }
    }
}
