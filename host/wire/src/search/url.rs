//! The raw query of a URL: read where it stands, so that what is not ours goes on as it came, in its
//! order and with its percent signs.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path's segment without its percent signs; `None` where it is not UTF-8.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// The parameters of a query.
pub(super) struct Params<'a> {
    all: Vec<Param<'a>>,
}

/// One parameter.
pub(super) struct Param<'a> {
    raw: &'a str,
    /// Its name, decoded.
    pub(super) name: Cow<'a, str>,
    /// Its value, decoded; empty where there is none.
    pub(super) value: Cow<'a, str>,
}

impl<'a> Params<'a> {
    pub(super) fn read(query: Option<&'a str>) -> Self {
        let raw = query.unwrap_or_default().split('&');
        let all = raw.filter(|raw| !raw.is_empty()).map(|raw| {
            let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
            Param {
                raw,
                name: form_decoded(name),
                value: form_decoded(value),
            }
        });
        Self { all: all.collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Param<'a>> {
        self.all.iter()
    }

    /// The value of the parameter, the last one as the engines have it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut with_name = self.all.iter().rev();
        let found = with_name.find(|param| param.name == name)?;
        Some(&found.value)
    }

    /// Whether one of these stands twice: engines differ in what they make of it.
    pub(super) fn repeats(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.all.iter().filter(|param| param.name == *name).count() > 1)
    }

    /// `path` and the parameters that are `wanted`, each as it came.
    pub(super) fn target(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut target = path.to_owned();
        let mut separator = '?';
        for param in self.all.iter().filter(|param| wanted(&param.name)) {
            target.push(separator);
            target.push_str(param.raw);
            separator = '&';
        }
        target
    }
}

/// As in forms: a plus is a space. Bytes that are not UTF-8 become U+FFFD, as in the engines.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

/// The items of a list as parameters have it: parted by commas.
pub(super) fn list(value: &str) -> Vec<String> {
    let items = value.split(',').map(str::trim);
    items
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
