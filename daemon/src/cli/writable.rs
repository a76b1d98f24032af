//! Could this file be written, or this folder be made? Asked without doing it.

use std::{io, path::Path};

use rustix::fs::{Access, access};

/// Whether a file can be written, or made in a folder that is there.
///
/// # Errors
/// In words for the administrator.
pub(crate) fn file(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err("it is a folder".into());
    }
    if path.exists() {
        return may_write(path).map_err(|error| format!("it cannot be written: {error}"));
    }
    let folder = parent(path);
    match folder.is_dir() {
        false => Err(format!("it is missing, and so is its folder {}", folder.display())),
        true => may_write(folder).map_err(|error| format!("it is missing and cannot be made: {error}")),
    }
}

/// Whether a folder can be written to, or made with those above it that are missing.
///
/// # Errors
/// In words for the administrator.
pub(crate) fn folder(path: &Path) -> Result<(), String> {
    match path.ancestors().map(or_here).find(|folder| folder.exists()) {
        Some(there) if !there.is_dir() => Err(format!("{} is no folder", there.display())),
        Some(there) => may_write(there).map_err(|error| format!("{} cannot be written to: {error}", there.display())),
        None => Err("there is no such place".into()),
    }
}

fn parent(path: &Path) -> &Path {
    or_here(path.parent().unwrap_or(Path::new("/")))
}

/// What is relative begins at the working directory.
fn or_here(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

fn may_write(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::WRITE_OK)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_can_be_written() {
        let place = std::env::temp_dir().join(format!("edgeward-writable-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("file"), "").unwrap();
        let check = |question: fn(&Path) -> Result<(), String>, path: &str, expected: Result<(), &str>| {
            let path = place.join(path);
            let found = question(&path);
            match expected {
                Ok(()) => assert_eq!(found, Ok(()), "{}", path.display()),
                Err(part) => assert!(found.is_err_and(|error| error.contains(part)), "{}", path.display()),
            }
        };
        check(file, "file", Ok(()));
        check(file, "new", Ok(()));
        check(file, "", Err("it is a folder"));
        check(file, "missing/new", Err("so is its folder"));
        check(folder, "", Ok(()));
        check(folder, "new/deep", Ok(()));
        check(folder, "file/deep", Err("is no folder"));
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(folder(Path::new("new")), Ok(()));
        assert_eq!(parent(Path::new("new")), Path::new("."));
    }
}
