use std::collections::VecDeque;

use crate::{PacketBuffer, Segment};

/// Payload in order that the program has not taken, and the memory that the socket is charged with.
/// It outlives the connection: what arrived before a reset can still be read.
#[derive(Debug)]
pub(crate) struct ReceiveQueue<B> {
    segments: VecDeque<Segment<B>>,
    /// Bytes of payload in `segments`.
    available: usize,
    /// Truesize of what is in `segments`.
    queued: usize,
    /// Truesize of what was taken and not released.
    taken: usize,
}

impl<B: PacketBuffer> ReceiveQueue<B> {
    pub(crate) const fn new() -> Self {
        Self { segments: VecDeque::new(), available: 0, queued: 0, taken: 0 }
    }

    pub(crate) const fn available(&self) -> usize {
        self.available
    }

    pub(crate) const fn charged(&self) -> usize {
        self.queued + self.taken
    }

    pub(crate) fn push(&mut self, segment: Segment<B>) {
        self.available += segment.range.len();
        self.queued += segment.charge;
        self.segments.push_back(segment);
    }

    /// The first bytes of the queue: at most `max`, and of one segment.
    pub(crate) fn take(&mut self, max: usize) -> Option<Segment<B>> {
        let front = self.segments.front_mut()?;
        if max == 0 {
            return None;
        }
        if front.range.len() <= max {
            let segment = self.segments.pop_front()?;
            self.available -= segment.range.len();
            self.queued -= segment.charge;
            self.taken += segment.charge;
            return Some(segment);
        }
        let start = front.range.start;
        front.range.start += max;
        self.available -= max;
        Some(Segment {
            buffer: front.buffer.clone(),
            range: start..start + max,
            push: false,
            charge: 0,
        })
    }

    /// The memory of a segment that was taken is no longer needed.
    pub(crate) const fn release(&mut self, charge: usize) {
        // Saturating: a caller that releases twice gains nothing by it.
        self.taken = self.taken.saturating_sub(charge);
    }

    /// Throws away what was not taken, and forgets what was: nobody will release it.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::test_buffer::TestBuffer;

    fn segment(bytes: &[u8]) -> Segment<TestBuffer> {
        let buffer = TestBuffer::new(bytes.to_vec());
        Segment { range: 0..bytes.len(), charge: buffer.truesize(), buffer, push: true }
    }

    #[test]
    fn the_charge_comes_with_the_last_piece() {
        let mut queue = ReceiveQueue::new();
        queue.push(segment(b"hello"));
        queue.push(segment(b"world"));
        let truesize = queue.charged() / 2;
        assert_eq!(queue.available(), 10);
        assert_eq!(queue.take(0), None);

        let first = queue.take(2).expect("two bytes");
        assert_eq!((first.payload(), first.push, first.charge), (&b"he"[..], false, 0));
        let second = queue.take(100).expect("the rest of the segment");
        assert_eq!((second.payload(), second.push, second.charge), (&b"llo"[..], true, truesize));
        assert_eq!(queue.available(), 5);

        assert_eq!(queue.charged(), 2 * truesize);
        queue.release(second.charge);
        assert_eq!(queue.charged(), truesize);
        queue.release(truesize);
        assert_eq!(queue.charged(), truesize, "what is queued was not taken");
        queue.take(1);
        queue.clear();
        assert_eq!((queue.available(), queue.charged()), (0, 0));
    }
}
