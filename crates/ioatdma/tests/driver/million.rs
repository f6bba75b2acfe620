//! Random copies on every version, without faults and with every kind of them at random, and every
//! byte of source, target and surroundings.
//!
//! The usual run is a short one. The whole million of each takes minutes, optimised half a minute, and
//! is a command of its own in `cargo xtask test`:
//!
//! `cargo test -p ioatdma --test driver --release -- --ignored --nocapture million`

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dmaengine::{Status, SubmitError};
use ioat_model::{Config, Fault, Faults, Stepped, registers::ChanErr};
use ioatdma::{Bar, Behind, Completions, Options};

use crate::{
    machine::Counted,
    recovery::doorbells_and_resets,
    rig::{DEADLINE, Ended, Random, Rig, Shell, Threaded},
    versions,
};

/// Of source and target, in bytes. With an XFERCAP of a page, the longest copies take three descriptors.
const BUFFER: usize = 9000;
/// Pairs of buffers, so the most operations in flight.
const PAIRS: usize = 60;

/// A copy in flight: what its buffers were filled with, and what of it is to be copied.
struct Expected {
    source: Vec<u8>,
    target: Vec<u8>,
    from: usize,
    to: usize,
    len: usize,
}

impl Expected {
    fn check(&self, number: usize, completion: (Status, usize), source: &[u8], target: &[u8]) {
        let Self { from, to, len, .. } = *self;
        let (status, bytes) = completion;
        assert!(source == self.source, "the source of {number} changed");
        assert!(target[..to] == self.target[..to], "bytes before the target of {number} changed");
        let behind = to + len..;
        assert!(
            target[behind.clone()] == self.target[behind],
            "bytes behind the target of {number} changed"
        );
        let (copied, wanted) = (&target[to..to + len], &self.source[from..from + len]);
        if status == Status::Success {
            assert_eq!(bytes, len);
            assert!(copied == wanted, "{number}: {len} bytes from {from} to {to}");
        } else {
            assert_eq!(bytes, 0);
            let old = &self.target[to..to + len];
            let known = copied.iter().zip(wanted).zip(old).all(|((c, w), o)| c == w || c == o);
            assert!(known, "{number}: bytes that are neither the old nor the new ones");
        }
    }
}

/// How copies ended: how many with each status.
type Statuses = BTreeMap<String, usize>;

/// Copies `count` times at random, in batches, and checks everything.
fn copies<S: Shell>(config: Config, options: Options, seed: u64, count: usize) -> Statuses {
    let mut random = Random(seed);
    let mut rig = Rig::<S>::new(Config { xfercap: 12, ..config }, options);
    let pair = || (rig.buffer(BUFFER, 0), rig.buffer(BUFFER, 0));
    let mut free: Vec<_> = (0..PAIRS).map(|_| pair()).collect();
    // By number modulo the most that are in flight: operations end in order.
    let mut expected: Vec<_> = (0..PAIRS)
        .map(|_| Expected {
            source: vec![0; BUFFER],
            target: vec![0; BUFFER],
            from: 0,
            to: 0,
            len: 0,
        })
        .collect();
    let (mut submitted, mut ended) = (0, 0);
    let mut statuses = Statuses::new();
    let mut last_progress = Instant::now();
    let mut idle = 0;
    while ended < count {
        for _ in 0..random.below(24) {
            if submitted == count {
                break;
            }
            let Some((mut source, mut target)) = free.pop() else { break };
            let record = &mut expected[submitted % PAIRS];
            random.fill(&mut source);
            random.fill(&mut target);
            record.source.copy_from_slice(&source);
            record.target.copy_from_slice(&target);
            // Short ones are as likely as long ones.
            let most = if random.below(2) == 0 { 256 } else { BUFFER };
            let len = 1 + random.below(most);
            let (from, to) = (random.below(BUFFER - len + 1), random.below(BUFFER - len + 1));
            (record.from, record.to, record.len) = (from, to, len);
            let slices = (source.slice(from..from + len), target.slice(to..to + len));
            match rig.queue.copy(slices.0, slices.1, submitted) {
                Ok(cookie) => {
                    assert_eq!(cookie.get(), submitted as u64 + 1, "cookies are consecutive");
                    submitted += 1;
                }
                Err(refused) => {
                    let down = refused.error == SubmitError::ChannelDown;
                    assert!(down || refused.error == SubmitError::RingFull, "{}", refused.error);
                    free.push((refused.source.into_inner(), refused.target.into_inner()));
                    break;
                }
            }
        }
        rig.queue.issue_pending();
        if random.below(50) == 0 {
            rig.queue.arm();
        }
        // When nothing happens, time passes faster.
        let pause = if idle < 100 { random.below(4) as u64 } else { 50 };
        rig.host.delay(Duration::from_micros(pause));
        idle += 1;
        rig.queue.poll(|done: Ended| {
            assert_eq!(done.tag, ended, "in order, and each once");
            *statuses.entry(done.status.to_string()).or_default() += 1;
            let (source, target) = (done.source.into_inner(), done.target.into_inner());
            let record = &expected[done.tag % PAIRS];
            record.check(done.tag, (done.status, done.bytes), &source, &target);
            free.push((source, target));
            ended += 1;
            idle = 0;
            last_progress = Instant::now();
        });
        assert!(last_progress.elapsed() < DEADLINE, "stuck at {ended} of {submitted}");
    }
    assert_eq!(rig.queue.spurious_completions(), 0);
    statuses
}

/// Every kind of fault that a channel survives, from the first owner's first descriptor, doorbell and
/// reset on, for `copies` copies. One descriptor in about `each` has one.
fn faults(config: &Config, seed: u64, copies: usize, each: usize, slow_resets: bool) -> Faults {
    let (doorbells, resets) = doorbells_and_resets(config);
    let mut random = Random(seed);
    let mut faults = Faults::none();
    let mut position = Counted::first(config);
    // Three descriptors each, and those that are looked at again.
    let end = position + 6 * copies as u64;
    while position < end {
        let fault = match random.below(20) {
            0 => Fault::Hang,
            1 => Fault::Halt,
            2 | 3 => Fault::LostInterrupt,
            4..8 => Fault::LostCompletion,
            8..12 => Fault::LateCompletion(Duration::from_micros(random.below(50) as u64)),
            _ => Fault::Error(ChanErr::from_bits_retain(1 << random.below(12))),
        };
        faults = faults.at(0, position, fault);
        position += 1 + random.below(2 * each) as u64;
    }
    let mut doorbell = doorbells;
    while doorbell < doorbells + copies as u64 {
        faults = faults.at(0, doorbell, Fault::LostDoorbell);
        doorbell += 1 + random.below(2 * each) as u64;
    }
    if slow_resets {
        let slow = Fault::SlowReset(Duration::from_millis(500));
        faults = (0..copies as u64 / 100)
            .step_by(17)
            .fold(faults, |faults, reset| faults.at(0, resets + reset, slow));
    }
    faults
}

/// `count` copies in all, on every version, some stepped and some on a thread, with both ways to tell
/// of completions and both ways to go on behind a failure.
fn everywhere(count: usize, seed: u64, faulty: bool) -> Statuses {
    let cases = versions::all();
    let mut all = Statuses::new();
    let mut left = count;
    for (number, (name, config)) in cases.iter().enumerate() {
        let share = left / (cases.len() - number);
        left -= share;
        let seed = seed + number as u64;
        let completions =
            [Completions::PerOperation, Completions::PerBatch][(seed / 2) as usize % 2];
        let behind = [Behind::Abort, Behind::Retry][seed as usize % 2];
        let options = Options { ring_order: 6, completions, behind, ..Options::default() };
        let start = Instant::now();
        let (stepped, threaded) = (share - share / 4, share / 4);
        let statuses = [
            {
                let (mut config, mut options) = (config.clone(), options.clone());
                if faulty {
                    config.faults = faults(&config, seed, stepped, 100, true);
                    options.watchdog = Duration::from_millis(1);
                }
                copies::<Stepped>(config, options, seed, stepped)
            },
            {
                let (mut config, mut options) = (config.clone(), options);
                if faulty {
                    config.faults = faults(&config, seed, threaded, 400, false);
                    options.watchdog = Duration::from_millis(3);
                }
                copies::<Threaded>(config, options, seed, threaded)
            },
        ];
        println!("{name}: {stepped} stepped, {threaded} on a thread, {:.1?}", start.elapsed());
        for (status, count) in statuses.into_iter().flatten() {
            *all.entry(status).or_default() += count;
        }
    }
    println!("{all:?}");
    assert_eq!(all.values().sum::<usize>(), count);
    all
}

/// All succeed.
fn without_faults(count: usize) {
    let statuses = everywhere(count, 1, false);
    assert_eq!(statuses, Statuses::from([(Status::Success.to_string(), count)]));
}

/// Each ends as it can, and most succeed.
fn with_faults(count: usize) {
    let statuses = everywhere(count, 2, true);
    let of = |status: Status| statuses.get(&status.to_string()).copied().unwrap_or(0);
    assert!(of(Status::Success) > count / 2);
    for status in [
        Status::Aborted,
        Status::BadAddress,
        Status::ReadError,
        Status::WriteError,
        Status::BadLength,
        Status::BadDescriptor,
        Status::TimedOut,
        Status::DeviceLost,
    ] {
        assert!(of(status) > 0, "none ended with: {status}");
    }
}

#[test]
fn random_copies_arrive() {
    without_faults(20_000);
}

#[test]
fn random_copies_with_faults_end_as_they_should() {
    with_faults(20_000);
}

#[test]
#[ignore = "minutes; `random_copies_arrive` is its short form"]
fn a_million_random_copies_arrive() {
    without_faults(1_000_000);
}

#[test]
#[ignore = "minutes; `random_copies_with_faults_end_as_they_should` is its short form"]
fn a_million_random_copies_with_faults_end_as_they_should() {
    with_faults(1_000_000);
}
