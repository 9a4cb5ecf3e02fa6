//! Where things lie when nobody says so: in the source checkout that the executable was built in, or
//! in the system's folders. The current directory decides nothing.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rerankd_inference::files;

/// The source checkout that the executable lies in, if it does.
pub fn root() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let is_checkout = |folder: &&Path| folder.join("wit/policy.wit").is_file();
    executable.ancestors().find(is_checkout).map(Path::to_owned)
}

/// Folders of bundled policies.
pub fn policies() -> Vec<PathBuf> {
    match root() {
        Some(root) => vec![root.join("guest/dist/policies")],
        None => those_there([
            "/usr/lib/rerankd/policies",
            "/usr/local/lib/rerankd/policies",
        ]),
    }
}

/// Folders of models.
pub fn models() -> Vec<PathBuf> {
    match root() {
        Some(root) => vec![root.join("models")],
        None => those_there([
            "/usr/share/rerankd/models",
            "/usr/local/share/rerankd/models",
        ]),
    }
}

/// Of the places where a part may be installed those where it is; all of them where it is nowhere.
fn those_there(places: [&str; 2]) -> Vec<PathBuf> {
    let all = places.map(PathBuf::from);
    let there: Vec<PathBuf> = all.iter().filter(|place| place.is_dir()).cloned().collect();
    if there.is_empty() { all.into() } else { there }
}

/// Where ONNX Runtime's library may lie: in the checkout, then in the system.
pub fn onnxruntime() -> Vec<PathBuf> {
    let name = if cfg!(target_os = "macos") {
        "libonnxruntime.dylib"
    } else {
        "libonnxruntime.so"
    };
    let system = [
        "/usr/lib",
        "/usr/local/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/opt/homebrew/lib",
    ];
    root()
        .map(|root| root.join(".runtime/onnxruntime").join(name))
        .into_iter()
        .chain(system.iter().map(|folder| Path::new(folder).join(name)))
        .collect()
}

/// Most links that lead from one to the next, as the system has it.
const MAX_LINKS: usize = 40;

/// Anybody may write there.
const OTHERS_WRITE: u32 = 0o002;

/// Only its owner may rename or remove what lies in such a folder.
const STICKY: u32 = 0o1000;

/// Who owns a file that belongs to nobody in a container's user namespace.
const UNMAPPED: u32 = 65534;

/// Whether code and models may be loaded from `path`, a file or a folder: it and the folder that it
/// lies in must belong to this user or to root, and nobody else may write to them; nor may anybody else
/// exchange a folder above. Where it is a link, the same holds for all that it leads to, up to the last:
/// who can write to a folder on the way decides where it ends.
///
/// # Errors
/// A sentence that says what is wrong and how to mend it; nothing is wrong with a path that does not
/// exist.
pub fn check_owner(path: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(path);
    let mut place = absolute.unwrap_or_else(|_| path.to_owned());
    for _ in 0..MAX_LINKS {
        check_place(&place)?;
        // Folders above it may be links, too.
        if let (Some(parent), Some(name)) = (place.parent(), place.file_name())
            && let Ok(parent) = parent.canonicalize()
        {
            check_place(&parent.join(name))?;
        }
        let Ok(target) = std::fs::read_link(&place) else {
            break;
        };
        place = place.with_file_name("").join(target);
    }
    match path.canonicalize() {
        Ok(real) => check_place(&real),
        // What does not exist is loaded by nobody.
        Err(_) => Ok(()),
    }
}

/// Whether a folder, two levels or more above something, lets nobody but its owner, who is this user or
/// root, exchange what leads there.
///
/// # Errors
/// A sentence without its end, which says how to mend it.
pub(crate) fn check_above(folder: &Path, meta: &Metadata) -> Result<(), String> {
    let (owner, mode) = (meta.uid(), meta.mode());
    let is_ours = |user| owner == user || owner == 0 || owner == UNMAPPED;
    let shown = folder.display();
    if !user().is_none_or(is_ours) {
        return Err(format!(
            "`{shown}` belongs to user {owner}, neither to this one nor to root: move what lies below"
        ));
    }
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(format!(
            "`{shown}` above it can be written by anyone: `chmod o-w {shown}`"
        ));
    }
    Ok(())
}

/// One path, the folder that it lies in, and those above.
fn check_place(path: &Path) -> Result<(), String> {
    let user = user();
    for place in [Some(path), path.parent()].into_iter().flatten() {
        // A parent of a name alone.
        let place = match place.as_os_str().is_empty() {
            true => Path::new("."),
            false => place,
        };
        let Ok(meta) = std::fs::metadata(place) else {
            continue;
        };
        let kind = files::kind(meta.file_type()).filter(|_| !meta.is_dir());
        if let Some(kind) = kind {
            return Err(format!(
                "`{}` is {kind}, neither a file nor a folder",
                place.display()
            ));
        }
        if meta.mode() & OTHERS_WRITE != 0 {
            return Err(format!(
                "`{0}` can be written by anyone: `chmod o-w {0}`",
                place.display()
            ));
        }
        if user.is_some_and(|user| meta.uid() != user && meta.uid() != 0) {
            return Err(format!(
                "`{}` belongs to user {}, neither to this one nor to root",
                place.display(),
                meta.uid()
            ));
        }
    }
    for above in path.ancestors().skip(2) {
        if let Ok(meta) = std::fs::metadata(above) {
            check_above(above, &meta)
                .map_err(|problem| format!("`{}`: {problem}", path.display()))?;
        }
    }
    Ok(())
}

/// [`check_owner`] of a component, and of the cases that lie beside it.
///
/// # Errors
/// As [`check_owner`].
pub(crate) fn check_component(path: &Path) -> Result<(), String> {
    check_owner(path)?;
    check_owner(&path.with_extension("cases.json"))
}

/// The effective user, where the system tells.
pub(crate) fn user() -> Option<u32> {
    // The owner of the own process folder is the effective user.
    std::fs::metadata("/proc/self").map(|meta| meta.uid()).ok()
}
