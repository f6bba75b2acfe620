//! A connection after its handshake, until both ends have closed: RFC 9293 section 3.10.7.4 with
//! RFC 5961's and RFC 7323's additions.

use super::{
    ConnectionError,
    endpoints::Endpoints,
    handshake::Negotiated,
    rate_limit::ChallengeLimit,
    receive_queue::ReceiveQueue,
    receiver::Receiver,
    segment::{Incoming, Reply},
    sender::{Acknowledged, Acknowledgment, Chunk, GaveUp, Sender, SenderConfig},
    state::{Next, Synchronized},
    time_wait::TimeWait,
    timestamps::Timestamping,
};
use crate::{
    Charge, DropReason, Instant, PacketBuffer, Segment, TcpConfig, TcpStatistics,
    wire::tcp::{Flags, Header, Options},
};

/// How long a connection whose program has closed waits for the peer to close, too: Linux's
/// `tcp_fin_timeout`.
const FIN_WAIT_2: std::time::Duration = std::time::Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection<B> {
    state: Synchronized,
    sender: Sender,
    receiver: Receiver<B>,
    /// The shift of the windows that the peer sends.
    peer_scale: u8,
    timestamps: Option<Timestamping>,
    challenge: ChallengeLimit,
    /// The program has closed the socket.
    orphan: bool,
    /// The program receives no more.
    receive_shut_down: bool,
    /// When an orphan in FIN-WAIT-2 is given up.
    fin_wait_deadline: Option<Instant>,
}

/// What a segment or a timeout has brought.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// More bytes can be taken.
    pub(crate) readable: bool,
    /// Urgent data was announced, or has arrived.
    pub(crate) urgent: bool,
    /// The peer's stream is complete.
    pub(crate) peer_closed: bool,
    /// There is more room in the send buffer.
    pub(crate) acknowledged: bool,
    pub(crate) end: Option<End>,
}

/// A connection's end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    TimeWait,
    /// In order: the peer has acknowledged our FIN after its own.
    Closed,
    Failed(ConnectionError),
    /// Nobody can take what the peer sends: tell it.
    Reset(Reply),
}

/// What a frame has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    /// One segment, of the size that both ends and the path allow.
    Segment,
    /// As many bytes of header and payload, which the link cuts.
    SuperFrame(usize),
}

/// What a connection writes into a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: Header,
    /// From where in the send buffer the payload comes.
    pub(crate) offset: usize,
    /// Bytes of payload.
    pub(crate) len: usize,
}

impl<B: PacketBuffer> Connection<B> {
    pub(crate) fn new(
        now: Instant,
        negotiated: &Negotiated,
        config: &TcpConfig,
        nodelay: bool,
    ) -> Self {
        let Negotiated { iss, irs, offer, options, window, syn_lost, rtt } = *negotiated;
        let (peer_scale, scale) = negotiated.scales();
        let (mss, max_mss) = negotiated.segment_sizes();
        let buffer = config.send_buffer;
        Self {
            state: Synchronized::Established,
            sender: Sender::new(
                now,
                SenderConfig { iss, irs, window, mss, buffer, nodelay, syn_lost, rtt },
            ),
            receiver: Receiver::new(
                irs,
                usize::from(offer.window),
                scale,
                config.receive_buffer,
                max_mss,
            ),
            peer_scale,
            timestamps: options.timestamps.map(|timestamps| Timestamping {
                clock: offer.clock,
                recent: timestamps.value,
                recent_at: now,
            }),
            challenge: ChallengeLimit::default(),
            orphan: false,
            receive_shut_down: false,
            fin_wait_deadline: None,
        }
    }

    pub(crate) const fn state(&self) -> Synchronized {
        self.state
    }

    pub(crate) const fn sender(&self) -> &Sender {
        &self.sender
    }

    pub(crate) const fn sender_mut(&mut self) -> &mut Sender {
        &mut self.sender
    }

    pub(crate) const fn receiver(&self) -> &Receiver<B> {
        &self.receiver
    }

    pub(crate) const fn peer_scale(&self) -> u8 {
        self.peer_scale
    }

    pub(crate) const fn has_timestamps(&self) -> bool {
        self.timestamps.is_some()
    }

    /// Owes an acknowledgment at once.
    pub(crate) const fn owe_ack(&mut self) {
        self.receiver.owe_ack();
    }

    /// Processes a segment. If it is dropped, an acknowledgment may be owed nevertheless. `free` is
    /// the memory that no socket holds, here and below.
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        queue: &mut ReceiveQueue<B>,
        free: usize,
        segment: Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<Effects, DropReason> {
        self.check(now, &segment, statistics)?;
        if segment.has(Flags::RST) {
            return self.on_reset(now, &segment, statistics);
        }
        if segment.has(Flags::SYN) {
            // RFC 5961 section 4.2: "send a challenge ACK, and drop".
            self.challenge(now, statistics);
            return Err(DropReason::TcpUnexpectedSyn);
        }
        if !segment.has(Flags::ACK) {
            return Err(DropReason::TcpUnexpectedFlags);
        }
        let acknowledged = self.on_ack(now, &segment, statistics)?;
        let mut effects = Effects { acknowledged: acknowledged.bytes > 0, ..Effects::default() };
        if acknowledged.fin {
            self.advance(now, self.state.on_fin_acknowledged(), &mut effects);
        }
        if effects.end.is_some() {
            return Ok(effects);
        }
        effects.urgent = self.on_urgent(queue, &segment);
        self.on_text(now, queue, free, segment, statistics, effects)
    }

    /// RFC 9293 section 3.10.7.4, first: the sequence number; before that RFC 7323's PAWS.
    fn check(
        &mut self,
        now: Instant,
        segment: &Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<(), DropReason> {
        let Header { seq, flags, options, .. } = segment.header;
        let reset = flags.contains(Flags::RST);
        if let (Some(timestamps), false) = (&self.timestamps, reset) {
            let Some(theirs) = options.timestamps else {
                // RFC 7323 section 3.2: "If a non-<RST> segment is received without a TSopt, a TCP
                // SHOULD silently drop the segment."
                return Err(DropReason::TcpPaws);
            };
            if timestamps.is_old(now, theirs.value) {
                // RFC 7323 section 5.3 R1: "Send an acknowledgment in reply".
                self.answer_unacceptable(now, segment, statistics);
                return Err(DropReason::TcpPaws);
            }
        }
        if self.receiver.is_acceptable(seq, segment.len()) {
            return Ok(());
        }
        if reset {
            return Err(DropReason::TcpBadReset);
        }
        self.answer_unacceptable(now, segment, statistics);
        Err(DropReason::TcpOutsideWindow)
    }

    /// "If an incoming segment is not acceptable, an acknowledgment should be sent in reply." Data
    /// cannot be part of a loop of such acknowledgments, so it is always answered.
    fn answer_unacceptable(
        &mut self,
        now: Instant,
        segment: &Incoming<B>,
        statistics: &mut TcpStatistics,
    ) {
        if segment.payload.is_empty() && !segment.has(Flags::FIN) {
            self.challenge(now, statistics);
        } else {
            self.receiver.owe_ack();
        }
    }

    /// RFC 5961: an acknowledgment that makes an honest peer say what it really means.
    fn challenge(&mut self, now: Instant, statistics: &mut TcpStatistics) {
        if self.challenge.permits(now) {
            statistics.challenge_acks += 1;
            self.receiver.owe_ack();
        }
    }

    /// RFC 5961 section 3.2.
    fn on_reset(
        &mut self,
        now: Instant,
        segment: &Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<Effects, DropReason> {
        if segment.header.seq != self.receiver.next() {
            self.challenge(now, statistics);
            return Err(DropReason::TcpBadReset);
        }
        statistics.resets_received += 1;
        // As Linux's tcp_reset() says it.
        let error = match self.state {
            Synchronized::CloseWait => ConnectionError::BrokenPipe,
            _ => ConnectionError::Reset,
        };
        let end = End::Failed(error);
        Ok(Effects { end: Some(end), ..Effects::default() })
    }

    /// RFC 9293 section 3.10.7.4, fifth.
    fn on_ack(
        &mut self,
        now: Instant,
        segment: &Incoming<B>,
        statistics: &mut TcpStatistics,
    ) -> Result<Acknowledged, DropReason> {
        let Header { seq, ack, window, options, .. } = segment.header;
        // RFC 5961 section 5.2: acceptable is "((SND.UNA - MAX.SND.WND) <= SEG.ACK <= SND.NXT)".
        let oldest = self.sender.una() - self.sender.max_window();
        if ack.is_after(self.sender.max()) || ack.is_before(oldest) {
            self.challenge(now, statistics);
            return Err(DropReason::TcpBadAck);
        }
        let mut echoed = None;
        if let Some((timestamps, theirs)) = self.timestamps.as_mut().zip(options.timestamps) {
            timestamps.on_segment(now, theirs.value, seq, self.receiver.last_ack_sent());
            echoed = timestamps.clock.age(now, theirs.echo);
        }
        let acknowledgment = Acknowledgment {
            seq,
            ack,
            window: usize::from(window) << self.peer_scale,
            pure: segment.len() == 0,
            echoed,
        };
        Ok(self.sender.on_ack(now, acknowledgment, statistics))
    }

    /// RFC 9293 section 3.10.7.4, sixth: the URG bit. As in Linux's `tcp_urg`, the urgent byte is
    /// noticed as soon as it is there, also in a segment that is out of order.
    fn on_urgent(&self, queue: &mut ReceiveQueue<B>, segment: &Incoming<B>) -> bool {
        if self.receiver.has_ended() {
            return false;
        }
        let Header { seq, urgent, .. } = segment.header;
        let next = self.receiver.next();
        let mut news = false;
        if segment.has(Flags::URG) {
            // It points behind the urgent byte. What is already in order is not announced again.
            let mark = seq + usize::from(urgent.saturating_sub(1));
            if !mark.is_before(next) {
                news = queue.on_urgent_pointer(mark.saturating_offset_from(next));
            }
        }
        let payload = segment.buffer.as_ref().get(segment.payload.clone()).unwrap_or_default();
        news | queue.look_for_urgent(seq.offset_from(next), payload)
    }

    /// RFC 9293 section 3.10.7.4, seventh and eighth: the text and the FIN.
    fn on_text(
        &mut self,
        now: Instant,
        queue: &mut ReceiveQueue<B>,
        free: usize,
        segment: Incoming<B>,
        statistics: &mut TcpStatistics,
        mut effects: Effects,
    ) -> Result<Effects, DropReason> {
        let fin = segment.has(Flags::FIN);
        let Incoming { endpoints, header, buffer, payload } = segment;
        let end = header.seq + payload.len();
        // As Linux: a program that has shut down both directions need not have closed the socket.
        let is_closed = self.orphan || (self.receive_shut_down && self.state.awaits_fin());
        if is_closed && !payload.is_empty() && end.is_after(self.receiver.next()) {
            // RFC 1122 section 4.2.2.13: "it SHOULD send a RST to show that data was lost".
            effects.end = Some(End::Reset(self.reset(endpoints)));
            return Ok(effects);
        }
        let segment = Segment {
            charge: Charge::whole(buffer.truesize()),
            range: payload,
            push: header.flags.contains(Flags::PSH),
            buffer,
        };
        let received = self.receiver.on_payload(queue, free, header.seq, segment, fin, statistics);
        let received = match received {
            Ok(received) => received,
            // What the acknowledgment brought counts nevertheless.
            Err(_) if effects.acknowledged => return Ok(effects),
            Err(reason) => return Err(reason),
        };
        effects.readable = received.bytes;
        if received.end {
            effects.peer_closed = true;
            self.advance(now, self.state.on_fin(), &mut effects);
        }
        Ok(effects)
    }

    fn advance(&mut self, now: Instant, next: Next, effects: &mut Effects) {
        match next {
            Next::State(state) => {
                self.state = state;
                self.limit_fin_wait(now);
            }
            Next::TimeWait => effects.end = Some(End::TimeWait),
            Next::Closed => effects.end = Some(End::Closed),
        }
    }

    fn limit_fin_wait(&mut self, now: Instant) {
        self.fin_wait_deadline = match self.state {
            Synchronized::FinWait2 if self.orphan => Some(now + FIN_WAIT_2),
            _ => None,
        };
    }

    /// The program sends nothing more.
    pub(crate) fn close(&mut self) {
        self.state = self.state.on_close();
        self.sender.close();
    }

    /// The program receives no more.
    pub(crate) const fn shut_down_receive(&mut self) {
        self.receive_shut_down = true;
    }

    /// The program is gone.
    pub(crate) fn disown(&mut self, now: Instant) {
        self.orphan = true;
        self.limit_fin_wait(now);
    }

    /// The program has released packet memory. `true` if the peer is to hear about it.
    pub(crate) fn on_release(&mut self, queue: &ReceiveQueue<B>, free: usize) -> bool {
        let due = self.receiver.is_update_due(queue, free);
        if due {
            self.receiver.owe_ack();
        }
        due
    }

    /// The reset that ends the connection: RFC 9293 section 3.10.5.
    pub(crate) fn reset(&self, endpoints: Endpoints) -> Reply {
        Reply {
            endpoints,
            seq: self.sender.ack_seq(),
            ack: Some(self.receiver.next()),
            rst: true,
            window: 0,
            timestamps: None,
        }
    }

    /// What is left of the connection in TIME-WAIT.
    pub(crate) fn time_wait(
        &mut self,
        now: Instant,
        queue: &ReceiveQueue<B>,
        free: usize,
        config: &TcpConfig,
    ) -> TimeWait {
        // Of the FIN that has led here, or of what came with our FIN's acknowledgment.
        let owes_ack = self.receiver.is_ack_due(now);
        TimeWait {
            send_next: self.sender.max(),
            receive_next: self.receiver.next(),
            timestamps: self.timestamps,
            wait: config.time_wait,
            deadline: now + config.time_wait,
            limit: self.challenge,
            window: self.receiver.on_ack_sent(queue, free, true),
            owes_ack,
        }
    }

    /// The next segment; if there is one, it counts as sent.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        endpoints: Endpoints,
        queue: &ReceiveQueue<B>,
        free: usize,
        room: Room,
        statistics: &mut TcpStatistics,
    ) -> Option<Outgoing> {
        let options = Options {
            timestamps: self.timestamps.as_ref().map(|timestamps| timestamps.option(now)),
            ..Options::default()
        };
        let mut header = Header {
            source_port: endpoints.local_port,
            destination_port: endpoints.remote.port(),
            seq: self.sender.max(),
            ack: self.receiver.next(),
            flags: Flags::ACK,
            window: 0,
            urgent: 0,
            options,
        };
        let mss = self.sender.mss();
        let max = match room {
            // What a link cuts has one urgent pointer.
            Room::SuperFrame(_) if self.sender.is_urgent() => mss,
            Room::Segment => mss,
            // Whole segments: what it is cut into.
            Room::SuperFrame(len) => (len - header.len()) / mss * mss,
        };
        let mut outgoing = if let Some(chunk) = self.sender.next_chunk(now, max, statistics) {
            let Chunk { seq, offset, len, fin, push } = chunk;
            header.seq = seq;
            header.flags.set(Flags::FIN, fin);
            header.flags.set(Flags::PSH, push && len > 0);
            statistics.bytes_sent += len as u64;
            Outgoing { header, offset, len }
        } else if let Some(seq) = self.sender.take_window_probe() {
            header.seq = seq;
            Outgoing { header, offset: 0, len: 0 }
        } else if self.receiver.is_ack_due(now) {
            header.seq = self.sender.ack_seq();
            statistics.acks_sent += 1;
            Outgoing { header, offset: 0, len: 0 }
        } else {
            return None;
        };
        if let Some(urgent) = self.sender.urgent_pointer(outgoing.header.seq) {
            outgoing.header.flags |= Flags::URG;
            outgoing.header.urgent = urgent;
        }
        let pure = outgoing.len == 0;
        outgoing.header.window = self.receiver.on_ack_sent(queue, free, pure);
        Some(outgoing)
    }

    /// When [`on_timeout`](Self::on_timeout) must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.sender.deadline(), self.receiver.deadline(), self.fin_wait_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now`.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        statistics: &mut TcpStatistics,
    ) -> Option<End> {
        self.receiver.on_timeout(now);
        if self.fin_wait_deadline.is_some_and(|deadline| now >= deadline) {
            return Some(End::Closed);
        }
        if let Err(GaveUp) = self.sender.on_timeout(now, self.orphan, statistics) {
            statistics.timeouts += 1;
            return Some(End::Failed(ConnectionError::TimedOut));
        }
        None
    }
}
