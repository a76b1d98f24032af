//! Which bytes are served, and how? Tables of streams, whole and cut into pieces, and of responses.

use bytes::BytesMut;

use super::*;

mod attacks;
mod responses;

const NOW: UnixTime = UnixTime(784_111_777);

/// Everything that a stream of requests comes to when each is answered with 204 as soon as it is complete.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// `METHOD target body` of complete requests.
    requests: Vec<String>,
    /// Why the stream was refused.
    refused: Option<Reject>,
    /// Bytes that were not read in the end.
    left: usize,
}

/// Feeds a stream in pieces that end at the given places.
fn feed(stream: &[u8], cuts: &[usize]) -> Seen {
    let mut server = Server::new(&HttpLimits::default());
    let (mut seen, mut out) = (Seen::default(), BytesMut::new());
    let (mut read, mut request) = (0, String::new());
    'pieces: for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            match server.next(&stream[read..end]) {
                Ok(None) => break,
                Ok(Some((item, len))) => {
                    read += len;
                    match item {
                        Item::Request(head) => request = format!("{} {} ", head.method.as_str(), head.target.path()),
                        Item::Body(data) => request.push_str(&data.escape_ascii().to_string()),
                        Item::End => {
                            seen.requests.push(core::mem::take(&mut request));
                            server.respond_local(&Answer::new(204), NOW, &mut out);
                        }
                    }
                }
                Err(reject) => {
                    server.reject(reject, NOW, &mut out);
                    assert!(server.closes());
                    assert!(server.next(&stream[read..]).is_ok_and(|item| item.is_none()));
                    seen.refused = Some(reject);
                    break 'pieces;
                }
            }
        }
    }
    seen.left = stream.len() - read;
    seen
}

/// What a stream comes to, which must be the same however it is cut into pieces.
fn check_splits(name: &str, stream: &[u8]) -> Seen {
    let whole = feed(stream, &[]);
    for cut in 0..stream.len() {
        assert_eq!(feed(stream, &[cut]), whole, "{name} cut at {cut}");
    }
    let bytes: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(feed(stream, &bytes), whole, "{name} byte by byte");
    whole
}
