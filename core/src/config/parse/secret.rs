//! Where does a secret come from? The text, a file or the environment; and never into a message.

use toml::de::DeValue;

use super::{
    reader::{Reader, Value},
    section::Section,
    values::{file, text},
};
use crate::config::Secret;

/// A secret: in the text, in a file, or in the environment.
pub(super) fn secret(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Secret> {
    let site = value.span().start;
    // What is wrong with a secret is said without showing it.
    let bytes = match value.get_ref() {
        DeValue::String(text) => text.as_bytes().to_vec(),
        DeValue::Table(_) => secret_elsewhere(cx, value)?,
        _ => {
            return cx.refuse(
                site,
                "this is not a secret",
                "write \"...\" or { file = \"/etc/edgeward/secret\" } or { env = \"NAME\" }",
            );
        }
    };
    let count = String::from_utf8_lossy(&bytes).chars().count();
    if count < SECRET_CHARACTERS_MIN {
        let what = match count {
            0 => "this secret is empty".into(),
            _ => format!("this secret can be guessed: it has {count} of {SECRET_CHARACTERS_MIN} characters"),
        };
        return cx.refuse(site, what, "take what this prints: openssl rand -base64 32");
    }
    Some(Secret::new(bytes))
}

fn secret_elsewhere(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<u8>> {
    let site = value.span().start;
    let mut section = Section::new(cx, "a secret", value)?;
    let file = section.optional(cx, "file", |cx, value| {
        let mut bytes = file(cx, value)?;
        // An editor ends the last line, a secret does not.
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        Some(bytes)
    });
    let env = section.optional(cx, "env", |cx, value| {
        let name = text(cx, value)?;
        match cx.sources.env(name) {
            Some(secret) => Some(secret.into_bytes()),
            None => cx.refuse(
                value.span().start,
                format!("there is no variable {name} in the environment"),
                format!("set {name} before the start"),
            ),
        }
    });
    let count = usize::from(section.has("file")) + usize::from(section.has("env"));
    section.finish(cx);
    if count != 1 {
        return cx.refuse(
            site,
            "a secret comes from one place",
            "write { file = \"/etc/edgeward/secret\" } or { env = \"NAME\" }",
        );
    }
    file.or(env)
}

const SECRET_CHARACTERS_MIN: usize = 16;
