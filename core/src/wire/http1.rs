//! Is this the head of an HTTP/1.1 message? A strict tokenizer: lines end in CRLF, nothing is folded, no white space
//! stands where the grammar has none.
//!
//! Only whole lines are judged, so that a message is taken or refused alike however its bytes arrive.

use core::fmt;

mod name;

pub use name::Name;

/// Fields in a head, whatever the limits say.
pub const FIELDS_MAX: usize = 1000;

/// Fields for which there is room at once: more than most heads have.
const FIELDS_USUAL: usize = 24;

/// Bytes in a head that this tokenizer can index, whatever the limits say.
pub const HEAD_BYTES_MAX: usize = u16::MAX as usize;

/// Bytes in a method name.
pub const METHOD_BYTES_MAX: usize = 32;

/// Bytes in a field name.
pub const NAME_BYTES_MAX: usize = u8::MAX as usize;

/// How much of a head is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    line_bytes_max: u16,
    head_bytes_max: u16,
    fields_max: u16,
}

impl Limits {
    /// Bytes of the first line, bytes of the whole head, and number of fields; each at most what the tokenizer holds.
    pub fn new(line_bytes_max: usize, head_bytes_max: usize, fields_max: usize) -> Self {
        let head = head_bytes_max.min(HEAD_BYTES_MAX);
        let within = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
        Self {
            line_bytes_max: within(line_bytes_max.min(head)),
            head_bytes_max: within(head),
            fields_max: within(fields_max.min(FIELDS_MAX)),
        }
    }

    /// Bytes of a whole head.
    pub const fn head_bytes_max(&self) -> usize {
        self.head_bytes_max as usize
    }
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// A line that does not end in CRLF.
    LineEnd,
    /// Not `method SP target SP version`.
    RequestLine,
    /// A request target with bytes that must be percent-encoded.
    Target,
    /// Not `version SP status SP reason`.
    StatusLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// White space before a field: a folded line, or one that hides.
    Folding,
    /// A field name that is empty, not a token, or not followed by a colon at once.
    FieldName,
    /// A control character in a field value.
    FieldValue,
    /// The first line is longer than allowed.
    LineTooLong,
    /// The head is longer than allowed.
    HeadTooLarge,
    /// More fields than allowed.
    TooManyFields,
}

impl HeadError {
    /// A stable phrase for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LineEnd => "line end is not CRLF",
            Self::RequestLine => "malformed request line",
            Self::Target => "malformed request target",
            Self::StatusLine => "malformed status line",
            Self::Version => "unsupported HTTP version",
            Self::Folding => "white space before a field",
            Self::FieldName => "malformed field name",
            Self::FieldValue => "malformed field value",
            Self::LineTooLong => "first line too long",
            Self::HeadTooLarge => "head too large",
            Self::TooManyFields => "too many fields",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// First line and fields of a request.
#[derive(Debug, Clone)]
pub struct RequestHead<'b> {
    /// The method: a token of at most [`METHOD_BYTES_MAX`] bytes.
    pub method: &'b [u8],
    /// The request target as it came: visible ASCII, not empty.
    pub target: &'b [u8],
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'b>,
}

/// First line and fields of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead<'b> {
    /// The version.
    pub version: Version,
    /// The status code, 100 to 599.
    pub status: u16,
    /// The reason phrase, perhaps empty.
    pub reason: &'b [u8],
    /// The fields.
    pub fields: Fields<'b>,
}

/// Reads the head of a request. Returns it with its length in bytes; `None` when its end has not come yet.
///
/// # Errors
/// As soon as a whole line shows that no head can follow, or a limit is passed.
pub fn request_head<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Option<(RequestHead<'b>, usize)>, HeadError> {
    // RFC 9112 section 2.2: a server should ignore at least one empty line before the request line. One it is.
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(first) = first_line(bytes, start, limits)? else {
        return Ok(None);
    };
    let (method, target, version) = request_line(first)?;
    let Some((fields, len)) = field_lines(bytes, start + first.len() + 2, limits)? else {
        return Ok(None);
    };
    let head = RequestHead {
        method,
        target,
        version,
        fields,
    };
    Ok(Some((head, len)))
}

/// Reads the head of a response. Returns it with its length in bytes; `None` when its end has not come yet.
///
/// # Errors
/// As soon as a whole line shows that no head can follow, or a limit is passed.
pub fn response_head<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Option<(ResponseHead<'b>, usize)>, HeadError> {
    let Some(first) = first_line(bytes, 0, limits)? else {
        return Ok(None);
    };
    let (version, status, reason) = status_line(first)?;
    let Some((fields, len)) = field_lines(bytes, first.len() + 2, limits)? else {
        return Ok(None);
    };
    let head = ResponseHead {
        version,
        status,
        reason,
        fields,
    };
    Ok(Some((head, len)))
}

/// Reads field lines up to the empty line that ends them, as a trailer section has them (RFC 9112 section 7.1.2).
/// Returns them with their length in bytes, the empty line included; `None` when the end has not come yet.
///
/// # Errors
/// As soon as a whole line is no field line, or a limit is passed.
pub fn trailer_section<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Option<(Fields<'b>, usize)>, HeadError> {
    field_lines(bytes, 0, limits)
}

/// The fields of a message in their order. Names compare without regard to case; values have no white space around.
#[derive(Clone)]
pub struct Fields<'b> {
    bytes: &'b [u8],
    spans: Vec<Span>,
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'b> {
    /// Which of the names that matter to HTTP itself.
    pub id: Name,
    /// The name as it came.
    pub name: &'b [u8],
    /// The value, without white space around it.
    pub value: &'b [u8],
}

/// Where a field is in the bytes of its head.
#[derive(Debug, Clone, Copy)]
struct Span {
    name_start: u16,
    value_start: u16,
    value_len: u16,
    name_len: u8,
    id: Name,
}

impl<'b> Fields<'b> {
    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'b>> + '_ {
        let bytes = self.bytes;
        self.spans.iter().map(move |span| span.field(bytes))
    }

    /// The values of the fields of this name, in their order.
    pub fn all(&self, id: Name) -> impl DoubleEndedIterator<Item = &'b [u8]> + '_ {
        let bytes = self.bytes;
        let spans = self.spans.iter().filter(move |span| span.id == id);
        spans.map(move |span| span.field(bytes).value)
    }

    /// The value of the first field of this name.
    pub fn first(&self, id: Name) -> Option<&'b [u8]> {
        self.all(id).next()
    }

    /// The value of the only field of this name; `None` when there is none or more than one.
    pub fn only(&self, id: Name) -> Option<&'b [u8]> {
        let mut values = self.all(id);
        values.next().filter(|_| values.next().is_none())
    }

    /// The value of the first field with this name, in any case.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        let mut fields = self.iter();
        fields
            .find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    /// How many fields there are.
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no field.
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |field: Field<'_>| {
            let [name, value] = [field.name, field.value].map(|bytes| bytes.escape_ascii().to_string());
            (name, value)
        };
        f.debug_map().entries(self.iter().map(text)).finish()
    }
}

impl Span {
    fn field<'b>(&self, bytes: &'b [u8]) -> Field<'b> {
        let [name_start, value_start] = [self.name_start, self.value_start].map(usize::from);
        Field {
            id: self.id,
            name: &bytes[name_start..name_start + usize::from(self.name_len)],
            value: &bytes[value_start..value_start + usize::from(self.value_len)],
        }
    }
}

/// The first line, without its CRLF.
fn first_line<'b>(bytes: &'b [u8], start: usize, limits: &Limits) -> Result<Option<&'b [u8]>, HeadError> {
    let max = usize::from(limits.line_bytes_max);
    let window = &bytes[start..bytes.len().min(start + max + 2)];
    match find_lf(window) {
        Some(end) => line_before(window, end).map(Some),
        None if window.len() == max + 2 => Err(HeadError::LineTooLong),
        None => Ok(None),
    }
}

/// The line whose LF is at `end`, without its CRLF.
fn line_before(bytes: &[u8], end: usize) -> Result<&[u8], HeadError> {
    bytes[..end].strip_suffix(b"\r").ok_or(HeadError::LineEnd)
}

// RFC 9112 section 3: request-line = method SP request-target SP HTTP-version.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), HeadError> {
    let (method, rest) = split_at_space(line).ok_or(HeadError::RequestLine)?;
    let (target, version) = split_at_space(rest).ok_or(HeadError::RequestLine)?;
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !is_token(method) || target.is_empty() {
        return Err(HeadError::RequestLine);
    }
    let version = http_version(version).ok_or(HeadError::RequestLine)?;
    // RFC 9112 section 3.2: no white space in a target; RFC 3986 section 2: nothing but visible ASCII in a URI.
    if !target.iter().fold(true, |good, byte| good & byte.is_ascii_graphic()) {
        return Err(HeadError::Target);
    }
    Ok((method, target, version?))
}

// RFC 9112 section 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]. Servers are known that leave out
// the second space with the phrase; nothing can be read into that, so it is taken.
fn status_line(line: &[u8]) -> Result<(Version, u16, &[u8]), HeadError> {
    let (version, rest) = split_at_space(line).ok_or(HeadError::StatusLine)?;
    let (status, reason) = split_at_space(rest).unwrap_or((rest, b""));
    let version = http_version(version).ok_or(HeadError::StatusLine)??;
    let [hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = *status else {
        return Err(HeadError::StatusLine);
    };
    if !is_field_content(reason) {
        return Err(HeadError::StatusLine);
    }
    let [hundreds, tens, ones] = [hundreds, tens, ones].map(|digit| u16::from(digit - b'0'));
    Ok((version, hundreds * 100 + tens * 10 + ones, reason))
}

/// The version, or that it is one we do not speak; `None` when it is no version at all.
// RFC 9112 section 2.3: HTTP-version = HTTP-name "/" DIGIT "." DIGIT, and the name is case-sensitive.
fn http_version(bytes: &[u8]) -> Option<Result<Version, HeadError>> {
    match bytes {
        b"HTTP/1.1" => Some(Ok(Version::Http11)),
        b"HTTP/1.0" => Some(Ok(Version::Http10)),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Err(HeadError::Version)),
        _ => None,
    }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The field lines from `start` to the empty line, and where they end.
fn field_lines<'b>(bytes: &'b [u8], start: usize, limits: &Limits) -> Result<Option<(Fields<'b>, usize)>, HeadError> {
    let max = usize::from(limits.head_bytes_max);
    let window = &bytes[..bytes.len().min(max)];
    let mut spans = Vec::new();
    let mut at = start.min(window.len());
    loop {
        match field_line(window, at) {
            Ok(Line::Field(span, next)) => {
                if spans.len() == usize::from(limits.fields_max) {
                    return Err(HeadError::TooManyFields);
                }
                if spans.is_empty() {
                    spans.reserve_exact(FIELDS_USUAL);
                }
                spans.push(span);
                at = next;
            }
            Ok(Line::Empty(next)) => return Ok(Some((Fields { bytes, spans }, next))),
            Ok(Line::Incomplete) => return incomplete(window, max),
            // A line is judged only when it is whole.
            Err(error) => match find_lf(&window[at..]) {
                Some(end) => return line_before(&window[at..], end).and(Err(error)),
                None => return incomplete(window, max),
            },
        }
    }
}

/// What a head whose end has not come means.
fn incomplete<T>(window: &[u8], max: usize) -> Result<Option<T>, HeadError> {
    if window.len() == max {
        Err(HeadError::HeadTooLarge)
    } else {
        Ok(None)
    }
}

/// What begins at some place of a head, and where the next line begins.
enum Line {
    Field(Span, usize),
    Empty(usize),
    Incomplete,
}

/// The field line that begins at `at`. An error holds only if the line turns out to be whole.
// RFC 9112 section 5: field-line = field-name ":" OWS field-value OWS.
fn field_line(bytes: &[u8], at: usize) -> Result<Line, HeadError> {
    let line = &bytes[at..];
    // RFC 9112 section 5.1: no white space between name and colon.
    let Some(name_len) = line.iter().position(|byte| !TOKEN[usize::from(*byte)]) else {
        return Ok(Line::Incomplete);
    };
    match line[name_len..] {
        [b':', ..] if name_len > 0 && name_len <= NAME_BYTES_MAX => {}
        [b'\r', b'\n', ..] if name_len == 0 => return Ok(Line::Empty(at + 2)),
        // RFC 9112 sections 2.2 and 5.2: white space before the first field, or a folded line.
        [b' ' | b'\t', ..] if name_len == 0 => return Err(HeadError::Folding),
        _ => return Err(HeadError::FieldName),
    }
    let raw = &line[name_len + 1..];
    // The value ends at the first byte that cannot stand in it, which must be that of a CRLF.
    let Some(raw_len) = find_control(raw) else {
        return Ok(Line::Incomplete);
    };
    if !raw[raw_len..].starts_with(b"\r\n") {
        return Err(HeadError::FieldValue);
    }
    let value = trim_start(&raw[..raw_len]);
    let index = |offset: usize| u16::try_from(offset).expect("a head is shorter than 64 KiB");
    let span = Span {
        name_start: index(at),
        value_start: index(at + name_len + 1 + raw_len - value.len()),
        value_len: index(trim(value).len()),
        name_len: u8::try_from(name_len).expect("the name was measured above"),
        id: Name::of(&line[..name_len]),
    };
    Ok(Line::Field(span, at + name_len + 1 + raw_len + 2))
}

/// Without white space around, which is SP and HTAB and nothing else (RFC 9110 section 5.6.3).
pub fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = trim_start(bytes);
    let end = bytes.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
    end.map_or(b"", |end| &bytes[..=end])
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    start.map_or(b"", |start| &bytes[start..])
}

/// Whether this is a token, or nothing (RFC 9110 section 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Whether these bytes may stand in a field value: HTAB, SP, visible ASCII and obs-text (RFC 9110 section 5.5).
fn is_field_content(bytes: &[u8]) -> bool {
    find_control(bytes).is_none()
}

/// Where the first byte is that may not stand in a field value.
fn find_control(bytes: &[u8]) -> Option<usize> {
    let is_control = |byte: &u8| *byte < b' ' && *byte != b'\t' || *byte == 0x7f;
    let (words, _) = bytes.as_chunks::<8>();
    let suspicious = words.iter().position(|word| has_control(u64::from_le_bytes(*word)));
    // What is suspicious may be an HTAB only; then the rest is looked at byte by byte.
    let start = suspicious.unwrap_or(words.len()) * 8;
    let found = bytes[start..].iter().position(is_control)?;
    Some(start + found)
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Whether one of eight bytes is below SP or is DEL.
const fn has_control(word: u64) -> bool {
    let below_space = word.wrapping_sub(ONES * b' ' as u64) & !word;
    let not_delete = word ^ (ONES * 0x7f);
    let delete = not_delete.wrapping_sub(ONES) & !not_delete;
    (below_space | delete) & HIGHS != 0
}

/// Where the first LF is.
pub fn find_lf(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // A byte of `differs` is zero where there is an LF; the lowest high bit of `zero` marks the first of them.
        let differs = u64::from_le_bytes(*word) ^ (ONES * b'\n' as u64);
        let zero = differs.wrapping_sub(ONES) & !differs & HIGHS;
        if zero != 0 {
            return Some(index * 8 + zero.trailing_zeros() as usize / 8);
        }
    }
    let in_rest = rest.iter().position(|byte| *byte == b'\n')?;
    Some(words.len() * 8 + in_rest)
}

/// The bytes of a token (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
