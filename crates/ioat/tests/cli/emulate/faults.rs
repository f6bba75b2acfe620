//! The faults that `ioat emulate` takes orders for, as a guest meets them.

#[path = "../../../../ioat-model/tests/vfio_user/client.rs"]
#[expect(dead_code, reason = "the tests of the server use more of it")]
mod client;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ioat_model::{
    PAGE,
    descriptor::Control,
    registers::{ATTNSTATUS, CHANCNT, ChanErr, channel::*},
};

use self::client::*;
use super::Short;
use crate::{DONE as ENDED_WELL, Running, ioat, waiting::until};

/// Where the guest's memory is.
const BASE: u64 = 0x10_0000;
/// Where its second page is: that of the completion words, one a channel.
const WORDS: u64 = BASE + PAGE;
/// As many as a page has room for.
const SLOTS: u64 = PAGE / 64;
const CHANNELS: u64 = 3;
/// A state of a channel, besides the client's.
const ACTIVE: u64 = 0;
const SUSPEND: u8 = 0x04;
const RESET: u8 = 0x20;
/// The time that a fault is given which a test waits for.
const LATE: Duration = Duration::from_millis(20);

/// The address of a descriptor.
const fn slot(number: u64) -> u64 {
    BASE + number % SLOTS * 64
}

/// A device with faults, and a guest with a ring of null descriptors, which all channels run around.
struct Emulated {
    running: Running,
    client: Client,
    guest: Guest,
    _short: Short,
}

impl Emulated {
    fn new(name: &str, faults: &[&str]) -> Self {
        let short = Short::new(name);
        let socket = short.path("socket");
        let channels = CHANNELS.to_string();
        let mut command = ioat(&["emulate", "--socket", &socket, "--channels", &channels]);
        command.args(faults.iter().flat_map(|fault| ["--fault", fault]));
        let running = Running::listening(&mut command);
        let mut client = Client::connect(Path::new(&socket));
        client.agree();
        let guest = Guest::sealed(4);
        client.map((BASE, 4 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("it is free");
        let control = Control::NULL | Control::COMPL_WRITE | Control::INT_EN;
        for number in 0..SLOTS {
            let at = slot(number) - BASE;
            guest.copy(at, control.bits().into(), (0, 0), 1, slot(number + 1));
        }
        let mut device = Self { running, client, guest, _short: short };
        device.set_up();
        device
    }

    /// Prepares the channels to run around the ring, from its first descriptor on.
    fn set_up(&mut self) {
        self.client.enable();
        for channel in 0..CHANNELS {
            self.client.write_channel(channel, CHANCTRL, &1_u16.to_le_bytes());
            for (register, address) in [(CHANCMP, WORDS + 8 * channel), (CHAINADDR, BASE)] {
                self.client.write_channel(channel, register, &(address as u32).to_le_bytes());
                self.client.write_channel(channel, register + 4, &[0; 4]);
            }
        }
    }

    fn doorbell(&mut self, channel: u64, count: u16) {
        self.client.write_channel(channel, DMACOUNT, &count.to_le_bytes());
    }

    /// Lets a channel work until it has done so many descriptors; its state, and CHANERR.
    fn run(&mut self, channel: u64, count: u16) -> (u64, u32) {
        self.doorbell(channel, count);
        self.client.finish(channel)
    }

    fn command(&mut self, channel: u64, command: u8) {
        self.client.write_channel(channel, CHANCMD, &[command]);
    }

    fn is_resetting(&mut self, channel: u64) -> bool {
        self.client.read_channel(channel, CHANCMD, 1) == u64::from(RESET)
    }

    fn status(&mut self, channel: u64) -> u64 {
        self.client.read_channel(channel, CHANSTS, 8)
    }

    /// A channel's completion word.
    fn word(&self, channel: u64) -> u64 {
        let bytes = self.guest.bytes(WORDS - BASE + 8 * channel, 8);
        u64::from_le_bytes(bytes.try_into().expect("eight"))
    }

    fn end(self) {
        drop(self.client);
        self.running.interrupt();
        assert_eq!(self.running.finish().status.code(), ENDED_WELL);
    }
}

#[test]
fn descriptors_fail_and_channels_halt() {
    let mut device =
        Emulated::new("fail", &["error@chan0.2:read-data+xor-q", "halt@chan1.3,halt@chan2.1"]);
    let errors = ChanErr::READ_DATA | ChanErr::XOR_Q;
    assert_eq!(device.run(0, 9), (HALTED, errors.bits()));
    assert_eq!(device.status(0), slot(0) | HALTED);
    assert_eq!(device.run(1, 9), (HALTED, 0));
    assert_eq!(device.status(1), slot(1) | HALTED);
    assert_eq!(device.run(2, 9), (HALTED, 0));
    assert_eq!(device.status(2), HALTED);
    device.end();
}

#[test]
fn channels_hang_and_the_dead_are_not_reset() {
    let mut device = Emulated::new("hang", &["hang@chan0.2", "dead@chan1.2"]);
    for channel in [0, 1] {
        device.doorbell(channel, 3);
    }
    // The channels take turns: each of the others has had more than it needs.
    assert_eq!(device.run(2, 9), (DONE, 0));
    for channel in [0, 1] {
        assert_eq!(device.status(channel), slot(0) | ACTIVE);
        device.command(channel, SUSPEND);
        assert_eq!(device.status(channel), slot(0) | ACTIVE);
        device.command(channel, RESET);
    }
    assert!(!device.is_resetting(0));
    assert_eq!(device.status(0), HALTED);
    assert!(device.is_resetting(1));
    device.client.request(DEVICE_RESET, &[]).expect("a command");
    assert!(!device.is_resetting(1));
    device.end();
}

#[test]
fn completion_words_are_lost_and_late() {
    let order = [
        "lose-completion@chan0.1x2",
        "delay-completion@chan1.1:3600s,delay-completion@chan2.1:20ms",
    ];
    let mut device = Emulated::new("words", &order);
    assert_eq!(device.run(0, 2), (DONE, 0));
    assert_eq!(device.word(0), 0);
    assert_eq!(device.run(0, 3), (DONE, 0));
    assert_eq!(device.word(0), slot(2) | DONE);
    // Here the next one waits behind the one that is late.
    assert_eq!(device.run(1, 1), (DONE, 0));
    assert_eq!(device.run(1, 2), (DONE, 0));
    assert_eq!(device.word(1), 0);
    let started = Instant::now();
    device.doorbell(2, 1);
    until("the completion word comes", || device.word(2) != 0);
    assert!(started.elapsed() >= LATE);
    assert_eq!(device.word(2), slot(0) | DONE);
    device.end();
}

#[test]
fn interrupts_and_doorbells_are_lost() {
    let mut device = Emulated::new("lost", &["lose-interrupt@chan0.1", "lose-doorbell@2"]);
    let attention = |device: &mut Emulated| device.client.read(BAR, ATTNSTATUS, 4);
    assert_eq!(device.run(0, 1), (DONE, 0));
    assert_eq!(attention(&mut device), Ok(vec![0; 4]));
    device.doorbell(0, 2);
    assert_eq!(device.client.read_channel(0, DMACOUNT, 2), 1);
    assert_eq!(device.status(0), slot(0) | DONE);
    assert_eq!(device.run(0, 2), (DONE, 0));
    assert_eq!(device.status(0), slot(1) | DONE);
    assert_eq!(attention(&mut device), Ok(vec![1, 0, 0, 0]));
    device.end();
}

#[test]
fn resets_take_long() {
    let mut device = Emulated::new("reset", &["slow-reset@1:3600s", "slow-reset@chan1.2:20ms"]);
    device.command(1, RESET);
    assert!(device.is_resetting(1));
    device.command(1, RESET);
    assert!(device.is_resetting(1));
    device.client.request(DEVICE_RESET, &[]).expect("a command");
    assert!(!device.is_resetting(1));
    let started = Instant::now();
    device.command(1, RESET);
    until("the reset ends", || !device.is_resetting(1));
    assert!(started.elapsed() >= LATE);
    device.end();
}

#[test]
fn the_device_vanishes() {
    let mut device = Emulated::new("vanish", &["vanish@chan1.2"]);
    assert_eq!(device.run(0, 2), (DONE, 0));
    device.doorbell(1, 2);
    until("the device vanishes", || device.client.read(BAR, CHANCNT, 1) == Ok(vec![0xff]));
    assert_eq!(device.word(1), slot(0) | ACTIVE, "one was done");
    assert_eq!(device.client.read(CONFIG, 0, 4), Ok(vec![0xff; 4]));
    device.client.request(DEVICE_RESET, &[]).expect("the server is there");
    assert_eq!(device.status(0), u64::MAX);
    device.end();
}

#[test]
fn limits_make_it_slow() {
    let mut device = Emulated::new("limits", &["latency=20ms", "bandwidth=100k"]);
    let started = Instant::now();
    assert_eq!(device.run(0, 2), (DONE, 0));
    assert!(started.elapsed() >= 2 * LATE);
    let data = pattern(PAGE as usize);
    device.guest.store(2 * PAGE, &data);
    device.guest.copy(2 * 64, 0, (BASE + 2 * PAGE, BASE + 3 * PAGE), PAGE as u32, slot(3));
    let started = Instant::now();
    assert_eq!(device.run(0, 3), (DONE, 0));
    assert!(started.elapsed() >= Duration::from_micros(40_960));
    assert_eq!(device.guest.bytes(3 * PAGE, PAGE as usize), data);
    device.end();
}

#[test]
fn random_faults_follow_the_seed() {
    let words = |seed: &str| -> Vec<u64> {
        let mut device = Emulated::new("random", &["lose-completion@1/3", seed]);
        let mut word = |count| {
            assert_eq!(device.run(0, count), (DONE, 0));
            device.word(0)
        };
        let words = (1..=40).map(&mut word).collect();
        device.end();
        words
    };
    let lost = |words: &[u64]| (0..40).filter(|n| words[*n as usize] != slot(*n) | DONE).count();
    let first = words("seed=7");
    assert!((1..40).contains(&lost(&first)), "{first:x?}");
    assert_eq!(words("seed=7"), first);
    assert_ne!(words("seed=8"), first);
}
