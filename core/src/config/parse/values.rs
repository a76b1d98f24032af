//! What do the values of a configuration look like, and what does each become?

use core::{ops::RangeInclusive, str::FromStr as _, time::Duration};

use toml::de::DeValue;

use super::reader::{Reader, Value};

/// Any text.
pub(super) fn text<'v>(cx: &mut Reader<'_>, value: &'v Value<'_>) -> Option<&'v str> {
    words(cx, value, "text", "it in quotes: \"...\"")
}

/// `true` or `false`.
pub(super) fn flag(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<bool> {
    match value.get_ref() {
        DeValue::Boolean(flag) => Some(*flag),
        _ => cx.refuse_value(value, "true or false", "true or false, without quotes"),
    }
}

/// A whole number between two others.
pub(super) fn number<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&mut Reader<'_>, &Value<'_>) -> Option<T> {
    move |cx, value| {
        let number = match value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .or_else(|| {
                let (least, most) = (range.start(), range.end());
                cx.refuse_value(
                    value,
                    &format!("a number from {least} to {most}"),
                    "such a number, without quotes",
                )
            })
    }
}

/// A number of seconds, whole or not: from a millisecond to a week.
pub(super) fn seconds(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Duration> {
    let secs = match value.get_ref() {
        DeValue::Integer(digits) => f64::from_str(digits.as_str()).ok().filter(|_| digits.radix() == 10),
        DeValue::Float(digits) => f64::from_str(digits.as_str()).ok(),
        _ => None,
    };
    match secs {
        Some(secs) if (0.001..=SECONDS_MAX).contains(&secs) => Some(Duration::from_secs_f64(secs)),
        _ => cx.refuse_value(
            value,
            "a number of seconds from 0.001 to 604800",
            "such a number, without quotes",
        ),
    }
}

/// A number of bytes, as a number or like `"64 KiB"`.
pub(super) fn bytes<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&mut Reader<'_>, &Value<'_>) -> Option<T> {
    move |cx, value| {
        let bytes = match value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::String(text) => bytes_with_unit(text),
            _ => None,
        };
        bytes
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .or_else(|| {
                let (least, most) = (range.start(), range.end());
                cx.refuse_value(
                    value,
                    &format!("a number of bytes from {least} to {most}"),
                    "65536 or \"64 KiB\"; there are KiB, MiB and GiB",
                )
            })
    }
}

fn bytes_with_unit(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A name in configuration, logs and paths.
pub(super) fn name(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let wanted = "a name of letters, digits, `-`, `_` and `.`";
    let example = "it like \"main\"";
    let text = words(cx, value, wanted, example)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(allowed) {
        return cx.refuse_value(value, wanted, example);
    }
    Some(text.into())
}

/// The path of a file.
pub(super) fn path(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let example = "it like \"/etc/edgeward/fullchain.pem\"";
    words(cx, value, "the path of a file", example).map(str::to_owned)
}

/// What a file holds.
pub(super) fn file(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<u8>> {
    let path = path(cx, value)?;
    match cx.sources.file(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => cx.refuse(
            value.span().start,
            format!("`{path}` cannot be read: {error}"),
            "name a file that exists and that this user may read",
        ),
    }
}

/// Text that should be something.
pub(super) fn words<'v>(cx: &mut Reader<'_>, value: &'v Value<'_>, wanted: &str, example: &str) -> Option<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => cx.refuse_value(value, wanted, example),
    }
}

const SECONDS_MAX: f64 = 604_800.0;
const NAME_BYTES_MAX: usize = 64;
