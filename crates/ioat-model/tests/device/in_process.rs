//! The device on its own thread.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ioat_model::{
    MapError, PAGE, State, Version,
    descriptor::Control,
    in_process::{Bar, Config, Device},
    registers::{CBVER, CHANNEL_BLOCK, ChanErr, INTRCTRL, Width, channel::*, channel_v1},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::rig::Memory;

const BASE: u64 = 0x4000_0000;
const PAGES: usize = 64;
const COMPLETION: u64 = 63 * PAGE;
/// Long enough for any machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Rig {
    // Before the memory: the device is gone when the memory goes.
    device: Device,
    bar: Bar,
    memory: Memory,
}

impl Rig {
    fn start() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let device = Device::start(config).expect("a thread");
        let bar = device.bar();
        let memory = Memory::new(PAGES);
        // SAFETY: `memory` is dropped after the device, and never borrowed as plain data.
        unsafe { bar.map(BASE, memory.pointer(), memory.len()) }.expect("aligned");
        bar.write(INTRCTRL, Width::W8, 1);
        let rig = Self { device, bar, memory };
        rig.set(CHANCTRL, Width::W16, 0x1d);
        rig.set(CHANCMP, Width::W64, BASE + COMPLETION);
        rig.set(CHAINADDR, Width::W64, BASE);
        rig
    }

    fn set(&self, register: u64, width: Width, value: u64) {
        self.bar.write(CHANNEL_BLOCK + register, width, value);
    }

    fn get(&self, register: u64, width: Width) -> u64 {
        self.bar.read(CHANNEL_BLOCK + register, width)
    }

    /// A copy descriptor at slot `slot` of a ring of `ring`.
    fn copy(&self, slot: u64, ring: u64, source: u64, target: u64, len: u32, control: Control) {
        let head = u64::from(len) | u64::from(control.bits()) << 32;
        let next = BASE + (slot + 1) % ring * 64;
        self.memory.store(slot * 64, &[head, BASE + source, BASE + target, next]);
    }

    /// Waits, without sleeping, for the completion word to be `expected`.
    fn wait_for(&self, expected: u64) {
        let start = Instant::now();
        // Acquire: pairs with the device's release.
        while self.memory.word(COMPLETION).load(Ordering::Acquire) != expected {
            assert!(
                start.elapsed() < DEADLINE,
                "no completion: {:#x}",
                self.get(CHANSTS, Width::W64)
            );
            std::thread::yield_now();
        }
    }
}

#[test]
fn thousands_of_doorbells_and_none_is_lost() {
    let rig = Rig::start();
    let ring = 16;
    let mut count = 0_u16;
    for round in 0..5000_u64 {
        let slot = round % ring;
        let byte = round as u8;
        rig.memory.set_bytes(PAGE, &[byte; 64]);
        rig.copy(slot, ring, PAGE, 2 * PAGE, 64, Control::COMPL_WRITE);
        count += 1;
        rig.set(DMACOUNT, Width::W16, count.into());
        if round % 7 == 0 {
            // Any other access delivers the doorbell in this thread: the device must still wake.
            assert_ne!(rig.get(CHANSTS, Width::W64) & 7, State::Halted as u64);
        }
        rig.wait_for((BASE + slot * 64) | State::Done as u64);
        assert_eq!(rig.memory.bytes(2 * PAGE, 64), [byte; 64]);
        // Now and then, give the device the time to fall asleep.
        if round % 100 == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

#[test]
fn an_interrupt_arrives_on_the_eventfd() {
    let rig = Rig::start();
    rig.copy(0, 2, PAGE, 2 * PAGE, 64, Control::INT_EN | Control::COMPL_WRITE);
    rig.set(DMACOUNT, Width::W16, 1);
    let fd = rig.bar.interrupt(0).expect("channel 0");
    let timeout = Timespec::try_from(DEADLINE).expect("fits");
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
    assert_eq!(ready, Ok(1));
    assert_eq!(rig.memory.word(COMPLETION).load(Ordering::Acquire), BASE | State::Done as u64);
    let mut count = [0; 8];
    assert_eq!(rustix::io::read(fd, &mut count), Ok(8));
    assert_eq!(u64::from_ne_bytes(count), 1);
    assert_eq!(rustix::io::read(fd, &mut count), Err(Errno::AGAIN));
    assert!(rig.bar.interrupt(1).is_none());
}

#[test]
fn unmapped_memory_is_out_of_reach() {
    let rig = Rig::start();
    let other = Memory::new(1);
    let address = BASE + 0x10_0000;
    // SAFETY: unmapped below, before `other` goes.
    unsafe { rig.bar.map(address, other.pointer(), other.len()) }.expect("aligned");
    rig.memory.set_bytes(PAGE, &[7; 8]);
    rig.copy(0, 8, PAGE, address - BASE, 8, Control::COMPL_WRITE);
    rig.set(DMACOUNT, Width::W16, 1);
    rig.wait_for(BASE | State::Done as u64);
    assert_eq!(other.bytes(0, 9), [7, 7, 7, 7, 7, 7, 7, 7, 0]);
    assert!(rig.bar.unmap(address));
    assert!(!rig.bar.unmap(address), "nothing there any more");
    rig.copy(1, 8, PAGE, address - BASE, 8, Control::COMPL_WRITE);
    rig.set(DMACOUNT, Width::W16, 2);
    rig.wait_for(BASE | State::Halted as u64);
    assert_eq!(rig.get(CHANERR, Width::W32), ChanErr::DESTINATION_ADDRESS.bits().into());
}

#[test]
fn copies_run_across_adjacent_mappings() {
    let rig = Rig::start();
    let parts = Memory::new(2);
    let address = BASE + 0x20_0000;
    let page = PAGE as usize;
    for (index, at) in [(1, address), (0, address + PAGE)] {
        // SAFETY: the device is stopped below, before `parts` goes.
        unsafe { rig.bar.map(at, parts.pointer().wrapping_add(index * page), page) }
            .expect("aligned");
    }
    let bytes: Vec<u8> = (0..200).collect();
    rig.memory.set_bytes(PAGE, &bytes);
    rig.copy(0, 2, PAGE, address + PAGE - 100 - BASE, 200, Control::COMPL_WRITE);
    rig.set(DMACOUNT, Width::W16, 1);
    rig.wait_for(BASE | State::Done as u64);
    assert_eq!(parts.bytes(2 * PAGE - 100, 100), bytes[..100]);
    assert_eq!(parts.bytes(0, 100), bytes[100..]);
    drop(rig.device);
}

#[test]
fn mappings_that_make_no_sense_are_refused() {
    let rig = Rig::start();
    let memory = Memory::new(2);
    let at = memory.pointer();
    let map = |iova, memory, len| {
        // SAFETY: all of these are refused.
        unsafe { rig.bar.map(iova, memory, len) }
    };
    assert_eq!(map(1, at, 4096), Err(MapError::Unaligned));
    assert_eq!(map(0, at.wrapping_add(8), 4096), Err(MapError::Unaligned));
    assert_eq!(map(0, at, 4095), Err(MapError::Unaligned));
    assert_eq!(map(0, at, 0), Err(MapError::Unaligned));
    assert_eq!(map(u64::MAX - 4095, at, 8192), Err(MapError::Wraps));
    assert_eq!(map(BASE, at, 4096), Err(MapError::Overlap));
    assert_eq!(map(BASE - PAGE, at, 8192), Err(MapError::Overlap));
    assert_eq!(map(BASE + 63 * PAGE, at, 8192), Err(MapError::Overlap));
}

#[test]
fn a_device_that_is_gone_reads_as_all_ones() {
    let rig = Rig::start();
    assert_eq!(rig.bar.read(CBVER, Width::W8), 0x33);
    let start = Instant::now();
    while rig.device.cpu_time().expect("a running thread") == Duration::ZERO {
        assert!(start.elapsed() < DEADLINE, "the thread works and its clock stands");
        rig.set(CHANCMD, Width::W8, 0);
    }
    drop(rig.device);
    assert_eq!(rig.bar.read(CBVER, Width::W8), u64::MAX);
    rig.bar.write(CHANNEL_BLOCK + DMACOUNT, Width::W16, 1);
    assert!(rig.bar.unmap(BASE), "does not wait for a thread that has ended");
}

/// Four channels of every version, each with a ring of its own, at once.
#[test]
fn every_version_with_several_channels() {
    for version in Version::ALL {
        let model = ioat_model::Config { version, channels: 4, ..ioat_model::Config::default() };
        let device = Device::start(Config { model, ..Config::default() }).expect("a thread");
        let bar = device.bar();
        let memory = Memory::new(PAGES);
        // SAFETY: `memory` is dropped after the device, and never borrowed as plain data.
        unsafe { bar.map(BASE, memory.pointer(), memory.len()) }.expect("aligned");
        let v1 = version == Version::V1_2;
        let chain = if v1 { channel_v1::CHAINADDR } else { CHAINADDR };
        for channel in 0..4 {
            let block = CHANNEL_BLOCK * (channel + 1);
            let base = channel * 8 * PAGE;
            for slot in 0..32 {
                let last = slot == 31;
                let control = if last { Control::COMPL_WRITE } else { Control::empty() };
                let head = 16 | u64::from(control.bits()) << 32;
                let (source, target) = (base + PAGE + slot * 16, base + 2 * PAGE + slot * 16);
                memory.store(source, &[channel << 32 | slot | 1 << 63, !slot]);
                let next = if last { 0 } else { BASE + base + (slot + 1) * 64 };
                memory.store(base + slot * 64, &[head, BASE + source, BASE + target, next]);
            }
            for (register, address) in [(chain, base), (CHANCMP, base + 7 * PAGE)] {
                let address = BASE + address;
                bar.write(block + register, Width::W32, address & 0xffff_ffff);
                bar.write(block + register + 4, Width::W32, address >> 32);
            }
        }
        for channel in 0..4 {
            let block = CHANNEL_BLOCK * (channel + 1);
            if v1 {
                bar.write(block + channel_v1::CHANCMD, Width::W8, 1);
            } else {
                bar.write(block + DMACOUNT, Width::W16, 32);
            }
        }
        let start = Instant::now();
        for channel in 0..4 {
            let base = channel * 8 * PAGE;
            let done = (BASE + base + 31 * 64) | State::Done as u64;
            // Acquire: pairs with the device's release.
            while memory.word(base + 7 * PAGE).load(Ordering::Acquire) != done {
                assert!(start.elapsed() < DEADLINE, "{version}: no completion on {channel}");
                std::thread::yield_now();
            }
            assert_eq!(
                memory.bytes(base + PAGE, 32 * 16),
                memory.bytes(base + 2 * PAGE, 32 * 16),
                "{version}"
            );
        }
        drop(device);
    }
}

/// Nothing but time brings a late completion: the device's thread must wake for it by itself.
#[test]
fn the_thread_wakes_when_something_is_due() {
    for text in ["delay-completion@1:20ms", "latency=20ms"] {
        let faults = text.parse().expect(text);
        let model = ioat_model::Config { faults, ..ioat_model::Config::default() };
        let rig = Rig::with(Config { model, ..Config::default() });
        rig.copy(0, 2, PAGE, 2 * PAGE, 64, Control::INT_EN | Control::COMPL_WRITE);
        rig.set(DMACOUNT, Width::W16, 1);
        let fd = rig.bar.interrupt(0).expect("channel 0");
        let timeout = Timespec::try_from(DEADLINE).expect("fits");
        assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)), Ok(1));
        assert_eq!(rig.memory.word(COMPLETION).load(Ordering::Acquire), BASE | State::Done as u64);
    }
}

#[test]
fn configuration_space_is_there_until_the_device_is_gone() {
    let rig = Rig::start();
    let mut id = [0; 4];
    rig.bar.config_read(0, &mut id);
    assert_eq!(id, [0x86, 0x80, 0x21, 0x20]);
    rig.bar.config_write(4, &[0, 0]);
    rig.copy(0, 2, PAGE, 2 * PAGE, 64, Control::COMPL_WRITE);
    rig.set(DMACOUNT, Width::W16, 1);
    assert_eq!(rig.get(CHANSTS, Width::W64), State::Active as u64);
    rig.bar.config_write(4, &[6, 0]);
    rig.wait_for(BASE | State::Done as u64);
    drop(rig.device);
    rig.bar.config_read(0, &mut id);
    assert_eq!(id, [0xff; 4]);
}
