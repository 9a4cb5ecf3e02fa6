//! Target `artifact`: what somebody uploads, looked at before it is compiled, and its cases.
//!
//! The first byte says what the rest is: `c` is cases, `w` a component with these cases put in (the two
//! parted by the first byte 0xFF), anything else a component.
//!
//! Promises: nothing panics; a refusal is a short message; a component keeps its bytes and its digest;
//! cases that were put in are those that are read.

use rerankd::cases::{Cases, MAX_CASES};
use rerankd_policy::ReleaseError;
use rerankd_policy::artifact::{Artifact, with_cases};

/// Largest component that is looked at, bytes.
const MOST_BYTES: usize = 1 << 20;

/// Longest message, bytes.
const MOST_MESSAGE: usize = 4 << 10;

/// Runs one input.
///
/// # Panics
/// Where a promise is broken.
pub fn run(input: &[u8]) {
    match input {
        [] => {}
        [b'c', text @ ..] => cases(&String::from_utf8_lossy(text)),
        [b'w', rest @ ..] => {
            let at = rest.iter().position(|&byte| byte == 0xff);
            let (text, component) = rest.split_at(at.unwrap_or(0));
            put(
                component.get(1..).unwrap_or_default(),
                &String::from_utf8_lossy(text),
            );
        }
        [_, component @ ..] => {
            inspect(component);
        }
    }
}

fn inspect(bytes: &[u8]) -> Option<Artifact> {
    let artifact = match Artifact::inspect(bytes.to_vec(), MOST_BYTES) {
        Ok(artifact) => artifact,
        Err(error) => {
            short(&error);
            return None;
        }
    };
    assert_eq!(artifact.bytes(), bytes);
    assert_eq!(artifact.sha256().len(), 64);
    for allow_wasi in [false, true] {
        if let Err(error) = artifact.check_world(allow_wasi) {
            short(&error);
        }
    }
    if let Some(text) = artifact.cases() {
        cases(text);
    }
    Some(artifact)
}

fn put(component: &[u8], text: &str) {
    match with_cases(component, text) {
        Err(error) => short(&error),
        Ok(bytes) => {
            // Replaced, and not added once more.
            let again = with_cases(&bytes, text).expect("it was a component");
            assert_eq!(bytes, again, "cases are put in once");
            if let Some(artifact) = inspect(&bytes) {
                assert_eq!(artifact.cases(), Some(text));
            }
        }
    }
}

fn short(error: &ReleaseError) {
    let length = error.to_string().len();
    assert!(length <= MOST_MESSAGE, "a message of {length} bytes");
}

fn cases(text: &str) {
    match Cases::parse(text) {
        Err(problem) => {
            let length = problem.len();
            assert!(
                length > 0 && length <= MOST_MESSAGE,
                "a message of {length} bytes"
            );
        }
        Ok(cases) => {
            assert!(cases.len() <= MAX_CASES);
            assert_eq!(cases.text(), text);
            let again = Cases::parse(cases.text()).expect("they were read before");
            assert_eq!(again.len(), cases.len());
        }
    }
}
