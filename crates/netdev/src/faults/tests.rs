use super::*;
use crate::{Wire, WireConfig, WireLink};

const STEP: Duration = Duration::from_millis(1);

/// An IPv4 frame whose last bytes are `number`.
fn frame(number: u32) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12] = 0x08;
    frame[56..].copy_from_slice(&number.to_be_bytes());
    frame
}

fn arena() -> Arena {
    Arena::new(8 << 20).unwrap()
}

fn wire(arena: &Arena) -> (WireLink, WireLink) {
    let buffers = BufferCounts { small: 1024, large: 1 };
    let config = WireConfig { offload: false, event: false, buffers, ..WireConfig::default() };
    Wire::pair(arena, &config).unwrap()
}

fn transmitting(profile: Profile, seed: u64) -> (Faults<WireLink>, WireLink) {
    let arena = arena();
    let (a, b) = wire(&arena);
    (Faults::new(a, &arena, seed, profile, Profile::default()).unwrap(), b)
}

fn receiving(profile: Profile, seed: u64) -> (WireLink, Faults<WireLink>) {
    let arena = arena();
    let (a, b) = wire(&arena);
    (a, Faults::new(b, &arena, seed, Profile::default(), profile).unwrap())
}

/// Sends `count` numbered frames, one each step, and returns what comes out until all is quiet.
fn run(from: &mut impl Link, to: &mut impl Link, count: u32) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut now = Duration::ZERO;
    for number in 0..count {
        from.transmit(now, &frame(number), TxInfo::default()).unwrap();
        to.receive(now, 8, &mut |frame, _| out.push(frame.as_ref().to_vec())).unwrap();
        now += STEP;
    }
    while let Some(due) = from.poll_timeout().into_iter().chain(to.poll_timeout()).min() {
        now = now.max(due);
        from.receive(now, 8, &mut |_, _| panic!("nobody sends back")).unwrap();
        to.receive(now, 8, &mut |frame, _| out.push(frame.as_ref().to_vec())).unwrap();
    }
    out
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().map(|frame| u32::from_be_bytes(frame[56..].try_into().unwrap())).collect()
}

#[test]
fn without_faults_nothing_changes() {
    let (mut from, mut to) = transmitting(Profile::default(), 1);
    assert_eq!(numbers(&run(&mut from, &mut to, 100)), (0..100).collect::<Vec<_>>());
    let (mut from, mut to) = receiving(Profile::default(), 1);
    assert_eq!(numbers(&run(&mut from, &mut to, 100)), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let profile = Profile {
        loss: 0.2,
        duplicate: 0.1,
        corrupt: 0.1,
        reorder: 0.2,
        hold: 3 * STEP,
        delay: STEP,
    };
    let run = |seed| {
        let (mut from, mut to) = transmitting(profile, seed);
        let out = run(&mut from, &mut to, 300);
        (out, from.transmit_faults())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let (out, faults) = run(7);
    let FaultStatistics { lost, duplicated, corrupted, reordered, refused } = faults;
    assert!(lost > 0 && duplicated > 0 && corrupted > 0 && reordered > 0, "{faults:?}");
    assert_eq!(refused, 0);
    assert_eq!(out.len() as u64, 300 - lost + duplicated);
}

#[test]
fn both_directions_count_what_they_do() {
    let profile = Profile { loss: 0.25, duplicate: 0.25, ..Profile::default() };
    let (mut from, mut to) = receiving(profile, 3);
    let out = run(&mut from, &mut to, 400);
    let faults = to.receive_faults();
    assert!((60..140).contains(&faults.lost), "{faults:?}");
    assert_eq!(out.len() as u64, 400 - faults.lost + faults.duplicated);
    assert_eq!(to.transmit_faults(), FaultStatistics::default());
}

#[test]
fn a_held_frame_is_overtaken() {
    let profile = Profile { reorder: 0.1, hold: 5 * STEP, ..Profile::default() };
    for (out, reordered) in [
        {
            let (mut from, mut to) = transmitting(profile, 5);
            (run(&mut from, &mut to, 100), from.transmit_faults().reordered)
        },
        {
            let (mut from, mut to) = receiving(profile, 5);
            (run(&mut from, &mut to, 100), to.receive_faults().reordered)
        },
    ] {
        let mut numbers = numbers(&out);
        let late = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(late > 0 && late as u64 <= reordered, "{late} of {reordered}");
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "nothing is lost");
    }
}

#[test]
fn a_delay_keeps_the_order() {
    let (mut from, mut to) = receiving(Profile { delay: 10 * STEP, ..Profile::default() }, 5);
    from.transmit(Duration::ZERO, &frame(0), TxInfo::default()).unwrap();
    to.receive(Duration::ZERO, 8, &mut |_, _| panic!("it is not due")).unwrap();
    assert_eq!(to.poll_timeout(), Some(10 * STEP));
    assert_eq!(numbers(&run(&mut from, &mut to, 50)).len(), 51);
}

#[test]
fn exactly_one_bit_flips_and_not_in_the_ethernet_header() {
    let profile = Profile { corrupt: 1.0, ..Profile::default() };
    for out in [
        {
            let (mut from, mut to) = transmitting(profile, 9);
            run(&mut from, &mut to, 500)
        },
        {
            let (mut from, mut to) = receiving(profile, 9);
            run(&mut from, &mut to, 500)
        },
    ] {
        assert_eq!(out.len(), 500);
        for (number, corrupted) in (0..).zip(&out) {
            let frame = frame(number);
            let flipped: u32 = frame.iter().zip(corrupted).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(flipped, 1);
            assert_eq!(corrupted[..14], frame[..14]);
        }
    }
}

#[test]
fn what_no_checksum_protects_is_not_corrupted() {
    let (mut from, mut to) = transmitting(Profile { corrupt: 1.0, ..Profile::default() }, 9);
    let mut arp = frame(1);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    from.transmit(Duration::ZERO, &arp, TxInfo::default()).unwrap();
    to.receive(Duration::ZERO, 1, &mut |frame, _| assert_eq!(frame.as_ref(), arp)).unwrap();
    assert_eq!(to.statistics().rx_frames, 1);
    assert_eq!(from.transmit_faults().corrupted, 0);
}

#[test]
fn impossible_requests_are_refused() {
    let arena = arena();
    let (link, _) = wire(&arena);
    let profile = Profile { loss: 1.5, ..Profile::default() };
    let refused = Faults::new(link, &arena, 0, profile, Profile::default());
    assert!(matches!(refused, Err(FaultsError::BadProbability(1.5))));

    let buffers = BufferCounts { small: 8, large: 1 };
    let config = WireConfig { offload: true, buffers, ..WireConfig::default() };
    let (link, _) = Wire::pair(&arena, &config).unwrap();
    let profile = Profile { corrupt: 0.1, ..Profile::default() };
    let refused = Faults::new(link, &arena, 0, Profile::default(), profile);
    assert!(matches!(refused, Err(FaultsError::CorruptionUnnoticed)));
}

#[test]
fn a_batch_is_no_larger_than_asked_for() {
    let profile = Profile { duplicate: 1.0, ..Profile::default() };
    let (mut from, mut to) = receiving(profile, 1);
    for number in 0..10 {
        from.transmit(Duration::ZERO, &frame(number), TxInfo::default()).unwrap();
    }
    let mut batches = Vec::new();
    loop {
        let count = to.receive(Duration::ZERO, 8, &mut |_, _| {}).unwrap();
        if count == 0 {
            break;
        }
        batches.push(count);
    }
    assert!(batches.iter().all(|&count| count <= 8), "{batches:?}");
    assert_eq!(batches.iter().sum::<usize>(), 20);
}

#[test]
fn a_duplicate_that_finds_no_room_is_no_error() {
    let arena = arena();
    let buffers = BufferCounts { small: 8, large: 1 };
    let config = WireConfig { queue: 1, offload: false, buffers, ..WireConfig::default() };
    let (link, _other) = Wire::pair(&arena, &config).unwrap();
    let profile = Profile { duplicate: 1.0, ..Profile::default() };
    let mut link = Faults::new(link, &arena, 0, profile, Profile::default()).unwrap();
    link.transmit(Duration::ZERO, &frame(0), TxInfo::default()).unwrap();
    assert_eq!(link.transmit_faults().refused, 1);
    let refused = link.transmit(Duration::ZERO, &frame(1), TxInfo::default());
    assert!(matches!(refused, Err(TransmitError::Full)));
}

#[test]
fn what_the_link_cannot_carry_is_refused_at_once() {
    let (mut from, _to) = transmitting(Profile { delay: STEP, ..Profile::default() }, 1);
    let refused = from.transmit(Duration::ZERO, &[0; 5], TxInfo::default());
    assert!(matches!(refused, Err(TransmitError::TooShort { len: 5 })));
    assert_eq!(from.statistics().tx_invalid, 1);
    assert_eq!(from.poll_timeout(), None);
}
