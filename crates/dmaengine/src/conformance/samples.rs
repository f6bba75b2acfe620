//! One small operation of each kind.

use std::ptr::NonNull;

use super::{client::Client, memory::Block, parity::Field};
use crate::{Flags, Operation, OperationKind, Segment, SegmentMut, SubmitError};

/// The coefficients of the sample of P and Q.
const COEFFICIENTS: [u8; 2] = [1, 2];
const PATTERN: u64 = 0x0123_4567_89ab_cdef;

/// Small operations of every kind, in any of a number of slots, each with targets of its own.
pub(super) struct Samples {
    /// Two sources, a copy of the first, zeros, and P and Q of the first two and of the first alone.
    sources: Block,
    targets: Block,
    len: usize,
    stride: usize,
}

impl Samples {
    /// Samples of about 64 bytes.
    pub(super) fn new(client: &Client, slots: usize) -> Self {
        Self::of_len(client, slots, client.fitting(64, 4))
    }

    pub(super) fn of_len(client: &Client, slots: usize, len: usize) -> Self {
        // A line between two targets shows what is written past one.
        let stride = client.aligned(len + 64);
        let mut sources = Block::random(client.arena(), 8 * stride, 5);
        let [first, second] = [0, stride].map(|at| sources.expected(at..at + len).to_vec());
        let field = Field::new();
        let p: Vec<u8> = first.iter().zip(&second).map(|(a, b)| a ^ b).collect();
        let [c, d] = COEFFICIENTS;
        let sum = |(&a, &b): (&u8, &u8)| field.multiply(c, a) ^ field.multiply(d, b);
        let q: Vec<u8> = first.iter().zip(&second).map(sum).collect();
        let single: Vec<u8> = first.iter().map(|&byte| field.multiply(c, byte)).collect();
        let rest = [&first, &vec![0; len], &p, &q, &first, &single];
        for (index, bytes) in rest.into_iter().enumerate() {
            sources.write((2 + index) * stride, bytes);
        }
        let targets = Block::new(client.arena(), 2 * slots * stride);
        Self { sources, targets, len, stride }
    }

    fn source(&self, index: usize) -> *mut u8 {
        self.sources.at(index * self.stride)
    }

    fn source_bytes(&self, index: usize) -> Vec<u8> {
        self.sources.expected(index * self.stride..index * self.stride + self.len).to_vec()
    }

    /// Submits the sample of `kind` in `slot`, tagged with the slot; what it took of the ring.
    ///
    /// Call [`check`](Self::check) when it has succeeded, and drop nothing before.
    #[track_caller]
    pub(super) fn submit(
        &mut self,
        client: &mut Client,
        kind: OperationKind,
        flags: Flags,
        slot: usize,
    ) -> Result<usize, SubmitError> {
        let len = self.len;
        let (at, second_at) = (2 * slot * self.stride, (2 * slot + 1) * self.stride);
        let (target, second) = (self.targets.at(at), self.targets.at(second_at));
        let (xor_count, pq_count) = (client.info().max_xor.min(2), client.info().max_pq.min(2));
        // The place in `sources` of P and Q of as many sources as the channel takes.
        let (p_at, q_at) = if pq_count == 2 { (4, 5) } else { (6, 7) };
        let sources = [self.source(0).cast_const(), self.source(1).cast_const()];
        let equal = [self.source(0).cast_const(), self.source(2).cast_const()];
        let zeros = [self.source(3).cast_const()];
        let half = (len / 2).next_multiple_of(client.info().alignment.get());
        let whole = len - half;
        // The second source's beginning, then the first one's, into two pieces the other way round.
        let from = [
            Segment { address: self.source(1), len: half },
            Segment { address: self.source(0), len: whole },
        ];
        let to =
            [SegmentMut { address: target, len: whole }, SegmentMut { address: second, len: half }];
        // Three pieces at most.
        let split = client.info().max_sg >= 2 && whole > 0 && client.info().ring_size >= 3;
        let (one_from, one_to) =
            ([Segment { address: self.source(0), len }], [SegmentMut { address: target, len }]);
        let operation = match kind {
            OperationKind::Memcpy => Operation::Memcpy { source: self.source(0), target, len },
            OperationKind::MemcpySg if split => {
                Operation::MemcpySg { sources: &from, targets: &to }
            }
            OperationKind::MemcpySg => Operation::MemcpySg { sources: &one_from, targets: &one_to },
            OperationKind::Memset => Operation::Memset { pattern: PATTERN, target, len },
            OperationKind::Xor => Operation::Xor { sources: &sources[..xor_count], target, len },
            OperationKind::XorVal if xor_count == 2 => Operation::XorVal { sources: &equal, len },
            OperationKind::XorVal => Operation::XorVal { sources: &zeros, len },
            OperationKind::Pq => Operation::Pq {
                sources: &sources[..pq_count],
                coefficients: &COEFFICIENTS[..pq_count],
                p: NonNull::new(target),
                q: NonNull::new(second),
                len,
            },
            OperationKind::PqVal => Operation::PqVal {
                sources: &sources[..pq_count],
                coefficients: &COEFFICIENTS[..pq_count],
                p: NonNull::new(self.source(p_at)),
                q: NonNull::new(self.source(q_at)),
                len,
            },
        };
        // SAFETY: all of it lies in the blocks, which the caller keeps until it has ended; nobody
        // writes the sources, and the slot is this operation's.
        let taken = unsafe { client.try_submit(&operation, flags, slot) }?;
        let first = self.source_bytes(0);
        match kind {
            OperationKind::Memcpy => self.targets.expect(at, &first),
            OperationKind::MemcpySg if split => {
                let bytes = [&self.source_bytes(1)[..half], &first[..whole]].concat();
                self.targets.expect(at, &bytes[..whole]);
                self.targets.expect(second_at, &bytes[whole..]);
            }
            OperationKind::MemcpySg => self.targets.expect(at, &first),
            OperationKind::Memset => {
                let pattern = PATTERN.to_le_bytes().into_iter();
                self.targets.expect(at, &pattern.cycle().take(len).collect::<Vec<_>>());
            }
            OperationKind::Xor => {
                let parity = if xor_count == 2 { self.source_bytes(4) } else { first };
                self.targets.expect(at, &parity);
            }
            OperationKind::Pq => {
                let (p, q) = (self.source_bytes(p_at), self.source_bytes(q_at));
                self.targets.expect(at, &p);
                self.targets.expect(second_at, &q);
            }
            OperationKind::XorVal | OperationKind::PqVal => {}
        }
        Ok(taken)
    }

    /// All operations submitted have succeeded: every byte must be as they were to leave it.
    #[track_caller]
    pub(super) fn check(&self, what: &str) {
        self.sources.check(what);
        self.targets.check(what);
    }

    /// As [`check`](Self::check), of one slot.
    #[track_caller]
    pub(super) fn check_slot(&self, slot: usize, what: &str) {
        let stride = self.stride;
        self.targets.check_range(2 * slot * stride..2 * (slot + 1) * stride, what);
    }

    /// The operation in `slot` is not to happen.
    pub(super) fn expect_nothing(&mut self, slot: usize) {
        self.targets.forget(2 * slot * self.stride..2 * (slot + 1) * self.stride);
    }

    /// Makes a slot's targets untouched again.
    pub(super) fn clear(&mut self, slot: usize) {
        self.targets.clear(2 * slot * self.stride..2 * (slot + 1) * self.stride);
    }
}

/// The kinds of operations that the channel declares.
pub(super) fn declared(client: &Client) -> Vec<OperationKind> {
    OperationKind::ALL.into_iter().filter(|&kind| client.can(kind)).collect()
}
