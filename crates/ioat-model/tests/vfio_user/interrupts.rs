//! Interrupts reach the client through its eventfds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ioat_model::{
    Config, InterruptStyle, PAGE,
    config_space::{
        BUS_MASTER, COMMAND, INTX_DISABLE, MEMORY_SPACE, MSI_CONTROL, MSI_ENABLE, MSIX_CONTROL,
        MSIX_ENABLE,
    },
    descriptor::Control,
    registers::{ATTNSTATUS, INTRCTRL, IntrCtrl, channel::CHANCTRL},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use crate::{bytes, client::*, served::Served};

const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;

const NONE: u32 = 1 << 0;
const BOOL: u32 = 1 << 1;
const EVENTFD: u32 = 1 << 2;
const MASK: u32 = 1 << 3;
const UNMASK: u32 = 1 << 4;
const TRIGGER: u32 = 1 << 5;

const BASE: u64 = 0x10_0000;

struct Vector(OwnedFd);

impl Vector {
    fn new() -> Self {
        Self(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"))
    }

    /// Interrupts since the last call, none of which is waited for.
    fn count(&self) -> u64 {
        let mut files = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut files, Some(&now)) == Ok(0) { 0 } else { self.read() }
    }

    /// Waits for interrupts, and counts them.
    fn wait(&self) -> u64 {
        let mut files = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec { tv_sec: SOON.as_secs().cast_signed(), tv_nsec: 0 };
        assert_eq!(poll(&mut files, Some(&limit)), Ok(1), "an interrupt comes");
        self.read()
    }

    fn read(&self) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count).expect("readable");
        u64::from_ne_bytes(count)
    }
}

impl AsFd for Vector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set(
    client: &mut Client,
    flags: u32,
    index: u32,
    (start, count): (u32, u32),
    data: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<(), Refused> {
    let mut body = bytes![20 + data.len() as u32, flags, index, start, count];
    body.extend_from_slice(data);
    client.request_with(DEVICE_SET_IRQS, &body, files).map(|reply| assert!(reply.is_empty()))
}

/// A client of a device with two channels that interrupt in this style, and its memory.
fn ready(style: InterruptStyle) -> (Served, Client, Guest) {
    let served = Served::start(Config { channels: 2, interrupts: style, ..Config::default() });
    let mut client = served.client();
    client.enable();
    match style {
        InterruptStyle::Intx => {}
        InterruptStyle::Msi => {
            client.write(CONFIG, MSI_CONTROL, &MSI_ENABLE.to_le_bytes()).expect("writable");
        }
        InterruptStyle::Msix => {
            client.write(CONFIG, MSIX_CONTROL, &MSIX_ENABLE.to_le_bytes()).expect("writable");
        }
    }
    arm(&mut client);
    let guest = Guest::sealed(2);
    client.map((BASE, 2 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    (served, client, guest)
}

/// Lets interrupts out, of both channels.
fn arm(client: &mut Client) {
    let control = IntrCtrl::MASTER_INT_EN | IntrCtrl::MSIX_VECTOR_CONTROL;
    client.write(BAR, INTRCTRL, &[control.bits()]).expect("writable");
    for channel in 0..2 {
        client.write_channel(channel, CHANCTRL, &1_u16.to_le_bytes());
    }
}

/// Has a channel do something that ends with an interrupt.
fn work(client: &mut Client, guest: &Guest, channel: u64) {
    let at = channel * 64;
    let control = u64::from((Control::INT_EN | Control::NULL).bits());
    guest.copy(at, control, (0, 0), 1, BASE + at);
    client.start(channel, BASE + at, 1);
    client.finish(channel);
}

#[test]
fn msix_has_a_vector_for_each_channel() {
    let (_served, mut client, guest) = ready(InterruptStyle::Msix);
    let vectors = [Vector::new(), Vector::new()];
    let files = [vectors[0].as_fd(), vectors[1].as_fd()];
    set(&mut client, EVENTFD | TRIGGER, MSIX, (0, 2), &[], &files).expect("two vectors");
    work(&mut client, &guest, 1);
    assert_eq!((vectors[1].wait(), vectors[0].count()), (1, 0));
    work(&mut client, &guest, 0);
    assert_eq!((vectors[0].wait(), vectors[1].count()), (1, 0));
    // One is taken away, then one put in its place.
    set(&mut client, EVENTFD | TRIGGER, MSIX, (1, 1), &[], &[]).expect("vector 1");
    arm(&mut client);
    work(&mut client, &guest, 1);
    work(&mut client, &guest, 0);
    assert_eq!((vectors[0].wait(), vectors[1].count()), (1, 0));
    let other = Vector::new();
    set(&mut client, EVENTFD | TRIGGER, MSIX, (1, 1), &[], &[other.as_fd()]).expect("vector 1");
    arm(&mut client);
    work(&mut client, &guest, 1);
    assert_eq!((other.wait(), vectors[1].count()), (1, 0));
    // All are taken away.
    set(&mut client, NONE | TRIGGER, MSIX, (0, 0), &[], &[]).expect("all of them");
    arm(&mut client);
    work(&mut client, &guest, 0);
    work(&mut client, &guest, 1);
    assert_eq!((vectors[0].count(), other.count()), (0, 0));
}

#[test]
fn msi_is_one_for_all() {
    let (_served, mut client, guest) = ready(InterruptStyle::Msi);
    let vector = Vector::new();
    set(&mut client, EVENTFD | TRIGGER, MSI, (0, 1), &[], &[vector.as_fd()]).expect("one");
    work(&mut client, &guest, 1);
    assert_eq!(vector.wait(), 1);
    work(&mut client, &guest, 0);
    assert_eq!(vector.wait(), 1);
}

#[test]
fn inta_is_signalled_once_for_each_time_that_it_is_unmasked() {
    let (_served, mut client, guest) = ready(InterruptStyle::Intx);
    let vector = Vector::new();
    set(&mut client, EVENTFD | TRIGGER, INTX, (0, 1), &[], &[vector.as_fd()]).expect("one");
    work(&mut client, &guest, 0);
    assert_eq!(vector.wait(), 1);
    // It stays high, which is not another interrupt, until somebody asks.
    work(&mut client, &guest, 1);
    assert_eq!(vector.count(), 0);
    set(&mut client, NONE | UNMASK, INTX, (0, 1), &[], &[]).expect("maskable");
    assert_eq!(vector.wait(), 1);
    // It falls; unmasking it then brings nothing.
    client.read(BAR, ATTNSTATUS, 4).expect("a register");
    set(&mut client, NONE | UNMASK, INTX, (0, 1), &[], &[]).expect("maskable");
    assert_eq!(vector.count(), 0);
    // Masked meanwhile, it comes when it is unmasked.
    set(&mut client, BOOL | MASK, INTX, (0, 1), &[1], &[]).expect("maskable");
    arm(&mut client);
    work(&mut client, &guest, 0);
    assert_eq!(vector.count(), 0);
    set(&mut client, BOOL | UNMASK, INTX, (0, 1), &[0], &[]).expect("not meant");
    assert_eq!(vector.count(), 0);
    set(&mut client, BOOL | UNMASK, INTX, (0, 1), &[1], &[]).expect("maskable");
    assert_eq!(vector.wait(), 1);
    // Who connects while it is high learns of it.
    let other = Vector::new();
    set(&mut client, EVENTFD | TRIGGER, INTX, (0, 1), &[], &[other.as_fd()]).expect("one");
    assert_eq!((other.wait(), vector.count()), (1, 0));
    // The command register keeps it low.
    let command = MEMORY_SPACE | BUS_MASTER | INTX_DISABLE;
    client.write(CONFIG, COMMAND, &command.to_le_bytes()).expect("writable");
    set(&mut client, NONE | UNMASK, INTX, (0, 1), &[], &[]).expect("maskable");
    assert_eq!(other.count(), 0);
}

#[test]
fn a_client_can_trigger_its_own() {
    let (_served, mut client, _guest) = ready(InterruptStyle::Msix);
    let vectors = [Vector::new(), Vector::new()];
    let files = [vectors[0].as_fd(), vectors[1].as_fd()];
    set(&mut client, EVENTFD | TRIGGER, MSIX, (0, 2), &[], &files).expect("two vectors");
    set(&mut client, NONE | TRIGGER, MSIX, (1, 1), &[], &[]).expect("vector 1");
    assert_eq!((vectors[1].wait(), vectors[0].count()), (1, 0));
    set(&mut client, BOOL | TRIGGER, MSIX, (0, 2), &[1, 0], &[]).expect("vector 0");
    assert_eq!((vectors[0].wait(), vectors[1].count()), (1, 0));
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let (_served, mut client, guest) = ready(InterruptStyle::Msix);
    let vectors = [Vector::new(), Vector::new()];
    let files = [vectors[0].as_fd(), vectors[1].as_fd()];
    set(&mut client, EVENTFD | TRIGGER, MSIX, (0, 2), &[], &files).expect("two vectors");
    let (_reader, writer) = pipe();
    let zero = std::fs::File::options().write(true).open("/dev/zero").expect("there");
    let one = files[0];
    for (flags, index, range, data, files) in [
        // Vectors, kinds, data and actions that there are not.
        (EVENTFD | TRIGGER, MSIX, (2, 1), &[][..], &[one][..]),
        (EVENTFD | TRIGGER, MSIX, (1, 2), &[], &files[..]),
        (EVENTFD | TRIGGER, MSIX, (u32::MAX, 2), &[], &files),
        (EVENTFD | TRIGGER, MSIX, (0, u32::MAX), &[], &files),
        (EVENTFD | TRIGGER, MSI, (0, 2), &[], &files),
        (EVENTFD | TRIGGER, 3, (0, 1), &[], &[one]),
        (EVENTFD | TRIGGER, u32::MAX, (0, 1), &[], &[one]),
        (NONE | BOOL | TRIGGER, MSIX, (0, 1), &[1], &[]),
        (TRIGGER, MSIX, (0, 1), &[], &[]),
        (NONE, MSIX, (0, 1), &[], &[]),
        (NONE | TRIGGER | MASK, INTX, (0, 1), &[], &[]),
        (NONE | TRIGGER | 1 << 6, MSIX, (0, 1), &[], &[]),
        // Only INTA is masked, and not by a file.
        (NONE | MASK, MSIX, (0, 1), &[], &[]),
        (NONE | UNMASK, MSI, (0, 1), &[], &[]),
        (EVENTFD | UNMASK, INTX, (0, 1), &[], &[one]),
        // Too many or too few of what should be as many as the vectors.
        (EVENTFD | TRIGGER, MSIX, (0, 2), &[], &[one]),
        (EVENTFD | TRIGGER, MSIX, (0, 1), &[], &files),
        (BOOL | TRIGGER, MSIX, (0, 2), &[1], &[]),
        (BOOL | TRIGGER, MSIX, (0, 1), &[1, 1], &[]),
        // Files that might keep the device waiting.
        (EVENTFD | TRIGGER, MSIX, (0, 1), &[], &[writer.as_fd()]),
        (EVENTFD | TRIGGER, MSIX, (0, 1), &[], &[zero.as_fd()]),
        (
            EVENTFD | TRIGGER,
            MSIX,
            (0, 1),
            &[],
            &[client.stream.try_clone().expect("a file").as_fd()],
        ),
    ] {
        let refused = set(&mut client, flags, index, range, data, files);
        assert_eq!(refused, Err(Errno::INVAL.raw_os_error()), "{flags:#x} {index} {range:?}");
    }
    work(&mut client, &guest, 0);
    work(&mut client, &guest, 1);
    assert_eq!((vectors[0].wait(), vectors[1].wait()), (1, 1));
}

#[test]
fn a_client_that_reads_no_interrupts_keeps_no_device_waiting() {
    let (_served, mut client, guest) = ready(InterruptStyle::Msix);
    let vector = Vector::new();
    set(&mut client, EVENTFD | TRIGGER, MSIX, (0, 1), &[], &[vector.as_fd()]).expect("vector 0");
    // The counter is full.
    rustix::io::write(&vector.0, &(u64::MAX - 1).to_ne_bytes()).expect("an eventfd takes that");
    work(&mut client, &guest, 0);
    assert_eq!(vector.wait(), u64::MAX - 1);
    arm(&mut client);
    work(&mut client, &guest, 0);
    assert_eq!(vector.wait(), 1);
}
