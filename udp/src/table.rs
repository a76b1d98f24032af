//! Which socket is this? A table from the ids of the core to sockets, by index alone.

use edgeward_core::action::SocketId;
use mio::Token;

/// One entry for each open socket.
#[derive(Debug)]
pub(crate) struct Table<T> {
    sip: Option<T>,
    turn: Vec<Option<T>>,
    /// By the index of the relay's key, with its generation.
    relays: Vec<Option<(SocketId, T)>>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            sip: None,
            turn: Vec::new(),
            relays: Vec::new(),
        }
    }

    /// Puts an entry in, and returns the one that it replaces: of the same id, or of an older relay in the same slot.
    pub(crate) fn insert(&mut self, id: SocketId, entry: T) -> Option<T> {
        match id {
            SocketId::Sip => self.sip.replace(entry),
            SocketId::Turn(index) => slot(&mut self.turn, usize::from(index)).replace(entry),
            SocketId::Relay(relay) => slot(&mut self.relays, relay.0.index() as usize)
                .replace((id, entry))
                .map(|(_, old)| old),
        }
    }

    /// Takes the entry out. An old relay id finds nothing.
    pub(crate) fn remove(&mut self, id: SocketId) -> Option<T> {
        match id {
            SocketId::Sip => self.sip.take(),
            SocketId::Turn(index) => self.turn.get_mut(usize::from(index))?.take(),
            SocketId::Relay(relay) => self
                .relays
                .get_mut(relay.0.index() as usize)?
                .take_if(|(current, _)| *current == id)
                .map(|(_, entry)| entry),
        }
    }

    /// The entry. An old relay id finds nothing.
    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut T> {
        match id {
            SocketId::Sip => self.sip.as_mut(),
            SocketId::Turn(index) => self.turn.get_mut(usize::from(index))?.as_mut(),
            SocketId::Relay(relay) => match self.relays.get_mut(relay.0.index() as usize)? {
                Some((current, entry)) if *current == id => Some(entry),
                _ => None,
            },
        }
    }

    /// The id that a token stands for now.
    pub(crate) fn id(&self, token: Token) -> Option<SocketId> {
        match token.0 {
            SIP => Some(SocketId::Sip),
            TURN_FIRST..RELAY_FIRST => Some(SocketId::Turn((token.0 - TURN_FIRST) as u16)),
            _ => self.relays.get(token.0 - RELAY_FIRST)?.as_ref().map(|(id, _)| *id),
        }
    }
}

/// Names the slot of a socket to the kernel. It carries no generation: the kernel forgets a descriptor that is closed,
/// so a token can at worst point at the next relay of the slot, which then has nothing to read.
pub(crate) fn token(id: SocketId) -> Token {
    match id {
        SocketId::Sip => Token(SIP),
        SocketId::Turn(index) => Token(TURN_FIRST + usize::from(index)),
        SocketId::Relay(relay) => Token(RELAY_FIRST + relay.0.index() as usize),
    }
}

fn slot<T>(slots: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    &mut slots[index]
}

const SIP: usize = 0;
const TURN_FIRST: usize = 1;
const RELAY_FIRST: usize = TURN_FIRST + (1 << 16);

#[cfg(test)]
mod tests {
    use edgeward_core::action::{Key, RelayId};

    use super::*;

    fn relay(index: u32, generation: u32) -> SocketId {
        SocketId::Relay(RelayId(Key::from_parts(index, generation)))
    }

    #[test]
    fn an_old_relay_finds_nothing() {
        let mut table = Table::new();
        assert_eq!(table.insert(relay(3, 0), "old"), None);
        assert_eq!(table.insert(relay(3, 1), "new"), Some("old"));
        assert_eq!(table.get_mut(relay(3, 0)), None);
        assert_eq!(table.remove(relay(3, 0)), None);
        assert_eq!(table.get_mut(relay(3, 1)), Some(&mut "new"));
        assert_eq!(table.remove(relay(3, 1)), Some("new"));
        assert_eq!(table.get_mut(relay(3, 1)), None);
    }

    #[test]
    fn a_token_leads_back_to_its_socket() {
        let ids = [
            SocketId::Sip,
            SocketId::Turn(0),
            SocketId::Turn(u16::MAX),
            relay(0, 7),
            relay(99, 1),
        ];
        let mut table = Table::new();
        for id in ids {
            table.insert(id, id);
        }
        for id in ids {
            assert_eq!(table.id(token(id)), Some(id));
            assert_eq!(table.get_mut(id), Some(&mut id.clone()));
        }
        assert_eq!(table.id(token(relay(50, 0))), None);
    }
}
