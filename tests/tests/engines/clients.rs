//! The engines' own Python clients, through the search proxy.

use std::net::SocketAddr;
use std::process::Command;

use rerankd_tests::{Engine, require};

use crate::proxy::{BEFORE_ELASTICSEARCH, BEFORE_OPENSEARCH};
use crate::{ELASTICSEARCH, OPENSEARCH, turn};

#[test]
fn opensearch_py_works_through_the_proxy() {
    run(&OPENSEARCH, BEFORE_OPENSEARCH.proxy_address());
}

#[test]
fn elasticsearch_py_works_through_the_proxy() {
    run(&ELASTICSEARCH, BEFORE_ELASTICSEARCH.proxy_address());
}

fn run(engine: &Engine, proxy: SocketAddr) {
    let _turn = turn(engine);
    let output = Command::new(require::engines_python())
        .arg(require::root().join("tests/engines/clients.py"))
        .arg(engine.name())
        .args([engine.address(), proxy].map(|address| format!("http://{address}")))
        .output()
        .expect("the interpreter runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
