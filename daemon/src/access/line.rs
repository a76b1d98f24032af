//! How does a line of the access log look? As Apache and nginx write it, or as JSON.

use std::io::Write as _;

use edgeward_core::{action::Access, time::UnixTime};

/// The combined format, with what is ours behind it as `name=value`.
pub(super) fn combined(access: &Access, out: &mut Vec<u8>) {
    let Access {
        client,
        status,
        sent_bytes,
        received_bytes,
        request_id,
        ..
    } = access;
    let (year, month, day, [hour, minute, second]) = calendar(access.at);
    let month = MONTHS[month as usize - 1];
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "{client} - - [{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \""
    );
    match access.method {
        "" => out.push(b'-'),
        method => {
            let _ = write!(out, "{method} ");
            quote(&access.path, out);
            out.extend_from_slice(b" HTTP/1.1");
        }
    }
    let _ = write!(out, "\" {status:03} {sent_bytes} \"");
    quote(or_dash(&access.referrer), out);
    out.extend_from_slice(b"\" \"");
    quote(or_dash(&access.agent), out);
    out.extend_from_slice(b"\" route=");
    quote(access.route.as_deref().unwrap_or("-"), out);
    out.extend_from_slice(b" upstream=");
    quote(access.upstream.as_deref().unwrap_or("-"), out);
    match access.wait {
        Some(wait) => {
            let _ = write!(out, " wait={:.3}", wait.as_secs_f64());
        }
        None => out.extend_from_slice(b" wait=-"),
    }
    let (total, end) = (access.total.as_secs_f64(), access.end.as_str());
    let _ = write!(out, " total={total:.3} received={received_bytes} end={end} id=");
    let _ = match request_id {
        0 => writeln!(out, "-"),
        id => writeln!(out, "{id:032x}"),
    };
}

/// One JSON object; what there is not is `null`.
pub(super) fn json(access: &Access, out: &mut Vec<u8>) {
    let Access {
        client,
        status,
        sent_bytes,
        received_bytes,
        request_id,
        ..
    } = access;
    let (year, month, day, [hour, minute, second]) = calendar(access.at);
    let _ = write!(
        out,
        "{{\"time\":\"{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z\",\"client\":\"{client}\",\
         \"status\":{status},\"received_bytes\":{received_bytes},\"sent_bytes\":{sent_bytes},\
         \"total_secs\":{:.6},\"end\":\"{}\",\"wait_secs\":",
        access.total.as_secs_f64(),
        access.end.as_str(),
    );
    match access.wait {
        Some(wait) => {
            let _ = write!(out, "{:.6}", wait.as_secs_f64());
        }
        None => out.extend_from_slice(b"null"),
    }
    let id = format!("{request_id:032x}");
    for (name, value) in [
        ("id", Some(&*id).filter(|_| *request_id != 0)),
        ("method", Some(access.method).filter(|method| !method.is_empty())),
        ("path", Some(&*access.path)),
        ("route", access.route.as_deref()),
        ("upstream", access.upstream.as_deref()),
        ("referrer", Some(&*access.referrer).filter(|text| !text.is_empty())),
        ("agent", Some(&*access.agent).filter(|text| !text.is_empty())),
    ] {
        let _ = write!(out, ",\"{name}\":");
        // Text can always be written.
        let _ = serde_json::to_writer(&mut *out, &value);
    }
    out.extend_from_slice(b"}\n");
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Writes what a client said so that it can neither end its field nor its line.
fn quote(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(byte),
        }
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Year, month, day, and the time of that day, in UTC.
fn calendar(at: UnixTime) -> (u64, u64, u64, [u64; 3]) {
    let (days, second) = (at.0 / 86_400, at.0 % 86_400);
    // Years begin in March here, so that the leap day is the last one; an era is the 400 years after which all repeats.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    (year, month, date, [second / 3600, second / 60 % 60, second % 60])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edgeward_core::action::End;

    use super::*;

    fn access() -> Access {
        Access {
            at: UnixTime(1_709_210_096),
            client: [192, 0, 2, 1].into(),
            method: "GET",
            path: "/a\"b".into(),
            referrer: "".into(),
            agent: "Agent \\ \n\u{e9}".into(),
            route: Some("/a".into()),
            upstream: Some("cc".into()),
            status: 200,
            received_bytes: 1,
            sent_bytes: 2345,
            wait: Some(Duration::from_millis(12)),
            total: Duration::from_millis(14),
            end: End::Complete,
            request_id: 0xab,
        }
    }

    fn text(render: impl Fn(&Access, &mut Vec<u8>), access: &Access) -> String {
        let mut out = Vec::new();
        render(access, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_combined_line_cannot_be_broken_by_a_client() {
        assert_eq!(
            text(combined, &access()),
            "192.0.2.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\x22b HTTP/1.1\" 200 2345 \"-\" \
             \"Agent \\x5C \\x0A\u{e9}\" route=/a upstream=cc wait=0.012 total=0.014 received=1 end=complete \
             id=000000000000000000000000000000ab\n"
        );
        let unread = Access {
            method: "",
            path: "".into(),
            route: None,
            upstream: None,
            status: 0,
            wait: None,
            end: End::ClientGone,
            request_id: 0,
            ..access()
        };
        let line = text(combined, &unread);
        assert!(line.contains("\"-\" 000 2345 \"-\""), "{line}");
        assert!(
            line.contains("route=- upstream=- wait=- total=0.014 received=1 end=client-gone id=-\n"),
            "{line}"
        );
    }

    #[test]
    fn a_json_line_is_json() {
        let line = text(json, &access());
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["time"], "2024-02-29T12:34:56Z");
        assert_eq!(value["path"], "/a\"b");
        assert_eq!(value["agent"], "Agent \\ \n\u{e9}");
        assert_eq!(value["referrer"], serde_json::Value::Null);
        assert_eq!(value["wait_secs"], 0.012);
        assert_eq!(value["id"], "000000000000000000000000000000ab");
        assert_eq!((line.matches('\n').count(), line.ends_with("}\n")), (1, true));
    }

    #[test]
    fn days_have_their_dates() {
        let check = |days: u64, expected| {
            let (year, month, day, _) = calendar(UnixTime(days * 86_400));
            assert_eq!((year, month, day), expected);
        };
        check(0, (1970, 1, 1));
        check(58, (1970, 2, 28));
        check(59, (1970, 3, 1));
        check(11_016, (2000, 2, 29));
        check(19_782, (2024, 2, 29));
        check(20_819, (2027, 1, 1));
        check(47_540, (2100, 2, 28));
        check(47_541, (2100, 3, 1));
    }
}
