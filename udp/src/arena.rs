//! Where do datagrams lie between receiving and sending? In buffers lent by the poller, not by its sockets.

use std::io::IoSliceMut;

use arrayvec::ArrayVec;
use edgeward_core::action::Run;
use quinn_udp::RecvMeta;

/// Receive buffers, filled one behind the other until all are sent and given back at once.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: Box<[u8]>,
    /// What each filled buffer holds.
    metas: Vec<RecvMeta>,
}

impl Arena {
    /// Memory that no datagram has touched costs nothing.
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFERS * STRIDE].into_boxed_slice(),
            metas: Vec::with_capacity(BUFFERS),
        }
    }

    /// Lends up to `limit` free buffers to `receive`, which says how many it filled; returns what it returned.
    pub(crate) fn fill<E>(
        &mut self,
        limit: usize,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let first = self.metas.len();
        let mut buffers: ArrayVec<_, BATCH_MAX> = self.bytes[first * STRIDE..]
            .chunks_exact_mut(STRIDE)
            .take(limit.min(BATCH_MAX))
            .map(|buffer| IoSliceMut::new(&mut buffer[..RUN_BYTES_MAX]))
            .collect();
        self.metas.resize_with(first + buffers.len(), RecvMeta::default);
        let filled = receive(&mut buffers, &mut self.metas[first..]);
        self.metas.truncate(first + *filled.as_ref().unwrap_or(&0));
        filled
    }

    /// How many buffers are free.
    pub(crate) fn free(&self) -> usize {
        BUFFERS - self.metas.len()
    }

    /// How many buffers are filled.
    pub(crate) fn filled(&self) -> usize {
        self.metas.len()
    }

    /// What the buffers from `first` on hold; at most one batch.
    pub(crate) fn runs(&self, first: usize) -> ArrayVec<Run<'_>, BATCH_MAX> {
        let run = |(index, meta): (usize, &RecvMeta)| Run {
            peer: meta.addr,
            local: meta.dst_ip,
            stride: meta.stride,
            bytes: self.bytes(first + index),
        };
        self.metas[first..].iter().enumerate().map(run).collect()
    }

    /// The bytes in a filled buffer.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        &self.bytes[index * STRIDE..][..self.metas[index].len]
    }

    /// Gives all buffers back.
    pub(crate) fn clear(&mut self) {
        self.metas.clear();
    }
}

/// Runs received by one call at most.
pub(crate) const BATCH_MAX: usize = 32;
/// Buffers of one poller.
const BUFFERS: usize = 2 * BATCH_MAX;
/// The largest run: what `UDP_GRO` merges fits a UDP payload.
const RUN_BYTES_MAX: usize = 65_535;
/// From one buffer to the next. Were it a power of two, the first bytes of all buffers, often all that is used of
/// them, would fight for the same few lines of the processor's cache.
const STRIDE: usize = 65_536 + 5 * 64;
