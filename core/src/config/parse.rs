//! Is this text a configuration? If not: every error at once, each with its line and its remedy.

use core::fmt;

use toml::de::DeTable;

use self::{reader::Reader, section::Section};
use super::{Config, Https, Keys, Server, Turn};
use crate::tls::Provider;

mod access_log;
mod addresses;
mod https;
mod metrics;
mod nearest;
mod opaque;
mod preset;
mod rates;
mod reader;
mod secret;
mod section;
mod server;
mod sip;
mod token;
mod turn;
mod urls;
mod values;
mod web;

/// Where a configuration finds what it names: the caller does the reading.
pub trait Sources {
    /// The bytes of a file, or why they cannot be had.
    ///
    /// # Errors
    /// In words for the administrator.
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String>;

    /// A variable of the environment.
    fn env(&mut self, name: &str) -> Option<String>;

    /// The keys in a file that is made when it is missing, so that they outlive the process.
    ///
    /// # Errors
    /// In words for the administrator.
    fn keys(&mut self, path: &str) -> Result<Keys, String> {
        Err(format!("`{path}` cannot be kept here"))
    }

    /// Whether this file can be written, or made, when the time comes.
    ///
    /// # Errors
    /// In words for the administrator.
    fn file_to_write(&mut self, _path: &str) -> Result<(), String> {
        Ok(())
    }

    /// Whether this folder can be written to, or made with those above it.
    ///
    /// # Errors
    /// In words for the administrator.
    fn folder_to_write(&mut self, _path: &str) -> Result<(), String> {
        Ok(())
    }

    /// The cryptography for certificates.
    fn provider(&self) -> &Provider;
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the text, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

/// Everything that is wrong with a configuration, in the order of the lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// A block for each error, with the name of the file that the text came from.
    pub fn display(&self, file: &str) -> String {
        let blocks = self.0.iter().map(|ConfigError { line, what, fix }| {
            let fix = fix.replace('\n', "\n         ");
            format!("{file}:{line}: {what}\n    fix: {fix}\n")
        });
        blocks.collect()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display("configuration"))
    }
}

impl core::error::Error for ConfigErrors {}

impl Config {
    /// Reads the TOML of an administrator. `keys` are those of a process that names no `key_file`.
    ///
    /// # Errors
    /// With everything that is wrong. A text that is not TOML gets only what TOML has against it.
    pub fn parse(text: &str, sources: &mut dyn Sources, keys: Keys) -> Result<Self, ConfigErrors> {
        let mut cx = Reader::new(text, sources);
        let (document, syntax) = DeTable::parse_recoverable(text);
        if !syntax.is_empty() {
            cx.refuse_syntax(&syntax);
        } else if let Some(config) = config(&mut cx, document.get_ref(), keys)
            && cx.is_content()
        {
            return Ok(config);
        }
        Err(cx.into_errors())
    }
}

fn config(cx: &mut Reader<'_>, document: &DeTable<'_>, keys: Keys) -> Option<Config> {
    let mut root = Section::root(document);
    check_roles(cx, &root);
    let server = root.optional(cx, "server", server::parse);
    let https = root.optional(cx, "https", https::parse);
    let mut rates = root.or(cx, "rates", rates::Found::default(), rates::parse);
    let web = root.optional(cx, "web", |cx, value| web::parse(cx, value, &mut rates));
    let token = root.optional(cx, "token", |cx, value| token::parse(cx, value, web.as_ref()));
    let has_token_check = root.has("token");
    let sip = root.optional(cx, "sip", |cx, value| {
        sip::parse(cx, value, https.as_ref(), has_token_check, &rates)
    });
    // Before [turn], whose relay ports must leave out every other socket.
    let metrics = root.optional(cx, "metrics", metrics::parse);
    let turn = root.optional(cx, "turn", |cx, value| turn::parse(cx, value, sip.as_ref()));
    let access_log = root.optional(cx, "access_log", access_log::parse);
    check_peers(cx, &root, turn.as_ref());
    check_listener(cx, &root, https.as_ref(), turn.as_ref());
    check_shared_port(cx, &root, https.as_ref());
    root.finish(cx);
    let (server, key_file) = server.unwrap_or((Server::default(), None));
    Some(Config {
        server,
        https,
        web,
        sip,
        turn,
        token,
        rates: rates.rates,
        metrics,
        access_log,
        keys: key_file.unwrap_or(keys),
    })
}

/// Sections that need one another. It asks only which are there, so that a wrong one does not look like a missing one.
fn check_roles(cx: &mut Reader<'_>, root: &Section<'_, '_>) {
    let [https, web, sip, turn] = ["https", "web", "sip", "turn"].map(|key| root.site(key));
    if web.is_none() && sip.is_none() && turn.is_none() {
        cx.refuse::<()>(
            https.unwrap_or(0),
            "there is nothing to do: no role is configured",
            "add at least one of [web], [sip] and [turn]",
        );
    }
    for (role, site) in [("web", web), ("sip", sip)] {
        if let (Some(site), None) = (site, https) {
            cx.refuse::<()>(
                site,
                format!("[{role}] needs [https]: browsers come by TLS only"),
                "add\n[https]\nlisten = \"0.0.0.0:443\"\n\
                 certificates = [{ cert = \"fullchain.pem\", key = \"privkey.pem\" }]",
            );
        }
    }
}

/// An [https] that listens nowhere may still bring the certificates for TURN over TLS, but nothing else.
fn check_listener(cx: &mut Reader<'_>, root: &Section<'_, '_>, https: Option<&Https>, turn: Option<&Turn>) {
    let is_for_turn_alone = !root.has("web") && !root.has("sip") && turn.is_none_or(|turn| !turn.listen_tcp.is_empty());
    if let (Some(https), Some(site)) = (https, root.site("https"))
        && https.listen.is_empty()
        && !is_for_turn_alone
    {
        cx.refuse::<()>(
            site,
            "[https] listens nowhere",
            "write listen = \"0.0.0.0:443\"; an empty list is for a host with TURN over TLS alone",
        );
    }
}

/// What [https] says about TURN means nothing without [turn].
fn check_shared_port(cx: &mut Reader<'_>, root: &Section<'_, '_>, https: Option<&Https>) {
    if let (Some(https), Some(site), None) = (https, root.site("https"), root.site("turn"))
        && (https.plain_turn || !https.turn_hosts.is_empty())
    {
        cx.refuse::<()>(
            site,
            "[https] names `turn_hosts` or `plain_turn`, but there is no TURN server",
            "add [turn], or remove both from [https]",
        );
    }
}

/// Without anybody to relay to, TURN is of no use; the mediaservers of [sip] are somebody.
fn check_peers(cx: &mut Reader<'_>, root: &Section<'_, '_>, turn: Option<&Turn>) {
    if let (Some(turn), Some(site), None) = (turn, root.site("turn"), root.site("sip"))
        && turn.peers.is_empty()
        && !turn.public_peers
    {
        cx.refuse::<()>(
            site,
            "[turn] may relay to nobody",
            "add mediaservers = [\"10.0.0.5\"], or a block [[turn.peer]], or public_peers = true",
        );
    }
}

#[cfg(test)]
mod tests;
