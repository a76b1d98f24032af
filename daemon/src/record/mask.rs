//! What does a recording leave out? Passwords, cookies and tokens, each replaced by as many other characters, wherever
//! the text of HTTP or SIP names one.
//!
//! The core decides nothing by the value of a cookie or of an `Authorization`, and passes bodies on. Of a token it looks
//! at the form, and hashes it to find the shard of its user: what stands in its place has the same form and leads to the
//! same shard. Only where the edge itself checks tokens (`[token]`) they have to stay.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, ops::Range};

use edgeward_core::config::{Config, Keys};

/// What must stay as it is, and how.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    keys: Keys,
    shards: u16,
    keeps_tokens: bool,
    /// Makes one thing of one token and another of another, on all shards alike; nobody else knows how.
    salt: RandomState,
}

impl Rules {
    pub(super) fn new(config: &Config, shards: u16, salt: RandomState) -> Self {
        Self {
            keys: config.keys.clone(),
            shards,
            keeps_tokens: config.token.is_some(),
            salt,
        }
    }

    /// The same for another configuration.
    pub(super) fn follow(&mut self, config: &Config) {
        self.keeps_tokens = config.token.is_some();
    }

    /// Puts something in the place of a token: letters and digits, and the same dots.
    fn replace(&self, token: &mut [u8]) {
        /// Tries for each shard, before the token leads elsewhere.
        const TRIES: u64 = 64;
        let home = |text: &[u8]| self.keys.home(&*String::from_utf8_lossy(text), self.shards);
        let (original, goal) = (token.to_vec(), home(&unescape(token)));
        for attempt in 0..TRIES * u64::from(self.shards) {
            for (place, byte) in token.iter_mut().enumerate() {
                if *byte == b'.' {
                    continue;
                }
                let hash = self.salt.hash_one((attempt, place, &original));
                *byte = ALPHABET[(hash % ALPHABET.len() as u64) as usize];
            }
            if home(token) == goal {
                return;
            }
        }
    }
}

/// What needs no escape anywhere.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// RFC 3986 section 2.1.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match behind {
            [high, low, behind @ ..] if *first == b'%' => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    plain.push((high << 4 | low) as u8);
                    rest = behind;
                }
                _ => plain.push(*first),
            },
            _ => plain.push(*first),
        }
    }
    plain
}

/// How a secret ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The value of a field.
    Field,
    /// An argument of a query or a form.
    Argument,
    /// The same, and it is a token.
    Token,
    /// A string of JSON.
    String,
    /// A JSON Web Token, wherever it stands.
    Jwt,
}

impl Kind {
    const fn ends(self, byte: u8) -> bool {
        match self {
            Self::Field => matches!(byte, b'\r' | b'\n'),
            Self::Argument | Self::Token => matches!(byte, 0..=b' ' | b'&' | b'#' | b'"' | b'<' | b'>' | b'\''),
            Self::String => matches!(byte, b'"' | b'\r' | b'\n'),
            Self::Jwt => !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'=')),
        }
    }
}

/// What goes before a secret, in lower case and without blanks.
const SIGNS: [(&[u8], Kind); 13] = [
    (b"\nauthorization:", Kind::Field),
    (b"\nproxy-authorization:", Kind::Field),
    (b"\ncookie:", Kind::Field),
    (b"\nset-cookie:", Kind::Field),
    (b"token=", Kind::Token),
    (b"password=", Kind::Argument),
    (b"passwd=", Kind::Argument),
    (b"password\":\"", Kind::String),
    (b"credential\":\"", Kind::String),
    (b"secret\":\"", Kind::String),
    (b"token\":\"", Kind::String),
    (b"/eyj", Kind::Jwt),
    (b"\"eyj", Kind::Jwt),
];

/// Says that frames follow the head (RFC 6455 section 4.1).
const UPGRADE: &[u8] = b"upgrade:websocket";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The longest of those.
const WINDOW_BYTES: usize = 21;

/// A text as it comes, in pieces.
#[derive(Debug, Default)]
struct Text {
    /// The last bytes, in lower case and without blanks.
    window: Vec<u8>,
    secret: Option<Kind>,
}

impl Text {
    /// Masks the secrets in a piece; ends behind what `stops` finds in the window. Returns how far it came.
    fn mask(&mut self, rules: Option<&Rules>, bytes: &mut [u8], mut stops: impl FnMut(&[u8]) -> bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if let Some(kind) = self.secret {
                let end = bytes[at..].iter().position(|byte| kind.ends(*byte));
                let secret = at..end.map_or(bytes.len(), |len| at + len);
                hide(rules, kind, bytes, secret.clone());
                at = secret.end;
                if end.is_some() {
                    self.secret = None;
                }
                continue;
            }
            let byte = bytes[at].to_ascii_lowercase();
            at += 1;
            if byte == b' ' {
                continue;
            }
            if self.window.len() == WINDOW_BYTES {
                self.window.remove(0);
            }
            self.window.push(byte);
            if matches!(byte, b':' | b'=' | b'"' | b'j') {
                let sign = SIGNS.iter().find(|(sign, _)| self.window.ends_with(sign));
                self.secret = sign.map(|(_, kind)| *kind);
            } else if stops(&self.window) {
                break;
            }
        }
        at
    }
}

fn hide(rules: Option<&Rules>, kind: Kind, bytes: &mut [u8], secret: Range<usize>) {
    let secret = &mut bytes[secret];
    match (kind, rules) {
        (Kind::Token, Some(rules)) if rules.keeps_tokens => {}
        (Kind::Token, Some(rules)) => rules.replace(secret),
        _ => secret
            .iter_mut()
            .filter(|byte| **byte != b' ')
            .for_each(|byte| *byte = b'x'),
    }
}

/// A text without its secrets, whatever stands in their place.
pub(super) fn blank(text: &[u8]) -> Vec<u8> {
    let mut blank = text.to_vec();
    Text::default().mask(None, &mut blank, |_| false);
    blank
}

/// What a stream says, as it comes.
#[derive(Debug, Default)]
pub(super) struct Stream {
    form: Form,
    text: Text,
}

#[derive(Debug, Default)]
enum Form {
    /// Nothing has come.
    #[default]
    Fresh,
    /// Text, as far as it is any.
    Text,
    /// The same, of a head that asks for a WebSocket.
    Upgrading,
    /// Frames of a WebSocket from a browser.
    Frames(Frame),
    /// TURN, which says no secret.
    Turn,
}

/// A frame of a browser (RFC 6455 section 5.2).
#[derive(Debug, Default)]
struct Frame {
    header: Vec<u8>,
    /// Once the header is whole: what is still to come of the payload, and how far it is masked.
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    left: u64,
    key: [u8; 4],
    place: usize,
}

impl Stream {
    /// One that comes from another shard, and is a WebSocket as a rule.
    pub(super) fn adopted() -> Self {
        Self {
            form: Form::Frames(Frame::default()),
            text: Text::default(),
        }
    }

    /// Whether it has said nothing yet.
    pub(super) const fn is_fresh(&self) -> bool {
        matches!(self.form, Form::Fresh)
    }

    /// Masks the secrets in what a stream says next.
    pub(super) fn mask(&mut self, rules: &Rules, mut bytes: &mut [u8]) {
        while let [first, ..] = *bytes {
            let mut sought = false;
            let used = match &mut self.form {
                Form::Fresh => {
                    // RFC 7983 section 7: what STUN begins with.
                    self.form = if first <= 3 { Form::Turn } else { Form::Text };
                    0
                }
                Form::Turn => bytes.len(),
                Form::Text => self.text.mask(Some(rules), bytes, |window| {
                    sought |= window.ends_with(UPGRADE);
                    sought
                }),
                Form::Upgrading => self.text.mask(Some(rules), bytes, |window| {
                    sought |= window.ends_with(HEAD_END);
                    sought
                }),
                Form::Frames(frame) => match frame.mask(rules, &mut self.text, bytes) {
                    Ok(used) => used,
                    Err(NoFrame) => {
                        // No WebSocket came about, and the next request follows.
                        self.form = Form::Text;
                        0
                    }
                },
            };
            match self.form {
                Form::Text if sought => self.form = Form::Upgrading,
                Form::Upgrading if sought => self.form = Form::Frames(Frame::default()),
                _ => {}
            }
            bytes = &mut bytes[used..];
        }
    }
}

impl Frame {
    /// Takes a part of a frame; returns how much of it.
    fn mask(&mut self, rules: &Rules, text: &mut Text, bytes: &mut [u8]) -> Result<usize, NoFrame> {
        let Some(payload) = &mut self.payload else {
            self.header.push(bytes[0]);
            self.payload = payload(&self.header)?;
            if self.payload.as_ref().is_some_and(|payload| payload.left == 0) {
                *self = Self::default();
            }
            return Ok(1);
        };
        let len = bytes.len().min(usize::try_from(payload.left).unwrap_or(usize::MAX));
        let piece = &mut bytes[..len];
        payload.apply(piece);
        text.mask(Some(rules), piece, |_| false);
        payload.apply(piece);
        payload.place += len;
        payload.left -= len as u64;
        if payload.left == 0 {
            *self = Self::default();
        }
        Ok(len)
    }
}

impl Payload {
    fn apply(&self, bytes: &mut [u8]) {
        for (byte, key) in bytes.iter_mut().zip(self.key.iter().cycle().skip(self.place % 4)) {
            *byte ^= key;
        }
    }
}

/// What cannot be a frame of a browser.
struct NoFrame;

/// What follows a header, once that is whole.
fn payload(header: &[u8]) -> Result<Option<Payload>, NoFrame> {
    let [first, behind @ ..] = header else { return Ok(None) };
    // Reserved bits other than that of a compressed message, and opcodes that nobody has defined.
    if first & 0x30 != 0 || !matches!(first & 0x0f, 0..=2 | 8..=10) {
        return Err(NoFrame);
    }
    let [second, behind @ ..] = behind else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(NoFrame);
    }
    let (left, key): (u64, &[u8]) = match (second & 0x7f, behind) {
        (126, [a, b, key @ ..]) => (u16::from_be_bytes([*a, *b]).into(), key),
        (127, [a, b, c, d, e, f, g, h, key @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), key),
        (126 | 127, _) => return Ok(None),
        (len, key) => (len.into(), key),
    };
    Ok(key.try_into().ok().map(|key| Payload { left, key, place: 0 }))
}

#[cfg(test)]
mod tests;
