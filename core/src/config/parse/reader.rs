//! How is a value taken out of a table, and where is it noted when it is wrong?

use core::{mem, net::SocketAddr};

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
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
    paths: Vec<(String, Site)>,
}

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
            let site = error.span().map_or(0, |span| span.start.min(self.text.len()));
            let start = self.text[..site].rfind('\n').map_or(0, |end| end + 1);
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
            let transport = match transport {
                Transport::Udp => "UDP",
                Transport::Tcp => "TCP",
            };
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

    /// Notes that this path is taken, unless it was before.
    pub(super) fn claim_path(&mut self, path: String, site: Site) {
        if let Some((_, other)) = self.paths.iter().find(|(other, _)| *other == path) {
            let line = self.line(*other);
            self.refuse::<()>(
                site,
                format!("`{path}` is taken already, in line {line}"),
                "remove one of the two",
            );
        }
        self.paths.push((path, site));
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
        1 + self.text[..site].matches('\n').count()
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

/// A table of which each key is asked for by name.
pub(super) struct Section<'v, 't> {
    /// As it is written: `[https.limits]`.
    name: String,
    site: Site,
    table: &'v DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'v, 't> Section<'v, 't> {
    /// The whole text.
    pub(super) fn root(table: &'v DeTable<'t>) -> Self {
        Self {
            name: "a configuration".into(),
            site: 0,
            table,
            known: Vec::new(),
        }
    }

    /// A value that must be a table.
    pub(super) fn new(cx: &mut Reader<'_>, name: &str, value: &'v Value<'t>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            return cx.refuse_value(value, "a table", &format!("{name}, and its keys below it"));
        };
        Some(Self {
            name: name.into(),
            site: value.span().start,
            table,
            known: Vec::new(),
        })
    }

    /// What `read` makes of a key, if it is there.
    pub(super) fn optional<T>(
        &mut self,
        cx: &mut Reader<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        read(cx, self.table.get(key)?)
    }

    /// The same, and something else where it is absent; `None` where it is wrong.
    pub(super) fn given_or<T>(
        &mut self,
        cx: &mut Reader<'_>,
        key: &'static str,
        default: T,
        read: impl FnOnce(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            return self.optional(cx, key, read);
        }
        self.known(key);
        Some(default)
    }

    /// The same, and something else where it is absent or wrong: what is wrong is noted, so nobody will use it.
    pub(super) fn or<T>(
        &mut self,
        cx: &mut Reader<'_>,
        key: &'static str,
        default: T,
        read: impl FnOnce(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
    ) -> T {
        self.optional(cx, key, read).unwrap_or(default)
    }

    /// Reads each item of a list, which is empty where the key is absent.
    pub(super) fn list<T>(
        &mut self,
        cx: &mut Reader<'_>,
        key: &'static str,
        read: impl FnMut(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.given_or(cx, key, Vec::new(), |cx, value| list(cx, value, read))
    }

    /// The same of a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        cx: &mut Reader<'_>,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.known(key);
            return cx.refuse(
                self.site,
                format!("{} has no `{key}`", self.name),
                format!("add {key} = {example}"),
            );
        }
        self.optional(cx, key, read)
    }

    /// Tells of a key that has nothing to be read.
    pub(super) fn known(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Refuses the keys that nobody asked for.
    pub(super) fn finish(self, cx: &mut Reader<'_>) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let fix = nearest(name, self.known.iter().copied()).map_or_else(
                || format!("remove it; {} takes {}", self.name, self.known.join(", ")),
                |near| format!("write {near}"),
            );
            cx.refuse::<()>(key.span().start, format!("{} has no key `{name}`", self.name), fix);
        }
    }

    /// Where a key of this table stands.
    pub(super) fn site(&self, key: &str) -> Option<Site> {
        self.table.get(key).map(|value| value.span().start)
    }

    /// Where this table begins.
    pub(super) fn start(&self) -> Site {
        self.site
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }
}

/// Reads each item of a list; anything but a list is a list of one.
pub(super) fn list<'v, 't, T>(
    cx: &mut Reader<'_>,
    value: &'v Value<'t>,
    mut read: impl FnMut(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = match value.get_ref() {
        DeValue::Array(items) => items,
        _ => core::slice::from_ref(value),
    };
    // Every item is read, so that each tells what is wrong with it.
    let read: Vec<_> = items.iter().map(|item| read(cx, item)).collect();
    read.into_iter().collect()
}

/// The same, with the place of each item.
pub(super) fn sited<'v, 't: 'v, T>(
    mut read: impl FnMut(&mut Reader<'_>, &'v Value<'t>) -> Option<T>,
) -> impl FnMut(&mut Reader<'_>, &'v Value<'t>) -> Option<(T, Site)> {
    move |cx, value| Some((read(cx, value)?, value.span().start))
}

/// The name that was probably meant.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let close_enough = 1 + name.len() / 3;
    names
        .map(|other| (distance(name, other), other))
        .filter(|(distance, _)| *distance <= close_enough)
        .min()
        .map(|(_, other)| other)
}

/// How many characters must be put in, left out or changed to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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
