//! What depends on time: late completions, coalesced interrupts, slow resets, limits.

use std::{num::NonZeroU64, time::Duration};

use ioat_model::{
    Config, Fault, Faults, PAGE, State,
    descriptor::Control,
    registers::{CHANNEL_BLOCK, INTRDELAY, Width, channel::*},
};

use crate::rig::{BASE, COMPLETION, Rig};

const US: Duration = Duration::from_micros(1);

fn with(faults: Faults) -> Rig {
    let rig = Rig::armed(Config { faults, ..Config::default() });
    for slot in 0..8 {
        rig.null(BASE + slot * 64, Control::COMPL_WRITE | Control::INT_EN);
    }
    rig
}

#[test]
fn without_need_there_are_no_deadlines() {
    let rig = with(Faults::none());
    rig.doorbell(3);
    rig.run();
    assert_eq!(rig.device.until_deadline(), None);
    rig.device.pass(Duration::MAX);
    rig.device.pass(US);
    assert_eq!(rig.status(), (BASE + 128) | State::Done as u64);
}

#[test]
fn a_late_completion_comes_with_its_interrupt_and_what_waits_behind() {
    let rig = with(Faults::none().at(0, 0, Fault::LateCompletion(5 * US)));
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.status(), BASE | State::Done as u64, "done all the same");
    assert_eq!(rig.word(COMPLETION), 0);
    assert_eq!(rig.interrupts(), 0);
    assert_eq!(rig.device.until_deadline(), Some(5 * US));
    rig.device.pass(4 * US);
    rig.doorbell(2);
    rig.run();
    assert_eq!(rig.word(COMPLETION), 0, "the second does not pass the first");
    assert_eq!(rig.device.until_deadline(), Some(US));
    rig.device.pass(US);
    assert_eq!(rig.word(COMPLETION), (BASE + 64) | State::Done as u64);
    assert_eq!(rig.interrupts(), 1);
    assert_eq!(rig.device.until_deadline(), None);
    rig.set16(CHANCTRL, 0x1d);
    rig.doorbell(3);
    rig.run();
    assert_eq!(rig.word(COMPLETION), (BASE + 128) | State::Done as u64, "the fault was one");
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn a_reset_forgets_what_is_late() {
    let rig = with(Faults::none().at(0, 0, Fault::LateCompletion(5 * US)));
    rig.doorbell(1);
    rig.run();
    rig.command(0x20);
    assert_eq!(rig.device.until_deadline(), None);
    rig.device.pass(10 * US);
    assert_eq!(rig.word(COMPLETION), 0);
    assert_eq!(rig.interrupts(), 0);
}

#[test]
fn interrupts_wait_as_long_as_intrdelay_says() {
    let rig = with(Faults::none());
    rig.device.write(INTRDELAY, Width::W16, 0xffff);
    assert_eq!(rig.device.read(INTRDELAY, Width::W16), 0xbfff, "14 bits, and that it works");
    rig.device.write(INTRDELAY, Width::W16, 7);
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.word(COMPLETION), BASE | State::Done as u64, "at once");
    assert_eq!(rig.interrupts(), 0);
    rig.doorbell(3);
    rig.run();
    rig.device.pass(6 * US);
    assert_eq!(rig.interrupts(), 0);
    rig.device.pass(US);
    assert_eq!(rig.interrupts(), 1, "one for three descriptors");
    rig.device.write(INTRDELAY, Width::W16, 0);
    rig.set16(CHANCTRL, 0x1d);
    rig.doorbell(4);
    rig.run();
    assert_eq!(rig.interrupts(), 1, "at once");
}

#[test]
fn a_slow_reset_takes_its_time_and_the_next_does_not() {
    let faults = Faults::none().at(0, 0, Fault::SlowReset(50 * US));
    let rig = with(faults);
    rig.doorbell(1);
    rig.command(0x20);
    assert_eq!(rig.run(), 0, "nothing is fetched any more");
    for _ in 0..5 {
        assert_eq!(rig.get(CHANCMD, Width::W8), 0x20);
        rig.device.pass(9 * US);
        rig.command(0x20);
    }
    assert_eq!(rig.get(CHANCMD, Width::W8), 0x20, "45 us");
    rig.set64(CHAINADDR, BASE);
    assert_ne!(rig.state(), State::Armed as u64, "not while it resets");
    rig.device.pass(5 * US);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0);
    assert_eq!(rig.status(), State::Halted as u64);
    rig.command(0x20);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0);
}

#[test]
fn latency_is_that_of_each_descriptor() {
    let rig = with(Faults::none().latency(3 * US));
    rig.doorbell(3);
    for slot in 0..3 {
        assert_eq!(rig.run(), 1, "the next is not fetched before");
        assert_eq!(rig.device.until_deadline(), Some(3 * US));
        rig.device.pass(2 * US);
        assert_eq!(rig.run(), 0);
        assert_ne!(rig.status() & !7, BASE + slot * 64);
        rig.device.pass(US);
        assert_eq!(rig.status() & !7, BASE + slot * 64);
    }
    assert_eq!(rig.state(), State::Done as u64);
}

/// SUSPEND waits for the descriptor in hand; RESET need not, for its bytes have moved.
#[test]
fn commands_while_a_descriptor_takes_its_time() {
    let slow = Faults::none().latency(3 * US);
    let rig = with(slow.clone());
    rig.doorbell(2);
    rig.run();
    rig.command(0x04);
    assert_eq!(rig.status(), State::Active as u64);
    rig.device.pass(3 * US);
    assert_eq!(rig.status(), BASE | State::Suspended as u64);
    let rig = with(slow);
    rig.doorbell(2);
    rig.run();
    rig.command(0x20);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0);
    rig.device.pass(3 * US);
    assert_eq!(rig.word(COMPLETION), 0, "forgotten");
}

#[test]
fn bandwidth_is_shared_by_the_channels() {
    // 4096 bytes take 4.096 us.
    let faults = Faults::none().bandwidth(NonZeroU64::new(1_000_000_000).expect("not 0"));
    let rig = Rig::new(Config { channels: 2, faults, ..Config::default() });
    rig.copy(BASE, BASE + PAGE, BASE + 2 * PAGE, PAGE as u32, Control::empty());
    rig.enable();
    for block in [CHANNEL_BLOCK, 2 * CHANNEL_BLOCK] {
        rig.device.write(block + CHAINADDR, Width::W64, BASE);
        rig.device.write(block + DMACOUNT, Width::W16, 1);
    }
    let state = |channel: u64| rig.device.read(CHANNEL_BLOCK * channel + CHANSTS, Width::W64) & 7;
    assert_eq!(rig.run(), 2);
    assert_eq!(rig.device.until_deadline(), Some(Duration::from_nanos(4096)));
    rig.device.pass(Duration::from_nanos(4096));
    assert_eq!([state(1), state(2)], [State::Done as u64, State::Active as u64]);
    assert_eq!(rig.device.until_deadline(), Some(Duration::from_nanos(4096)));
    rig.device.pass(Duration::from_nanos(4096));
    assert_eq!(state(2), State::Done as u64);
}

/// However late the shell looks, what follows from what is timed from when it happened.
#[test]
fn a_shell_that_looks_late_finds_the_same() {
    let run = |steps: &[Duration]| {
        let faults = Faults::none().latency(3 * US).at(0, 0, Fault::LateCompletion(5 * US));
        let rig = with(faults);
        rig.device.write(INTRDELAY, Width::W16, 2);
        rig.doorbell(1);
        rig.run();
        let mut seen = Vec::new();
        for step in steps {
            rig.device.pass(*step);
            seen.push((rig.status(), rig.word(COMPLETION), rig.interrupts()));
        }
        seen.pop()
    };
    let done = Some((BASE | State::Done as u64, BASE | State::Done as u64, 1));
    assert_eq!(run(&[8 * US]), done, "3 + 5");
    let fine = run(&[US; 8]);
    assert_eq!(fine, done);
    assert_eq!(run(&[7 * US]), Some((BASE | State::Done as u64, 0, 0)));
}

/// A late word that cannot be written halts the channel behind the descriptor in hand, and for good.
#[test]
fn a_late_word_that_fails_halts_behind_the_descriptor_in_hand() {
    let faults = Faults::none().latency(3 * US).at(0, 0, Fault::LateCompletion(US));
    let rig = with(faults);
    rig.set64(CHANCMP, BASE - 8);
    rig.doorbell(2);
    rig.run();
    rig.device.pass(3 * US);
    rig.run();
    rig.device.pass(US);
    assert_eq!(rig.errors(), ioat_model::registers::ChanErr::COMPLETION_ADDRESS);
    assert_eq!(rig.status(), BASE | State::Active as u64, "the second is in hand");
    rig.device.pass(5 * US);
    assert_eq!(rig.status(), (BASE + 64) | State::Halted as u64);
}
