//! The sending half of a connection: what may be sent, what is sent again, and when.

use std::time::Duration;

use super::{
    congestion::{CongestionControl, Cubic, initial_window},
    recovery::{Reaction, Recovery},
    rtt::{INITIAL_RTO, RttEstimator},
    send_buffer::SendBuffer,
    seq::SeqNumber,
};
use crate::{Instant, TcpStatistics};

/// How long data is sent again without any answer before the connection is given up: what Linux's
/// `tcp_retries2` of 15 comes to with the shortest timeout.
const GIVE_UP: Duration = Duration::from_millis(924_600);
/// The same once the program has closed the socket: Linux's `tcp_orphan_retries` of 8.
const GIVE_UP_ORPHAN: Duration = Duration::from_millis(102_200);

/// The end of our stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    /// The program may send more.
    Open,
    /// It follows the bytes of the send buffer.
    Queued,
    /// The peer has acknowledged it.
    Acknowledged,
}

/// What the timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Idle,
    /// RFC 6298 section 5.
    Retransmit(Instant),
    /// The window is too small to send anything: RFC 9293 section 3.8.6.1.
    Persist(Instant),
}

/// What the persist timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    No,
    /// Tell the peer of urgent data, which may make it read; then as `Window`.
    Urgent,
    /// Make the peer say how large its window is.
    Window,
    /// Send what fits, however little: RFC 9293 section 3.8.6.2.1 (4).
    Override,
}

/// A piece of the stream to send: `len` bytes from `offset` of the send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) seq: SeqNumber,
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) fin: bool,
    pub(crate) push: bool,
}

/// An acknowledgment, with what else counts about its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledgment {
    pub(crate) seq: SeqNumber,
    pub(crate) ack: SeqNumber,
    /// The window in bytes.
    pub(crate) window: usize,
    /// The segment has neither data nor a FIN.
    pub(crate) pure: bool,
    /// The age of the timestamp that it echoes.
    pub(crate) echoed: Option<Duration>,
}

/// What an acknowledgment brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Bytes that left the send buffer.
    pub(crate) bytes: usize,
    /// Our FIN.
    pub(crate) fin: bool,
}

/// The peer does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

/// What the handshake tells the sender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderConfig {
    pub(crate) iss: SeqNumber,
    /// The peer's initial sequence number.
    pub(crate) irs: SeqNumber,
    /// The window that the peer offers, in bytes.
    pub(crate) window: usize,
    /// Payload of a full-sized segment, in bytes.
    pub(crate) mss: usize,
    pub(crate) buffer: usize,
    pub(crate) nodelay: bool,
    /// The SYN had to be sent more than once.
    pub(crate) syn_lost: bool,
    pub(crate) rtt: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sender {
    /// SND.UNA; the send buffer starts here.
    una: SeqNumber,
    /// SND.NXT. A retransmission timeout sets it back to `una` (go-back-N).
    nxt: SeqNumber,
    /// The highest that `nxt` has been.
    max: SeqNumber,
    /// SND.WND, SND.WL1 and SND.WL2.
    wnd: usize,
    wl1: SeqNumber,
    wl2: SeqNumber,
    /// The largest window that the peer has offered.
    max_wnd: usize,
    mss: usize,
    buffer: SendBuffer,
    fin: Fin,
    rtt: RttEstimator,
    congestion: Box<dyn CongestionControl>,
    recovery: Recovery,
    /// The first unacknowledged segment is to be sent again, whatever the windows say.
    retransmit: bool,
    probe: Probe,
    timer: Timer,
    /// When the timer expired first since the peer last answered.
    unanswered_since: Option<Instant>,
    last_sent: Instant,
    nodelay: bool,
    /// Where urgent data ends, until the peer has acknowledged it: Linux's `snd_up`.
    urgent: Option<SeqNumber>,
    /// The end of the last segment that was not full-sized (Minshall's variant of Nagle's algorithm:
    /// one small segment may be in flight, rather than none after any).
    small_end: SeqNumber,
    retransmits: u64,
}

impl Sender {
    pub(crate) fn new(now: Instant, config: SenderConfig) -> Self {
        let SenderConfig { iss, irs, window, mss, buffer, nodelay, syn_lost, rtt } = config;
        let una = iss + 1;
        let mut estimator =
            if syn_lost { RttEstimator::after_lost_syn() } else { RttEstimator::new() };
        if let Some(rtt) = rtt {
            estimator.sample(rtt);
        }
        // RFC 5681 section 3.1: after a lost SYN the initial window is one segment.
        let initial = if syn_lost { mss } else { initial_window(mss) };
        Self {
            una,
            nxt: una,
            max: una,
            wnd: window,
            wl1: irs,
            wl2: una,
            max_wnd: window,
            mss,
            buffer: SendBuffer::new(buffer),
            fin: Fin::Open,
            rtt: estimator,
            congestion: Box::new(Cubic::new(mss, initial)),
            recovery: Recovery::new(iss),
            retransmit: false,
            probe: Probe::No,
            timer: Timer::Idle,
            unanswered_since: None,
            last_sent: now,
            nodelay,
            urgent: None,
            small_end: una,
            retransmits: 0,
        }
    }

    pub(crate) const fn una(&self) -> SeqNumber {
        self.una
    }

    /// One more than the highest sequence number sent.
    pub(crate) const fn max(&self) -> SeqNumber {
        self.max
    }

    pub(crate) const fn mss(&self) -> usize {
        self.mss
    }

    pub(crate) const fn window(&self) -> usize {
        self.wnd
    }

    pub(crate) const fn max_window(&self) -> usize {
        self.max_wnd
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.max.saturating_offset_from(self.una)
    }

    pub(crate) const fn buffer(&self) -> &SendBuffer {
        &self.buffer
    }

    pub(crate) const fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    pub(crate) fn congestion(&self) -> &dyn CongestionControl {
        &*self.congestion
    }

    pub(crate) const fn retransmits(&self) -> u64 {
        self.retransmits
    }

    pub(crate) const fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }

    /// Takes as much of `data` as there is room for; returns how many bytes.
    pub(crate) fn push(&mut self, data: &[u8]) -> usize {
        self.buffer.push(data)
    }

    /// The last byte that was pushed is urgent.
    pub(crate) fn mark_urgent(&mut self) {
        self.urgent = Some(self.una + self.buffer.len()).filter(|_| !self.buffer.is_empty());
    }

    /// The peer has not acknowledged all urgent data.
    pub(crate) const fn is_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    /// The urgent pointer of a segment that begins at `seq`: the distance to the byte behind the
    /// urgent one (RFC 6093 section 2.1). As in Linux, if that is too far for the field, the pointer
    /// goes as far as it can once nothing sent lies beyond.
    pub(crate) fn urgent_pointer(&self, seq: SeqNumber) -> Option<u16> {
        const FAR: u16 = u16::MAX;
        let ahead = self.urgent.filter(|end| end.is_after(seq))?.saturating_offset_from(seq);
        match u16::try_from(ahead) {
            Ok(pointer) => Some(pointer),
            Err(_) => (seq + usize::from(FAR)).is_after(self.max).then_some(FAR),
        }
    }

    /// No more bytes follow those in the send buffer.
    pub(crate) fn close(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Queued;
        }
    }

    /// The sequence number of a segment without data: SND.NXT, but never beyond a window that the
    /// peer has shrunk, where it would not be acceptable.
    pub(crate) fn ack_seq(&self) -> SeqNumber {
        self.max.min(self.una + self.wnd).max(self.una)
    }

    /// Sequence number of a window probe: one that the peer has acknowledged, so that it is not
    /// acceptable and must be answered (RFC 9293 section 3.10.7.4). Linux does the same.
    pub(crate) fn take_window_probe(&mut self) -> Option<SeqNumber> {
        let (seq, next) = match self.probe {
            // An acceptable number, so that the urgent pointer is looked at.
            Probe::Urgent => (Some(self.una), Probe::Window),
            Probe::Window => (Some(self.una - 1), Probe::No),
            Probe::No | Probe::Override => (None, Probe::No),
        };
        self.probe = next;
        seq
    }

    /// An acknowledgment that is neither too old nor of something never sent.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        acknowledgment: Acknowledgment,
        statistics: &mut TcpStatistics,
    ) -> Acknowledged {
        let Acknowledgment { seq, ack, window, pure, echoed } = acknowledgment;
        if ack.is_before(self.una) {
            return Acknowledged::default();
        }
        let same_window = window == self.wnd;
        // RFC 9293 section 3.10.7.4, fifth: only a newer segment changes the window.
        if self.wl1.is_before(seq) || (self.wl1 == seq && !self.wl2.is_after(ack)) {
            self.wnd = window;
            self.wl1 = seq;
            self.wl2 = ack;
            self.max_wnd = self.max_wnd.max(window);
        }
        // RFC 9293 section 3.8.6.1: as long as the peer answers, its closed window is its right.
        if self.wnd == 0 || matches!(self.timer, Timer::Persist(_)) {
            self.unanswered_since = None;
        }
        if ack == self.una {
            if self.max != self.una && pure && same_window {
                self.on_duplicate_ack(statistics);
            }
            if self.wnd > 0 && matches!(self.timer, Timer::Persist(_)) {
                self.timer = Timer::Idle;
                self.rtt.end_backoff();
            }
            return Acknowledged::default();
        }

        let in_flight = self.in_flight();
        let acked = ack.saturating_offset_from(self.una);
        let bytes = acked.min(self.buffer.len());
        self.buffer.acknowledge(bytes);
        let fin = acked > bytes;
        if fin {
            self.fin = Fin::Acknowledged;
        }
        self.una = ack;
        self.urgent.take_if(|end| !end.is_after(ack));
        self.nxt = self.nxt.max(ack);
        self.small_end = self.small_end.max(ack);
        self.rtt.on_ack(now, ack, echoed);
        self.unanswered_since = None;
        self.retransmit = false;
        match self.recovery.on_new_ack(ack, acked, self.mss) {
            Reaction::Grow => {
                let window = self.congestion.window();
                let slow_start = window < self.congestion.threshold();
                // RFC 9438 section 5.8: a window that the sender does not use must not grow; in
                // slow start half of it is enough, since it doubles in each round trip.
                let used = if slow_start { 2 * in_flight } else { in_flight + self.mss };
                if used >= window {
                    self.congestion.on_ack(now, acked, self.rtt.srtt().unwrap_or(INITIAL_RTO));
                }
            }
            Reaction::Retransmit => self.retransmit = true,
            Reaction::EnterRecovery | Reaction::Nothing => {}
        }
        // RFC 6298 sections 5.2 and 5.3.
        if self.una == self.max {
            self.timer = Timer::Idle;
        } else if !self.recovery.keeps_timer() {
            self.timer = Timer::Retransmit(now + self.rtt.rto());
        }
        Acknowledged { bytes, fin }
    }

    /// RFC 5681 section 2 says which acknowledgment is a duplicate.
    fn on_duplicate_ack(&mut self, statistics: &mut TcpStatistics) {
        let in_flight = self.in_flight();
        match self.recovery.on_duplicate_ack(self.una, self.max, self.mss) {
            Reaction::EnterRecovery => {
                statistics.fast_retransmits += 1;
                self.congestion.on_loss(in_flight);
                self.retransmit = true;
            }
            Reaction::Retransmit | Reaction::Grow | Reaction::Nothing => {}
        }
    }

    /// The next piece to send, of at most `max` bytes; if there is one, it counts as sent.
    pub(crate) fn next_chunk(
        &mut self,
        now: Instant,
        max: usize,
        statistics: &mut TcpStatistics,
    ) -> Option<Chunk> {
        let chunk = if self.retransmit && self.una != self.max {
            self.first_unacknowledged(max)
        } else {
            if self.una == self.max && now - self.last_sent > self.rtt.rto() {
                self.congestion.on_idle();
            }
            let chunk = self.permitted(max);
            if chunk.is_none() {
                self.wait_for_window(now);
            }
            chunk?
        };
        let Chunk { seq, offset: _, len, fin, push: _ } = chunk;
        let end = seq + (len + usize::from(fin));
        if seq.is_before(self.max) {
            self.rtt.on_retransmit();
            self.retransmits += 1;
            statistics.retransmitted_segments += 1;
        } else {
            self.rtt.on_send(now, end);
        }
        if len % self.mss != 0 {
            self.small_end = self.small_end.max(end);
        }
        let resets = self.retransmit && !self.recovery.keeps_timer();
        if resets || !matches!(self.timer, Timer::Retransmit(_)) {
            self.timer = Timer::Retransmit(now + self.rtt.rto());
        }
        self.retransmit = false;
        self.probe = Probe::No;
        self.nxt = self.nxt.max(end);
        self.max = self.max.max(end);
        self.last_sent = now;
        Some(chunk)
    }

    /// The first segment of what is in flight.
    fn first_unacknowledged(&self, max: usize) -> Chunk {
        let in_flight = self.in_flight();
        let len = self.buffer.len().min(in_flight).min(self.mss).min(max);
        let fin = len == self.buffer.len() && in_flight > len;
        Chunk { seq: self.una, offset: 0, len, fin, push: len == self.buffer.len() }
    }

    /// What the windows, Nagle's algorithm and the avoidance of silly windows let through.
    fn permitted(&self, max: usize) -> Option<Chunk> {
        let offset = self.nxt.saturating_offset_from(self.una);
        let unsent = self.buffer.len().saturating_sub(offset);
        let fin_due = self.fin == Fin::Queued && offset <= self.buffer.len();
        let usable = (self.una + self.wnd).saturating_offset_from(self.nxt);
        let congestion =
            (self.congestion.window() + self.recovery.inflation(self.mss)).saturating_sub(offset);
        let again = self.nxt.is_before(self.max);

        let mut len = unsent.min(max).min(usable).min(congestion);
        let small = len % self.mss;
        if len < unsent {
            // Not everything fits: whole segments only. RFC 9293 section 3.8.6.2.1 (3): unless
            // the peer has so small a buffer that half of it is less than a segment.
            let half_window = len >= self.max_wnd.div_ceil(2) && len == usable && len > 0;
            if !half_window && self.probe != Probe::Override {
                len -= small;
            }
        } else if small > 0
            && !again
            && !self.nodelay
            && self.fin == Fin::Open
            && self.urgent.is_none()
        {
            // RFC 9293 section 3.7.4, Nagle's algorithm: the rest waits while a small segment is
            // unacknowledged.
            if self.small_end.is_after(self.una) {
                len -= small;
            }
        }
        let last = len == unsent;
        let fin = fin_due && last && usable > len;
        (len > 0 || fin).then_some(Chunk { seq: self.nxt, offset, len, fin, push: last })
    }

    /// Nothing can be sent. If nothing is in flight either, only the window can be the reason, and
    /// the acknowledgment that opens it may be lost.
    fn wait_for_window(&mut self, now: Instant) {
        let waiting = !self.buffer.is_empty() || self.fin == Fin::Queued;
        if waiting && self.una == self.max && self.timer == Timer::Idle {
            self.timer = Timer::Persist(now + self.rtt.rto());
        }
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        match self.timer {
            Timer::Idle => None,
            Timer::Retransmit(at) | Timer::Persist(at) => Some(at),
        }
    }

    /// Does what is due at `now`; `orphan`: the program has closed the socket.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        orphan: bool,
        statistics: &mut TcpStatistics,
    ) -> Result<(), GaveUp> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let patience = if orphan { GIVE_UP_ORPHAN } else { GIVE_UP };
        // What is not answered is what was sent last; a closed window, that from now on is asked for.
        let since = match self.timer {
            Timer::Retransmit(_) => self.last_sent,
            Timer::Persist(_) | Timer::Idle => now,
        };
        if now - *self.unanswered_since.get_or_insert(since) >= patience {
            return Err(GaveUp);
        }
        let in_flight = self.in_flight();
        self.rtt.back_off();
        if matches!(self.timer, Timer::Persist(_)) {
            self.probe = match self.urgent {
                _ if self.wnd > 0 => Probe::Override,
                Some(_) => Probe::Urgent,
                None => Probe::Window,
            };
            statistics.window_probes += 1;
            self.timer = Timer::Persist(now + self.rtt.rto());
            return Ok(());
        }
        statistics.retransmission_timeouts += 1;
        self.retransmit = true;
        // A peer that has closed its window on data in flight gets its first segment as a probe:
        // that is no congestion.
        if self.wnd > 0 {
            let first = self.recovery.on_timeout(self.max);
            self.congestion.on_timeout(in_flight, first);
            self.nxt = self.una;
        }
        self.timer = Timer::Retransmit(now + self.rtt.rto());
        Ok(())
    }

    /// The path takes segments of `mss` bytes of payload at most. What is in flight is sent again
    /// in that size; nothing was lost to congestion.
    pub(crate) fn reduce_mss(&mut self, mss: usize) {
        if mss < self.mss {
            self.mss = mss;
            self.congestion.set_mss(mss);
            self.nxt = self.una;
            self.retransmit = true;
        }
    }
}
