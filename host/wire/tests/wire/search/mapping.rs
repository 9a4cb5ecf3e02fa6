//! What a mapping changes: which rule holds, which clauses are query text, which fields are read.

use std::sync::Arc;

use http::Method;
use rerankd_core::{Limits, PolicySelector, RerankRequest, Value};
use rerankd_wire::search::{
    FieldChoice, IndexRule, Mapping, Plan, Policies, Rules, SearchCall, Seen, Target, plan,
};
use serde_json::json;

use super::{Search, read, rule, text};

/// A server that has looked the target up.
struct Server {
    seen: Seen,
    choice: Option<FieldChoice>,
}

impl Policies for Server {
    fn fields(&self, _: &PolicySelector) -> Option<Vec<String>> {
        Some(vec!["title".into(), "text".into()])
    }

    fn choice(&self, _: &PolicySelector) -> Option<FieldChoice> {
        self.choice.clone()
    }

    fn mapping(&self, _: &Target) -> Seen {
        self.seen.clone()
    }
}

/// An index of which the engine says these fields, by name and type.
fn fields(fields: &[(&str, &str)]) -> String {
    let mut all = serde_json::Map::new();
    for (name, kind) in fields {
        let of_name = all.entry(*name).or_insert_with(|| json!({}));
        of_name[kind] = json!({"type": kind});
    }
    json!({"indices": ["shop"], "fields": all}).to_string()
}

const SHOP: &[(&str, &str)] = &[
    ("_id", "_id"),
    ("name", "text"),
    ("name.keyword", "keyword"),
    ("description", "text"),
    ("description.english", "text"),
    ("brand", "keyword"),
    ("brand.words", "text"),
    ("in_stock", "boolean"),
    ("price", "double"),
    ("released", "date"),
    ("all", "text"),
    ("maker", "object"),
    ("maker.story", "text"),
    ("variants", "nested"),
    ("variants.colour", "search_as_you_type"),
    ("variants.colour._2gram", "search_as_you_type"),
    ("note_en", "match_only_text"),
];

fn server(caps: &str, defaults: Option<&str>) -> Server {
    let target = Target::of_indices("shop");
    let defaults = defaults.map(str::as_bytes);
    let mapping = Mapping::read(&target, &all_indices(), caps.as_bytes(), None, defaults);
    Server {
        seen: Seen::Known(Arc::new(mapping.unwrap())),
        choice: Some(FieldChoice::default()),
    }
}

fn all_indices() -> Rules {
    Rules {
        indices: Vec::new(),
        default_rule: Some(rule("*")),
    }
}

fn call<'a>(search: &'a Search, index: Option<&'a str>) -> SearchCall<'a> {
    SearchCall {
        index,
        method: &Method::POST,
        path: "/shop/_search",
        query: search.query.as_deref(),
        headers: &search.headers,
        body: search.body.as_bytes(),
    }
}

fn planned<'a>(search: &'a Search, rules: &Rules, server: &Server) -> Plan<'a> {
    plan(
        &call(search, Some("shop")),
        rules,
        server,
        &Limits::default(),
    )
    .unwrap()
}

/// The query, or in angle brackets why nothing is reranked.
fn query(search: &Search, server: &Server) -> String {
    match planned(search, &all_indices(), server) {
        Plan::Pass(pass) => format!("<{}>", pass.reason.name()),
        Plan::Rerank(rewritten) => request(&rewritten, r#"{"_id":"1"}"#).query,
    }
}

fn request(rewritten: &rerankd_wire::search::Rewritten<'_>, hits: &str) -> RerankRequest {
    let answer = format!(r#"{{"hits":{{"hits":[{hits}]}}}}"#);
    let mut found = read(rewritten, answer.as_bytes());
    found.request().unwrap()
}

fn searching(query: &str) -> Search {
    Search::of(&format!(r#"{{"query":{query}}}"#))
}

#[test]
fn a_clause_on_a_field_that_is_not_full_text_is_no_query_text() {
    let server = server(&fields(SHOP), None);
    let cases = [
        (r#"{"match":{"name":"watch"}}"#, "watch"),
        (r#"{"match":{"brand":"Acme"}}"#, "<no-query>"),
        (r#"{"match":{"in_stock":"true"}}"#, "<no-query>"),
        (
            r#"{"match_phrase":{"released":"2026-01-31"}}"#,
            "<no-query>",
        ),
        (
            r#"{"match":{"name.keyword":{"query":"watch"}}}"#,
            "<no-query>",
        ),
        (r#"{"match":{"brand.words":"acme"}}"#, "acme"),
        (r#"{"match":{"variants.colour._2gram":"red"}}"#, "red"),
        (r#"{"match":{"maker":"acme"}}"#, "<no-query>"),
        (r#"{"match":{"_id":"acme"}}"#, "<no-query>"),
        // The mapping may be older than the field.
        (r#"{"match":{"new_field":"watch"}}"#, "watch"),
        (
            r#"{"bool":{"must":[{"match":{"name":"watch"}},{"match":{"brand":"Acme"}}]}}"#,
            "watch",
        ),
        (
            r#"{"bool":{"must":[{"match":{"name":"watch"}},{"match":{"all":"Acme"}}]}}"#,
            "<ambiguous-query>",
        ),
        (
            r#"{"multi_match":{"query":"acme","fields":["brand^3","price"]}}"#,
            "<no-query>",
        ),
        (
            r#"{"multi_match":{"query":"acme","fields":["brand^3","name"]}}"#,
            "acme",
        ),
        (
            r#"{"multi_match":{"query":"acme","fields":["na*"]}}"#,
            "acme",
        ),
        (
            r#"{"multi_match":{"query":"acme","fields":["bran*d"]}}"#,
            "<no-query>",
        ),
        (
            r#"{"multi_match":{"query":"acme","fields":["nothing*"]}}"#,
            "<no-query>",
        ),
        (r#"{"multi_match":{"query":"acme"}}"#, "acme"),
        (
            r#"{"query_string":{"query":"acme","default_field":"brand"}}"#,
            "<no-query>",
        ),
        (
            r#"{"query_string":{"query":"acme","fields":["brand"]}}"#,
            "<no-query>",
        ),
        (
            r#"{"simple_query_string":{"query":"acme","fields":["brand"]}}"#,
            "<no-query>",
        ),
        (r#"{"simple_query_string":{"query":"acme"}}"#, "acme"),
        // Meaning is asked for in vectors.
        (r#"{"neural":{"price":{"query_text":"cheap"}}}"#, "cheap"),
    ];
    for (body, expected) in cases {
        assert_eq!(query(&searching(body), &server), expected, "{body}");
    }
    assert_eq!(
        query(&Search::of("").at("q=acme&df=brand"), &server),
        "<no-query>"
    );
    assert_eq!(query(&Search::of("").at("q=acme&df=name"), &server), "acme");
}

#[test]
fn a_field_that_the_search_defines_is_what_it_says() {
    let server = server(&fields(SHOP), None);
    let search = |kind: &str| {
        Search::of(&format!(
            r#"{{"runtime_mappings":{{"name":{{"type":"{kind}"}}}},"query":{{"match":{{"name":"a"}}}}}}"#
        ))
    };
    assert_eq!(query(&search("keyword"), &server), "<no-query>");
    assert_eq!(query(&search("text"), &server), "a");
}

#[test]
fn what_lies_below_a_flattened_field_is_no_full_text() {
    for kind in ["flattened", "flat_object", "keyword"] {
        let caps = fields(&[("labels", kind), ("maker", "object"), ("name", "text")]);
        let server = server(&caps, None);
        let below = |name: &str| searching(&format!(r#"{{"match":{{"{name}":"red"}}}}"#));
        assert_eq!(query(&below("labels.color"), &server), "<no-query>");
        assert_eq!(query(&below("labels.color.dark"), &server), "<no-query>");
        // The mapping may be older than these.
        for name in ["maker.story", "name.english", "unknown.color"] {
            assert_eq!(query(&below(name), &server), "red", "{name}");
        }
    }
}

#[test]
fn a_name_that_is_full_text_in_one_index_is_full_text() {
    let caps = fields(&[("brand", "keyword"), ("brand", "text")]);
    assert_eq!(
        query(
            &searching(r#"{"match":{"brand":"a"}}"#),
            &server(&caps, None)
        ),
        "a"
    );
}

#[test]
fn what_no_mapping_says_anything_of_is_searched_as_before() {
    let search = searching(r#"{"match":{"brand":"Acme"}}"#);
    let empty = r#"{"indices":["shop"],"fields":{}}"#;
    assert_eq!(query(&search, &server(empty, None)), "Acme");
    for seen in [Seen::Off, Seen::Unknown, Seen::Cold] {
        let choice = Some(FieldChoice::default());
        let server = Server { seen, choice };
        assert_eq!(query(&search, &server), "Acme");
    }
}

#[test]
fn only_a_plan_that_hangs_on_the_mapping_says_so() {
    let cold = Server {
        seen: Seen::Cold,
        choice: None,
    };
    let hangs = |search: &Search, rules: &Rules| planned(search, rules, &cold).hangs_on_mapping();
    let text = searching(r#"{"match":{"name":"watch"}}"#);
    let one_of_many = Rules {
        indices: vec![rule("store"), rule("other")],
        default_rule: None,
    };
    assert!(hangs(&text, &all_indices()));
    assert!(hangs(&text, &one_of_many), "`shop` may be in `store`");
    for passed in [
        searching(r#"{"match_all":{}}"#),
        Search::of(r#"{"query":{"match":{"name":"a"}},"size":0}"#),
        Search::of(r#"{"query":{"match":{"name":"a"}},"sort":["price"]}"#),
        Search::of(r#"{"query":{"match":{"name":"a"}},"from":10000}"#),
        text.clone().header("rerankd-enabled", "false"),
    ] {
        assert!(!hangs(&passed, &all_indices()), "{}", passed.body);
        assert!(!hangs(&passed, &one_of_many), "{}", passed.body);
    }
    let mut disabled = one_of_many.clone();
    for rule in &mut disabled.indices {
        rule.enabled = false;
    }
    assert!(!hangs(&text, &disabled), "no rule reranks it");
    let insisting = text.clone().header("rerankd-enabled", "true");
    assert!(hangs(&insisting, &disabled), "any rule would");
    let unknown = Server {
        seen: Seen::Unknown,
        choice: None,
    };
    assert!(planned(&text, &all_indices(), &unknown).mapping_is_unknown());
    let sorted = Search::of(r#"{"query":{"match":{"name":"a"}},"sort":["price"]}"#);
    assert!(!planned(&sorted, &all_indices(), &unknown).mapping_is_unknown());
}

/// What is read of a hit that has every field of [`SHOP`] but `all`, which others are copied to.
fn fields_read(search: &Search, server: &Server) -> Vec<String> {
    let Plan::Rerank(rewritten) = planned(search, &all_indices(), server) else {
        panic!("passed: {}", search.body);
    };
    let hit = json!({"_id": "1", "_source": {
        "name": "n", "description": "d", "brand": "b", "price": 1.5, "note_en": "e",
        "maker": {"story": "s"}, "variants": [{"colour": "c"}, {"colour": "k"}]
    }});
    request(&rewritten, &hit.to_string()).fields.unwrap()
}

#[test]
fn the_fields_that_are_searched_are_read_first_by_boost_then_those_of_the_mapping() {
    let server = server(&fields(SHOP), None);
    let cases = [
        (
            r#"{"match":{"maker.story":"watch"}}"#,
            vec!["maker.story", "description", "name", "note_en"],
        ),
        (
            r#"{"multi_match":{"query":"w","fields":["description","name^3","brand^9"]}}"#,
            vec!["name", "description", "note_en", "maker.story"],
        ),
        (
            r#"{"bool":{"should":[{"match":{"note_en":"w"}},{"match":{"name":{"query":"w","boost":2}}}]}}"#,
            vec!["name", "note_en", "description", "maker.story"],
        ),
        (
            r#"{"bool":{"should":[{"dis_max":{"boost":0.5,"queries":[{"match":{"name":{"query":"w","boost":3}}}]}},{"match":{"note_en":{"query":"w","boost":2}}}]}}"#,
            vec!["note_en", "name", "description", "maker.story"],
        ),
        // A multi-field is another way to search the text of its parent.
        (
            r#"{"match":{"brand.words":"w"}}"#,
            vec!["brand", "description", "name", "note_en"],
        ),
        (
            r#"{"multi_match":{"query":"w","fields":["description.english","description"]}}"#,
            vec!["description", "name", "note_en", "maker.story"],
        ),
        (
            r#"{"multi_match":{"query":"w","fields":["*.colour","n*^2"]}}"#,
            vec!["name", "note_en", "variants.colour", "description"],
        ),
        (
            r#"{"multi_match":{"query":"w"}}"#,
            vec!["description", "name", "note_en", "maker.story"],
        ),
        // What is copied together from others is in no hit.
        (
            r#"{"match":{"all":"w"}}"#,
            vec!["description", "name", "note_en", "maker.story"],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(fields_read(&searching(body), &server), expected, "{body}");
    }
    let search = Search::of("").at("q=w&df=note_en");
    assert_eq!(fields_read(&search, &server)[0], "note_en");
}

#[test]
fn default_fields_of_the_index_are_what_a_query_without_fields_searches() {
    let defaults = r#"{"shop":{"settings":{"index.query.default_field":["note_en","name^2"]}}}"#;
    let server = server(&fields(SHOP), Some(defaults));
    let read = fields_read(&searching(r#"{"query_string":{"query":"w"}}"#), &server);
    assert_eq!(read, ["name", "note_en", "description", "maker.story"]);
    let keywords = r#"{"shop":{"settings":{"index.query.default_field":"brand,price"}}}"#;
    let server = self::server(&fields(SHOP), Some(keywords));
    let search = searching(r#"{"multi_match":{"query":"Acme"}}"#);
    assert_eq!(query(&search, &server), "<no-query>");
}

#[test]
fn the_policys_own_fields_come_before_others_of_the_same_depth() {
    let caps = fields(&[
        ("about", "text"),
        ("text", "text"),
        ("title", "text"),
        ("x", "text"),
    ]);
    let server = server(&caps, None);
    let search = searching(r#"{"match":{"x":"w"}}"#);
    let Plan::Rerank(rewritten) = planned(&search, &all_indices(), &server) else {
        panic!("passed");
    };
    let hit = r#"{"_source":{"about":"a","text":"b","title":"c","x":"d"}}"#;
    let read = request(&rewritten, hit).fields.unwrap();
    assert_eq!(read, ["x", "title", "text", "about"]);
}

#[test]
fn fields_are_chosen_within_the_grants_and_only_where_nobody_names_them() {
    let mut server = server(&fields(SHOP), None);
    server.choice = Some(FieldChoice {
        kept: Vec::new(),
        grants: Some(vec!["description".into(), "title".into()]),
    });
    let search = searching(r#"{"match":{"name":"w"}}"#);
    assert_eq!(fields_read(&search, &server), ["description"]);
    for named in [
        search.clone().header("rerankd-fields", "name"),
        search
            .clone()
            .header("rerankd-parameters", r#"{"fields":["name"]}"#),
    ] {
        let Plan::Rerank(rewritten) = planned(&named, &all_indices(), &server) else {
            panic!("passed");
        };
        let asked = request(&rewritten, r#"{"_source":{"name":"n","description":"d"}}"#);
        assert_ne!(asked.fields, Some(vec!["description".to_owned()]));
    }
    server.choice = None;
    let Plan::Rerank(rewritten) = planned(&search, &all_indices(), &server) else {
        panic!("passed");
    };
    assert_eq!(
        request(&rewritten, r#"{"_source":{"name":"n"}}"#).fields,
        None
    );
}

#[test]
fn hits_without_any_of_the_fields_leave_the_policy_its_own() {
    let server = server(&fields(SHOP), None);
    let search = searching(r#"{"match":{"name":"w"}}"#);
    let Plan::Rerank(rewritten) = planned(&search, &all_indices(), &server) else {
        panic!("passed");
    };
    let asked = request(&rewritten, r#"{"_source":{"title":"t","name":""}}"#);
    assert_eq!(asked.fields, None);
    assert_eq!(asked.documents[0].fields[0].name, "title");
}

#[test]
fn no_more_than_the_candidates_is_fetched_for_a_client_that_wants_no_source() {
    let server = server(&fields(SHOP), None);
    let body = r#"{"_source":false,"query":{"match":{"name":"w"}}}"#;
    let search = Search::of(body);
    let Plan::Rerank(rewritten) = planned(&search, &all_indices(), &server) else {
        panic!("passed");
    };
    let widened = text(&rewritten.widened.body);
    let names = r#""_source":["name","all","description","note_en","maker.story","variants.colour","title","text"]"#;
    assert!(widened.contains(names), "{widened}");
}

#[test]
fn a_document_gives_no_more_than_64_kib_of_text() {
    let server = server(&fields(SHOP), None);
    let search = searching(r#"{"match":{"name":"w"}}"#);
    let Plan::Rerank(rewritten) = planned(&search, &all_indices(), &server) else {
        panic!("passed");
    };
    let source =
        json!({"name": "n".repeat(100), "description": "ä".repeat(40_000), "note_en": "e"});
    let asked = request(&rewritten, &json!({"_source": source}).to_string());
    let sizes: Vec<(&str, usize)> = asked.documents[0]
        .fields
        .iter()
        .map(|field| match &field.value {
            Value::Text(text) => (&*field.name, text.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [("description", (64 << 10) - 100), ("name", 100)]);
}

#[test]
fn patterns_stand_for_full_text_fields() {
    let with_rule = |fields: &[&str]| Rules {
        indices: vec![IndexRule {
            fields: Some(fields.iter().map(|field| (*field).to_owned()).collect()),
            ..rule("*")
        }],
        default_rule: None,
    };
    let hit = r#"{"_source":{"name":"n","description":"d","brand":"b","price":2,"note_en":"e","maker":{"story":"s"}}}"#;
    let search = searching(r#"{"match":{"name":"w"}}"#);
    let read = |fields: &[&str], server: &Server| {
        let Plan::Rerank(rewritten) = planned(&search, &with_rule(fields), server) else {
            panic!("passed");
        };
        request(&rewritten, hit).fields.unwrap()
    };
    let known = server(&fields(SHOP), None);
    assert_eq!(
        read(&["*"], &known),
        ["description", "name", "note_en", "maker.story"]
    );
    assert_eq!(read(&["n*"], &known), ["name", "note_en"]);
    assert_eq!(read(&["brand", "n*"], &known), ["brand", "name", "note_en"]);
    let unknown = Server {
        seen: Seen::Unknown,
        choice: None,
    };
    let all = ["brand", "description", "name", "note_en", "maker.story"];
    assert_eq!(read(&["*"], &unknown), all, "the texts of the hits");

    // A field that is named is read, whatever it is.
    for server in [&known, &unknown] {
        let all = ["name", "note_en", "price"];
        assert_eq!(read(&["n*", "price"], server), all);
        assert_eq!(read(&["missing*", "price"], server), ["price"]);
    }
    let own = search
        .clone()
        .header("rerankd-parameters", r#"{"fields":["price"]}"#);
    let Plan::Rerank(rewritten) = planned(&own, &with_rule(&["*"]), &known) else {
        panic!("passed");
    };
    let asked = request(&rewritten, hit);
    let all = ["description", "name", "note_en", "maker.story", "price"];
    assert_eq!(asked.fields.unwrap(), all);
    let mut fields = asked.documents[0].fields.iter();
    assert!(fields.any(|field| field.name == "price"));

    // However many a pattern stands for, up to 32 in all.
    let names: Vec<String> = (0..40).map(|n| format!("text{n:02}")).collect();
    let texts: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "text")).collect();
    let source: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .map(|name| (name.clone(), json!("t")))
        .collect();
    let many = server(&self::fields(&texts), None);
    for server in [&many, &unknown] {
        let rules = with_rule(&["*", "price"]);
        let Plan::Rerank(rewritten) = planned(&search, &rules, server) else {
            panic!("passed");
        };
        let hit = json!({"_source": source}).to_string();
        let read = request(&rewritten, &hit).fields.unwrap();
        assert_eq!(
            (read.len(), &*read[30], &*read[31]),
            (32, "text30", "price")
        );
    }
}

#[test]
fn a_pattern_without_end_may_mean_anything_and_costs_little() {
    let texts: Vec<String> = (0..2_000).map(|n| format!("field{n}")).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|name| (&**name, "text")).collect();
    let server = server(&fields(&texts), None);
    let field = format!("{}x", "*".repeat(400_000));
    let names = vec![field; 32];
    let search = searching(&json!({"multi_match": {"query": "w", "fields": names}}).to_string());
    assert_eq!(query(&search, &server), "w");
    let short = vec!["*".repeat(1_000) + "x"; 32];
    let search = searching(&json!({"multi_match": {"query": "w", "fields": short}}).to_string());
    assert_eq!(query(&search, &server), "<no-query>");
}

/// The pattern of the rule that holds, or why none does.
fn ruled(patterns: &[&str], expression: &str, caps: &str, names: &str) -> String {
    let rules = Rules {
        indices: patterns
            .iter()
            .map(|pattern| IndexRule {
                window: 10 + pattern.len(),
                ..rule(pattern)
            })
            .collect(),
        default_rule: None,
    };
    let target = Target::of_indices(expression);
    let names = (!names.is_empty()).then_some(names.as_bytes());
    let mapping = Mapping::read(&target, &rules, caps.as_bytes(), names, None).unwrap();
    let server = Server {
        seen: Seen::Known(Arc::new(mapping)),
        choice: None,
    };
    let search = searching(r#"{"match":{"name":"w"}}"#);
    let call = call(&search, Some(expression));
    match plan(&call, &rules, &server, &Limits::default()).unwrap() {
        Plan::Pass(pass) => pass.reason.name().to_owned(),
        Plan::Rerank(rewritten) => {
            let of_window = |pattern: &&&str| 10 + pattern.len() == rewritten.window;
            (*patterns.iter().find(of_window).unwrap()).to_owned()
        }
    }
}

#[test]
fn rules_match_names_as_the_engine_resolves_them() {
    let caps = |indices: &[&str]| {
        let fields = json!({"name": {"text": {"type": "text"}}});
        json!({"indices": indices, "fields": fields}).to_string()
    };
    let shop = caps(&["shop"]);
    let alias =
        r#"{"indices":[],"aliases":[{"name":"store","indices":["shop"]}],"data_streams":[]}"#;
    assert_eq!(ruled(&["shop"], "store", &shop, alias), "shop");
    assert_eq!(ruled(&["shop"], "store", &shop, ""), "shop");
    assert_eq!(ruled(&["store"], "store", &shop, ""), "store");
    assert_eq!(ruled(&["store"], "st*", &shop, alias), "store");
    assert_eq!(ruled(&["shop"], "sho*", &shop, ""), "shop");
    assert_eq!(ruled(&["shop"], "<shop{now/d}>", &shop, ""), "shop");
    assert_eq!(ruled(&["other"], "store", &shop, alias), "no-rule");

    let both = caps(&["shop", "stock"]);
    assert_eq!(ruled(&["shop", "stock!"], "s*", &both, ""), "no-rule");
    assert_eq!(ruled(&["shop", "stock"], "s*", &both, ""), "rules-differ");
    assert_eq!(ruled(&["s*"], "shop,stock", &both, ""), "s*");
    assert_eq!(ruled(&["shop", "*"], "_all", &both, ""), "rules-differ");

    // The engine's own indices have no say where a pattern brought them in.
    let own = caps(&[".tasks", "shop"]);
    assert_eq!(ruled(&["*"], "_all", &own, ""), "*");
    assert_eq!(ruled(&["*"], "shop,.tasks", &own, ""), "no-rule");
    assert_eq!(ruled(&["*"], "*", &caps(&[".tasks"]), ""), "no-rule");

    // Elasticsearch and OpenSearch name what a data stream is made of in two ways.
    let stream = caps(&[".ds-logs-web-2026.11.28-000001"]);
    assert_eq!(ruled(&["logs-web"], "logs*", &stream, ""), "logs-web");
    assert_eq!(ruled(&["*"], "logs*", &stream, ""), "*");
    let stream = caps(&[".ds-logs-web-000002"]);
    assert_eq!(ruled(&["logs-web"], "logs-web", &stream, ""), "logs-web");
    let names = r#"{"indices":[{"name":".ds-logs-web-000002","data_stream":"logs-web"}],
        "aliases":[{"name":"web","indices":["logs-web"]}],"data_streams":[]}"#;
    assert_eq!(ruled(&["web"], "we*", &stream, names), "web");

    // Nothing was found: what was written counts.
    let none = caps(&[]);
    assert_eq!(ruled(&["shop-*"], "shop-*", &none, ""), "shop-*");
}

#[test]
fn an_index_in_the_url_is_what_a_path_without_one_is_asked_of() {
    let rules = Rules {
        indices: vec![rule("shop")],
        default_rule: None,
    };
    let off = Server {
        seen: Seen::Off,
        choice: None,
    };
    let body = r#"{"query":{"match":{"name":"w"}}}"#;
    let reason = |index: Option<&str>, query: &str| {
        let search = Search::of(body).at(query);
        let call = call(&search, index);
        match plan(&call, &rules, &off, &Limits::default()).unwrap() {
            Plan::Pass(pass) => pass.reason.name(),
            Plan::Rerank(rewritten) => {
                let target = &*rewritten.widened.path_and_query;
                assert_eq!(target, format!("/shop/_search?{query}"));
                "applied"
            }
        }
    };
    assert_eq!(reason(None, "index=shop"), "applied");
    assert_eq!(reason(None, "index=other"), "no-rule");
    assert_eq!(reason(Some("shop"), "index=other"), "applied");
    assert_eq!(reason(None, "pretty"), "no-rule");
}

#[test]
fn answers_that_are_no_mapping_are_refused() {
    let target = Target::of_indices("shop");
    let read = |caps: &str| Mapping::read(&target, &all_indices(), caps.as_bytes(), None, None);
    for caps in ["", "no", "[]", r#"{"error":{"type":"x"},"status":200}"#] {
        assert!(read(caps).is_err(), "{caps}");
    }
    // Strange, and of no use, but no reason to fail.
    for caps in [
        "{}",
        r#"{"indices":7,"fields":[1]}"#,
        r#"{"fields":{"a":7}}"#,
    ] {
        assert!(read(caps).is_ok(), "{caps}");
    }
    let many: Vec<String> = (0..20_001).map(|n| format!(r#""f{n}":{{}}"#)).collect();
    assert!(read(&format!(r#"{{"fields":{{{}}}}}"#, many.join(","))).is_err());
}
