use std::time::Duration;

/// The states of RFC 9293 section 3.3.2 that a socket can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// A SYN was sent.
    SynSent,
    /// A SYN was received, and answered.
    SynReceived,
    /// Data flows.
    Established,
    /// We have closed.
    FinWait1,
    /// We have closed, and the peer knows.
    FinWait2,
    /// The peer has closed.
    CloseWait,
    /// Both have closed at the same time.
    Closing,
    /// Both have closed, the peer first.
    LastAck,
    /// Both have closed; late segments die out.
    TimeWait,
    /// Over.
    Closed,
}

/// A snapshot of a connection, after Linux's `struct tcp_info`. Fields that a state does not have
/// are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// The state.
    pub state: TcpState,
    /// Payload bytes of a full-sized segment that we send.
    pub snd_mss: usize,
    /// The same for the peer, as seen from its segments.
    pub rcv_mss: usize,
    /// Congestion window, in bytes.
    pub snd_cwnd: usize,
    /// Slow-start threshold, in bytes; `usize::MAX` before the first loss.
    pub snd_ssthresh: usize,
    /// The window that the peer offers, in bytes.
    pub snd_wnd: usize,
    /// The window that we offer, in bytes.
    pub rcv_wnd: usize,
    /// Smoothed round-trip time; zero before the first sample.
    pub srtt: Duration,
    /// Its mean deviation.
    pub rttvar: Duration,
    /// Retransmission timeout, with its backoff.
    pub rto: Duration,
    /// Bytes sent and not acknowledged.
    pub bytes_in_flight: usize,
    /// Bytes in the send buffer: not sent, or not acknowledged.
    pub send_queue: usize,
    /// Bytes that can be taken.
    pub receive_queue: usize,
    /// Packet memory charged to the receive buffer, in bytes.
    pub receive_charged: usize,
    /// Segments sent again.
    pub retransmits: u64,
    /// Whether both ends use timestamps.
    pub timestamps: bool,
    /// The peer's window scale; 0 if either end does not scale.
    pub snd_wscale: u8,
    /// Our window scale; 0 if either end does not scale.
    pub rcv_wscale: u8,
}

impl TcpInfo {
    /// Of a socket without a connection.
    pub(crate) const CLOSED: Self = Self {
        state: TcpState::Closed,
        snd_mss: 0,
        rcv_mss: 0,
        snd_cwnd: 0,
        snd_ssthresh: 0,
        snd_wnd: 0,
        rcv_wnd: 0,
        srtt: Duration::ZERO,
        rttvar: Duration::ZERO,
        rto: Duration::ZERO,
        bytes_in_flight: 0,
        send_queue: 0,
        receive_queue: 0,
        receive_charged: 0,
        retransmits: 0,
        timestamps: false,
        snd_wscale: 0,
        rcv_wscale: 0,
    };
}
