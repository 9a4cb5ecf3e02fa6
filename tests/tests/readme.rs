//! The README's examples work, and show what comes: each shell block marked `sh test` runs against a real
//! server, with every request answered well, and what stands behind it (a JSON block, or lines that are
//! indented) is the real answer, but for digests, ports, times and last digits. So is what `serve` says, and
//! what becomes of the first search through the proxy.

use std::process::Command;

use rerankd_tests::documents::recorded;
use rerankd_tests::upstream::write_json;
use rerankd_tests::{Folder, Rerankd, Upstream, require};
use serde_json::Value;

/// The addresses that the README writes: of the data plane, of the admin plane and of the search proxy.
const WRITTEN: &str = "http://127.0.0.1:9500";
const WRITTEN_ADMIN: &str = "http://127.0.0.1:9600";
const WRITTEN_PROXY: &str = "http://127.0.0.1:9700";

/// Every curl fails on an error status, and says so.
const PREAMBLE: &str = "curl() { command curl --fail --show-error --max-time 60 \"$@\"; }\n";

/// How far numbers may be apart: processors differ in the last digits, and vectors are rounded to half
/// precision.
const TOLERANCE: f64 = 1e-3;

/// An example, and what the README shows for it.
struct Example {
    line: usize,
    script: String,
    shown: Shown,
}

enum Shown {
    Nothing,
    Text(String),
    Json(Value),
}

fn readme() -> String {
    let readme = std::fs::read_to_string(require::root().join("README.md"));
    readme.expect("there is a README")
}

#[test]
fn the_examples_of_the_readme_show_what_comes() {
    let examples = examples(&readme());
    assert!(examples.len() >= 5, "only {} examples", examples.len());
    // The README's server has its data where it is by default.
    let state = Folder::new();
    let data = state.path().join("rerankd");
    let server = Rerankd::start(&["--data-dir", data.to_str().expect("the path is UTF-8")]);
    let mut compared = 0;
    for example in examples {
        let place = format!("README.md:{}", example.line);
        let stdout = run(&server, &state, &place, &example.script);
        match example.shown {
            Shown::Nothing => continue,
            Shown::Text(shown) => assert_alike(&place, &shown, &stdout),
            Shown::Json(shown) => {
                let answer: Value = serde_json::from_str(&stdout)
                    .unwrap_or_else(|error| panic!("{place}: {error}: {stdout}"));
                if let Err(at) = same(&shown, &answer, "") {
                    panic!("{place}: shows another `{at}` than comes:\n{answer}");
                }
            }
        }
        compared += 1;
    }
    assert!(compared >= 6, "the README shows only {compared} answers");
}

/// Runs a script in the checkout; gives what it printed.
fn run(server: &Rerankd, state: &Folder, place: &str, script: &str) -> String {
    let script = script
        .replace(WRITTEN, &format!("http://{}", server.address()))
        .replace(WRITTEN_ADMIN, &format!("http://{}", server.admin_address()));
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c"])
        .arg(format!("{PREAMBLE}{script}"))
        .env("XDG_STATE_HOME", state.path())
        .current_dir(require::root())
        .output()
        .expect("there is bash");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {stderr}\n{stdout}");
    stdout
}

#[test]
fn the_readme_shows_what_serve_says() {
    let readme = readme();
    let (_, shown) = readme
        .split_once("    target/release/rerankd serve\n\n")
        .expect("the tour begins so");
    let mut shown = shown.lines().map(str::trim_start);
    let mut next = || shown.next().unwrap_or_default();
    let server = Rerankd::start(&[]);
    // How many cores there are, and which ONNX Runtime, is the machine's.
    let until = |line: &str| line.split("; ONNX").next().unwrap_or_default().to_owned();
    assert_alike("the greeting", &until(next()), &until(server.greeting()));
    let before_path = |line: &str| line.split(" in /").next().unwrap_or_default().to_owned();
    let (shown, said) = (before_path(next()), before_path(server.admin_greeting()));
    assert_alike("the admin plane's line", &shown, &said);
}

#[test]
fn the_first_search_of_the_readme_is_reranked() {
    let readme = readme();
    let curl = readme
        .lines()
        .find(|line| line.starts_with("    curl ") && line.contains(WRITTEN_PROXY));
    let curl = curl.expect("the README asks the proxy").trim();
    let page = recorded("chorus-smart-watch");
    let upstream = Upstream::start(move |_, stream| write_json(stream, "200 OK", &page));
    let url = upstream.url();
    let flags = ["--upstream", &url, "--proxy-listen", "127.0.0.1:0"];
    let server = Rerankd::start(&flags);
    let proxy = format!("http://{}", server.proxy_address());
    let script = curl.replace(WRITTEN_PROXY, &proxy);
    let answer = run(&server, &Folder::new(), "the first search", &script);
    let status = answer
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("rerank-status: "));
    let status = status.unwrap_or_else(|| panic!("it has no status: {answer}"));
    assert!(status.contains(";status=applied;"), "{status}");
}

fn examples(readme: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = readme.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line != "```sh test" {
            continue;
        }
        let mut block = || -> String {
            let inside = lines.by_ref().map(|(_, line)| line);
            let inside: Vec<&str> = inside.take_while(|line| *line != "```").collect();
            inside.join("\n")
        };
        let script = block();
        let mut shown = Shown::Nothing;
        if lines.next_if(|(_, line)| *line == "```json").is_some() {
            let inside = lines.by_ref().map(|(_, line)| line);
            let text: String = inside.take_while(|line| *line != "```").collect();
            let json = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("README.md:{}: {error}", number + 1));
            shown = Shown::Json(json);
        } else if lines.next_if(|(_, line)| line.is_empty()).is_some() {
            let mut text = String::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("    ")) {
                text.push_str(line.trim_start_matches("    "));
                text.push('\n');
            }
            if !text.is_empty() {
                shown = Shown::Text(text);
            }
        }
        examples.push(Example {
            line: number + 1,
            script,
            shown,
        });
    }
    examples
}

/// Whether two values differ in nothing but digests, times and last digits; else where they do.
fn same(shown: &Value, real: &Value, at: &str) -> Result<(), String> {
    let differ = || Err(at.trim_start_matches('.').to_owned());
    match (shown, real) {
        (Value::Number(shown), Value::Number(real)) => {
            let (shown, real) = (shown.as_f64(), real.as_f64());
            let near = shown.zip(real).map(|(one, other)| (one - other).abs());
            match near {
                Some(near) if near <= TOLERANCE => Ok(()),
                _ => differ(),
            }
        }
        (Value::String(shown), Value::String(real)) if masked(shown) == masked(real) => Ok(()),
        (Value::Array(shown), Value::Array(real)) if shown.len() == real.len() => {
            let pairs = shown.iter().zip(real).enumerate();
            let mut pairs =
                pairs.map(|(index, (one, other))| same(one, other, &format!("{at}[{index}]")));
            pairs.find(Result::is_err).unwrap_or(Ok(()))
        }
        (Value::Object(shown), Value::Object(real)) => {
            let keys = |value: &serde_json::Map<String, Value>| -> Vec<String> {
                let mut keys: Vec<String> = value.keys().cloned().collect();
                keys.sort();
                keys
            };
            if keys(shown) != keys(real) {
                return differ();
            }
            for (key, one) in shown {
                let is_time = at.ends_with(".timings_ms") || key == "took";
                if !is_time {
                    same(one, &real[key], &format!("{at}.{key}"))?;
                }
            }
            Ok(())
        }
        (one, other) if one == other => Ok(()),
        _ => differ(),
    }
}

/// Two texts that differ in nothing but digests, ports and last digits. What stands behind a `…` is not
/// shown.
#[track_caller]
fn assert_alike(place: &str, shown: &str, real: &str) {
    let (shown, real) = (pieces(shown), pieces(real));
    let cut = shown.iter().position(|piece| piece.contains('…'));
    let whole = cut.is_none() && shown.len() != real.len();
    let differ = shown
        .iter()
        .zip(&real)
        .take(cut.unwrap_or(shown.len()))
        .find(
            |(one, other)| match (one.parse::<f64>(), other.parse::<f64>()) {
                (Ok(one), Ok(other)) => (one - other).abs() > TOLERANCE,
                _ => masked(one) != masked(other),
            },
        );
    assert!(
        !whole && differ.is_none(),
        "{place}: shows {differ:?}; what comes is\n{}",
        real.join(" ")
    );
}

/// Words, and what stands between marks.
fn pieces(text: &str) -> Vec<String> {
    let between = |c: char| c.is_whitespace() || "[](){},;\"".contains(c);
    let parts = text.split(between).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// A word without the digits of a digest or of a port.
fn masked(word: &str) -> String {
    let mut parts: Vec<&str> = word.split('@').collect();
    for part in &mut parts {
        if part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            *part = "DIGEST";
        }
    }
    let word = parts.join("@");
    match word.rsplit_once("127.0.0.1:") {
        Some((scheme, _)) if word.contains("://") => format!("{scheme}PORT"),
        _ => word,
    }
}
