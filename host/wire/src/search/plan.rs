//! What to do with one search.

use std::borrow::Cow;

use rerankd_core::{Limits, RerankError, SkipReason};

use super::{Forward, Pass, Plan, Policies, Rules, SearchCall};

/// Decides what to do with a search.
///
/// # Errors
/// `BadRequest` for options of ours that are unknown or out of bounds, with the place.
pub fn plan<'a>(
    call: &SearchCall<'a>,
    _rules: &Rules,
    _policies: &dyn Policies,
    _limits: &Limits,
) -> Result<Plan<'a>, RerankError> {
    let path_and_query = match call.query {
        Some(query) => Cow::Owned(format!("{}?{query}", call.path)),
        None => Cow::Borrowed(call.path),
    };
    Ok(Plan::Pass(Pass {
        forward: Forward {
            path_and_query,
            body: Cow::Borrowed(call.body),
            drop_headers: Vec::new(),
            content_type: None,
        },
        reason: SkipReason::NoRule,
    }))
}
