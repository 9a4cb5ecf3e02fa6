//! The README's five-minute path works, command by command: the shell blocks marked `sh five-minutes`
//! run in one shell, in an empty folder, with the binary in the PATH and a server beside it; and what
//! the README shows of their output is what came, but for digests, sizes and times.

use std::process::Command;

use rerankd_tests::{Folder, Rerankd, require};
use serde_json::Value;

const OPENING: &str = "```sh five-minutes";

/// The address that the README writes, of the data plane.
const WRITTEN: &str = "http://127.0.0.1:9500";

/// Between the outputs of two blocks.
const MARK: char = '\u{1e}';

#[test]
fn the_five_minute_path_of_the_readme_works() {
    let readme = std::fs::read_to_string(require::root().join("README.md"));
    let blocks = blocks(&readme.expect("there is a README"));
    for command in ["new", "build", "test", "push"] {
        let command = format!("rerankd policy {command} ");
        let block = blocks.iter().find(|block| block.script.contains(&command));
        assert!(block.is_some(), "the path has no `{command}`");
    }
    let (folder, policies) = (Folder::new(), Folder::new());
    let server = Rerankd::start(&rerankd_tests::rerankd::only_policies(policies.path()));
    let scripts: Vec<&str> = blocks.iter().map(|block| block.script.as_str()).collect();
    let script = scripts
        .join(&format!("printf '{MARK}'\n"))
        .replace(WRITTEN, &format!("http://{}", server.address()));
    let binary = require::server();
    let binaries = binary.parent().expect("a file lies in a folder");
    let path = std::env::var("PATH").expect("there is a PATH");
    let output = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &script])
        .env("PATH", format!("{}:{path}", binaries.display()))
        .env(
            "RERANKD_ADMIN",
            format!("http://{}", server.admin_address()),
        )
        .env("RERANKD_TOKEN", server.admin_token())
        // Kept from run to run: the SDK's dependencies need not be compiled again.
        .env("CARGO_TARGET_DIR", require::target().join("tmp/projects"))
        .current_dir(folder.path())
        .output()
        .expect("there is bash");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stderr}\n{stdout}");
    let mut compared = 0;
    for (block, printed) in blocks.iter().zip(stdout.split(MARK)) {
        match &block.shown {
            Shown::Nothing => continue,
            Shown::Text(shown) => assert_eq!(lasting(printed), lasting(shown), "{}", block.script),
            Shown::Json(shown) => {
                let printed = serde_json::from_str(printed)
                    .unwrap_or_else(|error| panic!("{error}: {printed}"));
                assert_eq!(lasting_json(printed), lasting_json(shown.clone()));
            }
        }
        compared += 1;
    }
    assert!(compared >= 3, "the README shows only {compared} outputs");
}

/// Some commands, and what the README shows of their output.
struct Block {
    script: String,
    shown: Shown,
}

enum Shown {
    Nothing,
    Text(String),
    Json(Value),
}

fn blocks(readme: &str) -> Vec<Block> {
    let mut lines = readme.lines().peekable();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if line != OPENING {
            continue;
        }
        let script: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut shown = Shown::Nothing;
        if lines.next_if_eq(&"```json").is_some() {
            let text: String = lines.by_ref().take_while(|line| *line != "```").collect();
            let json =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            shown = Shown::Json(json);
        } else if lines.next_if_eq(&"").is_some() {
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
                text.push_str(line.trim_start_matches("    "));
                text.push('\n');
                if lines.peek() == Some(&"") {
                    lines.next();
                }
            }
            if !text.is_empty() {
                shown = Shown::Text(text);
            }
        }
        blocks.push(Block {
            script: format!("{}\n", script.join("\n")),
            shown,
        });
    }
    blocks
}

/// A text without empty lines and with one space between words, digests, and numbers with a decimal
/// point made alike.
fn lasting(text: &str) -> String {
    let alike = |word: &str| match word.rsplit_once('@').map_or(word, |(_, digest)| digest) {
        digest
            if digest.len() >= 8 && digest.chars().all(|c| c.is_ascii_hexdigit() || c == ':') =>
        {
            word.replace(digest, "DIGEST")
        }
        _ if word.parse::<f64>().is_ok() && word.contains('.') => "NUMBER".to_owned(),
        _ => word.to_owned(),
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines = lines.map(|line| {
        let words: Vec<String> = line.split_whitespace().map(alike).collect();
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// An answer without its times and the version's digest.
fn lasting_json(mut answer: Value) -> Value {
    for changing in ["timings_ms", "version"] {
        let removed = answer
            .as_object_mut()
            .and_then(|answer| answer.remove(changing));
        assert!(removed.is_some(), "no `{changing}` in {answer}");
    }
    answer
}
