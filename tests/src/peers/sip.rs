//! What does a SIP message say? Enough of RFC 3261 for peers that only meet messages of their own kind.

use std::{fmt, net::SocketAddr};

use md5::{Digest, Md5};

use crate::{hex, word};

/// A SIP message, with its fields in the order they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The request or status line.
    pub start: String,
    /// Names as they were written, and values.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Message {
    /// A request without fields.
    pub fn request(method: &str, uri: &str) -> Self {
        Self {
            start: format!("{method} {uri} SIP/2.0"),
            fields: Vec::new(),
            body: String::new(),
        }
    }

    /// An answer to a request: its Via, From, To, Call-ID and CSeq (RFC 3261 section 8.2.6.2), and its Record-Route
    /// (section 12.1.1). Any answer but 100 has a To tag.
    pub fn answer(request: &Self, status: u16, reason: &str, tag: &str) -> Self {
        let copied = ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"];
        let fields = request
            .fields
            .iter()
            .filter(|(name, _)| copied.iter().any(|copied| name.eq_ignore_ascii_case(copied)))
            .map(|(name, value)| match name.eq_ignore_ascii_case("To") {
                true if status > 100 && !value.contains(";tag=") => (name.clone(), format!("{value};tag={tag}")),
                _ => (name.clone(), value.clone()),
            })
            .collect();
        Self {
            start: format!("SIP/2.0 {status} {reason}"),
            fields,
            body: String::new(),
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a body with its type.
    #[must_use]
    pub fn with_body(self, kind: &str, body: &str) -> Self {
        let mut message = self.with("Content-Type", kind);
        body.clone_into(&mut message.body);
        message
    }

    /// Reads a message; the body is what follows the empty line, of which Content-Length must be true where it is there.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let message = Self {
            start,
            fields,
            body: body.to_owned(),
        };
        let length = message.field("Content-Length").map(str::parse::<usize>);
        (length.is_none() || length == Some(Ok(body.len()))).then_some(message)
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        let (method, _) = self.start.strip_suffix(" SIP/2.0")?.split_once(' ')?;
        Some(method)
    }

    /// The URI of a request.
    pub fn uri(&self) -> Option<&str> {
        let (_, uri) = self.start.strip_suffix(" SIP/2.0")?.split_once(' ')?;
        Some(uri)
    }

    /// The status of an answer.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The value of the first field of this name, which is given in its long form.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields of this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let short = match name {
            "Via" => "v",
            "From" => "f",
            "To" => "t",
            "Call-ID" => "i",
            "Contact" => "m",
            "Content-Length" => "l",
            "Content-Type" => "c",
            "Supported" => "k",
            _ => name,
        };
        self.fields
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name) || other.eq_ignore_ascii_case(short))
            .map(|(_, value)| value.as_str())
    }

    /// The values of a field that is a list, one by one: a comma outside of `<>` and quotes parts them.
    pub fn list(&self, name: &str) -> Vec<String> {
        let mut items = Vec::new();
        for value in self.all(name) {
            let (mut item, mut quoted, mut depth) = (String::new(), false, 0);
            for character in value.chars() {
                match character {
                    '"' => quoted = !quoted,
                    '<' if !quoted => depth += 1,
                    '>' if !quoted => depth -= 1,
                    ',' if !quoted && depth == 0 => {
                        items.push(item.trim().to_owned());
                        item.clear();
                        continue;
                    }
                    _ => {}
                }
                item.push(character);
            }
            items.push(item.trim().to_owned());
        }
        items
    }

    /// The URI of the first Contact.
    pub fn contact(&self) -> Option<&str> {
        address(self.field("Contact")?)
    }

    /// The tag of From or To.
    pub fn tag(&self, name: &str) -> Option<&str> {
        parameter(self.field(name)?, "tag")
    }

    /// The method in CSeq.
    pub fn cseq_method(&self) -> Option<&str> {
        self.field("CSeq")?.split_whitespace().nth(1)
    }

    /// The number in CSeq.
    pub fn cseq(&self) -> Option<u32> {
        self.field("CSeq")?.split_whitespace().next()?.parse().ok()
    }

    /// The branch of the topmost Via.
    pub fn branch(&self) -> Option<&str> {
        parameter(self.field("Via")?, "branch")
    }

    /// Call-ID.
    pub fn call_id(&self) -> Option<&str> {
        self.field("Call-ID")
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n", self.start)?;
        for (name, value) in &self.fields {
            write!(f, "{name}: {value}\r\n")?;
        }
        if self.field("Content-Length").is_none() {
            write!(f, "Content-Length: {}\r\n", self.body.len())?;
        }
        write!(f, "\r\n{}", self.body)
    }
}

/// The URI between `<` and `>`, or the whole value up to its parameters.
pub fn address(value: &str) -> Option<&str> {
    match value.split_once('<') {
        Some((_, rest)) => Some(rest.split_once('>')?.0),
        None => value.split(';').next(),
    }
}

/// The value of a parameter behind the address.
pub fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let behind = value.rsplit('>').next()?;
    behind.split(';').find_map(|parameter| {
        let (other, value) = parameter.trim().split_once('=')?;
        other.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The host and port of a SIP URI that names an address, port 5060 where it names none.
pub fn socket_address(uri: &str) -> Option<SocketAddr> {
    let rest = uri.split_once(':')?.1;
    let host = rest.rsplit('@').next()?.split([';', '?']).next()?;
    host.parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(host.parse().ok()?, 5060)))
}

/// One side of a dialog (RFC 3261 section 12).
#[derive(Debug, Clone)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// Our From value, with its tag.
    pub local: String,
    /// Their To value, with its tag.
    pub remote: String,
    /// Where requests go in the end.
    pub target: String,
    /// Values of Route.
    pub route: Vec<String>,
    /// CSeq of the last request we sent.
    pub cseq: u32,
}

impl Dialog {
    /// The dialog that a 2xx to our INVITE makes (RFC 3261 section 12.1.2).
    ///
    /// # Panics
    /// When the answer makes none.
    pub fn of_caller(answer: &Message) -> Self {
        let mut route = answer.list("Record-Route");
        route.reverse();
        Self {
            call_id: answer.call_id().expect("a Call-ID").to_owned(),
            local: answer.field("From").expect("a From").to_owned(),
            remote: answer.field("To").expect("a To").to_owned(),
            target: answer.contact().expect("a Contact in the answer").to_owned(),
            route,
            cseq: answer.cseq().expect("a CSeq"),
        }
    }

    /// The dialog that our 2xx to an INVITE makes (RFC 3261 section 12.1.1).
    ///
    /// # Panics
    /// When the request makes none.
    pub fn of_callee(invite: &Message, answer: &Message) -> Self {
        Self {
            call_id: invite.call_id().expect("a Call-ID").to_owned(),
            local: answer.field("To").expect("a To").to_owned(),
            remote: invite.field("From").expect("a From").to_owned(),
            target: invite.contact().expect("a Contact in the INVITE").to_owned(),
            route: invite.list("Record-Route"),
            cseq: 0,
        }
    }

    /// A request in the dialog, complete but for its Via (RFC 3261 section 12.2.1.1).
    pub fn request(&mut self, method: &str) -> Message {
        // RFC 3261 section 13.2.2.4: an ACK has the number of its INVITE.
        if method != "ACK" {
            self.cseq += 1;
        }
        let mut request = Message::request(method, &self.target);
        for route in &self.route {
            request = request.with("Route", route);
        }
        request
            .with("Max-Forwards", 70)
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format_args!("{} {method}", self.cseq))
    }
}

/// A fresh branch (RFC 3261 section 8.1.1.7).
pub fn branch() -> String {
    format!("z9hG4bK{}", word())
}

/// The parameters of a digest challenge or of its answer (RFC 3261 section 22).
#[derive(Debug, Clone)]
pub struct Digested(Vec<(String, String)>);

impl Digested {
    /// Reads `Digest name=value, ..`.
    pub fn parse(value: &str) -> Option<Self> {
        let parameters = value.trim().strip_prefix("Digest ")?;
        let pairs = parameters.split(',').filter_map(|pair| pair.trim().split_once('='));
        Some(Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
                .collect(),
        ))
    }

    /// A parameter, without its quotes.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// Answers this challenge: the value of an Authorization field.
    ///
    /// # Panics
    /// When the challenge is not one.
    pub fn answer(&self, user: &str, password: &str, method: &str, uri: &str) -> String {
        let (realm, nonce) = (self.get("realm").expect("a realm"), self.get("nonce").expect("a nonce"));
        let cnonce = word();
        let response = response(user, realm, password, method, uri, nonce, &cnonce);
        format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
             algorithm=MD5, qop=auth, nc=00000001, cnonce=\"{cnonce}\""
        )
    }

    /// Whether this answer was made with this password.
    pub fn proves(&self, password: &str, method: &str) -> bool {
        let get = |name| self.get(name).unwrap_or_default();
        let expected = response(
            get("username"),
            get("realm"),
            password,
            method,
            get("uri"),
            get("nonce"),
            get("cnonce"),
        );
        get("response") == expected
    }
}

/// RFC 2617 section 3.2.2.1, for `qop=auth` and the first use of a nonce.
fn response(user: &str, realm: &str, password: &str, method: &str, uri: &str, nonce: &str, cnonce: &str) -> String {
    let first = md5(&format!("{user}:{realm}:{password}"));
    let second = md5(&format!("{method}:{uri}"));
    md5(&format!("{first}:{nonce}:00000001:{cnonce}:auth:{second}"))
}

fn md5(text: &str) -> String {
    hex(&Md5::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_that_of_rfc_2617() {
        // RFC 2617 section 3.5.
        let response = response(
            "Mufasa",
            "testrealm@host.com",
            "Circle Of Life",
            "GET",
            "/dir/index.html",
            "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            "0a4f113b",
        );
        assert_eq!(response, "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn an_answer_proves_the_password() {
        let challenge = Digested::parse("Digest realm=\"pbx\", nonce=\"n1\", qop=\"auth\"").expect("a challenge");
        let answer = challenge.answer("alice", "secret", "REGISTER", "sip:pbx");
        let answer = Digested::parse(&answer).expect("an answer");
        assert!(answer.proves("secret", "REGISTER"));
        assert!(!answer.proves("other", "REGISTER"));
    }

    #[test]
    fn a_list_is_parted_at_its_commas_only() {
        let message = Message::request("INVITE", "sip:a@b")
            .with("Record-Route", "<sip:one,1@h;lr>, \"x, y\" <sip:two@h;lr>")
            .with("Record-Route", "<sip:three@h;lr>");
        let expected = ["<sip:one,1@h;lr>", "\"x, y\" <sip:two@h;lr>", "<sip:three@h;lr>"];
        assert_eq!(message.list("Record-Route"), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let message = Message::request("MESSAGE", "sip:bob@example.com")
            .with("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport")
            .with("From", "\"A\" <sip:alice@example.com>;tag=f1")
            .with("CSeq", "7 MESSAGE")
            .with_body("text/plain", "hello");
        let read = Message::parse(&message.to_string()).expect("a message");
        assert_eq!(read.body, "hello");
        assert_eq!(read.branch(), Some("z9hG4bK1"));
        assert_eq!(read.tag("From"), Some("f1"));
        assert_eq!((read.cseq(), read.cseq_method()), (Some(7), Some("MESSAGE")));
        assert_eq!(
            (read.method(), read.uri()),
            (Some("MESSAGE"), Some("sip:bob@example.com"))
        );
        assert_eq!(read.status(), None);
    }

    #[test]
    fn addresses_are_read() {
        let uri = address("\"Bob\" <sip:tok@192.0.2.1:5062;lr>;q=1").expect("a URI");
        assert_eq!(socket_address(uri), "192.0.2.1:5062".parse().ok());
        assert_eq!(socket_address("sip:192.0.2.1"), "192.0.2.1:5060".parse().ok());
        assert_eq!(socket_address("sip:x@y.invalid"), None);
    }
}
