//! What did TLS tell the rest of the core, so that it can be told again without the secrets of a connection?

use alloc::{collections::VecDeque, vec::Vec};

use bytes::BytesMut;

use super::{Tls, TlsError, connection::Session};

/// What became of bytes from the wire: all that the core learns from TLS. Of keys, nothing is left in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What they say.
    pub plain: Vec<u8>,
    /// How many bytes TLS itself had to answer.
    pub answer_len: usize,
    /// Whether the handshake is over.
    pub is_ready: bool,
    /// Whether the other side has said that it sends no more.
    pub is_peer_closed: bool,
    /// Whether the connection is of no use any more.
    pub is_failed: bool,
    /// What the two sides have agreed on.
    pub session: Session,
    /// Why it is of no use.
    pub error: Option<TlsError>,
}

/// Whether what TLS tells is written down, or read from what was written down before.
#[derive(Debug, Default)]
pub(crate) enum Transcript {
    /// Neither.
    #[default]
    None,
    Written(VecDeque<Heard>),
    Read(VecDeque<Heard>),
}

impl Transcript {
    /// [`Tls::receive`], or what became of it when it was written down.
    pub(crate) fn receive(
        &mut self,
        tls: &mut Tls,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Result<(), TlsError> {
        match self {
            Self::None => tls.receive(bytes, plain, out),
            Self::Written(heard) => {
                let (plain_start, out_start) = (plain.len(), out.len());
                let result = tls.receive(bytes, plain, out);
                heard.push_back(Heard {
                    plain: plain[plain_start..].to_vec(),
                    answer_len: out.len() - out_start,
                    error: result.clone().err(),
                    ..tls.state()
                });
                result
            }
            Self::Read(heard) => match heard.pop_front() {
                Some(heard) => tls.hear(heard, plain, out),
                None => Err(TlsError::Refused("nothing was written down".into())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::both;

    /// Both ends of a connection by TLS, and a third that hears what the server heard.
    #[test]
    fn what_was_written_down_is_told_again() {
        let (mut client, mut server) = both(&["edge.example.org"], "edge.example.org");
        let (_, mut repeated) = both(&["edge.example.org"], "edge.example.org");
        let mut written = Transcript::Written(VecDeque::new());
        let (mut up, mut down, mut plain) = (BytesMut::new(), BytesMut::new(), Vec::new());
        let (mut down_len, mut told) = (0, Vec::new());
        client.receive(&mut [], &mut Vec::new(), &mut up).expect("a hello");
        while !up.is_empty() || !down.is_empty() {
            let (mut to_server, mut to_client) = (up.split(), down.split());
            written
                .receive(&mut server, &mut to_server, &mut plain, &mut down)
                .expect("a handshake");
            down_len += down.len();
            client
                .receive(&mut to_client, &mut Vec::new(), &mut up)
                .expect("a handshake");
        }
        client.seal(b"question", &mut up).expect("sealed");
        client.close(&mut up);
        written
            .receive(&mut server, &mut up, &mut plain, &mut down)
            .expect("opened");
        down_len += down.len();
        let before = down.len();
        server.seal(b"answer", &mut down).expect("sealed");
        server.close(&mut down);

        let Transcript::Written(heard) = written else {
            unreachable!("it was written")
        };
        let mut read = Transcript::Read(heard.clone());
        let mut out = BytesMut::new();
        for _ in &heard {
            read.receive(&mut repeated, &mut [], &mut told, &mut out)
                .expect("what was heard");
        }
        assert_eq!((told.as_slice(), out.len()), (b"question".as_slice(), down_len));
        assert_eq!((repeated.is_ready(), repeated.peer_closed()), (true, true));
        assert_eq!(
            (repeated.alpn(), repeated.has_given_tickets()),
            (server.alpn(), server.has_given_tickets())
        );
        let mut open = BytesMut::new();
        repeated.seal(b"answer", &mut open).expect("written");
        repeated.close(&mut open);
        assert_eq!(open.len(), down.len() - before, "as long as what was encrypted");
        assert!(open.windows(6).any(|window| window == b"answer"), "and readable");
        assert!(read.receive(&mut repeated, &mut [], &mut told, &mut out).is_err());
    }
}
