//! Projects in other languages than Rust: the template's policy once more, with the contract, and with the
//! scripts by which the examples in `guest/examples` are built.

use super::{TEMPLATE_NAME, checkout_file, contract, of_template};

/// What the JavaScript example calls itself.
const EXAMPLE_NAME: &str = "semantic-blend-javascript";

/// Where the examples' scripts find the contract, in the checkout and in a project.
const PYTHON_WIT: (&str, &str) = ("HERE.parents[2] / \"wit\"", "HERE / \"wit\"");
const JAVASCRIPT_WIT: (&str, &str) = ("'../../../wit'", "'wit'");

/// What the examples' scripts make by default, which a project has no need of.
const PYTHON_OUT: (&str, &str) = (
    "HERE.parents[1] / \"dist/examples/semantic-blend-python.wasm\"",
    "HERE / \"policy.wasm\"",
);
const JAVASCRIPT_OUT: (&str, &str) = (
    "../../dist/examples/semantic-blend-javascript.wasm",
    "policy.wasm",
);

/// Has the manifest be a module before the policy is read, so that there is one of it.
const JAVASCRIPT_MANIFEST: (&str, &str) = (
    "const { component } = await componentize({",
    "// The component has no files when it runs: its manifest is a module.
const manifest = await readFile(resolve(import.meta.dirname, 'manifest.json'), 'utf8');
await writeFile(resolve(import.meta.dirname, 'manifest.js'), `export default ${manifest}`);

const { component } = await componentize({",
);

/// Every file of a project in Python.
pub(super) fn python(name: &str) -> Vec<(String, String)> {
    let build = replaced(
        checkout_file!("guest/examples/python/build.py"),
        &[PYTHON_WIT, PYTHON_OUT],
    );
    let requirements = checkout_file!("guest/examples/python/requirements.txt");
    let requirements: Vec<&str> = requirements
        .lines()
        // How the example is built by hand.
        .filter(|line| !line.starts_with("#"))
        .collect();
    files(
        name,
        &[
            (
                "policy.py",
                checkout_file!("guest/template-python/policy.py"),
            ),
            (
                "panics.py",
                checkout_file!("guest/examples/python/panics.py"),
            ),
            ("build.py", &build),
            (
                "requirements.txt",
                &format!("{}\n", requirements.join("\n")),
            ),
            (
                "README.md",
                checkout_file!("guest/template-python/README.md"),
            ),
            (
                ".gitignore",
                checkout_file!("guest/template-python/gitignore"),
            ),
        ],
    )
}

/// Every file of a project in JavaScript.
pub(super) fn javascript(name: &str) -> Vec<(String, String)> {
    let build = replaced(
        checkout_file!("guest/examples/javascript/build.js"),
        &[JAVASCRIPT_WIT, JAVASCRIPT_MANIFEST],
    );
    let package = replaced(
        checkout_file!("guest/examples/javascript/package.json"),
        &[JAVASCRIPT_OUT, (EXAMPLE_NAME, name)],
    );
    let lock = checkout_file!("guest/examples/javascript/package-lock.json");
    files(
        name,
        &[
            (
                "policy.js",
                checkout_file!("guest/template-javascript/policy.js"),
            ),
            (
                "panics.js",
                checkout_file!("guest/examples/javascript/panics.js"),
            ),
            ("build.js", &build),
            (
                "paths.js",
                checkout_file!("guest/examples/javascript/paths.js"),
            ),
            ("package.json", &package),
            ("package-lock.json", &lock.replace(EXAMPLE_NAME, name)),
            (
                "README.md",
                checkout_file!("guest/template-javascript/README.md"),
            ),
            (
                ".gitignore",
                checkout_file!("guest/template-javascript/gitignore"),
            ),
        ],
    )
}

/// A language's own files, and those of all projects.
fn files(name: &str, own: &[(&str, &str)]) -> Vec<(String, String)> {
    let shared = ["manifest.json", "cases/titles.json"].map(|path| (path, of_template(path)));
    let named = own.iter().chain(&shared);
    let named = named.map(|(path, text)| ((*path).to_owned(), text.replace(TEMPLATE_NAME, name)));
    let contract = contract().map(|(path, text)| (format!("wit/{path}"), text.to_owned()));
    named.chain(contract).collect()
}

fn replaced(text: &str, changes: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in changes {
        text = text.replace(from, to);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_checkout_is_left_in_a_project() {
        for (files, policy) in [
            (python("my-boost"), "policy.py"),
            (javascript("my-boost"), "policy.js"),
        ] {
            // The contract names a policy, as an example.
            for (path, text) in files.iter().filter(|(path, _)| !path.starts_with("wit/")) {
                for left in [TEMPLATE_NAME, "semantic-blend", "parents[", "../../"] {
                    let readme = path == "README.md" && left == "../../";
                    assert!(readme || !text.contains(left), "{path} has `{left}`");
                }
            }
            let has = |name: &str| files.iter().any(|(path, _)| path == name);
            for name in [
                policy,
                "manifest.json",
                "cases/titles.json",
                "wit/policy.wit",
            ] {
                assert!(has(name), "{name}");
            }
        }
        let files = javascript("my-boost");
        let built = files.iter().find(|(path, _)| path == "build.js");
        let (_, script) = built.expect("it has one");
        assert!(script.contains("manifest.js"), "{script}");
        // Whatever a script takes from beside it comes along.
        for (_, script) in files.iter().filter(|(path, _)| path.ends_with(".js")) {
            for beside in script.split("from './").skip(1) {
                let (name, _) = beside.split_once('\'').expect("a quote ends it");
                let is_made = name == "manifest.js";
                assert!(
                    is_made || files.iter().any(|(path, _)| path == name),
                    "{name}"
                );
            }
        }
    }
}
