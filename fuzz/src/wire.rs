//! Target `wire`: bodies of every protocol, searches of the search proxy, and engines' answers.
//!
//! The first byte says what the rest is, the second one picks paths, targets and results:
//! - `s`: a search, in parts that byte 0xFF separates: URL query, headers (a line each), body, the
//!   engine's answer, path, the engine's answers to look-ups: fields, names, defaults;
//! - `m`: an `_msearch` in the same parts, and the engine's answer to what was asked again;
//! - anything else: a body, given to each protocol.
//!
//! Promises: nothing panics; what is refused is refused as the caller's fault, in a short message; what
//! is accepted is at most [`MOST_TIMES`] times as large as its body, and an answer can be made of any
//! results; an engine's hits keep each byte but their order and scores; what goes on to the engine is
//! the client's own but for what is documented.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rerankd_core::{
    ErrorKind, FirstStage, Judgment, Limits, Notes, Outcome, PolicySelector, Ranking, RerankError,
    RerankRequest, Reranked, ScoreKind, Status, Timings, TokenCount, UnitMap,
};
use rerankd_wire::search::{
    FieldChoice, Forward, Found, IndexRule, ItemPlan, Mapping, MultiAnswer, Plan, Policies, Rules,
    SearchCall, Seen, Target, endpoint, plan, plan_multi,
};
use rerankd_wire::{Call, Decoded, PROTOCOLS, Protocol};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a body may become, as a multiple of its size: ARCHITECTURE.md, "The memory bound".
const MOST_TIMES: usize = 16;

/// Longest message, bytes.
const MOST_MESSAGE: usize = 4 << 10;

/// Runs one input.
///
/// # Panics
/// Where a promise is broken.
pub fn run(input: &[u8]) {
    let [mode, choice, rest @ ..] = input else {
        return;
    };
    match mode {
        b's' => search(*choice, rest),
        b'm' => multi_search(*choice, rest),
        _ => body(*choice, rest),
    }
}

fn limits() -> Limits {
    Limits {
        max_documents: 32,
        ..Limits::default()
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

fn body(choice: u8, body: &[u8]) {
    let limits = limits();
    for route in rerankd_wire::routes() {
        route.protocol(body);
    }
    for &protocol in PROTOCOLS {
        let paths = protocol.paths();
        let targets = ["", "_default", "semantic-blend", "p@0123456789abcdef"];
        let call = Call {
            path: match paths.len() {
                0 => {
                    rerankd_wire::SHARED_PATHS
                        [usize::from(choice) % rerankd_wire::SHARED_PATHS.len()]
                }
                count => paths[usize::from(choice) % count],
            },
            target: targets[usize::from(choice >> 2) % targets.len()],
            body,
            limits: &limits,
            request_id: "r-1",
            unix_seconds: 1_700_000_000,
        };
        match protocol.decode(&call) {
            Err(error) => refused(protocol, &error),
            Ok(decoded) => accepted(protocol, choice, body, decoded),
        }
    }
    if let Ok(texts) = rerankd_wire::metarank::decode_texts(body, &limits) {
        assert!(texts.len() <= limits.max_documents);
    }
}

fn refused(protocol: &dyn Protocol, error: &RerankError) {
    let name = protocol.name();
    assert!(is_callers_fault(error), "{name}: {error:?}");
    let answer = protocol.encode_error(error, "r-1");
    let status = answer.status;
    assert!(status.is_client_error(), "{name}: {status} of {error:?}");
    assert!(is_json(&answer.body), "{name}: an error that is not JSON");
}

fn is_callers_fault(error: &RerankError) -> bool {
    assert!(!error.message.is_empty(), "an error without words");
    let length = error.message.len();
    assert!(length <= MOST_MESSAGE, "a message of {length} bytes");
    matches!(
        error.kind,
        ErrorKind::BadRequest | ErrorKind::Empty | ErrorKind::TooLarge
    )
}

fn accepted(protocol: &dyn Protocol, choice: u8, body: &[u8], decoded: Decoded<'_>) {
    let name = protocol.name();
    let (mut documents, mut bytes) = (0, 0);
    for request in &decoded.requests {
        check_request(request);
        documents += request.documents.len();
        bytes += size(request);
    }
    assert!(documents <= limits().max_documents, "{name}: {documents}");
    let most = MOST_TIMES * body.len();
    assert!(bytes <= most, "{name}: {} bytes became {bytes}", body.len());
    let all_scored = choice.is_multiple_of(3);
    let results: Vec<Reranked> = decoded
        .requests
        .iter()
        .map(|request| result(request, choice))
        .collect();
    match decoded.reply.encode(&results) {
        Ok(answer) => {
            let status = answer.status;
            assert!(status.is_success(), "{name}: {status} for a ranking");
            assert!(is_json(&answer.body), "{name}: an answer that is not JSON");
            let hits = (name == "hits").then(|| member(body, "response")).flatten();
            if let Some(before) = hits {
                same_hits(before.get().as_bytes(), &answer.body, false);
            }
        }
        // Some forms have no place for a document without a score.
        Err(error) => {
            assert!(!all_scored, "{name}: {error:?} for a whole ranking");
            protocol.encode_error(&error, "r-1");
        }
    }
}

/// What each protocol promises of a request.
fn check_request(request: &RerankRequest) {
    assert!(!request.query.trim().is_empty(), "an empty query");
    assert!(request.min_score.is_none_or(f64::is_finite));
    for document in &request.documents {
        let scored = document.first_stage_score.is_some_and(f64::is_finite);
        assert_eq!(scored, request.first_stage == FirstStage::Scored);
        let mut names: Vec<&str> = document.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "a field stands twice");
    }
    if let Some(parameters) = &request.parameters {
        let parsed = serde_json::from_str::<serde_json::Value>(parameters);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{parameters}");
    }
}

fn size(request: &RerankRequest) -> usize {
    let fields = |fields: &[rerankd_core::Field]| -> usize {
        let sizes = fields.iter().map(|f| f.name.len() + f.value.size_bytes());
        sizes.sum()
    };
    let documents = request
        .documents
        .iter()
        .map(|document| document.id.as_ref().map_or(0, String::len) + fields(&document.fields));
    let names = request.fields.iter().flatten().map(String::len);
    request.query.len()
        + request.parameters.as_ref().map_or(0, String::len)
        + request.key.as_ref().map_or(0, String::len)
        + fields(&request.signals)
        + names.sum::<usize>()
        + documents.sum::<usize>()
}

/// A ranking of the request's documents: whole, partial, failed or empty-handed, as `choice` has it.
fn result(request: &RerankRequest, choice: u8) -> Reranked {
    let judgment = |index: usize| {
        let outcome = match (choice % 3, index % 4) {
            (1, 1) => return Judgment::unscored("late"),
            (1, 2) => Outcome::Filtered,
            (2, 0..=2) => Outcome::Filtered,
            _ => Outcome::Scored(f64::from(choice) / 16.0 - (index * 7 % 5) as f64),
        };
        Judgment {
            outcome,
            truncated: choice.is_multiple_of(2) && !choice.is_multiple_of(3),
            explanation: request.explain.then(|| "{\"a\":1}".into()),
        }
    };
    let ranking = Ranking::new((0..request.documents.len()).map(judgment).collect());
    let status = if ranking.unscored() == 0 {
        Status::Applied
    } else {
        Status::Partial
    };
    Reranked {
        policy: "p".into(),
        version: "3f2a91c0".into(),
        status,
        score_kind: [ScoreKind::Logit, ScoreKind::Blend][usize::from(choice >> 7)],
        unit_map: UnitMap::Sigmoid,
        first_stage: request.first_stage,
        ranking,
        query_truncated: false,
        notes: Notes::default(),
        tokens: TokenCount::default(),
        timings: Timings::default(),
    }
}

/// A policy that reads `title` and `brand.name`.
/// A server, and what its engine has said of the target.
struct Fields(Option<Arc<Mapping>>);

impl Policies for Fields {
    fn fields(&self, _selector: &PolicySelector) -> Option<Vec<String>> {
        Some(vec!["title".into(), "brand.name".into()])
    }

    fn choice(&self, _selector: &PolicySelector) -> Option<FieldChoice> {
        Some(FieldChoice::default())
    }

    fn mapping(&self, target: &Target) -> Seen {
        target.paths();
        self.0.clone().map_or(Seen::Unknown, Seen::Known)
    }
}

/// What look-ups with these answers say of the target.
fn mapping<'a>(mut answers: impl Iterator<Item = &'a [u8]>, rules: &Rules) -> Option<Arc<Mapping>> {
    let fields = answers.next()?;
    let (names, defaults) = (answers.next(), answers.next());
    let target = Target::of_indices("products");
    let mapping = Mapping::read(&target, rules, fields, names, defaults).ok()?;
    Some(Arc::new(mapping))
}

fn rules(choice: u8) -> Rules {
    let rule = |pattern: &str| IndexRule {
        window: 5,
        max_window: 25,
        keep_scores: choice & 1 != 0,
        min_score: (choice & 2 != 0).then_some(0.5),
        fields: (choice & 4 != 0).then(|| vec!["title".into(), "text".into()]),
        query_path: (choice & 8 != 0).then(|| "query.bool.must[0].match.title.query".into()),
        search_pipelines: choice & 16 != 0,
        ..IndexRule::new(pattern, PolicySelector::parse("semantic-blend"))
    };
    Rules {
        indices: vec![rule("products*"), rule("*")],
        default_rule: None,
    }
}

fn text(part: Option<&[u8]>) -> &str {
    part.and_then(|part| std::str::from_utf8(part).ok())
        .unwrap_or_default()
}

fn headers(part: &str, content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in part.lines().take(32) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        let value = HeaderValue::from_bytes(value.trim().as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if !headers.contains_key(http::header::CONTENT_TYPE) {
        let value = HeaderValue::from_static(content_type);
        headers.insert(http::header::CONTENT_TYPE, value);
    }
    headers
}

fn search(choice: u8, rest: &[u8]) {
    let mut parts = rest.split(|&byte| byte == 0xff);
    let query = text(parts.next());
    let headers = headers(text(parts.next()), "application/json");
    let body = parts.next().unwrap_or_default();
    let answer = parts.next().unwrap_or_default();
    let path = text(parts.next());
    for method in [Method::GET, Method::POST, Method::PUT] {
        endpoint(&method, path);
    }
    let (limits, rules) = (limits(), rules(choice));
    let call = SearchCall {
        index: [
            Some("products"),
            None,
            Some("products-1,logs"),
            Some(".own"),
        ][usize::from(choice >> 6)],
        method: &Method::POST,
        path: "/products/_search",
        query: (!query.is_empty()).then_some(query),
        headers: &headers,
        body,
    };
    let server = Fields(mapping(parts, &rules));
    let plan = match plan(&call, &rules, &server, &limits) {
        Err(error) => {
            assert!(is_callers_fault(&error), "{error:?}");
            return;
        }
        Ok(Plan::Pass(pass)) => return check_original(&call, &pass.forward),
        Ok(Plan::Rerank(rewritten)) => rewritten,
    };
    check_original(&call, &plan.original);
    assert!(is_json(&plan.widened.body), "a widened search is not JSON");
    assert!(plan.window <= limits.max_documents);
    let in_url = query.contains("source");
    let is_pinned = String::from_utf8_lossy(call.body).contains("knn");
    if !in_url && !is_pinned && !plan.is_split() && call.body.len() > 2 {
        same_search(call.body, &plan.widened.body);
    }
    match plan.read(answer, &limits) {
        Err(problem) => {
            problem.status();
        }
        Ok(mut found) => {
            let whole = !names_source(call.body) && !names_source(&plan.widened.body);
            check_found(choice, &mut found, plan.window);
            let own = found.page(None);
            same_hits(answer, &own, !whole || in_url);
            found.agrees(&own);
            if let Some(reranked) = ranked(choice, answer, &plan, &limits) {
                if let Some(search) = plan.page_search(&found, &reranked) {
                    assert!(is_json(&search.body), "a search for a page is not JSON");
                    if let Ok(page) = plan.page(&found, &reranked, answer) {
                        same_hits(answer, &page, false);
                    }
                }
                same_hits(answer, &found.page(Some(&reranked)), !whole || in_url);
            }
        }
    }
}

/// A ranking of what was found, as the server would make it.
fn ranked(
    choice: u8,
    answer: &[u8],
    plan: &rerankd_wire::search::Rewritten<'_>,
    limits: &Limits,
) -> Option<Reranked> {
    let request = plan.read(answer, limits).ok()?.request()?;
    Some(result(&request, choice))
}

fn check_found(choice: u8, found: &mut Found<'_>, window: usize) {
    let documents = found.documents();
    assert!(documents <= window && documents <= limits().max_documents);
    found.fingerprint_input();
    match found.request() {
        None => assert_eq!(documents, 0),
        Some(request) => {
            assert_eq!(request.documents.len(), documents);
            check_request(&request);
            result(&request, choice);
            assert!(found.request().is_none(), "a request is given once");
        }
    }
}

/// Whether a search says anything of what its hits carry.
fn names_source(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("_source") || text.contains("fields") || text.contains('\\')
}

/// The search as the client meant it: its own bytes, unless there were options of ours.
fn check_original(call: &SearchCall<'_>, forward: &Forward<'_>) {
    if forward.is_untouched() {
        assert_eq!(*forward.body, *call.body, "it is said to be untouched");
    }
    let mentions = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.contains("rerankd") || text.contains(['\\', '%'])
    };
    let query = call.query.unwrap_or_default();
    if !mentions(call.body) && !mentions(query.as_bytes()) {
        assert!(forward.is_untouched(), "there is nothing of ours in it");
        let target = match call.query {
            Some(query) => format!("{}?{query}", call.path),
            None => call.path.to_owned(),
        };
        assert_eq!(forward.path_and_query, target);
    }
    for name in &forward.drop_headers {
        assert!(name.as_str().starts_with("rerankd-"), "{name} is dropped");
    }
}

/// A widened search says what the client's said, but for the page, the fields and our options.
fn same_search(before: &[u8], after: &[u8]) {
    let (Some(before), Some(after)) = (members(before), members(after)) else {
        return;
    };
    let rest = |members: &[(String, &RawValue)]| -> Vec<(String, String)> {
        let own = |key: &str| matches!(key, "from" | "size" | "_source" | "fields" | "ext");
        let kept = members.iter().filter(|(key, _)| !own(key));
        kept.map(|(key, value)| (key.clone(), value.get().to_owned()))
            .collect()
    };
    assert_eq!(rest(&before), rest(&after), "the search was changed");
}

fn multi_search(choice: u8, rest: &[u8]) {
    let mut parts = rest.split(|&byte| byte == 0xff);
    let query = text(parts.next());
    let headers = headers(text(parts.next()), "application/x-ndjson");
    let body = parts.next().unwrap_or_default();
    let answer = parts.next().unwrap_or_default();
    let again = parts.next();
    let (limits, rules) = (limits(), rules(choice));
    let call = SearchCall {
        index: [Some("products"), None][usize::from(choice >> 7)],
        method: &Method::POST,
        path: "/_msearch",
        query: (!query.is_empty()).then_some(query),
        headers: &headers,
        body,
    };
    let plan = match plan_multi(&call, &rules, &Fields(None), &limits) {
        Err(error) => {
            assert!(is_callers_fault(&error), "{error:?}");
            return;
        }
        Ok(plan) => plan,
    };
    check_original(&call, plan.original());
    let lines = |body: &[u8]| body.iter().filter(|&&byte| byte == b'\n').count();
    if plan.reranks() {
        let own = lines(body);
        assert_eq!(lines(&plan.forward.body), own, "a search was torn");
        // There may be an empty line in front.
        assert_eq!(own / 2, plan.items.len());
    }
    let Ok(mut found) = plan.read(answer, &limits) else {
        return;
    };
    let mut reranked = Vec::new();
    for (item, planned) in found.items.iter_mut().zip(&plan.items) {
        reranked.push(match (item, planned) {
            (MultiAnswer::Found(found), ItemPlan::Rerank(rewritten)) => {
                let documents = found.documents();
                assert!(documents <= rewritten.window);
                found.request().map(|request| result(&request, choice))
            }
            _ => None,
        });
    }
    if choice & 32 != 0 && matches!(found.items.first(), Some(MultiAnswer::Found(_))) {
        found.ask_again(0);
    }
    if let Some(own) = again {
        let doubtful = found.doubtful();
        assert_eq!(lines(&plan.original_of(&doubtful).body), 2 * doubtful.len());
        let _ = found.settle(own);
    }
    let wanted = found.outstanding(&plan, &reranked);
    let asked = plan.outstanding(&found, &reranked);
    assert_eq!(lines(&asked.body), 2 * wanted.len());
    if let Some(again) = again {
        for torn in found.answered(&plan, &reranked, again) {
            reranked[torn] = None;
        }
    }
    if let Ok(page) = found.page(&plan, &reranked) {
        assert!(is_json(&page), "an answer that is not JSON");
    }
}

/// Checks that hits only moved: each of `after` is one of `before`, byte for byte but for its score,
/// and what stands around them is the same. With `stripped`, what was fetched for the policy alone may
/// be missing.
fn same_hits(before: &[u8], after: &[u8], stripped: bool) {
    assert!(is_json(after), "a page that is not JSON");
    let (Some(before), Some(after)) = (members(before), members(after)) else {
        return;
    };
    let (Some(outer_before), Some(outer_after)) =
        (split_off(before, &["hits"]), split_off(after, &["hits"]))
    else {
        return;
    };
    assert_eq!(outer_before.0, outer_after.0, "beside the hits");
    let inner = |raw: &RawValue| -> Option<(Texts, String)> {
        let members = members(raw.get().as_bytes())?;
        let (rest, list) = split_off(members, &["hits", "max_score"])?;
        Some((rest, list?.get().to_owned()))
    };
    let (Some(before), Some(after)) = (outer_before.1, outer_after.1) else {
        return;
    };
    let (Some(before), Some(after)) = (inner(before), inner(after)) else {
        return;
    };
    assert_eq!(before.0, after.0, "around the hits");
    let hits = |list: &str| -> Option<Vec<Texts>> {
        let list: Vec<&RawValue> = serde_json::from_str(list).ok()?;
        let hits = list.iter().map(|hit| {
            let members = members(hit.get().as_bytes())?;
            let kept = members.into_iter().filter(|(key, _)| match &**key {
                "_score" => false,
                "_source" | "ignored_field_values" => !stripped,
                // It takes the engine's own score, too.
                "fields" => false,
                _ => true,
            });
            Some(
                kept.map(|(key, value)| (key, value.get().to_owned()))
                    .collect(),
            )
        });
        hits.collect()
    };
    let (Some(sent), Some(shown)) = (hits(&before.1), hits(&after.1)) else {
        return;
    };
    let mut left: HashMap<Texts, usize> = HashMap::new();
    for hit in sent {
        *left.entry(hit).or_default() += 1;
    }
    for hit in shown {
        match left.get_mut(&hit) {
            Some(count) if *count > 0 => *count -= 1,
            _ => panic!("a hit that the engine did not send: {hit:?}"),
        }
    }
}

type Member<'a> = (String, &'a RawValue);

/// Members as they stand.
type Texts = Vec<(String, String)>;

/// The last member of the first name, and the members that have none of the names.
fn split_off<'a>(
    members: Vec<Member<'a>>,
    names: &[&str],
) -> Option<(Texts, Option<&'a RawValue>)> {
    let last = members.iter().rev().find(|(key, _)| key == names[0]);
    let last = last.map(|(_, value)| *value);
    let rest = members.iter().filter(|(key, _)| !names.contains(&&**key));
    let rest = rest.map(|(key, value)| (key.clone(), value.get().to_owned()));
    Some((rest.collect(), last))
}

fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a RawValue> {
    let members = members(json)?;
    let last = members.into_iter().rev().find(|(key, _)| key == name);
    last.map(|(_, value)| value)
}

/// An object's members as they stand, those that stand twice too; `None` where serde_json will not have
/// its keys.
fn members(json: &[u8]) -> Option<Vec<Member<'_>>> {
    struct All<'a>(Vec<Member<'a>>);
    impl<'de> serde::Deserialize<'de> for All<'de> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Collect;
            impl<'de> Visitor<'de> for Collect {
                type Value = All<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<All<'de>, A::Error> {
                    let mut all = Vec::new();
                    while let Some(entry) = map.next_entry()? {
                        all.push(entry);
                    }
                    Ok(All(all))
                }
            }
            deserializer.deserialize_map(Collect)
        }
    }
    Some(serde_json::from_slice::<All<'_>>(json).ok()?.0)
}
