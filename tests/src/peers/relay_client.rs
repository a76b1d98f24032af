//! How does a client have TCP relayed (RFC 6062)? By hand, one request after the other, over TCP or TLS.

use std::{io::Write as _, net::SocketAddr};

use crate::{
    deadline,
    peers::{
        stream::Stream,
        stun::{self, Class, Message, attribute, long_term_key, method},
    },
};

/// A connection to the TURN server that carries messages, until it is bound.
#[derive(Debug)]
pub struct RelayClient {
    stream: Stream,
    rest: Vec<u8>,
    user: String,
    password: String,
    /// REALM and NONCE of the challenge.
    challenge: Option<(Vec<u8>, Vec<u8>)>,
    /// Indications that came between answers.
    indications: Vec<Message>,
}

impl RelayClient {
    /// A client that speaks over this stream.
    pub fn new(stream: Stream, (user, password): (&str, &str)) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            user: user.to_owned(),
            password: password.to_owned(),
            challenge: None,
            indications: Vec::new(),
        }
    }

    /// Sends a request with credentials and waits for its answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&mut self, request: Message) -> Message {
        self.ask_with(request, b"")
    }

    /// The same, with bytes right behind the request.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn ask_with(&mut self, request: Message, behind: &[u8]) -> Message {
        if self.challenge.is_none() {
            let question = Message::request(method::REFRESH);
            let refusal = self.exchange(question.transaction, &question.encode());
            let take = |kind| refusal.attribute(kind).expect("REALM and NONCE in a refusal").to_vec();
            self.challenge = Some((take(attribute::REALM), take(attribute::NONCE)));
        }
        let (realm, nonce) = self.challenge.clone().expect("taken above");
        let key = long_term_key(&self.user, &realm, &self.password);
        let signed = request
            .with(attribute::USERNAME, self.user.as_bytes())
            .with(attribute::REALM, realm)
            .with(attribute::NONCE, nonce);
        let mut bytes = signed.encode_signed(&key);
        bytes.extend_from_slice(behind);
        self.exchange(signed.transaction, &bytes)
    }

    /// Allocates for TCP and returns the relayed address.
    ///
    /// # Panics
    /// When it is refused.
    pub fn allocate(&mut self) -> SocketAddr {
        let request = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::TCP);
        let answer = self.ask(request);
        assert_eq!(answer.class, Class::Success, "{:?}", answer.error_code());
        answer
            .address(attribute::XOR_RELAYED_ADDRESS)
            .expect("a relayed address")
    }

    /// Asks for a connection to a peer: CONNECTION-ID, or the error code.
    ///
    /// # Errors
    /// When the server refuses.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn connect(&mut self, peer: SocketAddr) -> Result<Vec<u8>, u16> {
        let answer = self.ask(Message::request(method::CONNECT).with_peer(peer));
        match answer.error_code() {
            Some(code) => Err(code),
            None => Ok(connection_id(&answer)),
        }
    }

    /// Waits until a peer has connected: CONNECTION-ID, and who it is.
    ///
    /// # Panics
    /// When nobody does.
    pub fn attempt(&mut self) -> (Vec<u8>, SocketAddr) {
        while self.indications.is_empty() {
            let message = self.next();
            self.indications.push(message);
        }
        let message = self.indications.remove(0);
        assert_eq!(
            (message.class, message.method),
            (Class::Indication, method::CONNECTION_ATTEMPT)
        );
        let peer = message.address(attribute::XOR_PEER_ADDRESS).expect("a peer");
        (connection_id(&message), peer)
    }

    /// Binds this connection to that of a peer, with the first data right behind: what it carries from then on, and
    /// what of it has come already.
    ///
    /// # Errors
    /// When the server refuses.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn bind(mut self, id: &[u8], early: &[u8]) -> Result<(Stream, Vec<u8>), u16> {
        let request = Message::request(method::CONNECTION_BIND).with(attribute::CONNECTION_ID, id);
        match self.ask_with(request, early).error_code() {
            Some(code) => Err(code),
            None => Ok((self.stream, self.rest)),
        }
    }

    fn exchange(&mut self, transaction: [u8; 12], bytes: &[u8]) -> Message {
        self.stream.write_all(bytes).expect("sent");
        loop {
            let message = self.next();
            if message.transaction == transaction {
                return message;
            }
            self.indications.push(message);
        }
    }

    /// The next message.
    fn next(&mut self) -> Message {
        let deadline = deadline();
        let mut buffer = [0; 4096];
        loop {
            if let Some(header) = self.rest.first_chunk::<20>() {
                let length = 20 + usize::from(u16::from_be_bytes([header[2], header[3]]));
                if self.rest.len() >= length {
                    let message: Vec<u8> = self.rest.drain(..length).collect();
                    return Message::decode(&message).expect("a STUN message");
                }
            }
            let read = self.stream.read_until(deadline, &mut buffer).expect("a message");
            assert!(read > 0, "the TURN server closed the connection");
            self.rest.extend_from_slice(&buffer[..read]);
        }
    }
}

fn connection_id(message: &Message) -> Vec<u8> {
    let id = message.attribute(attribute::CONNECTION_ID).expect("CONNECTION-ID");
    assert_eq!(id.len(), 4);
    assert_ne!(id, [0; 4]);
    id.to_vec()
}
