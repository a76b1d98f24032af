//! Where does a message on a stream end? (RFC 3261 section 18.3)

use super::{Framing, HEAD_BYTES_MAX, Message, Name, scan};

/// A stream on which nobody can tell where the next message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unframed;

/// Where the first message of `bytes` ends, the empty lines before it included; `None` when it has not come whole. Empty
/// lines alone are a message of their own.
///
/// # Errors
/// When it is no SIP, has no or no single `Content-Length`, or more than `bytes_max` bytes.
pub fn message_end(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Unframed> {
    let message = scan::skip_empty_lines(bytes);
    let skipped = bytes.len() - message.len();
    if message.is_empty() || message == b"\r" {
        return Ok((skipped > 0).then_some(skipped));
    }
    let searched = &message[..message.len().min(HEAD_BYTES_MAX)];
    let Some(head_end) = searched.windows(4).position(|window| window == b"\r\n\r\n") else {
        return match message.len() < HEAD_BYTES_MAX {
            true => Ok(None),
            false => Err(Unframed),
        };
    };
    let head = Message::read(&message[..head_end + 4], Framing::Datagram).ok_or(Unframed)?;
    let body_len = head.content_length().filter(|_| head.count(Name::ContentLength) == 1);
    let len = body_len.and_then(|body_len| body_len.checked_add(head_end + 4));
    match len {
        Some(len) if len <= bytes_max => Ok((len <= message.len()).then_some(skipped + len)),
        _ => Err(Unframed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_one_behind_the_other() {
        let stream = b"\r\n\r\nBYE sip:a SIP/2.0\r\nl: 2\r\n\r\nhiSIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n\r\n\r\n";
        // However it is cut, what comes out is the same.
        for step in 1..=stream.len() {
            let (mut come, mut used, mut messages) = (0, 0, Vec::new());
            while come < stream.len() {
                come = (come + step).min(stream.len());
                while let Some(end) = message_end(&stream[used..come], 100).expect("a sound stream") {
                    let message = stream[used..used + end].trim_ascii();
                    messages.extend((!message.is_empty()).then_some(message));
                    used += end;
                }
            }
            assert_eq!(used, stream.len());
            let expected = [
                &b"BYE sip:a SIP/2.0\r\nl: 2\r\n\r\nhi"[..],
                b"SIP/2.0 200 OK\r\nContent-Length: 0",
            ];
            assert_eq!(messages, expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn streams_that_cannot_be_followed() {
        let endless = [&b"BYE sip:a SIP/2.0\r\nX: "[..], &[b'x'; HEAD_BYTES_MAX]].concat();
        for bytes in [
            &b"hello\r\n\r\n"[..],
            b"BYE sip:a SIP/2.0\r\n\r\n",
            b"BYE sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n",
            b"BYE sip:a SIP/2.0\r\nContent-Length: 1\r\nl: 1\r\n\r\n",
            b"BYE sip:a SIP/2.0\r\nContent-Length: 1000\r\n\r\n",
            b"BYE sip:a SIP/2.0\r\nContent-Length: 18446744073709551615\r\n\r\n",
            &endless,
        ] {
            assert_eq!(message_end(bytes, 500), Err(Unframed), "{bytes:?}");
        }
    }
}
