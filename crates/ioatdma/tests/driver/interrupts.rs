//! Interrupts in every style: MSI-X with a vector for each channel, one vector for all, a line.

use std::{sync::Arc, thread, time::Duration};

use dmaengine::{DmaDevice, Queue, Status};
use ioat_model::{Config, Fault, Faults, InterruptStyle, Stepped, Version};
use ioatdma::{Bar, Interrupts, IoatDevice, Options};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    machine::{Host, Shell, Threaded},
    rig::{Copies, DEADLINE, Random, Rig, check},
    versions,
};

const STYLES: [InterruptStyle; 3] =
    [InterruptStyle::Msix, InterruptStyle::Msi, InterruptStyle::Intx];

fn wait(queue: &Copies, timeout: Duration) -> bool {
    let event = queue.event().expect("an event");
    let timeout = Timespec::try_from(timeout).expect("fits");
    poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout)) == Ok(1)
}

fn is_set(queue: &Copies) -> bool {
    wait(queue, Duration::ZERO)
}

/// Each channel's client blocks on every batch; a lost event would end in the time-out. The watchdog
/// is far off, so that it cannot help.
fn nobody_waits_for_ever(host: &Arc<Host<Threaded>>, rounds: u64) {
    let options = Options { watchdog: DEADLINE * 3, ..Options::default() };
    let device: IoatDevice = host.probe(options).expect("a good device");
    let arena = dmaengine::Arena::new(4 << 20).expect("memory");
    device.map(&arena).expect("room");
    thread::scope(|scope| {
        for index in 0..device.channels().len() {
            let (device, arena, host) = (&device, arena.clone(), Arc::clone(host));
            scope.spawn(move || {
                let queue = Queue::new(device.request_channel(index).expect("free"));
                let mut random = Random(index as u64);
                let mut client = Client { queue, arena, host };
                for _ in 0..rounds {
                    let count = 1 + random.below(4);
                    for number in 0..count {
                        client.submit(number, 1 + random.below(3000));
                    }
                    client.queue.issue_pending();
                    let mut ended = 0;
                    while ended < count {
                        if client.queue.arm() {
                            assert!(wait(&client.queue, DEADLINE), "the event was lost");
                        }
                        client.queue.poll(|done| {
                            check(&done, Status::Success);
                            ended += 1;
                        });
                    }
                }
            });
        }
    });
}

/// As a rig, of one of several channels.
struct Client {
    queue: Copies,
    arena: dmaengine::Arena,
    // For the device to outlive the queue.
    #[expect(dead_code, reason = "kept")]
    host: Arc<Host<Threaded>>,
}

impl Client {
    fn submit(&mut self, number: usize, len: usize) {
        let buffer = |len: usize, byte: u8| {
            let mut buffer = self.arena.alloc(len).expect("room");
            buffer.fill(byte);
            buffer
        };
        let source = buffer(len, number as u8 + 1).slice(0..len);
        let target = buffer(len + 2, 0).slice(1..len + 1);
        self.queue.copy(source, target, number).expect("room in the ring");
    }
}

#[test]
fn no_event_is_lost_among_four_channels_in_any_style() {
    for interrupts in STYLES {
        println!("{interrupts:?}");
        let config = Config { interrupts, channels: 4, ..Config::default() };
        nobody_waits_for_ever(&Host::new(config), 700);
    }
}

/// MSI-X with too few vectors is as one vector for all.
#[test]
fn no_event_is_lost_with_fewer_vectors_than_channels() {
    let config = Config { channels: 3, ..Config::default() };
    let host = Host::with_shell(Threaded::new(config), Interrupts::MsiX { vectors: 2 });
    nobody_waits_for_ever(&host, 700);
}

#[test]
fn no_event_is_lost_in_any_version() {
    for (name, config) in versions::all() {
        for interrupts in STYLES {
            println!("{name}, {interrupts:?}");
            let config = Config { interrupts, channels: 2, ..config.clone() };
            nobody_waits_for_ever(&Host::new(config), 60);
        }
    }
}

#[test]
fn a_device_without_interrupts_is_polled() {
    for none in [Interrupts::None, Interrupts::MsiX { vectors: 0 }] {
        let shell = <Stepped as Shell>::new(Config::default());
        let host = Host::with_shell(shell, none);
        let device = host.probe(Options::default()).expect("a good device");
        assert!(!device.channels()[0].capabilities.contains(dmaengine::Capabilities::INTERRUPT));
        let mut channel = device.request_channel(0).expect("free");
        assert!(channel.event().is_none() && !channel.arm());
    }
}

/// What one channel's client sorts out reaches the other's.
#[test]
fn a_shared_vector_is_sorted_by_whoever_looks_first() {
    for interrupts in [InterruptStyle::Msi, InterruptStyle::Intx] {
        let config = Config { interrupts, channels: 2, ..Config::default() };
        let mut rig = Rig::<Stepped>::new(config, Options::default());
        let mut second: Copies = Queue::new(rig.device.request_channel(1).expect("free"));
        for number in 0..2 {
            rig.submit(number, 10);
            let (source, target) = (rig.buffer(10, 1), rig.buffer(10, 0));
            second.copy(source.slice(0..10), target.slice(0..10), 0).expect("room");
        }
        rig.queue.issue_pending();
        second.issue_pending();
        assert!(rig.queue.arm() && second.arm());
        while rig.host.shell.step() {}
        // The first wakes and looks, with more to wait for, before the second has woken.
        assert!(is_set(&rig.queue) && is_set(&second));
        rig.submit(2, 10);
        rig.queue.issue_pending();
        assert!(rig.queue.arm(), "{interrupts:?}");
        assert!(!is_set(&rig.queue), "{interrupts:?}: it was for this one, and has been cleared");
        assert!(is_set(&second), "{interrupts:?}: it was also for the other");
        assert_eq!(second.poll(|done| assert_eq!(done.status, Status::Success)), 2);
        assert!(!second.arm());
        while rig.host.shell.step() {}
        assert!(is_set(&rig.queue), "{interrupts:?}: the line is not stuck");
        rig.wait_for(3).iter().for_each(|done| check(done, Status::Success));
    }
}

/// The watchdog's timer wakes who waits for an interrupt that was lost.
#[test]
fn a_lost_interrupt_is_not_waited_for_long() {
    let first = crate::machine::Counted::first(&Config::default());
    let faults = Faults::none().at(0, first + 1, Fault::LostInterrupt);
    let watchdog = Duration::from_millis(10);
    let mut rig = Rig::<Threaded>::new(
        Config { faults, ..Config::default() },
        Options { watchdog, ..Options::default() },
    );
    rig.submit(0, 10);
    rig.queue.issue_pending();
    if rig.queue.arm() {
        assert!(wait(&rig.queue, DEADLINE), "nobody came");
    }
    check(&rig.wait_for(1)[0], Status::Success);
}

/// Who only ever waits for events gets a channel back that hangs.
#[test]
fn a_hang_is_found_by_a_client_that_blocks() {
    let first = crate::machine::Counted::first(&Config::default());
    let faults = Faults::none().at(0, first + 1, Fault::Hang);
    let watchdog = Duration::from_millis(5);
    let mut rig = Rig::<Threaded>::new(
        Config { faults, ..Config::default() },
        Options { watchdog, ..Options::default() },
    );
    for number in 0..3 {
        rig.submit(number, 10);
    }
    rig.queue.issue_pending();
    let mut ended = Vec::new();
    let mut waits = 0;
    while ended.len() < 3 {
        if rig.queue.arm() {
            assert!(wait(&rig.queue, DEADLINE), "nobody came");
            waits += 1;
        }
        rig.queue.poll(|done| ended.push(done));
    }
    // One for each strike, and one for what the interrupt itself told.
    assert!(waits <= 4, "{waits}");
    for (done, status) in ended.iter().zip([Status::Success, Status::TimedOut, Status::Aborted]) {
        check(done, status);
    }
}

#[test]
fn interrupts_are_held_back_if_they_shall_be() {
    let interrupt_delay = Duration::from_micros(100);
    let options = Options { interrupt_delay, ..Options::default() };
    let mut rig = Rig::<Stepped>::new(Config::default(), options);
    rig.submit(0, 10);
    rig.queue.issue_pending();
    assert!(rig.queue.arm());
    while rig.host.shell.step() {}
    rig.host.shell.pass(Duration::from_micros(99));
    assert!(!is_set(&rig.queue));
    rig.host.shell.pass(Duration::from_micros(1));
    assert!(is_set(&rig.queue));
    check(&rig.wait_for(1)[0], Status::Success);

    /// INTRDELAY.
    const INTRDELAY: u64 = 0x0c;
    for (delay, value) in [(Duration::from_secs(1), 0x3fff), (Duration::ZERO, 0)] {
        assert!(rig.device.set_interrupt_delay(delay));
        assert_eq!(rig.host.read16(INTRDELAY) & 0x3fff, value);
    }
}

/// The table is set up anew after each reset of a channel that takes it away, and never otherwise.
#[test]
fn vectors_are_restored_where_a_reset_loses_them() {
    use std::sync::atomic::Ordering;

    for (name, config) in versions::all() {
        for interrupts in [InterruptStyle::Msix, InterruptStyle::Msi] {
            let config = Config { interrupts, ..config.clone() };
            let mut rig = Rig::<Stepped>::new(config.clone(), Options::default());
            let before = rig.host.restored.swap(0, Ordering::Relaxed);
            rig.queue.terminate_sync(Duration::from_secs(1), drop).expect("idle");
            let after = rig.host.restored.load(Ordering::Relaxed);
            let lost = config.version == Version::V3_3 && interrupts == InterruptStyle::Msix;
            assert_eq!((before > 0, after), (lost, usize::from(lost)), "{name}");
        }
    }
}
