//! docs/configuration.md is what the binary says: its `--help` as a table, and `--print-config`.
//! `make docs` writes both anew.

use rerankd_tests::{Folder, Rerankd, require};

/// Flags whose key in the file is not their own name with `_`.
const KEYS: [(&str, &str); 10] = [
    ("config", ""),
    ("print-config", ""),
    ("policies", "policy_folders"),
    ("models", "model_folders"),
    ("allow-host", "allow_hosts"),
    ("admin-allow-host", "admin_allow_hosts"),
    ("proxy-allow-host", "proxy_allow_hosts"),
    ("load-model", "load_models"),
    ("cache-file", "caches.cache_file"),
    ("bind-model", "policies.POLICY.models"),
];

#[test]
fn the_page_on_configuration_is_fresh() {
    let path = require::root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let defaults = defaults();
    let fresh = replace(&page, "settings", &settings(&defaults));
    let fresh = replace(&fresh, "defaults", &format!("```toml\n{defaults}```\n"));
    if std::env::var_os("RERANKD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &fresh).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).expect("the page is there");
    assert!(
        written == fresh,
        "docs/configuration.md is out of date: run `make docs`"
    );
}

/// A key that the page names and the server does not know would be refused where somebody writes it.
#[test]
fn every_key_of_the_page_is_one_of_the_file() {
    let path = require::root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let keys = rows.filter_map(|row| {
        row.split('|')
            .nth(3)
            .map(|key| key.trim_matches([' ', '`']))
    });
    let keys: Vec<&str> = keys.filter(|key| !key.is_empty()).collect();
    assert!(keys.len() > 60, "only {} keys", keys.len());
    let folder = Folder::new();
    for key in keys {
        // Of any type: a wrong value of a known key is another fault than a key that is not known.
        let file = folder.write(
            "rerankd.toml",
            format!("{} = []\n", key.replace("POLICY", "p")),
        );
        let file = file.to_str().expect("the path is UTF-8");
        let mut command = Rerankd::command(&["serve", "--print-config", "--config", file]);
        command.env_remove("ORT_DYLIB_PATH");
        let ended = Rerankd::run(command);
        let unknown = ended.stderr.contains("unknown field");
        assert!(!unknown, "`{key}`: {}", ended.stderr);
    }
}

/// The same setting has the same default wherever it is a flag, and in what is printed.
#[test]
fn a_default_is_the_same_wherever_it_is_said() {
    let defaults = defaults();
    let served = flags(&said(&["serve", "--help"]));
    for flag in &served {
        let key = flag.name.replace('-', "_");
        let printed = default_of(&defaults, &key).map(|(_, value)| value);
        let number = |text: &String| text.parse::<f64>().ok();
        let (Some(shown), Some(printed)) = (
            flag.default.as_ref().and_then(number),
            printed.as_ref().and_then(number),
        ) else {
            continue;
        };
        assert!((shown - printed).abs() < f64::EPSILON, "--{}", flag.name);
    }
    for command in [&["policy", "check"][..], &["policy", "test"], &["check"]] {
        let shared = flags(&said(&[command, &["--help"]].concat()));
        let mut compared = 0;
        for flag in shared.iter().filter(|flag| !flag.environment.is_empty()) {
            let same = served
                .iter()
                .find(|served| served.environment == flag.environment);
            if let Some(served) = same.filter(|_| flag.default.is_some()) {
                assert_eq!(flag.default, served.default, "{command:?} --{}", flag.name);
                compared += 1;
            }
        }
        assert!(compared > 1, "{command:?}: only {compared} defaults");
    }
}

/// What the binary prints to standard output with nothing but its defaults.
fn said(arguments: &[&str]) -> String {
    let mut command = Rerankd::command(arguments);
    // The first decides how wide the help is, the others where things are.
    command.env_remove("COLUMNS").env_remove("ORT_DYLIB_PATH");
    command.env_remove("XDG_STATE_HOME").env("HOME", "/HOME");
    let ended = Rerankd::run(command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

fn defaults() -> String {
    let root = require::root()
        .canonicalize()
        .expect("the checkout is there");
    let root = root.to_str().expect("the checkout's path is UTF-8");
    said(&["serve", "--print-config"])
        .replace(root, "CHECKOUT")
        .replace("/HOME", "HOME")
        .replace(".dylib", ".so")
}

/// One row a flag.
fn settings(defaults: &str) -> String {
    let mut table =
        "| flag | environment | file | default | what |\n|---|---|---|---|---|\n".to_owned();
    for flag in flags(&said(&["serve", "--help"])) {
        let key = KEYS.iter().find(|(name, _)| *name == flag.name);
        let key = key.map_or_else(|| flag.name.replace('-', "_"), |(_, key)| key.to_string());
        let found = default_of(defaults, &key);
        let key = found
            .as_ref()
            .map_or(key.clone(), |(section, _)| format!("{section}{key}"));
        let default = flag
            .default
            .or(found.map(|(_, value)| value))
            .unwrap_or_default();
        let code = |text: &str| match text {
            "" => String::new(),
            text => format!("`{text}`"),
        };
        table += &format!(
            "| `--{}{}` | {} | {} | {} | {} |\n",
            flag.name,
            flag.value,
            code(&flag.environment),
            code(&key),
            default,
            flag.about
        );
    }
    table
}

struct Flag {
    name: String,
    /// ` <FILE>`, or nothing for a switch.
    value: String,
    about: String,
    default: Option<String>,
    environment: String,
}

/// Reads clap's help: an option begins a line, its text stands in a column of its own.
fn flags(help: &str) -> Vec<Flag> {
    let mut flags: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        let trimmed = line.trim();
        // What is deeper may begin with a flag that a text names.
        if let Some(rest) = line.strip_prefix("      --") {
            let (flag, about) = rest.split_once("  ").unwrap_or((rest, ""));
            flags.push((flag.to_owned(), about.trim().to_owned()));
        } else if line.starts_with("  -") {
            // `-h, --help` and `-V, --version`.
            flags.push((String::new(), String::new()));
        } else if !line.starts_with(' ') {
            // A heading, or what stands before the first.
        } else if let Some((_, about)) = flags.last_mut() {
            *about = format!("{about} {trimmed}");
        }
    }
    let flag = |(flag, about): (String, String)| {
        let (name, value) = flag.split_once(' ').unwrap_or((&flag, ""));
        let (about, environment) = take(&about, "[env: ");
        let (about, default) = take(&about, "[default: ");
        Flag {
            name: name.to_owned(),
            value: match value {
                "" => String::new(),
                value => format!(" {value}"),
            },
            about,
            default,
            environment: environment
                .unwrap_or_default()
                .trim_end_matches('=')
                .to_owned(),
        }
    };
    let named = |(name, _): &(String, String)| !name.is_empty();
    flags.into_iter().filter(named).map(flag).collect()
}

/// Takes `[env: X]` out of a text.
fn take(text: &str, opening: &str) -> (String, Option<String>) {
    let Some((before, rest)) = text.split_once(opening) else {
        return (text.trim().to_owned(), None);
    };
    let (inside, after) = rest.split_once(']').expect("clap closes its brackets");
    let without = format!("{}{after}", before.trim_end());
    (without.trim().to_owned(), Some(inside.trim().to_owned()))
}

/// The section (`limits.`) and the value of a key in the defaults.
fn default_of(defaults: &str, key: &str) -> Option<(String, String)> {
    let mut section = String::new();
    for line in defaults.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        }
        match line.split_once(" = ") {
            Some((name, value)) if name == key => {
                let value = value.trim_matches('"').to_owned();
                return Some((
                    section,
                    if value == "[]" {
                        "none".to_owned()
                    } else {
                        value
                    },
                ));
            }
            _ => {}
        }
    }
    None
}

/// Puts `text` between the markers of a part.
fn replace(page: &str, part: &str, text: &str) -> String {
    let opening = format!("<!-- generated: {part} -->\n");
    let (before, rest) = page
        .split_once(&opening)
        .unwrap_or_else(|| panic!("docs/configuration.md has no part `{part}`"));
    let (_, after) = rest
        .split_once("<!-- end -->\n")
        .unwrap_or_else(|| panic!("part `{part}` has no end"));
    format!("{before}{opening}{text}<!-- end -->\n{after}")
}
