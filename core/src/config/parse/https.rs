//! How is `[https]` read: the port that browsers come to?

use super::{
    addresses,
    reader::{Reader, Transport, Value},
    section::{self, Section},
    urls, values,
};
use crate::{
    config::{Acme, CertificateFiles, HttpLimits, Https},
    tls::{Certificate, ServerTls},
    wire::http1::{FIELDS_MAX, HEAD_BYTES_MAX},
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
    let acme = section.optional(cx, "acme", acme);
    let files = match section.has("acme") {
        true => section.list(cx, "certificates", certificate),
        false => section.required(
            cx,
            "certificates",
            "[{ cert = \"fullchain.pem\", key = \"privkey.pem\" }]",
            |cx, value| section::list(cx, value, certificate),
        ),
    };
    let (certificates, tls) = files
        .map(|mut files| {
            files.extend(acme.as_ref().map(|acme| awaited(cx, acme)));
            let (files, certificates): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let certificates = certificates.into_iter().flatten().collect();
            (files, server_tls(cx, &section, certificates))
        })
        .unzip();
    let tls = tls.flatten();
    let hosts = if section.has("hosts") {
        section.list(cx, "hosts", urls::host)
    } else {
        // The certificates say who we are.
        section.known("hosts");
        tls.as_ref().map(|tls| {
            let mut names = tls.names();
            names.extend(acme.iter().flat_map(|acme| acme.domains.iter().cloned()));
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
    let turn_hosts = section.list(cx, "turn_hosts", urls::host);
    let refuse_unknown_names = section.or(cx, "refuse_unknown_names", true, values::flag);
    let plain_turn = section.or(cx, "plain_turn", false, values::flag);
    let proxy_protocol_from = section.list(cx, "proxy_protocol_from", addresses::net);
    let hsts = section.optional(cx, "hsts_secs", values::number(0..=HSTS_SECS_MAX));
    let limits = section.or(cx, "limits", HttpLimits::default(), limits);
    section.finish(cx);
    Some(Https {
        listen: listen?,
        tls: tls?,
        certificates: certificates?,
        acme,
        hosts: hosts?,
        turn_hosts: turn_hosts?,
        refuse_unknown_names,
        plain_turn,
        proxy_protocol_from: proxy_protocol_from?,
        trusted_proxies: trusted_proxies?,
        hsts: hsts.map(core::time::Duration::from_secs),
        limits,
    })
}

/// Where a certificate comes from, and itself, unless it is awaited still.
type Sourced = (CertificateFiles, Option<Certificate>);

fn certificate(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Sourced> {
    let mut section = Section::new(cx, "a certificate", value)?;
    let cert = section.required(cx, "cert", "\"fullchain.pem\"", values::path);
    let key = section.required(cx, "key", "\"privkey.pem\"", values::path);
    let ocsp = section.given_or(cx, "ocsp", None, |cx, value| values::path(cx, value).map(Some));
    section.finish(cx);
    let files = CertificateFiles {
        cert: cert?,
        key: key?,
        ocsp: ocsp?,
        is_awaited: false,
    };
    // It is read here, so that the error stands where the certificate does.
    match files.read(cx.sources) {
        Ok(certificate) => Some((files, certificate)),
        Err(finding) => cx.refuse(value.span().start, finding.what, finding.fix),
    }
}

/// The certificate that we fetch ourselves. Where it cannot be used, a new one will be fetched.
fn awaited(cx: &mut Reader<'_>, acme: &Acme) -> Sourced {
    let files = acme.files();
    let certificate = files.read(cx.sources).unwrap_or_default();
    (files, certificate)
}

fn server_tls(cx: &mut Reader<'_>, section: &Section<'_, '_>, certificates: Vec<Certificate>) -> Option<ServerTls> {
    if certificates.is_empty() && !section.has("acme") {
        return cx.refuse(
            section.site("certificates").unwrap_or(section.start()),
            "there is no certificate",
            "write [{ cert = \"fullchain.pem\", key = \"privkey.pem\" }]",
        );
    }
    match ServerTls::new(cx.sources.provider(), certificates) {
        Ok(tls) => Some(tls),
        Err(error) => cx.refuse(
            section.start(),
            format!("TLS cannot be served: {error}"),
            "this is a fault of the build",
        ),
    }
}

fn acme(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Acme> {
    let mut section = Section::new(cx, "[https.acme]", value)?;
    let domains = section.required(cx, "domains", "[\"edge.example.com\"]", |cx, value| {
        section::list(cx, value, urls::host)
    });
    let directory = section.given_or(cx, "directory", DIRECTORY.into(), |cx, value| {
        values::words(cx, value, "a URL", "\"https://...\"").map(str::to_owned)
    });
    let contacts = section.list(cx, "contacts", |cx, value| {
        values::words(cx, value, "a URL", "\"mailto:admin@example.com\"").map(str::to_owned)
    });
    let state = section.or(cx, "state", STATE.into(), values::path);
    if let Err(error) = cx.sources.folder_to_write(&state) {
        let site = section.site("state").unwrap_or(section.start());
        cx.refuse::<()>(
            site,
            error,
            "write state = \"/var/lib/edgeward/acme\", or another folder that this user may write to",
        );
    }
    let ca = section.given_or(cx, "ca", None, |cx, value| values::path(cx, value).map(Some));
    let agreed = section.or(cx, "terms_agreed", false, values::flag);
    if !agreed {
        cx.refuse::<()>(
            section.site("terms_agreed").unwrap_or(section.start()),
            "[https.acme] needs your agreement to the terms of the authority",
            "read them, and write terms_agreed = true",
        );
    }
    if domains.as_ref().is_some_and(Vec::is_empty) {
        cx.refuse::<()>(
            section.site("domains").unwrap_or(section.start()),
            "[https.acme] asks for no name",
            "write domains = [\"edge.example.com\"]",
        );
    }
    section.finish(cx);
    Some(Acme {
        domains: domains?,
        directory: directory?,
        contacts: contacts?,
        state,
        ca: ca?,
    })
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
    let upstream_age = seconds(cx, "upstream_age_secs", default.upstream_age);
    let mut bytes = |cx: &mut Reader<'_>, key, default, most| section.or(cx, key, default, values::bytes(1024..=most));
    let line_bytes_max = bytes(cx, "line_bytes_max", default.line_bytes_max, HEAD_BYTES_MAX as u64);
    let head_bytes_max = bytes(cx, "head_bytes_max", default.head_bytes_max, HEAD_BYTES_MAX as u64);
    let buffer_bytes_max = bytes(cx, "buffer_bytes_max", default.buffer_bytes_max, BYTES_MAX);
    let buffer_bytes_per_address_max = section.or(
        cx,
        "buffer_bytes_per_address_max",
        default.buffer_bytes_per_address_max,
        values::bytes(buffer_bytes_max as u64..=BYTES_MAX_OF_ALL),
    );
    let body_bytes_per_second_min = section.or(
        cx,
        "body_bytes_per_second_min",
        default.body_bytes_per_second_min,
        values::number(1..=BYTES_MAX),
    );
    let fields_max = section.or(
        cx,
        "fields_max",
        default.fields_max,
        values::number(8..=FIELDS_MAX as u64),
    );
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
        body_bytes_per_second_min,
        connect,
        response,
        tunnel_idle,
        upstream_idle,
        upstream_age,
        line_bytes_max,
        head_bytes_max,
        fields_max,
        buffer_bytes_max,
        buffer_bytes_per_address_max,
        upstream_idle_max,
    })
}

/// A limit above this is a mistake, since it holds for each connection.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The same for a limit that holds for all connections of an address.
const BYTES_MAX_OF_ALL: u64 = 64 * 1024 * 1024 * 1024;

/// Ten years.
const HSTS_SECS_MAX: u64 = 315_360_000;

/// The authority that asks for nothing.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The folder of account and certificate, beside the configuration.
const STATE: &str = "acme";
