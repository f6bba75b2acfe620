use std::collections::VecDeque;

use super::seq::SeqNumber;
use crate::{DropReason, PacketBuffer, Segment};

/// Payload that came before what precedes it: sorted, no byte twice.
#[derive(Debug)]
pub(crate) struct OutOfOrder<B> {
    pieces: VecDeque<Piece<B>>,
    /// The truesize of all of them, in bytes.
    charged: usize,
}

#[derive(Debug)]
struct Piece<B> {
    seq: SeqNumber,
    segment: Segment<B>,
}

impl<B> Piece<B> {
    fn end(&self) -> SeqNumber {
        self.seq + self.segment.range.len()
    }

    /// Forgets the first `len` bytes.
    fn trim_front(&mut self, len: usize) {
        self.seq += len;
        self.segment.range.start += len;
    }
}

impl<B: PacketBuffer> OutOfOrder<B> {
    pub(crate) const fn new() -> Self {
        Self { pieces: VecDeque::new(), charged: 0 }
    }

    /// The memory that it holds, in bytes of truesize.
    pub(crate) const fn charged(&self) -> usize {
        self.charged
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Keeps what is new of `segment`, whose first byte is `seq`, with `budget` bytes of truesize
    /// at most in total. To make room, the pieces farthest from being deliverable are thrown away;
    /// returns how many were.
    pub(crate) fn insert(
        &mut self,
        seq: SeqNumber,
        segment: Segment<B>,
        budget: usize,
    ) -> Result<u64, DropReason> {
        let mut new = Piece { seq, segment };
        // Mostly it goes to the end: look from there. Bytes that pieces before it have are cut off;
        // `at` is where the rest belongs.
        let mut at =
            self.pieces.iter().rposition(|piece| !piece.seq.is_after(seq)).unwrap_or_default();
        while let Some(before) = self.pieces.get(at)
            && !before.seq.is_after(new.seq)
        {
            let known = before.end().saturating_offset_from(new.seq);
            new.trim_front(known.min(new.segment.range.len()));
            at += 1;
        }
        // Pieces that it covers entirely go; it keeps the bytes of one that it covers in part.
        let mut covered = 0;
        while let Some(after) = self.pieces.get(at + covered) {
            let overlap = new.end().saturating_offset_from(after.seq);
            if overlap < after.segment.range.len() {
                new.segment.range.end -= overlap.min(new.segment.range.len());
                break;
            }
            covered += 1;
        }
        if new.segment.range.is_empty() {
            return Err(DropReason::TcpOutOfOrderDuplicate);
        }
        for piece in self.pieces.drain(at..at + covered) {
            self.charged -= piece.segment.charge.bytes;
        }
        let mut pruned = 0;
        while self.charged + new.segment.charge.bytes > budget {
            if self.pieces.len() == at {
                return Err(DropReason::TcpOutOfOrderFull);
            }
            pruned += self.prune();
        }
        self.charged += new.segment.charge.bytes;
        self.pieces.insert(at, new);
        Ok(pruned)
    }

    /// Throws away the farthest piece; returns how many that were.
    pub(crate) fn prune(&mut self) -> u64 {
        match self.pieces.pop_back() {
            Some(piece) => {
                self.charged -= piece.segment.charge.bytes;
                1
            }
            None => 0,
        }
    }

    /// Takes the first piece if its bytes are next in the stream. What was received before
    /// `rcv_nxt` is cut off.
    pub(crate) fn pop(&mut self, rcv_nxt: SeqNumber) -> Option<Segment<B>> {
        loop {
            if self.pieces.front()?.seq.is_after(rcv_nxt) {
                return None;
            }
            let mut piece = self.pieces.pop_front()?;
            self.charged -= piece.segment.charge.bytes;
            let known = rcv_nxt.saturating_offset_from(piece.seq);
            piece.trim_front(known.min(piece.segment.range.len()));
            if !piece.segment.range.is_empty() {
                return Some(piece.segment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Charge, tcp::test_buffer::TestBuffer};
    use proptest::prelude::*;

    const BASE: SeqNumber = SeqNumber(u32::MAX - 20);

    /// Bytes `from..to` of a stream whose byte at `i` is `i`.
    fn piece(from: usize, to: usize) -> (SeqNumber, Segment<TestBuffer>) {
        let buffer = TestBuffer::new((from..to).map(|i| i as u8).collect());
        let segment =
            Segment { range: 0..to - from, buffer, push: false, charge: Charge::whole(10) };
        (BASE + from, segment)
    }

    fn insert(
        queue: &mut OutOfOrder<TestBuffer>,
        from: usize,
        to: usize,
    ) -> Result<u64, DropReason> {
        let (seq, segment) = piece(from, to);
        queue.insert(seq, segment, 1000)
    }

    fn drain(queue: &mut OutOfOrder<TestBuffer>, from: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(segment) = queue.pop(BASE + from + bytes.len()) {
            bytes.extend_from_slice(segment.payload());
        }
        bytes
    }

    #[test]
    fn gaps_hold_back() {
        let mut queue = OutOfOrder::new();
        insert(&mut queue, 10, 20).expect("new");
        insert(&mut queue, 30, 40).expect("new");
        assert_eq!(drain(&mut queue, 5), []);
        assert_eq!(drain(&mut queue, 12), (12..20).collect::<Vec<u8>>());
        assert_eq!(drain(&mut queue, 35), (35..40).collect::<Vec<u8>>());
        assert!(queue.is_empty() && queue.charged() == 0);
    }

    #[test]
    fn overlaps_are_stored_once() {
        let mut queue = OutOfOrder::new();
        insert(&mut queue, 10, 20).expect("new");
        assert_eq!(insert(&mut queue, 12, 18), Err(DropReason::TcpOutOfOrderDuplicate));
        assert_eq!(insert(&mut queue, 10, 20), Err(DropReason::TcpOutOfOrderDuplicate));
        insert(&mut queue, 15, 25).expect("five new bytes");
        insert(&mut queue, 5, 12).expect("five new bytes");
        insert(&mut queue, 0, 30).expect("covers all");
        assert_eq!(queue.pieces.len(), 1);
        assert_eq!(queue.charged(), 10);
        assert_eq!(drain(&mut queue, 0), (0..30).collect::<Vec<u8>>());
    }

    #[test]
    fn the_farthest_makes_room() {
        let mut queue = OutOfOrder::new();
        for at in [40, 20, 30] {
            let (seq, segment) = piece(at, at + 5);
            assert_eq!(queue.insert(seq, segment, 30), Ok(0));
        }
        let (seq, segment) = piece(50, 55);
        assert_eq!(queue.insert(seq, segment, 30), Err(DropReason::TcpOutOfOrderFull));
        let (seq, segment) = piece(10, 15);
        assert_eq!(queue.insert(seq, segment, 30), Ok(1));
        assert_eq!(queue.charged(), 30);
        assert_eq!(drain(&mut queue, 40), []);
    }

    proptest! {
        #[test]
        fn gives_back_exactly_what_came(
            pieces in proptest::collection::vec((0..100_usize, 1..40_usize), 1..40),
        ) {
            let mut queue = OutOfOrder::new();
            let mut model = [false; 140];
            for (from, len) in pieces {
                let new = model[from..from + len].iter().any(|&known| !known);
                let inserted = insert(&mut queue, from, from + len);
                prop_assert_eq!(inserted.is_ok(), new);
                model[from..from + len].fill(true);
                let ends: Vec<_> = queue.pieces.iter().map(|p| (p.seq, p.end())).collect();
                prop_assert!(ends.windows(2).all(|w| !w[1].0.is_before(w[0].1)));
                prop_assert_eq!(queue.charged(), 10 * queue.pieces.len());
            }
            let mut at = 0;
            while at < model.len() {
                let run = model[at..].iter().take_while(|&&known| known).count();
                let expected: Vec<u8> = (at..at + run).map(|i| i as u8).collect();
                prop_assert_eq!(drain(&mut queue, at), expected);
                at += run + 1;
            }
            prop_assert!(queue.is_empty());
        }
    }
}
