//! What a loss costs: the sender's reaction, read off the trace.

use std::time::Duration;

use netstack::{Instant, SocketId, TcpConfig};

use crate::pair::{Faults, Pair, WireConfig, config, offloads, tcp_payload};

const RTT: Duration = Duration::from_millis(20);
const MSS: usize = 1448;

/// A segment with payload that the client sent: when, and from where in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    at: Instant,
    offset: u32,
    len: usize,
}

struct Outcome {
    sent: Vec<Sent>,
    /// The congestion window after each event, in segments.
    windows: Vec<usize>,
    statistics: netstack::TcpStatistics,
}

/// Sends `len` bytes over a wire that loses the data segments with these numbers.
fn send(len: usize, lost: &[u64]) -> Outcome {
    let wire = WireConfig { latency: RTT / 2, faults: Faults::default(), keep_super_frames: false };
    let link = netstack::LinkCapabilities::default();
    let configs =
        [config(0, link, TcpConfig::default()), config(1, offloads(), TcpConfig::default())];
    let mut pair = Pair::new(1, wire, configs);
    let (client, server): (SocketId, SocketId) = pair.connect();
    // The handshake's last acknowledgment, and everything it brings.
    pair.run(pair.now + Duration::from_secs(1));
    pair.drop_data[0] = lost.iter().copied().collect();
    pair.keep_trace = true;
    let taken = pair.stacks[0].send(pair.now, client, &vec![5; len]).expect("room");
    assert_eq!(taken, len);
    let start = pair.now;
    let mut received = 0;
    let mut windows = Vec::new();
    while received < len {
        pair.transmit();
        let at = pair.next_event().expect("progress");
        assert!(at < start + Duration::from_secs(60), "stuck at {received}");
        pair.advance(at);
        while let Some(segment) = pair.stacks[1].take(server, usize::MAX) {
            received += segment.payload().len();
            pair.stacks[1].release(pair.now, server, segment.charge);
        }
        windows.push(pair.stacks[0].tcp_info(client).expect("open").snd_cwnd / MSS);
    }
    let data = pair.trace.iter().filter(|(_, side, frame)| *side == 0 && tcp_payload(frame) > 0);
    let seq = |frame: &[u8]| u32::from_be_bytes(frame[38..42].try_into().expect("four bytes"));
    let first = data.clone().next().map(|(_, _, frame)| seq(frame)).expect("something was sent");
    let sent = data
        .map(|(at, _, frame)| Sent {
            at: *at,
            offset: seq(frame).wrapping_sub(first),
            len: tcp_payload(frame),
        })
        .collect();
    Outcome { sent, windows, statistics: pair.stacks[0].statistics().tcp.clone() }
}

fn repeated(sent: &[Sent]) -> Vec<u32> {
    let mut highest = None;
    let mut repeated = Vec::new();
    for segment in sent {
        if highest.is_some_and(|highest| segment.offset <= highest) {
            repeated.push(segment.offset);
        }
        highest = highest.max(Some(segment.offset));
    }
    repeated
}

#[test]
fn without_loss_slow_start_doubles_each_round_trip() {
    let outcome = send(150 * MSS, &[]);
    let start = outcome.sent[0].at;
    let mut rounds = [0; 4];
    for segment in &outcome.sent {
        assert_eq!(segment.len, MSS);
        rounds[((segment.at - start).as_millis() / RTT.as_millis()) as usize] += 1;
    }
    assert_eq!(rounds, [10, 20, 40, 80]);
    assert_eq!(outcome.statistics.retransmitted_segments, 0);
}

#[test]
fn one_loss_is_repaired_within_a_round_trip() {
    let outcome = send(100 * MSS, &[12]);
    assert_eq!(repeated(&outcome.sent), [12 * MSS as u32]);
    assert_eq!(outcome.statistics.fast_retransmits, 1);
    assert_eq!(outcome.statistics.retransmission_timeouts, 0);
    let times: Vec<_> =
        outcome.sent.iter().filter(|sent| sent.offset == 12 * MSS as u32).map(|s| s.at).collect();
    assert_eq!(times[1] - times[0], RTT);
    // Slow start, 0.7 of what was in flight, and growth from there.
    let peak = outcome.windows.iter().position(|&window| window == 14).expect("a reduction");
    assert!(outcome.windows[..peak].iter().all(|&window| window >= 10));
    assert!(outcome.windows[peak..].iter().all(|&window| window >= 14));
    assert!(outcome.windows.iter().max() > Some(&14));
}

#[test]
fn several_losses_in_a_window_take_a_round_trip_each() {
    let outcome = send(100 * MSS, &[12, 15, 17]);
    let expected: Vec<u32> = [12, 15, 17].map(|n| n * MSS as u32).to_vec();
    assert_eq!(repeated(&outcome.sent), expected);
    assert_eq!(outcome.statistics.fast_retransmits, 1);
    assert_eq!(outcome.statistics.retransmission_timeouts, 0);
}

#[test]
fn many_losses_do_not_take_a_round_trip_each() {
    // RFC 6582 section 4: one by one they would take 76 round trips, with a delayed acknowledgment
    // in each, since the receiver has nothing that is out of order.
    let lost: Vec<u64> = (74..150).collect();
    let outcome = send(150 * MSS, &[&[70], &lost[..]].concat());
    assert_eq!(outcome.statistics.fast_retransmits, 1);
    assert_eq!(outcome.statistics.retransmission_timeouts, 1);
    let [.., last] = outcome.sent[..] else { panic!("nothing was sent") };
    let took = last.at - outcome.sent[0].at;
    assert!(took < 30 * RTT, "{took:?}: a timeout of 240 ms, and slow start");
}

#[test]
fn the_last_segment_waits_for_the_timer() {
    let outcome = send(10 * MSS, &[9]);
    let [.., first, second] = outcome.sent[..] else { panic!("at least two segments") };
    assert_eq!((first.offset, second.offset), (9 * MSS as u32, 9 * MSS as u32));
    assert_eq!(outcome.statistics.retransmission_timeouts, 1);
    // SRTT and Linux's 200 ms, from the last acknowledgment on.
    let waited = second.at - first.at;
    assert!((220..=245).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(outcome.windows.last(), Some(&1));
}

#[test]
fn a_lost_retransmission_waits_for_the_timer() {
    // Number 10 is the repetition of number 0.
    let outcome = send(30 * MSS, &[0, 10]);
    assert_eq!(outcome.statistics.fast_retransmits, 1);
    assert_eq!(outcome.sent[10].offset, 0);
    assert_eq!(outcome.statistics.retransmission_timeouts, 1);
}
