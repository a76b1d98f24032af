//! How does a list that mostly has one item take no memory of its own?

use core::{
    mem,
    ops::{Deref, DerefMut},
};

/// A list whose only item stands in place: a packet finds it where it found the list.
#[derive(Debug)]
pub(super) enum Few<T> {
    One(T),
    /// None or several.
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// Puts an item before the one at `place`.
    ///
    /// # Panics
    /// When there are fewer items than `place`.
    pub(super) fn insert(&mut self, place: usize, item: T) {
        match self {
            Self::Many(items) if items.is_empty() => {
                assert_eq!(place, 0, "an empty list has one place");
                *self = Self::One(item);
            }
            Self::Many(items) => items.insert(place, item),
            Self::One(_) => {
                if let Self::One(only) = mem::take(self) {
                    let mut items = vec![only];
                    items.insert(place, item);
                    *self = Self::Many(items);
                }
            }
        }
    }

    /// Keeps the items that are `wanted`.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        match self {
            Self::One(only) if wanted(only) => {}
            Self::One(_) => *self = Self::default(),
            Self::Many(items) => items.retain(wanted),
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(items) => items.capacity() * size_of::<T>(),
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(only) => core::slice::from_ref(only),
            Self::Many(items) => items,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(only) => core::slice::from_mut(only),
            Self::Many(items) => items,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_list(steps in prop::collection::vec((any::<bool>(), any::<u8>(), any::<prop::sample::Index>()), 0..20)) {
            let (mut few, mut list) = (Few::default(), Vec::new());
            for (inserts, item, place) in steps {
                if inserts {
                    let place = place.index(list.len() + 1);
                    few.insert(place, item);
                    list.insert(place, item);
                } else {
                    few.retain(|other| other % 4 != item % 4);
                    list.retain(|other| other % 4 != item % 4);
                }
                prop_assert_eq!(&*few, list.as_slice());
            }
        }
    }
}
