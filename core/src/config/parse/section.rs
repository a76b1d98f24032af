//! How is a value taken out of a table?

use core::slice;

use toml::de::{DeTable, DeValue};

use super::{
    nearest::nearest,
    reader::{Reader, Site, Value},
};

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
            name: ROOT.into(),
            site: 0,
            table,
            known: Vec::new(),
        }
    }

    /// A value that must be a table.
    pub(super) fn new(cx: &mut Reader<'_>, name: &str, value: &'v Value<'t>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            // What stands there instead is not shown: it may be a secret.
            let fix = match name.starts_with('[') {
                true => format!("write {name}, and its keys below it"),
                false => "write { key = \"value\" }, as in the examples".into(),
            };
            return cx.refuse(value.span().start, format!("{name} must be a table"), fix);
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
            let near = nearest(name, self.known.iter().copied());
            let fix = match near {
                Some(near) if self.is_root() => format!("write [{near}]"),
                Some(near) => format!("write {near}"),
                None => format!("remove it; {} takes {}", self.name, self.known.join(", ")),
            };
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

    fn is_root(&self) -> bool {
        self.name == ROOT
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
        _ => slice::from_ref(value),
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

const ROOT: &str = "the configuration";
