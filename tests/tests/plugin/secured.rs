//! A sidecar that speaks TLS and asks for a key: the node's settings and keystore are enough, and neither goes
//! anywhere else.

use rerankd_tests::Upstream;
use rerankd_tests::search_page::ids;
use rerankd_tests::upstream::write_json;
use serde_json::json;

use crate::sidecar::{documents, fresh_name, reversed};
use crate::world::{WORLD, pipeline, search, turn};
use crate::{QUERY, marker};

#[test]
fn the_nodes_own_sidecar_is_reached_by_tls_and_with_the_token() {
    let _turn = turn();
    let name = fresh_name();
    WORLD
        .put_pipeline(&name, &pipeline(&json!({"fields": ["title", "text"]})))
        .ok();
    let before = ranked();
    let path = format!("/products/_search?search_pipeline={name}");
    let got = WORLD.post(&path, &search(QUERY)).ok();
    assert_eq!(marker::fate(&got).policy.as_deref(), Some("nearest-length"));
    assert_ne!(ids(got.text()), ids(WORLD.alone(&search(QUERY)).text()));
    assert_eq!(ranked(), before + 1.0, "the secured one ranked it");
}

/// Rankings that the secured sidecar has made.
fn ranked() -> f64 {
    WORLD.secured.metric(
        "rerankd_requests_total",
        &[("protocol", "native"), ("status", "applied")],
    )
}

#[test]
fn a_pipeline_that_names_another_sidecar_does_not_give_the_token_away() {
    let _turn = turn();
    let sidecar = Upstream::start(|asked, stream| {
        write_json(stream, "200 OK", &reversed(documents(asked)).to_string())
    });
    let name = fresh_name();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title"]});
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let path = format!("/products/_search?search_pipeline={name}");
    WORLD.post(&path, &search(QUERY)).ok();
    let asked = sidecar.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
}

#[test]
fn without_tls_and_with_an_unknown_certificate_nothing_is_ranked() {
    let _turn = turn();
    let plain_words_to_tls = format!("http://{}", WORLD.secured.address());
    let tls_to_plain_words = format!("https://{}", WORLD.sidecar.address());
    // The certificate is for 127.0.0.1 and `localhost`, not for this.
    let another_name = format!("https://127.0.0.2:{}", WORLD.secured.address().port());
    for url in [plain_words_to_tls, tls_to_plain_words, another_name] {
        let name = fresh_name();
        let options = json!({"url": url, "policy": "nearest-length", "fields": ["title"]});
        WORLD.put_pipeline(&name, &pipeline(&options)).ok();
        let path = format!("/products/_search?search_pipeline={name}");
        let got = WORLD.post(&path, &search(QUERY)).ok();
        assert_eq!(marker::fate(&got).status, "failed", "{url}");
        assert_eq!(ids(got.text()), ids(WORLD.alone(&search(QUERY)).text()));
    }
}
