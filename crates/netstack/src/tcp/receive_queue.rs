use std::collections::VecDeque;

use super::urgent::UrgentMark;
use crate::{Charge, PacketBuffer, Segment, charge::CutFrames};

/// Payload in order that the program has not taken, and the memory that the socket is charged with.
/// It outlives the connection: what arrived before a reset can still be read.
#[derive(Debug)]
pub(crate) struct ReceiveQueue<B> {
    segments: VecDeque<Segment<B>>,
    /// Bytes of payload in `segments`.
    available: usize,
    /// Truesize of what is in `segments`.
    queued: usize,
    /// Truesize of what was taken and not released. A frame is here when nothing of it is queued.
    taken: usize,
    cut_frames: CutFrames,
    /// How many bytes of the stream have left the queue: Linux's `copied_seq`, counted from the
    /// stream's start.
    read: u64,
    /// The urgent byte that the program has not read past.
    urgent: Option<UrgentMark>,
    /// Urgent bytes are read with the others (`SO_OOBINLINE`); otherwise they are left out.
    pub(crate) urgent_inline: bool,
}

impl<B: PacketBuffer> ReceiveQueue<B> {
    pub(crate) const fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            available: 0,
            queued: 0,
            taken: 0,
            cut_frames: CutFrames::new(),
            read: 0,
            urgent: None,
            urgent_inline: false,
        }
    }

    pub(crate) const fn available(&self) -> usize {
        self.available
    }

    pub(crate) const fn charged(&self) -> usize {
        self.queued + self.taken
    }

    /// The urgent byte, unless the program has read past it.
    pub(crate) const fn urgent(&self) -> Option<&UrgentMark> {
        self.urgent.as_ref()
    }

    pub(crate) const fn urgent_mut(&mut self) -> Option<&mut UrgentMark> {
        self.urgent.as_mut()
    }

    /// Whether the next byte of the stream is the urgent one.
    pub(crate) fn is_at_mark(&self) -> bool {
        self.urgent.is_some_and(|mark| mark.position() == self.read)
    }

    /// Whether the next byte is in the queue and is not one of the stream's, but urgent.
    fn is_at_hole(&self) -> bool {
        self.available > 0 && !self.urgent_inline && self.is_at_mark()
    }

    /// Bytes up to the mark, if it is ahead.
    pub(crate) fn until_mark(&self) -> Option<usize> {
        let mark = self.urgent.as_ref()?.position();
        let ahead = mark.checked_sub(self.read).filter(|ahead| *ahead > 0)?;
        Some(usize::try_from(ahead).unwrap_or(usize::MAX))
    }

    pub(crate) fn push(&mut self, segment: Segment<B>) {
        self.available += segment.range.len();
        self.queued += segment.charge.bytes;
        self.segments.push_back(segment);
    }

    /// The peer says that the byte `ahead` of all that has arrived in order is urgent; `true` if
    /// that is news.
    pub(crate) fn on_urgent_pointer(&mut self, ahead: usize) -> bool {
        let position = self.read + (self.available + ahead) as u64;
        if self.urgent.is_some_and(|mark| position <= mark.position()) {
            return false;
        }
        // As in Linux: who stands before an urgent byte when the next one is announced does not get
        // the old one as one of the stream's.
        if self.is_at_hole() {
            self.skip();
        }
        self.urgent = Some(UrgentMark::new(position));
        true
    }

    /// Looks for the urgent byte in a payload that begins `offset` bytes behind all that has
    /// arrived in order; `true` if it is there.
    pub(crate) fn look_for_urgent(&mut self, offset: i32, payload: &[u8]) -> bool {
        let end = self.read + self.available as u64;
        let start = end.cast_signed().saturating_add(offset.into());
        self.urgent.as_mut().is_some_and(|mark| mark.look(start, payload))
    }

    /// Leaves out the first byte.
    fn skip(&mut self) {
        if let Some(front) = self.segments.front_mut() {
            front.range.start += 1;
            self.available -= 1;
            self.read += 1;
            if front.range.is_empty()
                && let Some(Segment { charge, .. }) = self.segments.pop_front()
            {
                self.dequeue(&charge);
                self.release(charge);
            }
        }
        self.forget_passed_mark();
    }

    fn forget_passed_mark(&mut self) {
        self.urgent.take_if(|mark| mark.position() < self.read);
    }

    /// The first bytes of the queue: at most `max`, of one segment, and not across the urgent mark.
    /// An urgent byte that comes next is left out, unless it is read inline.
    pub(crate) fn take(&mut self, max: usize) -> Option<Segment<B>> {
        if max == 0 {
            return None;
        }
        if self.is_at_hole() {
            self.skip();
        }
        let max = self.until_mark().unwrap_or(usize::MAX).min(max);
        let front = self.segments.front_mut()?;
        let segment = if front.range.len() <= max {
            let segment = self.segments.pop_front()?;
            self.dequeue(&segment.charge);
            segment
        } else {
            let start = front.range.start;
            front.range.start += max;
            let buffer = front.buffer.clone();
            let charge = self.cut_frames.cut(&mut front.charge);
            Segment { buffer, range: start..start + max, push: false, charge }
        };
        self.available -= segment.range.len();
        self.read += segment.range.len() as u64;
        self.forget_passed_mark();
        Some(segment)
    }

    /// Nothing more of a frame is queued.
    const fn dequeue(&mut self, charge: &Charge) {
        self.queued -= charge.bytes;
        self.taken += charge.bytes;
    }

    /// What [`take`](Self::take) would give until it has given `max` bytes or comes to the urgent
    /// mark.
    pub(crate) fn peek(&self, max: usize) -> impl Iterator<Item = &[u8]> {
        let mut hole = usize::from(self.is_at_hole() && max > 0);
        let mut left = self.until_mark().unwrap_or(usize::MAX).min(max);
        self.segments.iter().map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let payload = &segment.payload()[std::mem::take(&mut hole)..];
            let piece = &payload[..payload.len().min(left)];
            left -= piece.len();
            Some(piece)
        })
    }

    /// A segment that was taken is no longer needed. Its memory is, while other pieces of the frame
    /// are queued or out.
    pub(crate) fn release(&mut self, charge: Charge) {
        // Saturating: a caller that mixes up two sockets gains nothing by it.
        self.taken = self.taken.saturating_sub(self.cut_frames.give_back(charge));
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
        Segment {
            range: 0..bytes.len(),
            charge: Charge::whole(buffer.truesize()),
            buffer,
            push: true,
        }
    }

    #[test]
    fn a_frame_is_charged_until_all_of_its_pieces_are_released() {
        for is_in_order in [true, false] {
            let mut queue = ReceiveQueue::new();
            queue.push(segment(b"hello"));
            queue.push(segment(b"world"));
            let truesize = queue.charged() / 2;
            assert_eq!(queue.available(), 10);
            assert_eq!(queue.take(0), None);

            let first = queue.take(2).expect("two bytes");
            assert_eq!((first.payload(), first.push), (&b"he"[..], false));
            let second = queue.take(1).expect("a byte");
            queue.release(second.charge);
            let third = queue.take(100).expect("the rest of the segment");
            assert_eq!((third.payload(), third.push), (&b"lo"[..], true));
            assert_eq!(queue.available(), 5);

            let (sooner, later) = if is_in_order { (first, third) } else { (third, first) };
            queue.release(sooner.charge);
            assert_eq!(queue.charged(), 2 * truesize);
            queue.release(later.charge);
            assert_eq!(queue.charged(), truesize);
            queue.release(Charge::whole(truesize));
            assert_eq!(queue.charged(), truesize, "what is queued was not taken");
            queue.take(1);
            queue.clear();
            assert_eq!((queue.available(), queue.charged()), (0, 0));
        }
    }

    fn take_all(queue: &mut ReceiveQueue<TestBuffer>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| queue.take(100)).map(|taken| taken.payload().to_vec()).collect()
    }

    fn peek(queue: &ReceiveQueue<TestBuffer>, max: usize) -> Vec<u8> {
        queue.peek(max).flatten().copied().collect()
    }

    /// A queue of "abc!" and "def", with the mark on the exclamation mark.
    fn marked() -> ReceiveQueue<TestBuffer> {
        let mut queue = ReceiveQueue::new();
        assert!(queue.on_urgent_pointer(3));
        assert!(queue.look_for_urgent(0, b"abc!"));
        queue.push(segment(b"abc!"));
        queue.push(segment(b"def"));
        queue
    }

    #[test]
    fn a_read_stops_at_the_mark_and_the_next_leaves_the_urgent_byte_out() {
        let mut queue = marked();
        let truesize = queue.charged() / 2;
        assert!(!queue.is_at_mark());
        assert_eq!(peek(&queue, 100), b"abc");
        let front = queue.take(100).expect("three bytes");
        assert_eq!(front.payload(), b"abc");
        assert!(queue.is_at_mark());
        assert_eq!(queue.take(0), None);
        assert!(queue.is_at_mark(), "nothing was asked for");
        assert_eq!(peek(&queue, 2), b"de");
        assert_eq!(queue.urgent().and_then(UrgentMark::byte), Some(b'!'));
        assert_eq!(queue.take(100).expect("three bytes").payload(), b"def");
        assert_eq!(queue.urgent(), None, "it was read past");
        assert_eq!(queue.charged(), 2 * truesize, "the urgent byte's frame has another piece");
        queue.release(front.charge);
        assert_eq!(queue.charged(), truesize);
    }

    #[test]
    fn inline_the_mark_stops_the_read_and_the_byte_comes_with_the_next() {
        let mut queue = marked();
        queue.urgent_inline = true;
        assert_eq!(queue.take(100).expect("three bytes").payload(), b"abc");
        assert!(queue.is_at_mark());
        assert_eq!(peek(&queue, 100), b"!def");
        assert_eq!(take_all(&mut queue), [&b"!"[..], b"def"]);
        assert_eq!(queue.urgent(), None);
    }

    #[test]
    fn a_later_mark_replaces_an_earlier_one() {
        let mut queue = marked();
        assert!(queue.on_urgent_pointer(2));
        assert!(!queue.on_urgent_pointer(1), "an earlier one is no news");
        queue.push(segment(b"gh?i"));
        // The old urgent byte is one of the stream's now.
        assert_eq!(take_all(&mut queue).concat(), b"abc!defghi");

        // Unless the program stands before it.
        let mut queue = marked();
        queue.take(3);
        assert!(queue.on_urgent_pointer(0));
        assert_eq!(take_all(&mut queue).concat(), b"def");
        assert!(queue.is_at_mark());
    }
}
