//! Where does a thing with an id live? A table whose keys carry a generation, so that an old id never names a new thing.

/// Index and generation of an entry. A key outlives its entry harmlessly: it then finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Rebuilds a key that travelled through a token; a wrong one finds nothing.
    pub const fn from_parts(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The slot of the entry.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// How often the slot had been given away before.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// A table with stable, generation-checked keys and O(1) insertion, look-up and removal.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Option<u32>,
    len: usize,
}

/// What tells whether a key is good stands first, next to what is asked for most.
#[derive(Debug)]
#[repr(u32)]
enum Slot<T> {
    Occupied {
        generation: u32,
        value: T,
    },
    Vacant {
        generation: u32,
        /// The next free slot.
        next: Option<u32>,
    },
}

impl<T> Slab<T> {
    /// An empty table; it takes memory with the first entry.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: None,
            len: 0,
        }
    }

    /// Stores what `make` returns, which is told its own key.
    ///
    /// # Panics
    /// After 2^32 entries at once, which every limit of the configuration forbids.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.len += 1;
        let (index, generation) = match self.free {
            Some(index) => {
                let Slot::Vacant { generation, next } = self.slots[index as usize] else {
                    unreachable!("the free list holds vacant slots only")
                };
                self.free = next;
                (index, generation)
            }
            None => (u32::try_from(self.slots.len()).expect("fewer than 2^32 entries"), 0),
        };
        let key = Key::from_parts(index, generation);
        let value = make(key);
        let slot = Slot::Occupied { generation, value };
        match self.slots.get_mut(index as usize) {
            Some(vacant) => *vacant = slot,
            None => self.slots.push(slot),
        }
        key
    }

    /// Stores `value`.
    pub fn insert(&mut self, value: T) -> Key {
        self.insert_with(|_| value)
    }

    /// Takes the entry out; its key and all copies of it are dead from here on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if !matches!(slot, Slot::Occupied { generation, .. } if *generation == key.generation) {
            return None;
        }
        let vacant = Slot::Vacant {
            generation: key.generation.wrapping_add(1),
            next: self.free,
        };
        self.free = Some(key.index);
        self.len -= 1;
        match core::mem::replace(slot, vacant) {
            Slot::Occupied { value, .. } => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// The entry, mutable.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot::Occupied { generation, value }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The entry.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Occupied { generation, value }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many slots there are, free ones too.
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The entries in a range of slots, mutable, in their order.
    ///
    /// # Panics
    /// When the range ends behind the last slot.
    pub fn range_mut(&mut self, slots: core::ops::Range<usize>) -> impl Iterator<Item = (Key, &mut T)> {
        let start = slots.start;
        self.slots[slots]
            .iter_mut()
            .enumerate()
            .filter_map(move |(index, slot)| match slot {
                Slot::Occupied { generation, value } => {
                    Some((Key::from_parts((start + index) as u32, *generation), value))
                }
                Slot::Vacant { .. } => None,
            })
    }

    /// All entries in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Occupied { generation, value } => Some((Key::from_parts(index as u32, *generation), value)),
            Slot::Vacant { .. } => None,
        })
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_never_finds_a_new_entry() {
        let mut slab = Slab::new();
        let old = slab.insert("a");
        assert_eq!(slab.remove(old), Some("a"));
        let new = slab.insert("b");
        assert_eq!((old.index(), slab.get(old)), (new.index(), None));
        assert_eq!(slab.get(new), Some(&"b"));
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn freed_slots_are_used_again() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..8).map(|n| slab.insert(n)).collect();
        for key in &keys {
            slab.remove(*key);
        }
        let again: Vec<_> = (0..8).map(|n| slab.insert(n).index()).collect();
        assert_eq!(again.iter().max(), Some(&7));
        assert_eq!(slab.iter().count(), 8);
    }
}
