//! Where are the parts of this SIP message? An index into its bytes; whatever is not asked for stays as it came.

use core::ops::Range;

use arrayvec::ArrayVec;

pub mod field;
pub mod name;
pub mod splice;
pub mod stream;
pub mod uri;
pub mod via;

mod scan;

pub use name::Name;
pub use splice::Splices;

/// Bytes of a start line and its header together at most.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header fields of one message at most.
pub const FIELDS_MAX: usize = 128;

/// The start line (RFC 3261 section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request line; the offsets are those of the Request-URI.
    Request {
        /// As it is written: methods are case-sensitive.
        method: &'a [u8],
        /// Where the Request-URI stands.
        uri: Range<usize>,
    },
    /// A status line.
    Response {
        /// 100 to 699.
        status: u16,
    },
}

/// How the transport tells where a message ends (RFC 3261 section 18.3, RFC 7118 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// UDP: a shorter body than `Content-Length` is an error, what follows the body is not part of the message.
    Datagram,
    /// WebSocket: `Content-Length` may be absent; if it is there, it must say the truth.
    Message,
}

/// The first thing found that no grammar allows. The rest of the message is indexed all the same, for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Request or status line.
    StartLine,
    /// Another version than SIP/2.0.
    Version,
    /// A line without field name, a bare CR or LF, a control character, or no empty line at the end.
    Field,
    /// More than [`FIELDS_MAX`] fields, or more than [`HEAD_BYTES_MAX`] bytes of them.
    HeadTooLong,
    /// `Content-Length` is not a number, is there twice, or does not fit the body.
    ContentLength,
}

/// A header field by its offsets. The line includes name and CRLF, the value neither surrounding space nor CRLF; a
/// folded value contains its folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Which field.
    pub name: Name,
    line_start: u16,
    line_end: u16,
    value_start: u16,
    value_end: u16,
}

impl Field {
    /// Where its value stands.
    pub fn value(&self) -> Range<usize> {
        usize::from(self.value_start)..usize::from(self.value_end)
    }

    /// Where all of it stands.
    pub fn line(&self) -> Range<usize> {
        usize::from(self.line_start)..usize::from(self.line_end)
    }
}

/// An indexed message. All offsets count from the start line.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    start: Start<'a>,
    fields: ArrayVec<Field, FIELDS_MAX>,
    /// For each name: the place of its first field plus one, and 0 for none.
    first: [u8; Name::COUNT],
    /// For each name: how many fields it has.
    counts: [u8; Name::COUNT],
    head_end: usize,
    body: Range<usize>,
    content_length: Option<usize>,
    fault: Option<Fault>,
}

impl<'a> Message<'a> {
    /// Indexes `bytes`; `None` when they do not even begin like SIP.
    pub fn read(bytes: &'a [u8], framing: Framing) -> Option<Self> {
        // RFC 3261 section 7.5: implementations SHOULD ignore any CRLF appearing before the start-line.
        let bytes = scan::skip_empty_lines(bytes);
        let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let line_end = scan::line_end(head, 0)?.at;
        let (start, start_fault) = start_line(&head[..line_end])?;
        let mut message = Self {
            bytes,
            start,
            fields: ArrayVec::new(),
            first: [0; Name::COUNT],
            counts: [0; Name::COUNT],
            head_end: line_end + 2,
            body: bytes.len()..bytes.len(),
            content_length: None,
            fault: start_fault,
        };
        message.index_fields(head, line_end + 2);
        message.frame(framing);
        Some(message)
    }

    /// What is wrong with it, if anything.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// All bytes from the start line on, with what may follow the body.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The start line.
    pub fn start(&self) -> &Start<'a> {
        &self.start
    }

    /// All fields in their order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The fields of one name in their order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &Field> {
        let first = match self.first[name as usize] {
            0 => self.fields.len(),
            place => usize::from(place) - 1,
        };
        self.fields[first..]
            .iter()
            .filter(move |field| field.name == name)
            .take(self.count(name))
    }

    /// The first field of a name.
    pub fn field(&self, name: Name) -> Option<&Field> {
        match self.first[name as usize] {
            0 => None,
            place => self.fields.get(usize::from(place) - 1),
        }
    }

    /// The value of the first field of a name.
    pub fn value(&self, name: Name) -> Option<&'a [u8]> {
        self.field(name).map(|field| self.text(field))
    }

    /// How many fields of a name there are.
    pub fn count(&self, name: Name) -> usize {
        usize::from(self.counts[name as usize])
    }

    /// The value of a field of this message.
    pub fn text(&self, field: &Field) -> &'a [u8] {
        &self.bytes[field.value()]
    }

    /// Where the first field begins.
    pub fn fields_start(&self) -> usize {
        self.fields.first().map_or(self.head_end, |field| field.line().start)
    }

    /// Where a field can be added behind the last one: the empty line.
    pub fn head_end(&self) -> usize {
        self.head_end
    }

    /// Where the body stands.
    pub fn body(&self) -> Range<usize> {
        self.body.clone()
    }

    /// The value of `Content-Length`, if it is there and is a number.
    pub fn content_length(&self) -> Option<usize> {
        self.content_length
    }

    fn index_fields(&mut self, head: &[u8], mut at: usize) {
        loop {
            if head[at..].starts_with(b"\r\n") {
                self.head_end = at;
                self.body = at + 2..self.bytes.len();
                return;
            }
            let Some(end) = scan::field_end(head, at) else {
                // Neither the end of the line nor of the header: nothing behind it can be trusted.
                let cut = head.len() < self.bytes.len() && !scan::has_stray_line_end(&head[at..]);
                self.found(if cut { Fault::HeadTooLong } else { Fault::Field });
                self.head_end = at;
                return;
            };
            if !end.is_clean {
                self.found(Fault::Field);
            }
            self.index_field(head, at..end.at + 2);
            at = end.at + 2;
        }
    }

    fn index_field(&mut self, head: &[u8], line: Range<usize>) {
        let Some((name, colon)) = scan::field_name(&head[line.clone()]) else {
            self.found(Fault::Field);
            return;
        };
        let value = scan::trim(head, line.start + colon + 1..line.end);
        let field = Field {
            name: Name::of(name),
            line_start: offset(line.start),
            line_end: offset(line.end),
            value_start: offset(value.start),
            value_end: offset(value.end),
        };
        if self.fields.try_push(field).is_err() {
            self.found(Fault::HeadTooLong);
            return;
        }
        let (first, count) = (
            &mut self.first[field.name as usize],
            &mut self.counts[field.name as usize],
        );
        if *count == 0 {
            *first = self.fields.len() as u8;
        }
        *count += 1;
    }

    fn frame(&mut self, framing: Framing) {
        let Some(field) = self.field(Name::ContentLength) else {
            return;
        };
        let is_single = self.count(Name::ContentLength) == 1;
        let length = field::number(self.text(field)).and_then(|length| usize::try_from(length).ok());
        let there = self.body.len();
        let fits = length.is_some_and(|length| match framing {
            Framing::Datagram => length <= there,
            Framing::Message => length == there,
        });
        self.content_length = length;
        match length {
            Some(length) if fits && is_single => self.body.end = self.body.start + length,
            _ => self.found(Fault::ContentLength),
        }
    }

    fn found(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

/// Splits a start line; `None` when it is not one of SIP at all.
fn start_line(line: &[u8]) -> Option<(Start<'_>, Option<Fault>)> {
    if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
        let (code, reason) = rest.split_at_checked(3)?;
        let status = field::number(code)
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(0);
        let sound = (100..700).contains(&status) && matches!(reason.first(), None | Some(b' '));
        return Some((Start::Response { status }, (!sound).then_some(Fault::StartLine)));
    }
    // RFC 3261 section 25.1: Request-Line = Method SP Request-URI SP SIP-Version, with single spaces.
    let method_end = scan::token_end(line);
    if method_end == 0 || line.get(method_end) != Some(&b' ') || !contains_version(line) {
        return None;
    }
    let uri_start = method_end + 1;
    let uri_len = line[uri_start..].iter().position(|byte| *byte == b' ');
    let uri_end = uri_start + uri_len.unwrap_or(line.len() - uri_start);
    let start = Start::Request {
        method: &line[..method_end],
        uri: uri_start..uri_end,
    };
    let fault = match line.get(uri_end + 1..) {
        _ if uri_end == uri_start => Some(Fault::StartLine),
        Some(version) if version.eq_ignore_ascii_case(b"SIP/2.0") => None,
        Some([b'S' | b's', b'I' | b'i', b'P' | b'p', b'/', number @ ..]) if is_version_number(number) => {
            Some(Fault::Version)
        }
        _ => Some(Fault::StartLine),
    };
    Some((start, fault))
}

fn is_version_number(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|byte| *byte == b'.');
    let mut digits = || {
        parts
            .next()
            .is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    digits() && digits() && parts.next().is_none()
}

fn contains_version(line: &[u8]) -> bool {
    line.windows(4).rev().any(|window| window.eq_ignore_ascii_case(b"SIP/"))
}

/// An offset within a head.
fn offset(at: usize) -> u16 {
    u16::try_from(at).expect("a head is no longer than HEAD_BYTES_MAX")
}

#[cfg(test)]
mod tests;
