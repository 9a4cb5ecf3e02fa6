//! The README's examples work: each shell block marked `sh test` runs against a real server, with
//! every request answered well, and a JSON block right behind it has the form of the real answer.

use std::process::Command;

use rerankd_tests::{Folder, Rerankd, require};
use serde_json::Value;

/// The addresses that the README writes: of the data plane and of the admin plane.
const WRITTEN: &str = "http://127.0.0.1:9500";
const WRITTEN_ADMIN: &str = "http://127.0.0.1:9600";

/// Every curl fails on an error status, and says so.
const PREAMBLE: &str = "curl() { command curl --fail --show-error --max-time 60 \"$@\"; }\n";

/// An example, and the JSON that the README shows for it.
struct Example {
    line: usize,
    script: String,
    shown: Option<Value>,
}

#[test]
fn the_examples_of_the_readme_work() {
    let readme = std::fs::read_to_string(require::root().join("README.md"));
    let examples = examples(&readme.expect("there is a README"));
    assert!(examples.len() >= 5, "only {} examples", examples.len());
    // The README's server has its data where it is by default.
    let state = Folder::new();
    let data = state.path().join("rerankd");
    let server = Rerankd::start(&["--data-dir", data.to_str().expect("the path is UTF-8")]);
    let address = format!("http://{}", server.address());
    let admin_address = format!("http://{}", server.admin_address());
    for example in examples {
        let place = format!("README.md:{}", example.line);
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c"])
            .arg(format!(
                "{PREAMBLE}{}",
                example
                    .script
                    .replace(WRITTEN, &address)
                    .replace(WRITTEN_ADMIN, &admin_address)
            ))
            .env("XDG_STATE_HOME", state.path())
            .current_dir(require::root())
            .output()
            .expect("there is bash");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: {stderr}\n{stdout}");
        if let Some(shown) = example.shown {
            let answer: Value = serde_json::from_str(&stdout)
                .unwrap_or_else(|error| panic!("{place}: {error}: {stdout}"));
            assert_eq!(form(&answer), form(&shown), "{place}: shows another answer");
        }
    }
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
        let shown = lines.next_if(|(_, line)| *line == "```json").map(|_| {
            let inside = lines.by_ref().map(|(_, line)| line);
            let text: String = inside.take_while(|line| *line != "```").collect();
            serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("README.md:{}: {error}", number + 1))
        });
        examples.push(Example {
            line: number + 1,
            script,
            shown,
        });
    }
    examples
}

/// Which keys and how many items there are, and of what type: all but the values.
fn form(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(form).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{key}: {}", form(value)))
                .collect();
            members.sort();
            format!("{{{}}}", members.join(", "))
        }
    }
}
