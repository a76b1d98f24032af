//! Where do datagrams lie between receiving and sending? In buffers of the poller, not of its sockets.

use std::io::{self, IoSliceMut};

use arrayvec::ArrayVec;
use edgeward_core::action::{IpFields, Run};

use crate::sys::Meta;

/// Receive buffers, filled one behind the other until all are sent and given back at once.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: Box<[u8]>,
    /// What each filled buffer holds.
    metas: Vec<Meta>,
}

impl Arena {
    /// Memory that no datagram has touched costs nothing.
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFERS * STRIDE].into_boxed_slice(),
            metas: Vec::with_capacity(BUFFERS),
        }
    }

    /// Lends up to `limit` free buffers to `receive`, which appends what it filled; returns what it returned.
    pub(crate) fn fill(
        &mut self,
        limit: usize,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut Vec<Meta>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut buffers: ArrayVec<_, BATCH_MAX> = self.bytes[self.metas.len() * STRIDE..]
            .chunks_exact_mut(STRIDE)
            .take(limit.min(BATCH_MAX))
            .map(|buffer| IoSliceMut::new(&mut buffer[..RUN_BYTES_MAX]))
            .collect();
        receive(&mut buffers, &mut self.metas)
    }

    /// Gives all buffers back.
    pub(crate) fn clear(&mut self) {
        self.metas.clear();
    }

    /// How many buffers are free.
    pub(crate) fn free(&self) -> usize {
        BUFFERS - self.metas.len()
    }

    /// How many buffers are filled.
    pub(crate) fn filled(&self) -> usize {
        self.metas.len()
    }

    /// What is told about the buffers from `first` on.
    pub(crate) fn metas(&self, first: usize) -> &[Meta] {
        &self.metas[first..]
    }

    /// What the buffers from `first` on hold; at most one batch.
    pub(crate) fn runs(&self, first: usize) -> ArrayVec<Run<'_>, BATCH_MAX> {
        (first..)
            .zip(&self.metas[first..])
            .map(|(index, meta)| Run {
                peer: meta.peer,
                local: meta.local,
                fields: IpFields {
                    traffic_class: meta.traffic_class,
                    dont_fragment: false,
                },
                stride: meta.stride,
                bytes: self.bytes(index),
            })
            .collect()
    }

    /// The bytes in a filled buffer.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        &self.bytes[index * STRIDE..][..self.metas[index].len]
    }
}

/// Runs received by one call at most.
pub(crate) const BATCH_MAX: usize = 32;
/// Buffers of one poller.
const BUFFERS: usize = 3 * BATCH_MAX;
/// The largest run: what `UDP_GRO` merges fits a UDP payload.
const RUN_BYTES_MAX: usize = 65_535;
/// From one buffer to the next. Were it a power of two, the first bytes of all buffers, often all that is used of
/// them, would fight for the same few lines of the processor's cache.
const STRIDE: usize = 65_536 + 5 * 64;
