//! Files that an operator named, or that lie in a folder that one named. What is no file (a FIFO, a
//! device, a socket) would keep its reader waiting, so it is refused before anything waits.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file for reading; symbolic links are followed.
///
/// # Errors
/// Those of the system; `InvalidInput` where it is no regular file, saying what it is.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    // Some devices do something when they are opened.
    check(&std::fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    // It may have become something else in between.
    let meta = file.metadata()?;
    check(&meta)?;
    Ok((file, meta))
}

/// Reads a whole file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; `FileTooLarge`, saying the limit.
pub fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, _) = open(path)?;
    read_from(file, most)
}

/// Reads the rest of an open file, of at most `most` bytes.
///
/// # Errors
/// Those of the system; `FileTooLarge`, saying the limit.
pub fn read_from(file: File, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let problem = format!("it has more than {most} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// Reads a whole file, of any size.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let (mut file, meta) = open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file of text.
///
/// # Errors
/// As [`open`]; `InvalidData` where it is no UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    let (mut file, _) = open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn check(meta: &Metadata) -> Result<()> {
    match kind(meta.file_type()) {
        None => Ok(()),
        Some(kind) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("it is {kind}, not a file"),
        )),
    }
}

/// What it is, if it is no regular file.
pub fn kind(of: FileType) -> Option<&'static str> {
    if of.is_file() {
        None
    } else if of.is_dir() {
        Some("a folder")
    } else if of.is_fifo() {
        Some("a FIFO")
    } else if of.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}
