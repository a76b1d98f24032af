//! What was found wrong, and what is taken already?

use core::net::SocketAddr;

use toml::{
    Spanned,
    de::{DeValue, Error},
};

use super::{ConfigError, ConfigErrors, Sources};

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Where something stands: bytes from the start of the text.
pub(super) type Site = usize;

/// What is at hand while a text is read: the outside, and what was found wrong so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) sources: &'a mut dyn Sources,
    errors: Vec<ConfigError>,
    listeners: Vec<Listener>,
    /// Paths that a WebSocket for SIP or a route has taken.
    paths: Vec<Claim>,
}

/// A path that something has taken.
struct Claim {
    path: String,
    site: Site,
    /// What to do where something else wants it too.
    remedy: &'static str,
}

/// The remedy where two things of the administrator want one path.
pub(super) const ONE_OF_TWO: &str = "remove one of the two";

/// An address that this configuration listens on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listener {
    pub(super) transport: Transport,
    pub(super) at: SocketAddr,
    pub(super) site: Site,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, sources: &'a mut dyn Sources) -> Self {
        Self {
            text,
            sources,
            errors: Vec::new(),
            listeners: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// Notes an error. It returns what every reading of something wrong returns, so that it can end one.
    pub(super) fn refuse<T>(&mut self, site: Site, what: impl Into<String>, fix: impl Into<String>) -> Option<T> {
        self.errors.push(ConfigError {
            line: self.line(site),
            what: what.into(),
            fix: fix.into(),
        });
        None
    }

    /// Notes that a value is not what is wanted there, and shows what would be.
    pub(super) fn refuse_value<T>(&mut self, value: &Value<'_>, wanted: &str, example: &str) -> Option<T> {
        let found = self.quote(value);
        self.refuse(
            value.span().start,
            format!("{found} is not {wanted}"),
            format!("write {example}"),
        )
    }

    pub(super) fn refuse_syntax(&mut self, errors: &[Error]) {
        for error in errors {
            // What is missing at the end is missing in the last line that there is.
            let site = error
                .span()
                .map_or(0, |span| span.start.min(self.text.trim_end().len()));
            let start = self.text.as_bytes()[..site]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let line = self.text[start..].lines().next().unwrap_or_default();
            self.refuse::<()>(
                start,
                format!(
                    "this is not TOML: {}",
                    error.message().trim_end_matches(", expected nothing")
                ),
                syntax_fix(line, error.message()),
            );
        }
    }

    /// Notes that this address is listened on, unless something else is already.
    pub(super) fn listen(&mut self, transport: Transport, at: SocketAddr, site: Site) {
        let taken = |other: &&Listener| {
            // A wildcard takes the port on every address of its family.
            other.transport == transport
                && other.at.port() == at.port()
                && other.at.is_ipv4() == at.is_ipv4()
                && (other.at.ip() == at.ip() || other.at.ip().is_unspecified() || at.ip().is_unspecified())
        };
        if let Some(other) = self.listeners.iter().find(taken) {
            let (line, other) = (self.line(other.site), other.at);
            let transport = transport.name();
            self.refuse::<()>(
                site,
                format!("{transport} {at} is taken by {other} in line {line}"),
                "give each of them a port or an address of its own",
            );
        }
        self.listeners.push(Listener { transport, at, site });
    }

    /// What is listened on so far.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The listener that would take a TCP connection to this address, as far as is known.
    pub(super) fn listener_at(&self, at: SocketAddr) -> Option<Listener> {
        let is_there = |listener: &&Listener| {
            let ip = listener.at.ip();
            let is_everywhere = ip.is_unspecified() && ip.is_ipv4() == at.is_ipv4() && at.ip().is_loopback();
            listener.transport == Transport::Tcp && listener.at.port() == at.port() && (ip == at.ip() || is_everywhere)
        };
        self.listeners.iter().find(is_there).copied()
    }

    /// Notes that this path is taken, unless it was before. `remedy` is for whatever wants it next.
    pub(super) fn claim_path(&mut self, path: String, site: Site, remedy: &'static str) {
        if let Some(other) = self.paths.iter().find(|other| other.path == path) {
            let (line, fix) = (self.line(other.site), other.remedy);
            self.refuse::<()>(site, format!("`{path}` is taken already, in line {line}"), fix);
        }
        self.paths.push(Claim { path, site, remedy });
    }

    /// Whether somebody has this path.
    pub(super) fn is_path_taken(&self, path: &str) -> bool {
        self.paths.iter().any(|other| other.path == path)
    }

    /// Whether nothing was found wrong.
    pub(super) fn is_content(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.errors.sort_by_key(|error| error.line);
        ConfigErrors(self.errors)
    }

    /// The line that something stands in.
    pub(super) fn line(&self, site: Site) -> usize {
        let before = &self.text.as_bytes()[..site];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn quote(&self, value: &Value<'_>) -> String {
        let source = self.text.get(value.span()).unwrap_or_default();
        match value.get_ref() {
            DeValue::Table(_) => "a table".into(),
            DeValue::Array(_) if source.len() > QUOTED_BYTES_MAX => "this list".into(),
            _ if source.len() > QUOTED_BYTES_MAX || source.contains('\n') => "this".into(),
            _ => format!("`{source}`"),
        }
    }
}

/// What may heal a line that is not TOML. The line itself is not shown: it may hold a secret.
fn syntax_fix(line: &str, message: &str) -> &'static str {
    if message.contains("duplicate key") {
        return "write each key and each [section] once; only [[double brackets]] may repeat";
    }
    match line.split_once('=') {
        Some((_, text)) if !text.contains(['"', '\'', '[', '{']) => "put text in quotes: key = \"text\"",
        Some(_) => "check quotes, brackets and commas",
        None => "write key = value, or [section], or # and a comment",
    }
}

const QUOTED_BYTES_MAX: usize = 60;
