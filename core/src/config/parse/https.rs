//! How is `[https]` read: the port that browsers come to?

use super::{
    addresses,
    reader::{Reader, Transport, Value},
    section::{self, Section},
    urls, values,
};
use crate::{
    config::{HttpLimits, Https},
    tls::ServerTls,
};

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Https> {
    let mut section = Section::new(cx, "[https]", value)?;
    let listen = section.required(cx, "listen", "\"0.0.0.0:443\"", |cx, value| {
        section::list(cx, value, |cx, value| {
            let address = addresses::socket_address(cx, value)?;
            cx.listen(Transport::Tcp, address, value.span().start);
            Some(address)
        })
    });
    let tls = section.required(
        cx,
        "certificates",
        "[{ cert = \"fullchain.pem\", key = \"privkey.pem\" }]",
        certificates,
    );
    let hosts = if section.has("hosts") {
        section.list(cx, "hosts", urls::host)
    } else {
        // The certificates say who we are.
        section.known("hosts");
        tls.as_ref().map(|tls| {
            let mut names = tls.names();
            names.retain(|name| !name.starts_with('*'));
            names.iter_mut().for_each(|name| name.make_ascii_lowercase());
            names.sort_unstable();
            names.dedup();
            names
        })
    };
    // Where nothing is listened on, nobody asks for a host.
    if hosts.as_ref().is_some_and(Vec::is_empty) && listen.as_ref().is_none_or(|listen| !listen.is_empty()) {
        cx.refuse::<()>(
            section.site("hosts").unwrap_or(section.start()),
            "[https] answers to no host name",
            "add hosts = [\"edge.example.com\"]: the names that browsers use",
        );
    }
    let trusted_proxies = section.list(cx, "trusted_proxies", addresses::net);
    let limits = section.or(cx, "limits", HttpLimits::default(), limits);
    section.finish(cx);
    Some(Https {
        listen: listen?,
        tls: tls?,
        hosts: hosts?,
        trusted_proxies: trusted_proxies?,
        limits,
    })
}

fn certificates(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<ServerTls> {
    let pairs = section::list(cx, value, |cx, value| {
        let mut section = Section::new(cx, "a certificate", value)?;
        let cert = section.required(cx, "cert", "\"fullchain.pem\"", values::file);
        let key = section.required(cx, "key", "\"privkey.pem\"", values::file);
        section.finish(cx);
        let pair = (cert?, key?);
        // Each is tried alone, so that the error stands where the certificate does.
        match ServerTls::new(cx.sources.provider(), core::slice::from_ref(&pair)) {
            Ok(_) => Some(pair),
            Err(error) => cx.refuse(
                value.span().start,
                format!("this certificate cannot be used: {error}"),
                "`cert` is the PEM file with the chain, `key` the PEM file with the private key that belongs to it",
            ),
        }
    })?;
    match ServerTls::new(cx.sources.provider(), &pairs) {
        Ok(tls) => Some(tls),
        Err(error) => cx.refuse(
            value.span().start,
            error.to_string(),
            "write [{ cert = \"fullchain.pem\", key = \"privkey.pem\" }]",
        ),
    }
}

fn limits(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<HttpLimits> {
    let mut section = Section::new(cx, "[https.limits]", value)?;
    let default = HttpLimits::default();
    let mut seconds = |cx: &mut Reader<'_>, key, default| section.or(cx, key, default, values::seconds);
    let handshake = seconds(cx, "handshake_secs", default.handshake);
    let head = seconds(cx, "head_secs", default.head);
    let keep_alive = seconds(cx, "keep_alive_secs", default.keep_alive);
    let body_idle = seconds(cx, "body_idle_secs", default.body_idle);
    let connect = seconds(cx, "connect_secs", default.connect);
    let response = seconds(cx, "response_secs", default.response);
    let tunnel_idle = seconds(cx, "tunnel_idle_secs", default.tunnel_idle);
    let upstream_idle = seconds(cx, "upstream_idle_secs", default.upstream_idle);
    let mut bytes = |cx: &mut Reader<'_>, key, default| section.or(cx, key, default, values::bytes(1024..=BYTES_MAX));
    let line_bytes_max = bytes(cx, "line_bytes_max", default.line_bytes_max);
    let head_bytes_max = bytes(cx, "head_bytes_max", default.head_bytes_max);
    let buffer_bytes_max = bytes(cx, "buffer_bytes_max", default.buffer_bytes_max);
    let fields_max = section.or(cx, "fields_max", default.fields_max, values::number(8..=10_000));
    let upstream_idle_max = section.or(
        cx,
        "upstream_idle_max",
        default.upstream_idle_max,
        values::number(0..=10_000),
    );
    if line_bytes_max > head_bytes_max {
        cx.refuse::<()>(
            section.site("line_bytes_max").unwrap_or(section.start()),
            format!("a line of {line_bytes_max} bytes does not fit into a head of {head_bytes_max}"),
            "make line_bytes_max smaller or head_bytes_max larger",
        );
    }
    section.finish(cx);
    Some(HttpLimits {
        handshake,
        head,
        keep_alive,
        body_idle,
        connect,
        response,
        tunnel_idle,
        upstream_idle,
        line_bytes_max,
        head_bytes_max,
        fields_max,
        buffer_bytes_max,
        upstream_idle_max,
    })
}

/// A limit above this is a mistake, since it holds for each connection.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
