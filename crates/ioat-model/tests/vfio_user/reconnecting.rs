//! What stays when a client goes, and what does not.

use std::os::fd::AsFd;

use ioat_model::{
    Config, Fault, Faults, PAGE,
    config_space::COMMAND,
    descriptor::Control,
    registers::{ChanErr, channel::*},
};
use rustix::event::{EventfdFlags, eventfd};

use crate::{bytes, client::*, served::Served};

const BASE: u64 = 0x10_0000;

#[test]
fn registers_stay_and_memory_goes() {
    let served = Served::simple();
    let guest = Guest::sealed(2);
    let mut first = served.client();
    first.enable();
    first.map((BASE, 2 * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    first.write_channel(0, CHANCMP, &0x1234_5678_u32.to_le_bytes());
    drop(first);
    served.wait_for_end();

    let mut second = served.client();
    assert_eq!(second.read(CONFIG, COMMAND, 2), Ok(vec![6, 0]));
    assert_eq!(second.read_channel(0, CHANCMP, 4), 0x1234_5678);
    // Nothing is there to be unmapped, nor to be read.
    assert_eq!(second.unmap_with(2, 0, 0), Ok(0));
    second.start(0, BASE, 1);
    assert_eq!(second.finish(0), (HALTED, ChanErr::CHAIN_ADDRESS.bits()));
    // Who wants a fresh device resets it.
    assert_eq!(second.request(DEVICE_RESET, &[]), Ok(vec![]));
    assert_eq!(second.read(CONFIG, COMMAND, 2), Ok(vec![0, 0]));
    assert_eq!(second.read_channel(0, CHANCMP, 4), 0);
    assert_eq!(second.read_channel(0, CHANERR, 4), 0);
}

#[test]
fn a_client_that_goes_at_work_takes_its_memory_with_it() {
    let served = Served::simple();
    let pages = 256;
    let guest = Guest::sealed(2 * pages);
    let len = (pages - 1) * PAGE;
    let mut first = served.client();
    first.enable();
    first.map((BASE, 2 * pages * PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
    guest.copy(0, 0, (BASE + PAGE, BASE + pages * PAGE), len as u32, BASE);
    guest.store(PAGE, &vec![0xff; len as usize]);
    first.start(0, BASE, u16::MAX);
    drop(first);
    served.wait_for_end();
    guest.store(pages * PAGE, &vec![0; len as usize]);

    let mut second = served.client();
    let (state, errors) = second.finish(0);
    assert!(state == HALTED && errors != 0, "{state} {errors:#x}");
    assert!(guest.bytes(pages * PAGE, len as usize).iter().all(|byte| *byte == 0));
}

#[test]
fn eventfds_are_given_up() {
    let served = Served::simple();
    let vector = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    let guest = Guest::new(1);
    let mut first = served.client();
    let body = bytes![20_u32, 0x24_u32, 2_u32, 0_u32, 1_u32];
    first.request_with(DEVICE_SET_IRQS, &body, &[vector.as_fd()]).expect("vector 0");
    first.map((0, PAGE), READ, Some((guest.fd(), 0))).expect("free");
    drop(first);
    served.wait_for_end();
    // The next client triggers it: nobody has it any more.
    let mut second = served.client();
    let body = bytes![20_u32, 0x21_u32, 2_u32, 0_u32, 1_u32];
    second.request(DEVICE_SET_IRQS, &body).expect("vector 0");
    rustix::io::write(&vector, &1_u64.to_ne_bytes()).expect("an eventfd");
    let mut count = [0; 8];
    rustix::io::read(&vector, &mut count).expect("readable");
    assert_eq!(u64::from_ne_bytes(count), 1);
}

#[test]
fn faults_are_counted_on() {
    let error = Fault::Error(ChanErr::READ_DATA);
    let faults = Faults::none().at(0, 2, error);
    let served = Served::start(Config { faults, ..Config::default() });
    let null = u64::from(Control::NULL.bits());
    for number in 0..4 {
        let guest = Guest::sealed(1);
        let mut client = served.client();
        client.request(DEVICE_RESET, &[]).expect("it can be reset");
        client.enable();
        client.map((BASE, PAGE), READ | WRITE, Some((guest.fd(), 0))).expect("free");
        guest.copy(0, null, (0, 0), 1, BASE);
        client.start(0, BASE, 1);
        let expected = if number == 2 { (HALTED, ChanErr::READ_DATA.bits()) } else { (DONE, 0) };
        assert_eq!(client.finish(0), expected, "{number}");
        drop(client);
        served.wait_for_end();
    }
}
