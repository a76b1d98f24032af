//! Which fields matter to HTTP itself? The names that framing, forwarding, upgrading or routing look at.

/// A field name that is looked at; any other is [`Name::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the field of the same name")]
pub enum Name {
    Authorization,
    CacheControl,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    SecWebSocketAccept,
    SecWebSocketExtensions,
    SecWebSocketKey,
    SecWebSocketProtocol,
    SecWebSocketVersion,
    SetCookie,
    StrictTransportSecurity,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    /// Any other field whose name begins with `X-Forwarded-`.
    XForwarded,
    XRealIp,
    XRequestId,
    /// A field by which a client could pass itself off as another, or its path as another: `Proxy`, `X-Original-URL`
    /// and their like.
    Disguise,
    /// Everything else.
    Other,
}

impl Name {
    /// Which name this is, in any case.
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            3 => &[(b"via", Self::Via)],
            4 => &[(b"host", Self::Host), (b"date", Self::Date)],
            5 => &[(b"proxy", Self::Disguise)],
            6 => &[
                (b"cookie", Self::Cookie),
                (b"origin", Self::Origin),
                (b"expect", Self::Expect),
            ],
            7 => &[(b"upgrade", Self::Upgrade), (b"trailer", Self::Trailer)],
            9 => &[(b"forwarded", Self::Forwarded), (b"x-real-ip", Self::XRealIp)],
            10 => &[
                (b"connection", Self::Connection),
                (b"keep-alive", Self::KeepAlive),
                (b"set-cookie", Self::SetCookie),
            ],
            11 => &[(b"x-client-ip", Self::Disguise), (b"x-forwarded", Self::XForwarded)],
            12 => &[
                (b"content-type", Self::ContentType),
                (b"max-forwards", Self::MaxForwards),
                (b"x-request-id", Self::XRequestId),
            ],
            13 => &[
                (b"cache-control", Self::CacheControl),
                (b"authorization", Self::Authorization),
                (b"x-rewrite-url", Self::Disguise),
            ],
            14 => &[
                (b"content-length", Self::ContentLength),
                (b"http2-settings", Self::Http2Settings),
                (b"x-original-url", Self::Disguise),
                (b"true-client-ip", Self::Disguise),
            ],
            15 => &[(b"x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                (b"content-encoding", Self::ContentEncoding),
                (b"proxy-connection", Self::ProxyConnection),
                (b"cf-connecting-ip", Self::Disguise),
            ],
            17 => &[
                (b"transfer-encoding", Self::TransferEncoding),
                (b"sec-websocket-key", Self::SecWebSocketKey),
            ],
            18 => &[(b"proxy-authenticate", Self::ProxyAuthenticate)],
            19 => &[
                (b"proxy-authorization", Self::ProxyAuthorization),
                (b"x-cluster-client-ip", Self::Disguise),
            ],
            20 => &[(b"sec-websocket-accept", Self::SecWebSocketAccept)],
            21 => &[(b"sec-websocket-version", Self::SecWebSocketVersion)],
            22 => &[(b"sec-websocket-protocol", Self::SecWebSocketProtocol)],
            24 => &[(b"sec-websocket-extensions", Self::SecWebSocketExtensions)],
            25 => &[(b"strict-transport-security", Self::StrictTransportSecurity)],
            _ => &[],
        };
        // The first letter rules out nearly every candidate of the right length.
        let initial = name.first().map_or(0, u8::to_ascii_lowercase);
        let found = candidates
            .iter()
            .find(|(candidate, _)| candidate[0] == initial && candidate.eq_ignore_ascii_case(name));
        match found {
            Some((_, id)) => *id,
            None if initial == b'x' && has_prefix(name, b"x-forwarded-") => Self::XForwarded,
            None => Self::Other,
        }
    }
}

fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
