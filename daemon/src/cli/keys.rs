//! How do the keys of the shards outlive the process? As lines of a file that only its owner may read.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use edgeward_core::config::Keys;

use super::{load::KeyFile, writable};

/// Keys that nobody has seen.
///
/// # Errors
/// When the system gives no random numbers.
pub(crate) fn fresh() -> Result<Keys, getrandom::Error> {
    let mut keys = Keys {
        nonce: [0; 32],
        flow: vec![[0; 32]],
    };
    getrandom::fill(&mut keys.nonce)?;
    for key in &mut keys.flow {
        getrandom::fill(key)?;
    }
    Ok(keys)
}

/// The keys of a file, which is made when it is missing and may be.
///
/// # Errors
/// In words for the administrator.
pub(crate) fn load(path: &Path, missing: KeyFile) -> Result<Keys, String> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = fresh().map_err(|error| error.to_string())?;
            writable::file(path)?;
            if missing == KeyFile::Make {
                write(path, &keys).map_err(|error| format!("it is missing and cannot be made: {error}"))?;
            }
            Ok(keys)
        }
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn write(path: &Path, keys: &Keys) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(render(keys).as_bytes())?;
    file.sync_all()
}

fn render(keys: &Keys) -> String {
    let mut text = HEADER.to_owned();
    let nonce = ("nonce", &keys.nonce);
    for (name, key) in [nonce].into_iter().chain(keys.flow.iter().map(|key| ("flow", key))) {
        text.push_str(name);
        text.push(' ');
        for byte in key {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Result<Keys, String> {
    let (mut nonce, mut flow) = (None, Vec::new());
    for (line, number) in text.lines().zip(1..) {
        let wrong = || format!("line {number} is no key: remove the file, and a new one is made");
        match line.split_once(' ') {
            _ if line.is_empty() || line.starts_with('#') => {}
            Some(("nonce", key)) if nonce.is_none() => nonce = Some(parse_key(key).ok_or_else(wrong)?),
            Some(("flow", key)) => flow.push(parse_key(key).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    match nonce {
        Some(nonce) if !flow.is_empty() => Ok(Keys { nonce, flow }),
        _ => Err("it lacks keys: remove it, and a new one is made".into()),
    }
}

fn parse_key(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}

const HEADER: &str = "\
# Keys of Edgeward; whoever knows them can forge TURN nonces and SIP flow tokens.
# New tokens get the first flow key, all are accepted: to change it, add a line before it.
";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_survive_their_file() {
        let keys = fresh().unwrap();
        let read = parse(&render(&keys)).unwrap();
        assert_eq!((read.nonce, read.flow), (keys.nonce, keys.flow));
    }

    #[test]
    fn two_processes_have_different_keys() {
        let [one, two] = [fresh().unwrap(), fresh().unwrap()];
        assert_ne!(one.nonce, two.nonce);
        assert_ne!(one.nonce, one.flow[0]);
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone() {
        let path = std::env::temp_dir().join(format!("edgeward-keys-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        load(&path, KeyFile::LeaveAlone).unwrap();
        assert!(!path.exists());
        let made = load(&path, KeyFile::Make).unwrap();
        let again = load(&path, KeyFile::Make).unwrap();
        assert_eq!((made.nonce, made.flow), (again.nonce, again.flow));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_key_file() {
        let key = "ab".repeat(32);
        for (text, expected) in [
            ("".into(), "it lacks keys: remove it, and a new one is made"),
            (
                format!("nonce {key}\n"),
                "it lacks keys: remove it, and a new one is made",
            ),
            (
                format!("# comment\n\nnonce {key}0\n"),
                "line 3 is no key: remove the file, and a new one is made",
            ),
            (
                format!("flow {key}\nnonce {}\n", &key[2..]),
                "line 2 is no key: remove the file, and a new one is made",
            ),
            (
                format!("nonce {key}\nnonce {key}\nflow {key}\n"),
                "line 2 is no key: remove the file, and a new one is made",
            ),
            (
                "nonsense".into(),
                "line 1 is no key: remove the file, and a new one is made",
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err(), expected, "{text}");
        }
    }
}
