//! Variants of components, made without a toolchain: a manifest is text in the component's memory, and
//! cases are a section at its end.

use serde_json::{Value, json};

use crate::require;

/// How the text of every manifest begins, apart from white space.
const HEAD: &str = "{\"manifest_version\"";

/// The component of a faulty guest.
///
/// # Panics
/// If it was not built.
pub fn faulty(name: &str) -> Vec<u8> {
    read(&require::faulty(name))
}

/// The component of a bundled policy.
///
/// # Panics
/// If it was not built.
pub fn bundled(name: &str) -> Vec<u8> {
    read(&require::policies().join(format!("{name}.wasm")))
}

/// `echo`, which shows what it sees and takes any parameters, as another version of itself.
pub fn echo(version: &str) -> Vec<u8> {
    with_manifest(&faulty("echo"), |manifest| {
        manifest["version"] = json!(version);
    })
}

/// A faulty guest under the name `echo`.
pub fn faulty_echo(guest: &str, version: &str) -> Vec<u8> {
    with_manifest(&faulty(guest), |manifest| {
        manifest["name"] = json!("echo");
        manifest["version"] = json!(version);
    })
}

/// The component with another manifest: `change` gets what it has.
///
/// # Panics
/// If the new one does not fit into the place of the old one.
pub fn with_manifest(component: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (start, end) = manifest(component);
    let mut manifest: Value =
        serde_json::from_slice(&component[start..end]).expect("a manifest is JSON");
    // It makes room.
    manifest["description"] = json!("");
    change(&mut manifest);
    let mut text = manifest.to_string();
    let room = end - start;
    assert!(text.len() <= room, "longer than {room} bytes: {text}");
    // Inside, so that the room is found again.
    let brace = text.len() - 1;
    text.insert_str(brace, &" ".repeat(room - text.len()));
    [&component[..start], text.as_bytes(), &component[end..]].concat()
}

/// The component with its cases, `{"cases": [..]}`, in a section at its end. It must have none.
pub fn with_cases(component: &[u8], cases: &Value) -> Vec<u8> {
    with_section(component, "rerank:cases", cases.to_string().as_bytes())
}

/// The component with one more custom section at its end.
pub fn with_section(component: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    let mut section = leb128(name.len());
    section.extend(name.as_bytes());
    section.extend(content);
    [component, &[0], &leb128(section.len()), &section].concat()
}

/// The smallest component: it imports and exports nothing.
pub const EMPTY: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// A component that exports an empty instance under the contract's name, and has a module inside.
pub fn hollow(module: &[u8]) -> Vec<u8> {
    let name = b"rerank:policy/policy@0.1.0";
    let mut export = vec![1, 0];
    export.extend(leb128(name.len()));
    export.extend(name);
    // The instance 0, of no stated type.
    export.extend([5, 0, 0]);
    let section = |id: u8, content: &[u8]| [&[id], &leb128(content.len())[..], content].concat();
    [
        &EMPTY[..],
        &section(1, module),
        &section(5, &[1, 1, 0]),
        &section(11, &export),
    ]
    .concat()
}

/// The component with so many more instances of a core module, which nobody calls.
///
/// # Panics
/// If `component` is not made of sections.
pub fn with_instances(component: &[u8], module: &[u8], count: usize) -> Vec<u8> {
    const MODULE: u8 = 1;
    const CORE_INSTANCES: u8 = 2;
    let modules = sections(component)
        .into_iter()
        .filter(|&id| id == MODULE)
        .count();
    let section = |id: u8, content: &[u8]| [&[id], &leb128(content.len())[..], content].concat();
    // Each is an instance of that module, without arguments.
    let instance = [&[0], &leb128(modules)[..], &[0]].concat();
    let instances = [leb128(count), instance.repeat(count)].concat();
    [
        component,
        &section(MODULE, module),
        &section(CORE_INSTANCES, &instances),
    ]
    .concat()
}

/// A module with memories of so many pages of 64 KiB each.
pub fn module_with_memories(pages: &[usize]) -> Vec<u8> {
    let memory = |&pages: &usize| [&[0], &leb128(pages)[..]].concat();
    let memories: Vec<u8> = pages.iter().flat_map(memory).collect();
    module_with_section(5, pages.len(), &memories)
}

/// A module with tables of so many functions each.
pub fn module_with_tables(elements: &[usize]) -> Vec<u8> {
    let table = |&elements: &usize| [&[0x70, 0], &leb128(elements)[..]].concat();
    let tables: Vec<u8> = elements.iter().flat_map(table).collect();
    module_with_section(4, elements.len(), &tables)
}

fn module_with_section(id: u8, count: usize, items: &[u8]) -> Vec<u8> {
    let content = [&leb128(count)[..], items].concat();
    [
        b"\0asm\x01\0\0\0",
        &[id][..],
        &leb128(content.len()),
        &content,
    ]
    .concat()
}

/// The ids of a component's outermost sections.
fn sections(component: &[u8]) -> Vec<u8> {
    let mut ids = Vec::new();
    let mut at = EMPTY.len();
    while at < component.len() {
        ids.push(component[at]);
        at += 1;
        let mut size = 0;
        for shift in (0..).step_by(7) {
            let byte = component[at];
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        at += size;
    }
    ids
}

/// A module with a function that says that it returns a number, and returns none.
pub fn invalid_module() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend([1, 5, 1, 0x60, 0, 1, 0x7f]);
    module.extend([3, 2, 1, 0]);
    module.extend([10, 4, 1, 2, 0, 0x0b]);
    module
}

fn read(path: &std::path::Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the manifest's text begins and ends.
fn manifest(component: &[u8]) -> (usize, usize) {
    let key = component
        .windows(HEAD.len() - 1)
        .position(|window| window == &HEAD.as_bytes()[1..]);
    let key = key.expect("a manifest begins with its own version");
    let start = component[..key]
        .iter()
        .rposition(|byte| *byte == b'{')
        .expect("a manifest is an object");
    let mut values = serde_json::Deserializer::from_slice(&component[start..]).into_iter::<Value>();
    values
        .next()
        .expect("there is an object")
        .expect("a manifest is JSON");
    (start, start + values.byte_offset())
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
