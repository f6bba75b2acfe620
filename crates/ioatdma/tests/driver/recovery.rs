//! The ways back: going on behind a failure, the watchdog, resets that do not end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{Status, SubmitError};
use ioat_model::{Config, Fault, Faults, Stepped, Version, registers::ChanErr};
use ioatdma::{Bar, Behind, Incident, IncidentKind, OnIncident, Options, StartError};

use crate::{
    machine::Counted,
    rig::{Ended, Rig, Shell, Threaded, check},
    versions,
};

const BATCH: usize = 8;
const WATCHDOG: Duration = Duration::from_millis(5);

type Incidents = Arc<Mutex<Vec<Incident>>>;

/// A device with these faults on channel 0, counted from the owner's first descriptor on.
fn rig<S: Shell>(
    config: &Config,
    faults: impl IntoIterator<Item = (u64, Fault)>,
    behind: Behind,
) -> (Rig<S>, Incidents) {
    let first = Counted::first(config);
    let faults = faults
        .into_iter()
        .fold(config.faults.clone(), |faults, (at, fault)| faults.at(0, first + at, fault));
    let incidents = Incidents::default();
    let told = Arc::clone(&incidents);
    let on_incident: Arc<OnIncident> =
        Arc::new(move |incident| told.lock().expect("no panic").push(*incident));
    let options = Options {
        behind,
        watchdog: WATCHDOG,
        on_incident: Some(on_incident),
        ..Options::default()
    };
    (Rig::new(Config { faults, ..config.clone() }, options), incidents)
}

fn kinds(incidents: &Incidents) -> Vec<IncidentKind> {
    incidents.lock().expect("no panic").iter().map(|incident| incident.kind).collect()
}

/// A batch, whose first half is issued before the rest.
fn submit<S: Shell>(rig: &mut Rig<S>) {
    for number in 0..BATCH {
        rig.submit(number, 100);
        if number == BATCH / 2 {
            rig.queue.issue_pending();
        }
    }
    rig.queue.issue_pending();
}

fn expect(ended: &[Ended], statuses: impl Fn(usize) -> Status) {
    for (number, done) in ended.iter().enumerate() {
        assert_eq!(done.tag, number, "in order");
        check(done, statuses(number));
    }
}

fn goes_on_behind_a_failure<S: Shell>(fault: Fault, status: Status) {
    for (name, config) in versions::all() {
        for position in 0..BATCH {
            let (mut rig, _) = rig::<S>(&config, [(position as u64, fault)], Behind::Retry);
            submit(&mut rig);
            println!("{name}, {position}");
            expect(
                &rig.wait_for(BATCH),
                |number| {
                    if number == position { status } else { Status::Success }
                },
            );
            rig.works();
        }
    }
}

#[test]
fn the_rest_is_done_behind_a_failure_if_it_shall_be() {
    let fault = Fault::Error(ChanErr::WRITE_DATA);
    goes_on_behind_a_failure::<Stepped>(fault, Status::WriteError);
    goes_on_behind_a_failure::<Threaded>(fault, Status::WriteError);
    goes_on_behind_a_failure::<Stepped>(Fault::Halt, Status::Aborted);
}

/// What was not issued when the channel halted is neither done nor lost.
#[test]
fn what_was_not_issued_waits_for_its_doorbell() {
    for (name, config) in versions::all() {
        let fault = Fault::Error(ChanErr::READ_DATA);
        let (mut rig, _) = rig::<Stepped>(&config, [(1, fault)], Behind::Retry);
        rig.submit(0, 10);
        rig.submit(1, 10);
        rig.queue.issue_pending();
        rig.submit(2, 10);
        rig.submit(3, 10);
        let ended = rig.wait_for(2);
        println!("{name}");
        expect(&ended, |number| [Status::Success, Status::ReadError][number]);
        while rig.host.shell.step() {}
        assert_eq!(rig.queue.poll(|_| ()), 0, "it was not issued");
        rig.queue.issue_pending();
        let ended = rig.wait_for(2);
        assert_eq!([ended[0].tag, ended[1].tag], [2, 3]);
        ended.iter().for_each(|done| check(done, Status::Success));
    }
}

/// One after the other fails, and each halt is a reset.
#[test]
fn a_storm_of_failures_spares_the_others() {
    let faults = (0..40).step_by(3).map(|at| (at, Fault::Error(ChanErr::READ_DATA)));
    let (mut rig, incidents) = rig::<Stepped>(&Config::default(), faults, Behind::Retry);
    for number in 0..40 {
        rig.submit(number, 100);
    }
    rig.queue.issue_pending();
    // A descriptor that was looked at and whose end nobody was told of is looked at again, which
    // counts; so which ones fail is not known, but how many do.
    let ended = rig.wait_for(40);
    let failed = ended.iter().filter(|done| done.status == Status::ReadError).count();
    assert!(ended.iter().all(|done| [Status::Success, Status::ReadError].contains(&done.status)));
    assert_eq!(failed, 14);
    assert_eq!(kinds(&incidents).len(), 14);
    ended.iter().for_each(|done| check(done, done.status));
}

/// With a device that misses the one doorbell of a batch.
#[test]
fn the_first_strike_is_enough_for_a_missed_doorbell() {
    for (name, config) in versions::all() {
        // Of the self test, and then the owner's start and batch.
        let (doorbell, _) = doorbells_and_resets(&config);
        let faults = Faults::none().at(0, doorbell, Fault::LostDoorbell);
        let (mut rig, incidents) =
            rig::<Stepped>(&Config { faults, ..config.clone() }, [], Behind::Abort);
        submit_at_once(&mut rig);
        expect(&rig.wait_for(BATCH), |_| Status::Success);
        assert_eq!(kinds(&incidents), [IncidentKind::NoProgress], "{name}");
    }
}

fn submit_at_once<S: Shell>(rig: &mut Rig<S>) {
    for number in 0..BATCH {
        rig.submit(number, 100);
    }
    rig.queue.issue_pending();
}

/// Doorbells and resets of channel 0 before the first owner's first batch.
pub(crate) fn doorbells_and_resets(config: &Config) -> (u64, u64) {
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Counting {
        host: Arc<crate::rig::Host<Stepped>>,
        chains: bool,
        doorbells: AtomicU64,
        resets: AtomicU64,
    }

    impl Bar for Counting {
        fn size(&self) -> u64 {
            self.host.size()
        }
        fn read8(&self, offset: u64) -> u8 {
            self.host.read8(offset)
        }
        fn read16(&self, offset: u64) -> u16 {
            self.host.read16(offset)
        }
        fn read32(&self, offset: u64) -> u32 {
            self.host.read32(offset)
        }
        fn read64(&self, offset: u64) -> u64 {
            self.host.read64(offset)
        }
        fn write8(&self, offset: u64, value: u8) {
            let append = self.chains && (offset, value) == (0x94, 0x02);
            self.doorbells.fetch_add(append.into(), Ordering::Relaxed);
            let command = if self.chains { 0x94 } else { 0x84 };
            let reset = (offset, value) == (command, 0x20);
            self.resets.fetch_add(reset.into(), Ordering::Relaxed);
            self.host.write8(offset, value);
        }
        fn write16(&self, offset: u64, value: u16) {
            let count = !self.chains && offset == 0x86;
            self.doorbells.fetch_add(count.into(), Ordering::Relaxed);
            self.host.write16(offset, value);
        }
        fn write32(&self, offset: u64, value: u32) {
            self.host.write32(offset, value);
        }
        fn write64(&self, offset: u64, value: u64) {
            self.host.write64(offset, value);
        }
        fn delay(&self, duration: Duration) {
            self.host.delay(duration);
        }
    }

    let host = crate::rig::Host::<Stepped>::new(config.clone());
    let chains = config.version == Version::V1_2;
    let (doorbells, resets) = (AtomicU64::new(0), AtomicU64::new(0));
    let bar = Arc::new(Counting { host: Arc::clone(&host), chains, doorbells, resets });
    let mut resources = host.resources();
    resources.bar = Arc::clone(&bar) as _;
    let device = ioatdma::IoatDevice::probe(resources, Options::default()).expect("good");
    let _channel = dmaengine::DmaDevice::request_channel(&device, 0).expect("free");
    (bar.doorbells.load(Ordering::Relaxed), bar.resets.load(Ordering::Relaxed))
}

fn a_hang_ends_by_the_second_strike<S: Shell>(behind: Behind) {
    for (name, config) in versions::all() {
        let (mut rig, incidents) = rig::<S>(&config, [(2, Fault::Hang)], behind);
        submit(&mut rig);
        println!("{name}");
        expect(&rig.wait_for(BATCH), |number| match (number, behind) {
            (0 | 1, _) => Status::Success,
            (2, _) => Status::TimedOut,
            (_, Behind::Abort) => Status::Aborted,
            (_, Behind::Retry) => Status::Success,
        });
        assert_eq!(kinds(&incidents), [IncidentKind::NoProgress, IncidentKind::TimedOut], "{name}");
        rig.works();
    }
}

#[test]
fn a_hang_ends_by_the_second_strike_stepped_and_threaded() {
    for behind in [Behind::Abort, Behind::Retry] {
        a_hang_ends_by_the_second_strike::<Stepped>(behind);
        a_hang_ends_by_the_second_strike::<Threaded>(behind);
    }
}

/// A channel that is only slow is not struck: each descriptor is progress.
#[test]
fn a_slow_channel_is_not_reset() {
    let faults = Faults::none().latency(WATCHDOG * 9 / 10);
    let (mut rig, incidents) =
        rig::<Stepped>(&Config { faults, ..Config::default() }, [], Behind::Abort);
    submit_at_once(&mut rig);
    expect(&rig.wait_for(BATCH), |_| Status::Success);
    assert_eq!(kinds(&incidents), []);
}

/// Memory stays the channel's as long as its reset lasts, and comes back afterwards.
#[test]
fn a_reset_that_lasts_too_long_is_waited_for() {
    for (name, config) in versions::all() {
        let slow = Fault::SlowReset(Duration::from_secs(5));
        let (_, resets) = doorbells_and_resets(&config);
        let config = Config { faults: Faults::none().at(0, resets, slow), ..config };
        let error = Fault::Error(ChanErr::READ_DATA);
        let (mut rig, incidents) = rig::<Stepped>(&config, [(2, error)], Behind::Retry);
        submit(&mut rig);
        println!("{name}");
        let start = rig.host.now();
        let mut ended = Vec::new();
        while rig.host.now() - start < Duration::from_millis(4900) {
            rig.queue.poll(|done| ended.push(done));
            rig.host.delay(Duration::from_micros(100));
            if let [.., last] = &kinds(&incidents)[..]
                && *last == IncidentKind::Stuck
            {
                // What was proven to have ended before the reset was begun is not held back.
                assert!(ended.len() <= 2);
                let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
                let refused = rig.queue.copy(source.slice(0..10), target.slice(0..10), 1);
                assert_eq!(refused.expect_err("down").error, SubmitError::ChannelDown);
                assert_eq!(rig.queue.space(), 0);
            }
        }
        ended.extend(rig.wait_for(BATCH - ended.len()));
        expect(&ended, |number| match number {
            0 | 1 => Status::Success,
            2 => Status::ReadError,
            _ => Status::DeviceLost,
        });
        let halted = IncidentKind::Halted(ioatdma::ChanErr::READ_DATA);
        assert_eq!(kinds(&incidents), [halted, IncidentKind::Stuck, IncidentKind::Recovered]);
        rig.works();
    }
}

/// A channel whose reset never ends keeps what it has, is polled without end, and takes nothing.
#[test]
fn a_dead_channel_keeps_its_memory() {
    let (mut rig, incidents) =
        rig::<Stepped>(&Config::default(), [(1, Fault::Dead)], Behind::Abort);
    submit(&mut rig);
    check(&rig.wait_for(1)[0], Status::Success);
    for _ in 0..100_000 {
        assert_eq!(rig.queue.poll(|_| ()), 0);
        rig.host.delay(Duration::from_micros(100));
    }
    assert_eq!(rig.queue.in_flight(), BATCH - 1);
    assert!(kinds(&incidents).ends_with(&[IncidentKind::TimedOut, IncidentKind::Stuck]));
    rig.queue.terminate_sync(Duration::from_millis(10), drop).expect_err("dead");
    // Dropping the queue would end the process, as it must.
    std::mem::forget(rig.queue);
}

#[test]
fn a_dead_channel_that_leaves_the_bus_gives_its_memory_back() {
    let (mut rig, _) = rig::<Stepped>(&Config::default(), [(1, Fault::Dead)], Behind::Abort);
    submit(&mut rig);
    check(&rig.wait_for(1)[0], Status::Success);
    rig.queue.terminate_sync(Duration::from_millis(10), drop).expect_err("dead");
    rig.host.shell.vanish();
    rig.wait_for(BATCH - 1).iter().for_each(|done| check(done, Status::DeviceLost));
}

#[test]
fn a_channel_that_does_not_start_is_started_later() {
    let error = |error| Fault::Error(error);
    // The second meets the empty descriptor that starts the channel again.
    let faults = [(1, error(ChanErr::READ_DATA)), (2, error(ChanErr::CHAIN_ADDRESS))];
    let (mut rig, incidents) = rig::<Stepped>(&Config::default(), faults, Behind::Abort);
    submit(&mut rig);
    expect(&rig.wait_for(BATCH), |number| match number {
        0 => Status::Success,
        1 => Status::ReadError,
        _ => Status::Aborted,
    });
    let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
    let refused = rig.queue.copy(source.slice(0..10), target.slice(0..10), 1);
    assert_eq!(refused.expect_err("down").error, SubmitError::ChannelDown);
    let start = rig.host.now();
    while rig.queue.space() == 0 {
        rig.queue.poll(|_| panic!("nothing is in flight"));
        rig.host.delay(Duration::from_micros(100));
        assert!(rig.host.now() - start < Duration::from_secs(3));
    }
    let not_starting =
        IncidentKind::NotStarting(StartError::Halted(ioatdma::ChanErr::CHAIN_ADDRESS));
    let halted = IncidentKind::Halted(ioatdma::ChanErr::READ_DATA);
    assert_eq!(kinds(&incidents), [halted, not_starting, IncidentKind::Recovered]);
    rig.works();
}

#[test]
fn a_lost_completion_is_told_of() {
    for (name, config) in versions::all() {
        let last = BATCH as u64 - 1;
        let (mut rig, incidents) =
            rig::<Stepped>(&config, [(last, Fault::LostCompletion)], Behind::Abort);
        submit(&mut rig);
        expect(&rig.wait_for(BATCH), |_| Status::Success);
        assert_eq!(kinds(&incidents), [IncidentKind::CompletionLost], "{name}");
    }
}

/// A completion word that is late by more than a round of the ring names a slot that would be in use
/// again. The client asks the device itself, by waiting, so that it knows of the ends before.
#[test]
fn a_word_that_is_late_by_a_round_ends_nothing_else() {
    for (name, config) in versions::all() {
        let first = Counted::first(&config);
        let late = Fault::LateCompletion(Duration::from_millis(1));
        let faults = Faults::none().at(0, first, late);
        let options = Options { ring_order: 3, ..Options::default() };
        let mut rig = Rig::<Stepped>::new(Config { faults, ..config }, options);
        let mut submitted = 0;
        while rig.queue.space() > 0 && submitted < 8 {
            rig.submit(submitted, 10);
            rig.queue.issue_pending();
            submitted += 1;
            while rig.host.shell.step() {}
            assert!(!rig.queue.arm(), "{name}: CHANSTS tells that it has ended");
            rig.queue.poll(|done| check(&done, Status::Success));
        }
        assert!(submitted < 8, "{name}: all slots were used again, {submitted}");
        let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
        let refused = rig.queue.copy(source.slice(0..10), target.slice(0..10), 9);
        assert_eq!(refused.expect_err("full").error, SubmitError::RingFull);
        rig.host.shell.pass(Duration::from_millis(1));
        rig.queue.poll(|_| panic!("all were reported"));
        assert_eq!(rig.queue.space(), rig.queue.info().ring_size, "{name}");
        for _ in 0..20 {
            rig.works();
        }
    }
}

/// All completion words of more than a round are lost: nothing is lost with them, and the channel does
/// not fill up.
#[test]
fn a_channel_gets_along_without_any_word_for_long() {
    for (name, config) in versions::all() {
        for lost in [3, 8, 20, 100] {
            let first = Counted::first(&config);
            let faults = (first..first + lost)
                .fold(Faults::none(), |faults, at| faults.at(0, at, Fault::LostCompletion));
            let options = Options { ring_order: 3, ..Options::default() };
            let mut rig = Rig::<Stepped>::new(Config { faults, ..config.clone() }, options);
            let (mut submitted, mut ended) = (0, 0);
            let start = rig.host.now();
            while ended < 50 {
                if rig.queue.space() > 0 && submitted < 50 {
                    rig.submit(submitted, 10);
                    rig.queue.issue_pending();
                    submitted += 1;
                }
                rig.queue.poll(|done| {
                    check(&done, Status::Success);
                    ended += 1;
                });
                rig.host.delay(Duration::from_micros(10));
                // A channel that does not get through its start rests for a second each time.
                assert!(rig.host.now() - start < Duration::from_secs(200), "{name}: {ended}");
            }
        }
    }
}

#[test]
fn incidents_say_what_has_happened() {
    for (kind, text) in [
        (IncidentKind::CompletionLost, "channel 1 lost a completion write"),
        (IncidentKind::NoProgress, "channel 1 makes no progress: doorbell rung again"),
        (IncidentKind::TimedOut, "channel 1 makes no progress: reset"),
        (IncidentKind::Stuck, "channel 1 does not end its reset: out of service until it does"),
        (IncidentKind::Recovered, "channel 1 is back in service"),
        (IncidentKind::Gone, "channel 1 is gone with its device"),
    ] {
        assert_eq!(Incident { channel: 1, kind }.to_string(), text);
    }
}
