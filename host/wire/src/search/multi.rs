//! Several searches in one request: `_msearch`, a line for the head of each search and one for its
//! body.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use rerankd_core::{Limits, RerankError, Reranked, SkipReason, Status};

use super::body::Body;
use super::error::names_result_window;
use super::found::{Found, NotUnderstood};
use super::options::{self, Options};
use super::plan::{self, Asked, Deciders, Decision, MappingUse, Ways};
use super::rewrite::Rewritten;
use super::url::Params;
use super::{Forward, Policies, Rules, SearchCall};
use crate::json::{self, Json, edited_around};

/// Most searches of one request that are reranked.
const MOST_RERANKED: usize = 32;

/// Most searches of one request of which more is read than whether they have options of ours: each is
/// held against all options of the URL and the headers.
const MOST_PLANNED: usize = 256;

/// What to do with an `_msearch`.
#[derive(Debug)]
pub struct MultiPlan<'a> {
    /// All searches, each as it is planned.
    pub forward: Forward<'a>,
    /// One for each search, in their order. None where the body is not understood: then
    /// [`passed`](Self::passed) says why, and `forward` goes through.
    pub items: Vec<ItemPlan<'a>>,
    /// Why the whole request goes through, where the searches in it cannot be told.
    pub passed: Option<SkipReason>,
    /// Whether another plan may come of it when the mappings are known.
    pub hangs_on_mapping: bool,
    /// Of each search, whether the engine did not say what it was asked of the mapping.
    pub mapping_is_unknown: Vec<bool>,
    original: Forward<'a>,
    lines: Vec<Lines<'a>>,
    /// Whether an empty line stands in front of all.
    has_lead: bool,
}

/// What to do with one search of an `_msearch`.
#[derive(Debug)]
pub enum ItemPlan<'a> {
    /// Nothing is reranked.
    Pass(SkipReason),
    /// Nothing is reranked, though it would be: its first page was not.
    Own(Status),
    /// The window is fetched. The bodies of its forwards are lines of the whole; their targets are
    /// that of the whole.
    Rerank(Box<Rewritten<'a>>),
}

/// One search as the client meant it.
#[derive(Debug)]
struct Lines<'a> {
    head: &'a [u8],
    body: Cow<'a, [u8]>,
}

impl<'a> MultiPlan<'a> {
    /// Whether there is anything to rerank. If not, the answer may be streamed through.
    pub fn reranks(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, ItemPlan::Rerank(_)))
    }

    /// All searches, as the client meant them.
    pub fn original(&self) -> &Forward<'a> {
        &self.original
    }

    /// Leaves a search to the engine.
    pub fn leave(&mut self, item: usize, status: Status) {
        self.items[item] = ItemPlan::Own(status);
        let planned = self.lines.iter().zip(&self.items).map(planned);
        self.forward.body = Cow::Owned(joined(self.has_lead, planned));
        self.forward.untouched = false;
    }

    /// The searches at these positions, as the client meant them.
    pub fn original_of(&self, items: &[usize]) -> Forward<'a> {
        let lines = items.iter().filter_map(|&item| self.lines.get(item));
        self.of_lines(lines.map(|lines| (lines.head, &*lines.body)))
    }

    /// What is still to be asked once the windows are ranked: the searches of
    /// [`MultiFound::outstanding`], each as the client meant it, or for its page.
    pub fn outstanding(
        &self,
        found: &MultiFound<'_>,
        reranked: &[Option<Reranked>],
    ) -> Forward<'a> {
        let one = |index: usize| {
            let lines = &self.lines[index];
            let page = match (&found.items[index], &self.items[index]) {
                (MultiAnswer::Found(window), ItemPlan::Rerank(search)) => {
                    let reranked = reranked.get(index).and_then(Option::as_ref);
                    reranked.and_then(|reranked| search.page_search(window, reranked))
                }
                _ => None,
            };
            let body = page.map_or_else(|| lines.body.to_vec(), |page| page.body.into_owned());
            (lines.head, body)
        };
        let outstanding = found.outstanding(self, reranked);
        let lines: Vec<(&[u8], Vec<u8>)> = outstanding.into_iter().map(one).collect();
        self.of_lines(lines.iter().map(|(head, body)| (*head, body.as_slice())))
    }

    fn of_lines<'l>(&self, lines: impl Iterator<Item = (&'l [u8], &'l [u8])>) -> Forward<'a> {
        Forward {
            body: Cow::Owned(joined(false, lines)),
            untouched: false,
            ..self.original.clone()
        }
    }

    /// Reads the engine's answer (200, JSON, not compressed) to [`forward`](Self::forward).
    ///
    /// # Errors
    /// Where it has not an answer for each search; the caller sends [`original`](Self::original).
    pub fn read<'b>(
        &'b self,
        answer: &'b [u8],
        limits: &Limits,
    ) -> Result<MultiFound<'b>, NotUnderstood> {
        let (answer, responses) = responses(answer, self.items.len())?;
        let items = self.items.iter().zip(&responses);
        let items = items.map(|(item, &response)| match item {
            ItemPlan::Pass(reason) => MultiAnswer::Pass(Status::Skipped(*reason)),
            ItemPlan::Own(status) => MultiAnswer::Pass(*status),
            ItemPlan::Rerank(rewritten) => match found(rewritten, response, limits) {
                Ok(found) => MultiAnswer::Found(Box::new(found)),
                Err(problem) => MultiAnswer::Again(problem),
            },
        });
        Ok(MultiFound {
            items: items.collect(),
            settled: vec![None; responses.len()],
            answer,
            responses,
        })
    }
}

fn found<'b>(
    rewritten: &'b Rewritten<'_>,
    response: Json<'b>,
    limits: &Limits,
) -> Result<Found<'b>, NotUnderstood> {
    match response.member("error") {
        Some(error) if names_result_window(error.text().as_bytes()) => {
            Err(NotUnderstood::ResultWindow)
        }
        Some(_) => Err(NotUnderstood::Refused),
        None => Found::of(rewritten, response, limits),
    }
}

/// The answer to an `_msearch`, and those in it.
fn responses(answer: &[u8], count: usize) -> Result<(Json<'_>, Vec<Json<'_>>), NotUnderstood> {
    let answer = json::parse(answer).map_err(|_| NotUnderstood::NotJson)?;
    let list = answer.member("responses").ok_or(NotUnderstood::NoHits)?;
    let responses: Vec<Json<'_>> = list.items().collect();
    if responses.len() != count {
        return Err(NotUnderstood::NoHits);
    }
    Ok((answer, responses))
}

/// What the engine found for an `_msearch`.
#[derive(Debug)]
pub struct MultiFound<'b> {
    /// One for each search, in their order.
    pub items: Vec<MultiAnswer<'b>>,
    /// What goes to the client of searches that were asked twice.
    settled: Vec<Option<String>>,
    answer: Json<'b>,
    responses: Vec<Json<'b>>,
}

/// The answer to one search of an `_msearch`.
#[derive(Debug)]
pub enum MultiAnswer<'b> {
    /// It was passed: goes through as it is.
    Pass(Status),
    /// It was widened.
    Found(Box<Found<'b>>),
    /// It was widened, and the engine's answer is an error or not understood: to be asked again, with
    /// [`MultiPlan::original_of`].
    Again(NotUnderstood),
}

impl MultiFound<'_> {
    /// Has a search asked again whose ranking failed, since the engine's own page cannot be cut from
    /// what was found: [`Rewritten::cut_is_exact`].
    pub fn ask_again(&mut self, item: usize) {
        self.items[item] = MultiAnswer::Again(NotUnderstood::Inexact);
    }

    /// The positions of the searches that hold only if their own ones agree: [`Found::doubt`].
    pub fn doubtful(&self) -> Vec<usize> {
        let is_doubtful = |item: &MultiAnswer<'_>| match item {
            MultiAnswer::Found(found) => found.doubt().is_some(),
            _ => false,
        };
        positions(&self.items, is_doubtful)
    }

    /// Takes the engine's answer to [`MultiPlan::original_of`] of [`doubtful`](Self::doubtful): where a
    /// search does not agree, its answer is the client's.
    ///
    /// # Errors
    /// Where there is not an answer to each.
    pub fn settle(&mut self, own: &[u8]) -> Result<(), NotUnderstood> {
        let doubtful = self.doubtful();
        let (_, own) = responses(own, doubtful.len())?;
        for (item, own) in doubtful.into_iter().zip(own) {
            let MultiAnswer::Found(found) = &self.items[item] else {
                continue;
            };
            if let (false, Some(problem)) = (found.agrees_with(own), found.doubt()) {
                self.items[item] = MultiAnswer::Again(problem);
                self.settled[item] = Some(own.text().to_owned());
            }
        }
        Ok(())
    }

    /// The positions of the searches that are to be asked once more when the windows are ranked, as long
    /// as [`answered`](Self::answered) has not taken their answers: [`MultiPlan::outstanding`].
    /// `reranked` has one for each search.
    pub fn outstanding(&self, plan: &MultiPlan<'_>, reranked: &[Option<Reranked>]) -> Vec<usize> {
        let is_outstanding = |index: usize| match (&self.items[index], &plan.items[index]) {
            _ if self.settled[index].is_some() => false,
            (MultiAnswer::Again(_), _) => true,
            (MultiAnswer::Found(window), ItemPlan::Rerank(search)) => {
                let reranked = reranked.get(index).and_then(Option::as_ref);
                reranked.is_some_and(|reranked| search.page_search(window, reranked).is_some())
            }
            _ => false,
        };
        (0..self.items.len())
            .filter(|&index| is_outstanding(index))
            .collect()
    }

    /// Takes the engine's answer to [`MultiPlan::outstanding`]. Returns the positions of the searches
    /// whose ranked pages cannot be made of it: they are `Again` and outstanding, each as the client
    /// meant it. One of them changes nothing for the others.
    pub fn answered(
        &mut self,
        plan: &MultiPlan<'_>,
        reranked: &[Option<Reranked>],
        second: &[u8],
    ) -> Vec<usize> {
        let outstanding = self.outstanding(plan, reranked);
        let answers = match responses(second, outstanding.len()) {
            Ok((_, answers)) => answers,
            Err(problem) => return self.unanswered(plan, reranked, problem),
        };
        let mut torn = Vec::new();
        for (index, answer) in outstanding.into_iter().zip(answers) {
            let reranked = reranked.get(index).and_then(Option::as_ref);
            let text = match (&self.items[index], &plan.items[index], reranked) {
                (MultiAnswer::Found(found), ItemPlan::Rerank(search), Some(reranked)) => {
                    search.page_text(found, reranked, answer)
                }
                _ => Ok(answer.text().to_owned()),
            };
            match text {
                Ok(text) => self.settled[index] = Some(text),
                Err(problem) => {
                    self.items[index] = MultiAnswer::Again(problem);
                    torn.push(index);
                }
            }
        }
        torn
    }

    /// The same where the engine did not answer [`MultiPlan::outstanding`].
    pub fn unanswered(
        &mut self,
        plan: &MultiPlan<'_>,
        reranked: &[Option<Reranked>],
        problem: NotUnderstood,
    ) -> Vec<usize> {
        let mut torn = self.outstanding(plan, reranked);
        torn.retain(|&index| matches!(self.items[index], MultiAnswer::Found(_)));
        for &index in &torn {
            self.items[index] = MultiAnswer::Again(problem);
        }
        torn
    }

    /// The whole answer. `reranked` has one for each search (`None` where there is no ranking).
    ///
    /// # Errors
    /// Where a search is outstanding; the caller sends [`MultiPlan::original`] and passes what comes.
    pub fn page(
        &self,
        plan: &MultiPlan<'_>,
        reranked: &[Option<Reranked>],
    ) -> Result<Vec<u8>, NotUnderstood> {
        if !self.outstanding(plan, reranked).is_empty() {
            return Err(NotUnderstood::NoHits);
        }
        let mut edits = Vec::new();
        for (index, (item, response)) in self.items.iter().zip(&self.responses).enumerate() {
            let text = match (item, &self.settled[index]) {
                (MultiAnswer::Pass(_), _) => continue,
                (_, Some(settled)) => settled.clone(),
                (MultiAnswer::Found(found), None) => {
                    found.page_text(reranked.get(index).and_then(Option::as_ref))
                }
                (MultiAnswer::Again(_), None) => return Err(NotUnderstood::NoHits),
            };
            edits.push((response.span(), text));
        }
        Ok(edited_around(self.answer, edits).into_bytes())
    }
}

fn positions<T>(items: &[T], wanted: impl Fn(&T) -> bool) -> Vec<usize> {
    let items = items.iter().enumerate().filter(|(_, item)| wanted(item));
    items.map(|(index, _)| index).collect()
}

/// The lines of a search as they go out first.
fn planned<'l>((lines, item): (&'l Lines<'_>, &'l ItemPlan<'_>)) -> (&'l [u8], &'l [u8]) {
    let body = match item {
        ItemPlan::Pass(_) | ItemPlan::Own(_) => &lines.body,
        ItemPlan::Rerank(rewritten) => &rewritten.widened.body,
    };
    (lines.head, body)
}

/// Decides what to do with each search of an `_msearch`.
///
/// # Errors
/// `BadRequest` for options of ours that are unknown or out of bounds, with the place.
pub fn plan_multi<'a>(
    call: &SearchCall<'a>,
    rules: &Rules,
    policies: &dyn Policies,
    limits: &Limits,
) -> Result<MultiPlan<'a>, RerankError> {
    let params = Params::read(call.query);
    let by = Deciders {
        rules,
        policies,
        limits,
    };
    let target = plan::original_target(call, &params);
    let forward = |body: Option<Vec<u8>>| Forward {
        path_and_query: target.clone(),
        untouched: body.is_none() && !params.iter().any(|param| options::is_param(&param.name)),
        body: body.map_or(Cow::Borrowed(call.body), Cow::Owned),
        drop_headers: plan::drop_headers(call.headers),
        content_type: None,
    };
    let searches = if is_ndjson(call.headers) {
        split(call.body).ok_or(SkipReason::Unparsable)
    } else {
        Err(SkipReason::ContentType)
    };
    let (has_lead, searches) = match searches {
        Ok(searches) => searches,
        Err(reason) => {
            Options::read(None, &params, call.headers, None, limits)?;
            return Ok(MultiPlan {
                forward: forward(None),
                items: Vec::new(),
                passed: Some(reason),
                hangs_on_mapping: false,
                mapping_is_unknown: Vec::new(),
                original: forward(None),
                lines: Vec::new(),
                has_lead: false,
            });
        }
    };

    let whole = Whole {
        call,
        params: &params,
        early: plan::answer_reason(call.headers, &params),
        target: &target,
        by: &by,
    };
    let (mut items, mut lines) = (Vec::new(), Vec::new());
    let (mut reranked, mut stripped_any) = (0, false);
    let (mut hangs_on_mapping, mut mapping_is_unknown) = (false, Vec::new());
    for (head, text) in searches {
        if items.len() >= MOST_PLANNED {
            let body = match Body::read(text)
                .ok()
                .and_then(|body| body.without_options())
            {
                Some(stripped) => Cow::Owned(stripped.into_bytes()),
                None => Cow::Borrowed(text),
            };
            stripped_any |= matches!(body, Cow::Owned(_));
            lines.push(Lines { head, body });
            items.push(ItemPlan::Pass(SkipReason::Limit));
            continue;
        }
        let full = reranked == MOST_RERANKED;
        let (item, stripped, mapping) = whole
            .plan_item(head, text, full)
            .map_err(|error| in_search(items.len(), error))?;
        reranked += usize::from(matches!(item, ItemPlan::Rerank(_)));
        hangs_on_mapping |= mapping.hangs;
        mapping_is_unknown.push(mapping.is_unknown);
        stripped_any |= stripped.is_some();
        let body = stripped.map_or(Cow::Borrowed(text), |text| Cow::Owned(text.into_bytes()));
        lines.push(Lines { head, body });
        items.push(item);
    }
    let original = lines.iter().map(|lines| (lines.head, &*lines.body));
    let original = joined(has_lead, original);
    let planned = lines.iter().zip(&items).map(planned);
    let planned = (reranked > 0 || stripped_any).then(|| joined(has_lead, planned));
    Ok(MultiPlan {
        forward: forward(planned),
        items,
        passed: None,
        hangs_on_mapping,
        mapping_is_unknown,
        original: forward(stripped_any.then_some(original)),
        lines,
        has_lead,
    })
}

/// What all searches of a request share.
struct Whole<'x, 'a> {
    call: &'x SearchCall<'a>,
    params: &'x Params<'x>,
    early: Option<SkipReason>,
    /// Path and query, without options of ours.
    target: &'x str,
    by: &'x Deciders<'x>,
}

impl<'a> Whole<'_, 'a> {
    /// The plan for one search, and its body without options of ours, where there were any. `full`
    /// says that no more are reranked.
    fn plan_item(
        &self,
        head: &[u8],
        text: &'a [u8],
        full: bool,
    ) -> Result<(ItemPlan<'a>, Option<String>, MappingUse), RerankError> {
        let identity = || format!("{} {}", self.target, String::from_utf8_lossy(head));
        let ways = || Ways::of_item(identity());
        let head = Body::read(head);
        let body = Body::read(text);
        let unparsable = head.as_ref().err().or(body.as_ref().err()).copied();
        let head = head.unwrap_or_else(|_| Body::empty());
        let body = body.unwrap_or_else(|_| Body::empty());
        let pipeline = head.member("search_pipeline").is_some();
        let pipeline = pipeline.then_some(SkipReason::SearchPipeline);
        let full = full.then_some(SkipReason::Limit);
        let named = head.member("index").or_else(|| head.member("indices"));
        let index = named.and_then(index_expression);
        let decided = plan::decide(
            &Asked {
                index: index
                    .as_deref()
                    .or(self.call.index)
                    .or(self.params.get("index")),
                body: &body,
                // The parameters of an `_msearch` are not those of a search.
                params: &Params::read(None),
                option_params: self.params,
                headers: self.call.headers,
                head: Some(&head),
                early: self.early.or(unparsable).or(pipeline).or(full),
            },
            self.by,
        )?;
        let stripped = body.without_options();
        let item = match decided.decision {
            Decision::Pass(reason) => ItemPlan::Pass(reason),
            Decision::Rerank(widening) => {
                let original = match &stripped {
                    Some(text) => Cow::Owned(text.clone().into_bytes()),
                    None => Cow::Borrowed(text),
                };
                ItemPlan::Rerank(Box::new(widening.rewritten(line(original), ways())))
            }
        };
        Ok((item, stripped, decided.mapping))
    }
}

fn line(body: Cow<'_, [u8]>) -> Forward<'_> {
    Forward {
        path_and_query: Cow::Borrowed(""),
        body,
        drop_headers: Vec::new(),
        content_type: None,
        untouched: false,
    }
}

fn in_search(index: usize, error: RerankError) -> RerankError {
    RerankError {
        message: format!("search {index} (from 0): {}", error.message),
        ..error
    }
}

fn index_expression(named: Json<'_>) -> Option<String> {
    if let Some(name) = named.string() {
        return Some(name.into_owned());
    }
    let names: Option<Vec<_>> = named.items().map(Json::string).collect();
    names
        .filter(|names| !names.is_empty())
        .map(|names| names.join(","))
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let Some(said) = headers
        .get(CONTENT_TYPE)
        .and_then(|said| said.to_str().ok())
    else {
        return false;
    };
    let said = said.to_ascii_lowercase();
    plan::is_json(&said.replacen("x-ndjson", "json", 1))
}

/// A search: its head and its body.
pub(super) type Pair<'t> = (&'t [u8], &'t [u8]);

/// The lines of each search, without their line ends, and whether an empty line stands in front of all.
/// `None` where the engine would not understand them so.
///
/// OpenSearch allows an empty line in front. To Elasticsearch it is the first search's head.
pub(super) fn split(text: &[u8]) -> Option<(bool, Vec<Pair<'_>>)> {
    let text = text.strip_suffix(b"\n")?;
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let has_lead = lines.first().is_some_and(|line| line.is_empty()) && lines.len() % 2 == 1;
    let (pairs, rest) = lines[usize::from(has_lead)..].as_chunks::<2>();
    let searches = pairs.iter().map(|&[head, body]| (head, body));
    (rest.is_empty() && !pairs.is_empty()).then(|| (has_lead, searches.collect()))
}

fn joined<'l>(has_lead: bool, searches: impl Iterator<Item = (&'l [u8], &'l [u8])>) -> Vec<u8> {
    let mut text = if has_lead { vec![b'\n'] } else { Vec::new() };
    for (head, body) in searches {
        for line in [head, body] {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    text
}
