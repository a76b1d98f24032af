//! How is `[access_log]` read: what is told of each request, and where?

use super::{
    reader::{Reader, Value},
    section::Section,
    values,
};
use crate::config::{AccessFormat, AccessLog};

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<AccessLog> {
    let mut section = Section::new(cx, "[access_log]", value)?;
    let format = section.given_or(cx, "format", AccessFormat::Combined, format);
    let file = section.optional(cx, "file", |cx, value| {
        let path = values::text(cx, value)?;
        match cx.sources.file_to_write(path) {
            Ok(()) => Some(path.to_owned()),
            Err(error) => cx.refuse(
                value.span().start,
                error,
                "name a file in a folder that this user may write to",
            ),
        }
    });
    section.finish(cx);
    Some(AccessLog { format: format?, file })
}

fn format(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<AccessFormat> {
    match values::text(cx, value)? {
        "combined" => Some(AccessFormat::Combined),
        "json" => Some(AccessFormat::Json),
        _ => cx.refuse_value(value, "a format", "\"combined\" or \"json\""),
    }
}
