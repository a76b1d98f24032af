//! Which shard has the state for this datagram? A look at one line, since every datagram that comes to the wrong shard
//! takes it.

use super::{branch::Branch, token::Token};
use crate::{
    action::ShardId,
    wire::sip::{Framing, Message, Name, Start, field::addresses, uri::Uri, via::Via},
};

/// The shard that our Via of a response or the flow token of a request names. Neither is checked: whoever is named will.
pub(super) fn home(datagram: &[u8]) -> Option<ShardId> {
    let message = Message::read(datagram, Framing::Datagram)?;
    match message.start() {
        Start::Response { .. } => {
            let via = message.value(Name::Via).and_then(Via::first)?;
            Branch::read(via.branch()?).map(|branch| branch.shard)
        }
        Start::Request { uri, .. } => {
            // Our own name may stand before the token, where a mediaserver sends everything by us.
            let mut routes = message
                .all(Name::Route)
                .flat_map(|field| addresses(message.text(field)).map_while(Result::ok));
            routes
                .find_map(|(_, _, route)| token_of(route.uri))
                .or_else(|| token_of(&message.bytes()[uri.clone()]))
                .map(|token| token.shard)
        }
    }
}

fn token_of(uri: &[u8]) -> Option<Token> {
    Uri::parse(uri).ok()?.user.and_then(Token::claim)
}
