//! What changes in a message on its way through? Request forwarding (RFC 3261 section 16.6) and response forwarding
//! (section 16.7) as splices; everything else keeps its bytes.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::{
    branch::BRANCH_LEN,
    check::Rejection,
    flow::{Registering, Registration},
    names::{Names, text},
    strip::FieldSet,
    token::TokenText,
    transaction::Side,
};
use crate::wire::sip::{
    Message, Name, Splices, Start,
    field::{self, addresses},
    uri::Uri,
    via::Via,
};

/// Route values of one message at most.
pub(super) const ROUTES_MAX: usize = 20;

/// RFC 5393 section 5.3.3: the most that is recommended, as a number and as text.
const BREADTH_MAX: (u64, &[u8]) = (60, b"60");

/// A browser is no proxy: what only proxies write would lead mediaservers astray.
const OF_PROXIES: [Name; 3] = [Name::Path, Name::ServiceRoute, Name::RecordRoute];

/// One value of the Route fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    field: usize,
    start: usize,
    end: usize,
    uri_start: usize,
    uri_end: usize,
}

/// All Route values in order.
pub(super) type Hops = ArrayVec<Hop, ROUTES_MAX>;

/// Where a request goes after us.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) hops: Hops,
    /// Which of them are left.
    pub(super) keep: Range<usize>,
}

impl Hop {
    /// Its URI.
    pub(super) fn uri<'a>(&self, message: &Message<'a>) -> &'a [u8] {
        &message.bytes()[self.uri_start..self.uri_end]
    }
}

/// Reads the Route values of a request.
pub(super) fn hops(message: &Message<'_>) -> Result<Hops, Rejection> {
    let mut hops = Hops::new();
    if message.field(Name::Route).is_none() {
        return Ok(hops);
    }
    for (index, field) in message.fields().iter().enumerate() {
        if field.name != Name::Route {
            continue;
        }
        let at = field.value().start;
        for address in addresses(message.text(field)) {
            let (start, end, address) = address.map_err(|_| Rejection::bad("Bad Route"))?;
            let uri_start = at + start + address.uri_at;
            let hop = Hop {
                field: index,
                start: at + start,
                end: at + end,
                uri_start,
                uri_end: uri_start + address.uri.len(),
            };
            hops.try_push(hop).map_err(|_| Rejection::bad("Too Many Routes"))?;
        }
    }
    Ok(hops)
}

/// Leaves those Route values that are in `keep`.
fn keep_hops(splices: &mut Splices, message: &Message<'_>, hops: &Hops, keep: Range<usize>) {
    if keep == (0..hops.len()) {
        return;
    }
    for (index, field) in message.fields().iter().enumerate() {
        if field.name != Name::Route {
            continue;
        }
        let mut kept = hops
            .get(keep.clone())
            .unwrap_or_default()
            .iter()
            .filter(|hop| hop.field == index);
        let Some(first) = kept.next() else {
            splices.remove(field.line());
            continue;
        };
        let last = kept.next_back().unwrap_or(first);
        let value = field.value();
        splices.remove(value.start..first.start);
        splices.remove(last.end..value.end);
    }
}

/// What is left of the Route of a request, and its Request-URI: the one that it has, or the new one in `uri`.
pub(super) fn route(splices: &mut Splices, message: &Message<'_>, route: &Route, uri: Option<&[u8]>) {
    let Start::Request { uri: range, .. } = message.start() else {
        return;
    };
    let mut keep = route.keep.clone();
    let next = route.hops.get(keep.clone()).and_then(|kept| kept.first());
    let next = next.map(|next| next.uri(message));
    match (next, uri) {
        // RFC 3261 section 16.6, item 6: a strict router is addressed by the Request-URI, and finds it in Route.
        (Some(next), _) if Uri::parse(next).is_ok_and(|next| !next.is_loose()) => {
            keep.start += 1;
            splices.replace(range.clone(), &[next]);
            let uri = uri.unwrap_or(&message.bytes()[range.clone()]);
            add_last(splices, message, &[b"Route: <", uri, b">\r\n"]);
        }
        (_, Some(uri)) => splices.replace(range.clone(), &[uri]),
        (_, None) => {}
    }
    keep_hops(splices, message, &route.hops, keep);
}

/// The URI of who gets a request after us: the first route that is left, else the Request-URI.
pub(super) fn next_hop<'a>(message: &Message<'a>, route: &Route, uri: &'a [u8]) -> &'a [u8] {
    let kept = route.hops.get(route.keep.clone()).and_then(|kept| kept.first());
    kept.map_or(uri, |hop| hop.uri(message))
}

/// Our two entries, one for each side of us, the one that the receiver will use on top (RFC 5658 section 3).
pub(super) fn record_route(splices: &mut Splices, message: &Message<'_>, names: &Names, token: &[u8], side: Side) {
    let udp = [b"Record-Route: <sip:", token, b"@", names.udp.as_bytes(), b";lr>\r\n"];
    let ws = [
        b"Record-Route: <sip:",
        token,
        b"@",
        names.ws.as_bytes(),
        b";transport=ws;lr>\r\n",
    ];
    let [first, second] = match side {
        Side::Up => [udp, ws],
        Side::Down => [ws, udp],
    };
    add_top(splices, message, &first);
    add_top(splices, message, &second);
}

/// Our Path on a REGISTER (RFC 3327 section 5.2), and the browser's support of it: Asterisk answers 420 to a Path
/// without. RFC 5626 section 5.1: `ob` tells a registrar that keeps flows, and refuses them otherwise, that we do too.
pub(super) fn path(
    splices: &mut Splices,
    message: &Message<'_>,
    names: &Names,
    token: &TokenText,
    registering: &Registering,
) {
    let end: &[u8] = if registering.is_of_flow {
        b";lr;ob>\r\n"
    } else {
        b";lr>\r\n"
    };
    add_top(
        splices,
        message,
        &[b"Path: <sip:", token.as_bytes(), b"@", names.udp.as_bytes(), end],
    );
    if !registering.path_supported {
        add_top(splices, message, &[b"Supported: path\r\n"]);
    }
}

/// Contacts of ours in place of the browser's in a REGISTER.
pub(super) fn hide_contacts(splices: &mut Splices, message: &Message<'_>, names: &Names, registering: &Registering) {
    each_contact(message, |range, uri| {
        let known = registering
            .contacts
            .iter()
            .find(|(registration, _)| *registration.contact == *uri);
        if let Some(alias) = known.and_then(|(registration, _)| registration.alias.as_ref()) {
            splices.replace(range, &[b"sip:", alias.as_bytes(), b"@", names.udp.as_bytes()]);
        }
    });
}

/// The browser's contacts in place of ours in the response to a REGISTER.
pub(super) fn restore_contacts(splices: &mut Splices, message: &Message<'_>, registering: &Registering) {
    each_contact(message, |range, uri| {
        let Some(user) = Uri::parse(uri).ok().and_then(|uri| uri.user) else {
            return;
        };
        let is_ours = |registration: &Registration| registration.alias.as_ref().is_some_and(|alias| alias.is(user));
        if let Some((registration, _)) = registering.contacts.iter().find(|(contact, _)| is_ours(contact)) {
            splices.replace(range, &[&registration.contact]);
        }
    });
}

/// Tells `found` each URI of the Contact fields, and where it stands.
fn each_contact(message: &Message<'_>, mut found: impl FnMut(Range<usize>, &[u8])) {
    for field in message.all(Name::Contact) {
        let at = field.value().start;
        for (start, _, address) in addresses(message.text(field)).map_while(Result::ok) {
            let uri_start = at + start + address.uri_at;
            found(uri_start..uri_start + address.uri.len(), address.uri);
        }
    }
}

/// Our own Via on top (RFC 3261 section 16.6, item 8), and the one below as we received it.
pub(super) fn via(splices: &mut Splices, message: &Message<'_>, ours: [&[u8]; 3], below: Option<(&Via<'_>, &[u8])>) {
    let [protocol, sent_by, branch] = ours;
    splices.insert(
        message.fields_start(),
        &[
            b"Via: SIP/2.0/",
            protocol,
            b" ",
            sent_by,
            b";branch=",
            branch,
            b";rport\r\n",
        ],
    );
    if let (Some((via, params)), Some(field)) = (below, message.field(Name::Via)) {
        let value = field.value();
        splices.replace(value.start + via.params_at..value.start + via.end, &[params]);
    }
}

/// UDP, as a Via names it.
pub(super) const UDP: &[u8; 3] = b"UDP";
/// TCP, as a Via names it.
pub(super) const TCP: &[u8; 3] = b"TCP";

/// Changes the transport of our own Via on top of a request that is written already. Responses stay as they are.
pub(super) fn set_transport(request: &mut [u8], transport: &[u8; 3]) {
    if let Some(via) = own_via(request) {
        via[b"Via: SIP/2.0/".len()..][..transport.len()].copy_from_slice(transport);
    }
}

/// Changes the branch of our own Via on top of a request that is written already.
pub(super) fn set_branch(request: &mut [u8], branch: &[u8; BRANCH_LEN]) {
    const PARAMETER: &[u8] = b";branch=";
    if let Some(via) = own_via(request)
        && let Some(at) = via.windows(PARAMETER.len()).position(|window| window == PARAMETER)
        && let Some(old) = via[at + PARAMETER.len()..].first_chunk_mut()
    {
        *old = *branch;
    }
}

/// From our own Via on, which is the first field of each request that we write.
fn own_via(request: &mut [u8]) -> Option<&mut [u8]> {
    if request.starts_with(b"SIP/2.0 ") {
        return None;
    }
    let start = request.windows(2).position(|window| window == b"\r\n")? + 2;
    let via = &mut request[start..];
    via.starts_with(b"Via: SIP/2.0/").then_some(via)
}

/// A whole field behind those that are already put on top.
pub(super) fn add_top(splices: &mut Splices, message: &Message<'_>, parts: &[&[u8]]) {
    splices.insert(message.fields_start(), parts);
}

/// A whole field at the end of the header.
pub(super) fn add_last(splices: &mut Splices, message: &Message<'_>, parts: &[&[u8]]) {
    splices.insert(message.head_end(), parts);
}

/// One hop less (RFC 3261 section 16.6, item 3).
pub(super) fn max_forwards(splices: &mut Splices, message: &Message<'_>, now: Option<u64>) {
    match (message.field(Name::MaxForwards), now) {
        (Some(field), Some(hops)) => {
            splices.replace(field.value(), &[text(hops.saturating_sub(1)).as_bytes()]);
        }
        _ => add_last(splices, message, &[b"Max-Forwards: 70\r\n"]),
    }
}

/// Every request that is passed on says how many others may come of it at once, and no more than we let it (RFC 5393
/// section 5.3.3). None comes of it here.
pub(super) fn max_breadth(splices: &mut Splices, message: &Message<'_>) {
    match message.field(Name::MaxBreadth) {
        None => add_last(splices, message, &[b"Max-Breadth: ", BREADTH_MAX.1, b"\r\n"]),
        Some(field) if field::number(message.text(field)).is_none_or(|breadth| breadth > BREADTH_MAX.0) => {
            splices.replace(field.value(), &[BREADTH_MAX.1]);
        }
        Some(_) => {}
    }
}

/// A `Content-Length` where there is none: a datagram should have one (RFC 3261 section 18.3), a WebSocket message need
/// not (RFC 7118 section 5).
pub(super) fn content_length(splices: &mut Splices, message: &Message<'_>) {
    if message.content_length().is_none() {
        let length = text(message.body().len());
        add_last(splices, message, &[b"Content-Length: ", length.as_bytes(), b"\r\n"]);
    }
}

/// Takes out what browsers have no say in; `strip` is what the configuration adds.
pub(super) fn distrust(splices: &mut Splices, message: &Message<'_>, strip: &FieldSet) {
    for name in OF_PROXIES {
        remove_all(splices, message, name);
    }
    strip.remove(splices, message);
}

/// Registrations are asked for no longer than `most` seconds (RFC 3261 section 10.2.1.1).
pub(super) fn cap_expires(splices: &mut Splices, message: &Message<'_>, most: u64) {
    let is_more = |seconds: &[u8]| field::number(seconds).is_some_and(|seconds| seconds > most);
    let most = text(most);
    for field in message.all(Name::Expires) {
        if is_more(message.text(field)) {
            splices.replace(field.value(), &[most.as_bytes()]);
        }
    }
    for field in message.all(Name::Contact) {
        let at = field.value().start;
        for (start, _, address) in addresses(message.text(field)).map_while(Result::ok) {
            let Some(place) = address.params.place(b"expires") else {
                continue;
            };
            if is_more(&address.params.text()[place.clone()]) {
                let params_at = at + start + address.params_at;
                splices.replace(params_at + place.start..params_at + place.end, &[most.as_bytes()]);
            }
        }
    }
}

/// Takes all fields of a name out.
pub(super) fn remove_all(splices: &mut Splices, message: &Message<'_>, name: Name) {
    for field in message.all(name) {
        splices.remove(field.line());
    }
}

/// Takes our own Via off a response (RFC 3261 section 16.7, item 3). `via` is the first one of the message.
pub(super) fn pop_via(splices: &mut Splices, message: &Message<'_>, via: &Via<'_>) {
    let Some(field) = message.field(Name::Via) else { return };
    let value = field.value();
    if via.end >= value.len() {
        splices.remove(field.line());
        return;
    }
    // Behind the comma, and the space that may follow it.
    let rest = &message.bytes()[value.start + via.end + 1..value.end];
    splices.remove(value.start..value.end - rest.trim_ascii_start().len());
}

/// Whether a list field names a token.
pub(super) fn lists(message: &Message<'_>, name: Name, token: &[u8]) -> bool {
    message
        .all(name)
        .any(|field| field::tokens(message.text(field)).any(|element| element.eq_ignore_ascii_case(token)))
}

/// Appends a message with its changes to `out`, without what may follow its body.
pub(super) fn finish(splices: &mut Splices, message: &Message<'_>, out: &mut Vec<u8>) -> Range<usize> {
    let start = out.len();
    splices.apply(&message.bytes()[..message.body().end], out);
    start..out.len()
}
