//! Where does a client come from, as we see it? Binding. (RFC 8489 section 12, RFC 5780 section 6)

use core::net::SocketAddr;

use super::{Server, refuse, refuse_unknown};
use crate::{
    action::Prefix,
    cx::Cx,
    turn::{
        discovery,
        limiter::Cost,
        reply::Form,
        request::Request,
        table::Client,
        verdict::{Payload, To, Verdict},
    },
    wire::stun::{Code, Kind, Message},
};

/// The longest PADDING of an answer in bytes: the MTU of Ethernet.
const PADDING_BYTES_MAX: usize = 1500;

/// How a Binding request is answered where a client may test its NAT.
struct Test {
    to: To,
    origin: SocketAddr,
    other: SocketAddr,
    padding: Option<usize>,
}

impl Server {
    /// Answers a Binding request: no credentials, no state.
    pub(super) fn binding(&mut self, cx: &mut Cx<'_>, from: &Client, message: Message<'_>) -> Verdict {
        let is_corner = self.discovery.corner(from).is_some();
        let request = Request::read_with(message, if is_corner { &discovery::ATTRIBUTES } else { &[] });
        let form = Form::unsigned(&request);
        // An answer with four addresses is as long as a challenge.
        let is_short = !is_corner && !request.has_unknown;
        if !self.may_answer(cx, from, if is_short { Cost::Tenth } else { Cost::Full }) {
            return Verdict::NOTHING;
        }
        if request.has_unknown {
            return refuse_unknown(cx, from, &form, &request);
        }
        let source = from.source();
        let test = match self.test(from, &request) {
            Ok(test) => test,
            Err(code) => return refuse(cx, from, &form, code),
        };
        let range = form.success(cx.made, |writer| {
            writer.address(Kind::XOR_MAPPED_ADDRESS, source);
            let Some(test) = &test else { return };
            // RFC 5780 section 6.1: "The server MUST include both MAPPED-ADDRESS and XOR-MAPPED-ADDRESS"; without any
            // attribute that asks for it, "OTHER-ADDRESS and RESPONSE-ORIGIN are still included".
            writer.plain_address(Kind::MAPPED_ADDRESS, source);
            writer.plain_address(Kind::RESPONSE_ORIGIN, test.origin);
            writer.plain_address(Kind::OTHER_ADDRESS, test.other);
            if let Some(len) = test.padding {
                writer.attribute(Kind::PADDING, &[0; PADDING_BYTES_MAX][..len]);
            }
        });
        let answer = from.send(Prefix::NONE, Payload::Made(range));
        test.map_or(answer.clone(), |test| Verdict { to: test.to, ..answer })
    }

    /// From where to where a client wants its answer to go; `None` where there is nothing to choose from.
    // RFC 5780 section 6.1.
    fn test(&self, from: &Client, request: &Request<'_>) -> Result<Option<Test>, Code> {
        let (Some(corner), Client::Datagram { mut peer, local, .. }) = (self.discovery.corner(from), *from) else {
            return Ok(None);
        };
        let (ip, port) = request.change()?;
        let response_port = request.response_port()?;
        // "If the Request also contains the RESPONSE-PORT attribute the server MUST return an error response of type
        // 400."
        if response_port.is_some() && request.padding_len().is_some() {
            return Err(Code::BAD_REQUEST);
        }
        let (socket, origin) = corner.changed(ip, port);
        peer.set_port(response_port.unwrap_or(peer.port()));
        Ok(Some(Test {
            // What arrived at one address cannot leave from it by the socket of another one.
            to: To::Datagram {
                socket,
                peer,
                local: local.filter(|local| *local == origin.ip()),
            },
            origin,
            other: corner.changed(true, true).1,
            // "The server SHOULD use a length of PADDING equal to the MTU on the outgoing interface"; but no more than the
            // client has sent, or it could be made to flood somebody else.
            padding: request.padding_len().map(|len| len.min(PADDING_BYTES_MAX)),
        }))
    }
}
