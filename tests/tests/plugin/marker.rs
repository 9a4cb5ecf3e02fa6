//! What the plugin says of a search, in `ext.rerankd` of the answer.

use rerankd_tests::Answer;
use rerankd_tests::answer::raw_object;
use rerankd_tests::comparison::{self, Fate};
use serde_json::{Value, json};

/// An answer without the plugin's words, and these words: one entry for each search in it.
pub(crate) struct Read {
    /// The answer as the engine would have given it.
    pub(crate) answer: Answer,
    /// What was said of each search.
    pub(crate) fates: Vec<Option<Fate>>,
}

/// Parts an answer to `_search` or `_msearch` from what the plugin says.
pub(crate) fn read(answer: &Answer) -> Read {
    let text = comparison::text(answer);
    let (mut rest, mut fates) = (text.clone(), Vec::new());
    if text.starts_with('{') {
        let outer = raw_object(text.as_bytes());
        let searches: Vec<&str> = match outer.contains_key("responses") {
            true => rerankd_tests::search_page::responses(&text),
            false => vec![&text],
        };
        // From the last one on, so that places before it stay what they are.
        for search in searches.iter().rev() {
            let start = search.as_ptr() as usize - text.as_ptr() as usize;
            let (without, fate) = apart(search);
            rest.replace_range(start..start + search.len(), &without);
            fates.insert(0, fate);
        }
    }
    let mut plain = answer.clone();
    plain.body = rest.into_bytes();
    for (name, value) in &mut plain.headers {
        if name == "content-encoding" {
            // It was unpacked.
            "identity".clone_into(value);
        }
    }
    Read {
        answer: plain,
        fates,
    }
}

/// What was said of the only search of an answer.
#[track_caller]
pub(crate) fn fate(answer: &Answer) -> Fate {
    let found = read(answer).fates;
    let one = found.into_iter().next().flatten();
    one.unwrap_or_else(|| panic!("nothing is said: {}", comparison::text(answer)))
}

/// The object `ext.rerankd` of an answer, null if it has none.
pub(crate) fn object(answer: &Answer) -> Value {
    answer.json()["ext"]["rerankd"].clone()
}

fn apart(search: &str) -> (String, Option<Fate>) {
    let Some(ext) = raw_object(search.as_bytes())
        .get("ext")
        .map(|ext| ext.get())
    else {
        return (search.to_owned(), None);
    };
    let value: Value = serde_json::from_str(ext).expect("it is JSON");
    let rerankd = &value["rerankd"];
    assert_eq!(value, json!({"rerankd": rerankd}), "{search}");
    let text = |key: &str| rerankd[key].as_str().map(str::to_owned);
    let fate = Fate {
        status: text("status").unwrap_or_default(),
        reason: text("reason"),
        policy: text("policy"),
    };
    let start = ext.as_ptr() as usize - search.as_ptr() as usize;
    let comma = search[..start].rfind(',').expect("`took` comes before it");
    let without = format!("{}{}", &search[..comma], &search[start + ext.len()..]);
    (without, Some(fate))
}
