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
    let file = section.optional(cx, "file", |cx, value| Some(values::text(cx, value)?.to_owned()));
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
