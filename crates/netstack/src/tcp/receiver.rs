//! The receiving half of a connection: what is accepted, what is acknowledged and when, and the
//! window that is offered.

use std::time::Duration;

use super::{out_of_order::OutOfOrder, receive_queue::ReceiveQueue, seq::SeqNumber};
use crate::{DropReason, Instant, PacketBuffer, Segment, TcpStatistics};

/// How long an acknowledgment may wait for more data or for an answer: Linux's `TCP_DELACK_MIN`
/// (RFC 9293 section 3.8.6.3: less than 0.5 s).
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// The peer's segment size before any was seen (RFC 9293 section 3.7.1).
const DEFAULT_MSS: usize = 536;

/// What came with a segment's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// There are more bytes in order than before.
    pub(crate) bytes: bool,
    /// The peer's stream is complete.
    pub(crate) end: bool,
}

/// Which acknowledgments are owed.
#[derive(Clone, Copy, Debug)]
struct Owed {
    /// One at once.
    now: bool,
    /// One for each segment that left a gap: the peer counts them (RFC 5681 section 4.2).
    duplicates: u16,
    /// One at that time.
    delayed: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Receiver<B> {
    /// RCV.NXT.
    next: SeqNumber,
    /// The right edge of the window that was offered last. It never moves to the left.
    edge: SeqNumber,
    /// The acknowledgment number that was sent last.
    acked: SeqNumber,
    /// The window's shift.
    scale: u8,
    /// The receive buffer in bytes of truesize.
    budget: usize,
    out_of_order: OutOfOrder<B>,
    /// Where the peer's stream ends, once its FIN has been seen, perhaps out of order.
    end: Option<SeqNumber>,
    /// The FIN was reached in order.
    ended: bool,
    /// The payload of a full-sized segment that we allow, in bytes.
    max_mss: usize,
    /// That of the peer's segments as seen, in bytes.
    mss: usize,
    owed: Owed,
}

impl<B: PacketBuffer> Receiver<B> {
    /// For a peer whose SYN had the number `irs`, when `window` bytes were offered to it.
    pub(crate) fn new(
        irs: SeqNumber,
        window: usize,
        scale: u8,
        budget: usize,
        max_mss: usize,
    ) -> Self {
        let next = irs + 1;
        Self {
            next,
            edge: next + window,
            acked: next,
            scale,
            budget,
            out_of_order: OutOfOrder::new(),
            end: None,
            ended: false,
            max_mss,
            mss: DEFAULT_MSS.min(max_mss),
            owed: Owed { now: false, duplicates: 0, delayed: None },
        }
    }

    pub(crate) const fn next(&self) -> SeqNumber {
        self.next
    }

    /// The peer's stream is complete.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) const fn last_ack_sent(&self) -> SeqNumber {
        self.acked
    }

    pub(crate) const fn mss(&self) -> usize {
        self.mss
    }

    pub(crate) const fn scale(&self) -> u8 {
        self.scale
    }

    pub(crate) const fn out_of_order_charged(&self) -> usize {
        self.out_of_order.charged()
    }

    /// Bytes that the peer may still send.
    pub(crate) const fn window(&self) -> usize {
        self.edge.saturating_offset_from(self.next)
    }

    /// RFC 9293 section 3.10.7.4, first: whether any of the `len` sequence numbers from `seq` on is
    /// in the window. As Linux, it takes what ends where the last acknowledgment was: with several
    /// segments on their way, that may be a valid acknowledgment. And a closed window still takes
    /// what begins at its edge, for its ACK, RST or FIN.
    pub(crate) fn is_acceptable(&self, seq: SeqNumber, len: usize) -> bool {
        !(seq + len).is_before(self.acked) && !seq.is_after(self.next + self.window())
    }

    /// Takes the payload of an acceptable segment into `queue`, or keeps it for later. `free` is the
    /// memory that no socket holds, here and below, in bytes of truesize.
    pub(crate) fn on_payload(
        &mut self,
        queue: &mut ReceiveQueue<B>,
        free: usize,
        mut seq: SeqNumber,
        mut segment: Segment<B>,
        mut fin: bool,
        statistics: &mut TcpStatistics,
    ) -> Result<Received, DropReason> {
        if segment.range.is_empty() && !fin {
            return Ok(Received::default());
        }
        // An estimate as Linux's tcp_measure_rcv_mss: a super-frame counts as full-sized segments.
        self.mss = self.mss.max(segment.range.len().min(self.max_mss));

        // Cut off what is known already, what is beyond the window, and beyond the stream's end.
        let known = self.next.saturating_offset_from(seq);
        if known >= segment.range.len() + usize::from(fin) || self.ended {
            // The peer sends it again, so an acknowledgment was lost.
            self.owed.now = true;
            return Err(DropReason::TcpOutsideWindow);
        }
        let known = known.min(segment.range.len());
        seq += known;
        segment.range.start += known;
        let limit = self.end.map_or(self.edge, |end| self.edge.min(end));
        let excess = (seq + segment.range.len()).saturating_offset_from(limit);
        if excess > 0 {
            fin = false;
            segment.range.end -= excess.min(segment.range.len());
            if segment.range.is_empty() {
                self.owed.now = true;
                return Err(DropReason::TcpOutsideWindow);
            }
        }
        if fin {
            // A second FIN elsewhere contradicts the first, which stays.
            self.end.get_or_insert_with(|| seq + segment.range.len());
            segment.push = true;
        }
        if seq == self.next {
            self.on_next(queue, free, segment, statistics)
        } else {
            self.on_gap(queue, free, seq, segment, statistics)
        }
    }

    /// The next bytes of the stream, perhaps none but its end.
    fn on_next(
        &mut self,
        queue: &mut ReceiveQueue<B>,
        free: usize,
        segment: Segment<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<Received, DropReason> {
        let mut received = Received::default();
        if !segment.range.is_empty() {
            self.make_room(queue, free, segment.charge.bytes, statistics).inspect_err(|_| {
                self.owed.now = true;
            })?;
        }
        // RFC 5681 section 4.2: what fills a gap is acknowledged at once.
        if !self.out_of_order.is_empty() {
            self.owed.now = true;
        }
        self.owed.duplicates = 0;
        let mut next = Some(segment).filter(|segment| !segment.range.is_empty());
        while let Some(segment) = next {
            let len = segment.range.len();
            self.next += len;
            statistics.bytes_received += len as u64;
            queue.push(segment);
            received.bytes = true;
            next = self.out_of_order.pop(self.next);
        }
        // Only a peer that contradicts itself has sent bytes beyond its end: they came before it.
        if self.end.is_some_and(|end| !self.next.is_before(end)) {
            self.next += 1;
            self.ended = true;
            self.owed.now = true;
            received.end = true;
        }
        Ok(received)
    }

    /// Makes sure that `charge` more bytes of truesize can be held, at the cost of what is out of
    /// order.
    fn make_room(
        &mut self,
        queue: &ReceiveQueue<B>,
        mut free: usize,
        charge: usize,
        statistics: &mut TcpStatistics,
    ) -> Result<(), DropReason> {
        loop {
            // Short segments hold more memory than the window says. Up to twice what was offered
            // the promise that the window made is kept.
            let held = queue.charged() + self.out_of_order.charged() + charge;
            if held <= 2 * self.share(free) && charge <= free {
                return Ok(());
            }
            let before = self.out_of_order.charged();
            match self.out_of_order.prune() {
                // One segment is always taken, else nothing would move.
                0 if queue.charged() == 0 => return Ok(()),
                0 if held > 2 * self.budget => return Err(DropReason::TcpReceiveBufferFull),
                0 => return Err(DropReason::TcpReceiveMemoryFull),
                pruned => statistics.out_of_order_pruned += pruned,
            }
            free += before - self.out_of_order.charged();
        }
    }

    /// Bytes after a gap, perhaps none but the stream's end.
    fn on_gap(
        &mut self,
        queue: &ReceiveQueue<B>,
        free: usize,
        seq: SeqNumber,
        segment: Segment<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<Received, DropReason> {
        // RFC 5681 section 4.2: at once, and for each.
        self.owed.duplicates = self.owed.duplicates.saturating_add(1);
        if !segment.range.is_empty() {
            let budget = self.share(free).saturating_sub(queue.charged());
            let pruned = self.out_of_order.insert(seq, segment, budget)?;
            statistics.out_of_order += 1;
            statistics.out_of_order_pruned += pruned;
        }
        Ok(Received::default())
    }

    /// Acknowledge at once.
    pub(crate) const fn owe_ack(&mut self) {
        self.owed.now = true;
    }

    /// Decides about the acknowledgment, once per batch of frames. `true`: send one now.
    pub(crate) fn is_ack_due(&mut self, now: Instant) -> bool {
        let Owed { now: at_once, duplicates, delayed } = &mut self.owed;
        let unacknowledged = self.next.saturating_offset_from(self.acked);
        // RFC 9293 section 3.8.6.3 (SHLD-19): at least every second full-sized segment.
        if *at_once || *duplicates > 0 || unacknowledged >= 2 * self.mss {
            return true;
        }
        if unacknowledged == 0 {
            return false;
        }
        delayed.get_or_insert(now + DELAYED_ACK);
        false
    }

    /// When the delayed acknowledgment is due.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.owed.delayed
    }

    /// Does what is due at `now`.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        let Owed { now: at_once, duplicates: _, delayed } = &mut self.owed;
        if delayed.is_some_and(|due| now >= due) {
            *delayed = None;
            *at_once = true;
        }
    }

    /// A segment is being sent that acknowledges everything; `pure` if it does nothing else.
    /// Returns its window field.
    pub(crate) fn on_ack_sent(&mut self, queue: &ReceiveQueue<B>, free: usize, pure: bool) -> u16 {
        let Owed { now, duplicates, delayed } = &mut self.owed;
        *now = false;
        *delayed = None;
        if pure {
            *duplicates = duplicates.saturating_sub(1);
        }
        self.acked = self.next;

        let offered = self.window();
        let offer = self.offer(queue, free);
        let field = if offer >= offered + self.worthwhile() {
            offer >> self.scale
        } else {
            // What was offered stays offered. Rounded up, as the right edge must not move left
            // (RFC 9293 section 3.8.6, SHLD-14).
            offered.div_ceil(1 << self.scale)
        };
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.edge = self.edge.max(self.next + (usize::from(field) << self.scale));
        field
    }

    /// Whether a program has released so much that the peer should hear about it without delay:
    /// Linux's rule, the window could be twice what it is.
    pub(crate) fn is_update_due(&self, queue: &ReceiveQueue<B>, free: usize) -> bool {
        let offered = self.window();
        let offer = self.offer(queue, free);
        !self.ended && offer >= 2 * offered && offer >= offered + self.worthwhile()
    }

    /// The truesize that this connection may hold: not more than it leaves to others. See
    /// [`ReceiveMemory`](super::receive_memory::ReceiveMemory).
    fn share(&self, free: usize) -> usize {
        self.budget.min(free)
    }

    /// The window that could be offered, in bytes, as the scaled field can express it.
    fn offer(&self, queue: &ReceiveQueue<B>, free: usize) -> usize {
        let unit = 1 << self.scale;
        let held = queue.charged() + self.out_of_order.charged();
        let offer = self.share(free).saturating_sub(held) / unit * unit;
        if queue.charged() > 0 {
            return offer;
        }
        // One segment is always taken. Rounded up, as many senders wait for room for a whole one.
        offer.max(self.max_mss.min(self.budget).next_multiple_of(unit))
    }

    /// By how much the window must grow to be announced: RFC 9293 section 3.8.6.2.2.
    fn worthwhile(&self) -> usize {
        self.max_mss.min(self.budget / 2)
    }
}
