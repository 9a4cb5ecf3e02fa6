//! What somebody uploads, looked at before any of it is compiled or run: is it a component, for the
//! policy's world, of a size that is allowed, and what does it bring along?

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};

use crate::error::ReleaseError;

/// What a policy must export.
pub(crate) const EXPORT: &str = "rerank:policy/policy@0.1.0";

/// What a policy may import.
const IMPORTS: [&str; 8] = [
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
    "rerank:policy/tokenizer@0.1.0",
    "rerank:policy/log@0.1.0",
    "rerank:policy/types@0.1.0",
    "rerank:reading/reading@0.1.0",
];

/// The custom section in which a component may carry its cases, as JSON.
pub const CASES_SECTION: &str = "rerank:cases";

/// Most bytes of cases that are read.
pub const MAX_CASES_BYTES: usize = 256 << 10;

/// A component that may become a policy.
#[derive(Debug, Clone)]
pub struct Artifact {
    bytes: Vec<u8>,
    sha256: String,
    imports: Vec<String>,
    exports: Vec<String>,
    cases: Option<String>,
}

impl Artifact {
    /// Looks at what was uploaded. Takes time in proportion to the bytes; runs and validates nothing.
    ///
    /// # Errors
    /// [`ReleaseError::TooLarge`], [`ReleaseError::NotAComponent`] or [`ReleaseError::Cases`].
    pub fn inspect(bytes: Vec<u8>, max_bytes: usize) -> Result<Self, ReleaseError> {
        if bytes.len() > max_bytes {
            return Err(ReleaseError::TooLarge {
                bytes: bytes.len(),
                max_bytes,
            });
        }
        if !bytes.starts_with(b"\0asm") {
            return Err(not_a_component(if bytes.is_empty() {
                "it is empty"
            } else {
                "it does not begin like WebAssembly (`\\0asm`)"
            }));
        }
        let (mut imports, mut exports, mut cases) = (Vec::new(), Vec::new(), None);
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload.map_err(|error| broken(&error))? {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    if depth == 1 && encoding == Encoding::Module {
                        return Err(not_a_component(
                            "it is a core module: make a component of it with `rerankd policy build`, or with `wasm-tools component new`",
                        ));
                    }
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        let import = import.map_err(|error| broken(&error))?;
                        imports.push(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        let export = export.map_err(|error| broken(&error))?;
                        exports.push(export.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section)
                    if depth == 1 && section.name() == CASES_SECTION =>
                {
                    let first = cases.replace(read_cases(section.data())?).is_none();
                    if !first {
                        let problem = format!("there are two sections `{CASES_SECTION}`");
                        return Err(ReleaseError::Cases(problem));
                    }
                }
                _ => {}
            }
        }
        Ok(Self {
            sha256: hex::encode(Sha256::digest(&bytes)),
            bytes,
            imports,
            exports,
            cases,
        })
    }

    /// Whether it fits the world: it exports the policy and imports nothing that is not given.
    ///
    /// # Errors
    /// The first import or export that does not fit, and what would.
    pub fn check_world(&self, allow_wasi: bool) -> Result<(), ReleaseError> {
        for name in &self.imports {
            let wasi = allow_wasi && name.starts_with("wasi:") && !name.starts_with("wasi:nn/");
            if !wasi && !IMPORTS.contains(&name.as_str()) {
                // WebAssembly's own bound on a name is 100,000 bytes.
                let shown = name.chars().take(200).collect();
                return Err(ReleaseError::UnknownImport(shown, IMPORTS.join(", ")));
            }
        }
        if self.exports.iter().any(|name| name == EXPORT) {
            Ok(())
        } else {
            Err(ReleaseError::MissingExport(EXPORT.to_owned()))
        }
    }

    /// The component.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the component, hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Names of what it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// The cases that it carries, JSON.
    pub fn cases(&self) -> Option<&str> {
        self.cases.as_deref()
    }
}

/// A component with these cases in place of its own, if it had any.
///
/// # Errors
/// [`ReleaseError::NotAComponent`].
pub fn with_cases(component: &[u8], cases: &str) -> Result<Vec<u8>, ReleaseError> {
    let mut out = Vec::with_capacity(component.len() + cases.len() + 32);
    let mut depth = 0_usize;
    let mut copied = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| broken(&error))? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 1 && section.name() == CASES_SECTION => {
                let end = section.range().end;
                // A section's id and length come before what the parser calls its range.
                let start = section.range().start - 1 - leb128_bytes(section.range().len());
                out.extend_from_slice(&component[copied..start]);
                copied = end;
            }
            _ => {}
        }
    }
    out.extend_from_slice(&component[copied..]);
    let mut content = leb128(CASES_SECTION.len());
    content.extend_from_slice(CASES_SECTION.as_bytes());
    content.extend_from_slice(cases.as_bytes());
    out.push(0);
    out.extend(leb128(content.len()));
    out.extend(content);
    Ok(out)
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit into a byte");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn leb128_bytes(value: usize) -> usize {
    leb128(value).len()
}

fn read_cases(data: &[u8]) -> Result<String, ReleaseError> {
    if data.len() > MAX_CASES_BYTES {
        return Err(ReleaseError::Cases(format!(
            "{} bytes; at most {MAX_CASES_BYTES} are read",
            data.len()
        )));
    }
    String::from_utf8(data.to_vec())
        .map_err(|_| ReleaseError::Cases(format!("the section `{CASES_SECTION}` is not UTF-8")))
}

fn not_a_component(problem: impl Into<Cow<'static, str>>) -> ReleaseError {
    ReleaseError::NotAComponent(problem.into().into_owned())
}

fn broken(error: &wasmparser::BinaryReaderError) -> ReleaseError {
    let cut = if error.message().contains("unexpected end") {
        " (was the upload cut off?)"
    } else {
        ""
    };
    not_a_component(format!(
        "at byte {}: {}{cut}",
        error.offset(),
        error.message()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest component.
    const EMPTY: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

    fn refused(bytes: &[u8], says: &str) {
        let error = Artifact::inspect(bytes.to_vec(), 1 << 20).expect_err("it is refused");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn what_is_no_component_is_said() {
        refused(b"", "it is empty");
        refused(b"PK\x03\x04", "does not begin like WebAssembly");
        refused(&[0, b'a', b's', b'm', 1, 0, 0, 0], "core module");
        refused(&EMPTY[..6], "was the upload cut off?");
        let with = with_cases(&EMPTY, "{\"cases\": []}").expect("it is a component");
        refused(&with[..with.len() - 3], "was the upload cut off?");
        let error = Artifact::inspect(EMPTY.to_vec(), 7).expect_err("it is too large");
        assert!(error.to_string().contains("8 bytes"), "{error}");
    }

    #[test]
    fn cases_are_carried_and_replaced() {
        let first = with_cases(&EMPTY, &"x".repeat(300)).expect("it is a component");
        let second = with_cases(&first, "{}").expect("it is a component");
        let artifact = Artifact::inspect(second.clone(), 1 << 20).expect("it is a component");
        assert_eq!(artifact.cases(), Some("{}"));
        assert_eq!(second, with_cases(&EMPTY, "{}").expect("it is a component"));
        let error = artifact.check_world(false).expect_err("it exports nothing");
        assert!(error.to_string().contains(EXPORT), "{error}");
    }
}
