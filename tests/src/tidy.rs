//! Which `use` lines and words may a source file hold? Reads the sources as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A rule that a source file breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The file, from the root of the sources.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// What it says there.
    pub text: String,
}

/// A source file without its comments and literals, so that words in them are not taken for code.
#[derive(Debug)]
pub struct Source {
    /// From the root of the sources.
    pub file: PathBuf,
    /// The code; line numbers are those of the file.
    pub code: String,
}

/// Reads all Rust sources below a folder.
///
/// # Panics
/// When the folder cannot be read.
pub fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let file = path.strip_prefix(root).expect("below the root").to_owned();
                found.push(Source {
                    file,
                    code: code(&text),
                });
            }
        }
    }
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

impl Source {
    /// The module of the crate that the file belongs to: `turn` for `turn.rs` and `turn/table.rs`.
    pub fn module(&self) -> &str {
        let first = self.file.components().next().expect("a file name");
        let first = first.as_os_str().to_str().expect("a file name in ASCII");
        first.trim_end_matches(".rs")
    }

    /// The places that name a module of their own crate for which `wrong` holds: by `crate::`, by `super::` from a file
    /// of the root, or within the braces of `use crate::{..}`.
    pub fn own_modules(&self, wrong: impl Fn(&str) -> bool) -> Vec<Breach> {
        let mut found = self.names_behind("crate::", &wrong);
        // Deeper down, `super::` does not lead to the root; nor does the `super::*` of the tests in a file.
        if self.file.components().count() == 1 {
            found.extend(self.names_behind("super::", |name| !name.is_empty() && wrong(name)));
        }
        found
    }

    /// The places where behind this prefix, which ends in `::`, or first within the braces behind it, a name stands for
    /// which `wrong` holds.
    pub fn names_behind(&self, prefix: &str, wrong: impl Fn(&str) -> bool) -> Vec<Breach> {
        let mut names = Vec::new();
        for (at, _) in self.code.match_indices(prefix) {
            let start = at + prefix.len();
            let rest = &self.code[start..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(heads(group).into_iter().map(|(at, name)| (start + 1 + at, name))),
                None => names.push((start, name_at(rest))),
            }
        }
        let wrong = names.into_iter().filter(|(_, name)| wrong(name));
        wrong.map(|(at, _)| self.breach(at)).collect()
    }

    /// The lines in which this text stands as code, bounded by what is no part of a name.
    pub fn holds(&self, text: &str) -> Vec<Breach> {
        let is_name = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let bytes = self.code.as_bytes();
        let starts = self.code.match_indices(text).map(|(at, _)| at);
        starts
            .filter(|at| !is_name(at.checked_sub(1).and_then(|before| bytes.get(before))))
            .filter(|at| !is_name(bytes.get(at + text.len())))
            .map(|at| self.breach(at))
            .collect()
    }

    fn breach(&self, at: usize) -> Breach {
        let line = 1 + self.code[..at].matches('\n').count();
        let text = self.code.lines().nth(line - 1).unwrap_or_default().trim().to_owned();
        Breach {
            file: self.file.clone(),
            line,
            text,
        }
    }
}

/// Removes comments, and empties literals; line breaks stay.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => 1 + closing_quote(&rest[1..]),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#") => raw_string(rest),
            // A lifetime has no second quote near.
            '\'' if rest[1..].starts_with('\\') => rest[2..].find('\'').map_or(1, |end| end + 3),
            '\'' => match rest[1..].char_indices().nth(1) {
                Some((end, '\'')) => end + 2,
                _ => 0,
            },
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().filter(|character| *character == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// How long a string is from behind its first quote to behind its last.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// How long `r#".."#` is; 0 when it is a raw identifier.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|character| *character == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 2 + hashes;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

fn name_at(text: &str) -> String {
    text.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

/// The first names in the outermost braces of a `use` group, without the ones deeper in.
fn heads(group: &str) -> Vec<(usize, String)> {
    let (mut found, mut depth, mut is_head) = (Vec::new(), 0, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_head = true,
            _ if character.is_whitespace() => {}
            _ if depth == 0 && is_head => {
                is_head = false;
                found.push((at, name_at(&group[at..])));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(file: &str, text: &str) -> Source {
        Source {
            file: file.into(),
            code: code(text),
        }
    }

    fn lines(breaches: &[Breach]) -> Vec<usize> {
        breaches.iter().map(|breach| breach.line).collect()
    }

    #[test]
    fn a_wrong_arrow_is_found_however_it_is_written() {
        let ways = [
            "use crate::sip::Bridge;",
            "use crate::sip;",
            "use crate::{\n    wire::stun,\n    sip::{self, flow::Flow},\n};",
            "use crate::{wire, sip};",
            "fn f() { crate::sip::call() }",
            "pub(crate) use crate::sip as other;",
        ];
        for way in ways {
            let found = source("turn/server.rs", way).own_modules(|name| name == "sip");
            assert_eq!(found.len(), 1, "{way}");
        }
        let from_root = source("turn.rs", "use super::sip::Bridge;");
        assert_eq!(lines(&from_root.own_modules(|name| name == "sip")), [1]);
    }

    #[test]
    fn what_is_no_arrow_is_not_found() {
        let ways = [
            "use crate::wire::sip::Message;",
            "use crate::{wire::{sip, stun}, time};",
            "// use crate::sip;",
            "let text = \"crate::sip\"; let quote = '\"'; /* crate::sip */",
            "let raw = r#\"crate::sip \" \"#;",
            "use crate::sipper;",
            "use super::sip;",
        ];
        for way in ways {
            let found = source("turn/server.rs", way).own_modules(|name| name == "sip");
            assert!(found.is_empty(), "{way}: {found:?}");
        }
    }

    #[test]
    fn words_are_found_in_code_only() {
        let text =
            "// unsafe\nlet x = \"unsafe\";\nunsafe { f() }\nlet unsafely = 1;\nInstant::now()\nMyInstant::now()";
        let source = source("shard.rs", text);
        assert_eq!(lines(&source.holds("unsafe")), [3]);
        assert_eq!(lines(&source.holds("Instant::now")), [5]);
    }
}
