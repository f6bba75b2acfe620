//! What a TCP sender may send, and when: the sequence space of one connection, without frames.

use std::time::Duration;

/// Without an acknowledgment for so long, what is in flight is sent again: Linux's `TCP_RTO_MIN`.
pub(super) const RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);

/// The next thing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The data frame of this number.
    Frame(u64),
    /// The stream's end.
    Fin,
}

/// A stream of whole frames, all of the same length, and its end. Offsets are 64 bits wide; only at
/// the door they become sequence numbers, which wrap.
#[derive(Debug)]
pub(super) struct Sender {
    /// The sequence number of the stream's first byte.
    first: u32,
    /// Payload of a frame in bytes.
    frame_len: u64,
    /// Frames of the stream.
    frames: u64,
    /// The next frame.
    next: u64,
    fin_sent: bool,
    /// Everything before this offset is acknowledged; one more than there are bytes with the FIN.
    acknowledged: u64,
    /// The window's right edge. It never moves to the left.
    edge: u64,
    /// When to send again.
    due: Duration,
    /// The next frame is sent although the window has no room: it asks for an acknowledgment.
    probes: bool,
    timeouts: u64,
}

impl Sender {
    /// The other end has accepted the connection and offers `window` bytes.
    pub(super) fn new(
        now: Duration,
        first: u32,
        frame_len: usize,
        frames: u64,
        window: u64,
    ) -> Self {
        Self {
            first,
            frame_len: frame_len as u64,
            frames,
            next: 0,
            fin_sent: false,
            acknowledged: 0,
            edge: window,
            due: now + RETRANSMISSION_TIMEOUT,
            probes: false,
            timeouts: 0,
        }
    }

    const fn len(&self) -> u64 {
        self.frames * self.frame_len
    }

    /// The sequence number of an offset in the stream.
    pub(super) const fn seq(&self, offset: u64) -> u32 {
        self.first.wrapping_add(offset as u32)
    }

    /// That of a frame's first byte.
    pub(super) const fn seq_of(&self, frame: u64) -> u32 {
        self.seq(frame * self.frame_len)
    }

    /// That behind the stream's last byte.
    pub(super) const fn seq_of_fin(&self) -> u32 {
        self.seq(self.len())
    }

    /// Whether this is the last frame.
    pub(super) const fn is_last(&self, frame: u64) -> bool {
        frame + 1 == self.frames
    }

    /// How often nothing was acknowledged in time.
    pub(super) const fn timeouts(&self) -> u64 {
        self.timeouts
    }

    /// Whether everything is acknowledged, the end too.
    pub(super) const fn is_done(&self) -> bool {
        self.acknowledged > self.len()
    }

    /// What can be sent; [`sent`](Self::sent) moves on.
    pub(super) const fn next(&self) -> Option<Next> {
        if self.next < self.frames {
            let fits = (self.next + 1) * self.frame_len <= self.edge;
            return if fits || self.probes { Some(Next::Frame(self.next)) } else { None };
        }
        if self.fin_sent { None } else { Some(Next::Fin) }
    }

    /// What [`next`](Self::next) says was sent.
    pub(super) const fn sent(&mut self) {
        self.probes = false;
        if self.next < self.frames {
            self.next += 1;
        } else {
            self.fin_sent = true;
        }
    }

    /// The other end acknowledges, and offers `window` bytes from there on. What the stream does not
    /// have cannot be acknowledged, and is ignored.
    pub(super) fn on_ack(&mut self, now: Duration, ack: u32, window: u64) {
        // Of the two distances around the circle the short one.
        let newly = ack.wrapping_sub(self.seq(self.acknowledged)).cast_signed();
        let Ok(newly) = u64::try_from(newly) else { return };
        let acknowledged = self.acknowledged + newly;
        if acknowledged > self.len() + 1 {
            return;
        }
        let edge = self.edge.max(acknowledged + window);
        if newly > 0 || edge > self.edge {
            self.due = now + RETRANSMISSION_TIMEOUT;
        }
        self.acknowledged = acknowledged;
        self.edge = edge;
        // Sent before a timeout, and acknowledged after it.
        self.next = self.next.max((acknowledged / self.frame_len).min(self.frames));
    }

    /// When [`on_time`](Self::on_time) has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (!self.is_done()).then_some(self.due)
    }

    /// Goes back to what is not acknowledged, if its time has come.
    pub(super) fn on_time(&mut self, now: Duration) {
        if self.is_done() || now < self.due {
            return;
        }
        self.due = now + RETRANSMISSION_TIMEOUT;
        self.timeouts += 1;
        self.next = (self.acknowledged / self.frame_len).min(self.frames);
        self.fin_sent = false;
        self.probes = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1);

    /// All that can be sent now.
    fn send(sender: &mut Sender) -> Vec<Next> {
        std::iter::from_fn(|| sender.next().inspect(|_| sender.sent())).collect()
    }

    #[test]
    fn it_fills_the_window_and_ends() {
        let mut sender = Sender::new(START, 100, 10, 4, 25);
        assert_eq!(send(&mut sender), [Next::Frame(0), Next::Frame(1)]);
        sender.on_ack(START, 120, 9);
        assert_eq!(send(&mut sender), []);
        sender.on_ack(START, 120, 20);
        assert_eq!(send(&mut sender), [Next::Frame(2), Next::Frame(3), Next::Fin]);
        assert!(sender.is_last(3) && !sender.is_last(2));
        sender.on_ack(START, sender.seq_of_fin(), 0);
        assert!(!sender.is_done());
        sender.on_ack(START, sender.seq_of_fin() + 1, 0);
        assert!(sender.is_done());
        assert_eq!((sender.deadline(), sender.timeouts()), (None, 0));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut sender = Sender::new(START, u32::MAX - 4, 1 << 30, 9, 1 << 30);
        for frame in 0..9_u64 {
            assert_eq!(send(&mut sender)[0], Next::Frame(frame));
            let end = sender.seq_of(frame + 1);
            assert_eq!(end, (u32::MAX - 4).wrapping_add((((frame + 1) << 30) % (1 << 32)) as u32));
            sender.on_ack(START, end, 1 << 30);
        }
        assert!(!sender.is_done());
        sender.on_ack(START, sender.seq_of_fin().wrapping_add(1), 0);
        assert!(sender.is_done());
    }

    #[test]
    fn old_and_impossible_acknowledgments_change_nothing() {
        let mut sender = Sender::new(START, 0, 10, 5, 20);
        assert_eq!(send(&mut sender).len(), 2);
        sender.on_ack(START, 20, 0);
        for wrong in [10, 19, 52, u32::MAX] {
            sender.on_ack(START, wrong, 1000);
            assert_eq!(send(&mut sender), [], "{wrong}");
        }
        sender.on_ack(START, 20, 10);
        assert_eq!(send(&mut sender), [Next::Frame(2)]);
    }

    #[test]
    fn what_is_not_acknowledged_in_time_is_sent_again() {
        let mut sender = Sender::new(START, 0, 10, 3, 30);
        assert_eq!(send(&mut sender).len(), 4);
        // Within the second frame.
        sender.on_ack(START, 13, 30);
        let due = sender.deadline().unwrap();
        sender.on_time(due - Duration::from_nanos(1));
        assert_eq!(send(&mut sender), []);
        sender.on_time(due);
        assert_eq!(send(&mut sender), [Next::Frame(1), Next::Frame(2), Next::Fin]);
        assert_eq!(sender.timeouts(), 1);
        // The acknowledgment comes after the next timeout, but before the frames go out again.
        sender.on_time(sender.deadline().unwrap());
        sender.on_ack(due, 30, 30);
        assert_eq!(send(&mut sender), [Next::Fin]);
        sender.on_ack(due, 31, 0);
        assert!(sender.is_done());
    }

    #[test]
    fn a_closed_window_is_probed_with_one_frame() {
        let mut sender = Sender::new(START, 0, 10, 3, 5);
        assert_eq!(send(&mut sender), []);
        sender.on_time(sender.deadline().unwrap());
        assert_eq!(send(&mut sender), [Next::Frame(0)]);
        // It took what there was room for.
        sender.on_ack(START, 5, 0);
        assert_eq!(send(&mut sender), []);
        sender.on_ack(START, 5, 25);
        assert_eq!(send(&mut sender), [Next::Frame(1), Next::Frame(2), Next::Fin]);
    }
}
