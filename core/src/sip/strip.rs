//! Which fields are not passed on? Names from the configuration, made ready for comparing.

use super::rewrite::remove_all;
use crate::wire::sip::{Message, Name, Splices};

/// Names of fields.
#[derive(Debug, Default)]
pub(super) struct FieldSet {
    /// Those that the index of a message has anyway.
    known: Vec<Name>,
    others: Vec<Other>,
}

#[derive(Debug)]
struct Other {
    name: Box<[u8]>,
    /// Whether it may go on.
    is_start: bool,
}

impl FieldSet {
    /// The fields with these names; one that ends in `*` means all that begin so.
    pub(super) fn new(names: &[String]) -> Self {
        let mut set = Self::default();
        for name in names {
            let (start, is_start) = name
                .strip_suffix('*')
                .map_or((name.as_str(), false), |start| (start, true));
            // `X-Asterisk-` is known by what begins with it.
            let known = Name::of(if is_start { name.as_bytes() } else { start.as_bytes() });
            match known {
                Name::Other => set.others.push(Other {
                    name: start.as_bytes().into(),
                    is_start,
                }),
                known => set.known.push(known),
            }
        }
        set
    }

    /// Takes them out of a message.
    pub(super) fn remove(&self, splices: &mut Splices, message: &Message<'_>) {
        for name in &self.known {
            remove_all(splices, message, *name);
        }
        if self.others.is_empty() {
            return;
        }
        for field in message.fields().iter().filter(|field| field.name == Name::Other) {
            let line = &message.bytes()[field.line()];
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if self.others.iter().any(|other| other.is(name.trim_ascii_end())) {
                splices.remove(field.line());
            }
        }
    }
}

impl Other {
    fn is(&self, name: &[u8]) -> bool {
        let len = if self.is_start { self.name.len() } else { name.len() };
        name.get(..len).is_some_and(|cut| cut.eq_ignore_ascii_case(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::Framing;

    #[test]
    fn names_in_any_case_and_by_their_start() {
        let check = |names: &[&str], expected: &str| {
            let text =
                "OPTIONS sip:a SIP/2.0\r\nserver: s\r\nX-Asterisk-Hangup: 1\r\nX-one : 1\r\nx-oneness: 2\r\n\r\n";
            let message = Message::read(text.as_bytes(), Framing::Message).expect("a message");
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let (mut splices, mut out) = (Splices::new(), Vec::new());
            FieldSet::new(&names).remove(&mut splices, &message);
            splices.apply(message.bytes(), &mut out);
            let left = String::from_utf8_lossy(&out).replace("\r\n", "|");
            assert_eq!(left, format!("OPTIONS sip:a SIP/2.0|{expected}|"));
        };
        check(&[], "server: s|X-Asterisk-Hangup: 1|X-one : 1|x-oneness: 2|");
        check(&["Server", "X-Asterisk-*"], "X-one : 1|x-oneness: 2|");
        check(&["x-ONE"], "server: s|X-Asterisk-Hangup: 1|x-oneness: 2|");
        check(&["X-One*"], "server: s|X-Asterisk-Hangup: 1|");
    }
}
