//! Faults to order, at the device.

use ioat_model::{
    Config, Fault, Faults, PAGE, State,
    descriptor::Control,
    registers::{ATTNSTATUS, BAR_SIZE, CBVER, CHANNEL_BLOCK, ChanErr, INTRCTRL, Width, channel::*},
};

use crate::rig::{BASE, COMPLETION, Rig};

fn nulls(faults: Faults, channels: u8) -> Rig {
    let rig = Rig::armed(Config { channels, faults, ..Config::default() });
    for slot in 0..63 {
        let next = BASE + (slot + 1) % 63 * 64;
        let control = Control::NULL | Control::COMPL_WRITE | Control::INT_EN;
        rig.descriptor(BASE + slot * 64, 0, 1, control, [0, 0, next]);
    }
    rig
}

fn order(text: &str) -> Faults {
    text.parse().expect(text)
}

#[test]
fn a_lost_interrupt_leaves_the_next_one() {
    let rig = nulls(order("lose-interrupt@1"), 1);
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.interrupts(), 0);
    assert_eq!(rig.device.read(ATTNSTATUS, Width::W32), 0);
    assert_eq!(rig.word(COMPLETION), BASE | State::Done as u64);
    rig.doorbell(2);
    rig.run();
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn a_lost_doorbell_is_made_up_by_the_next() {
    let rig = nulls(order("lose-doorbell@chan0.2"), 1);
    rig.doorbell(1);
    assert_eq!(rig.run(), 1);
    rig.doorbell(2);
    assert_eq!(rig.get(DMACOUNT, Width::W16), 1);
    assert_eq!(rig.run(), 0);
    rig.doorbell(2);
    assert_eq!(rig.run(), 1);
}

#[test]
fn a_fault_that_is_ordered_meets_what_comes_next() {
    let rig = nulls(Faults::none(), 1);
    rig.doorbell(2);
    assert_eq!(rig.run(), 2);
    rig.device.order(0, Fault::LostDoorbell);
    rig.device.order(0, Fault::Error(ChanErr::READ_DATA));
    rig.device.order(1, Fault::Halt);
    rig.doorbell(3);
    assert_eq!(rig.run(), 0, "the doorbell is lost");
    rig.doorbell(4);
    assert_eq!(rig.run(), 0, "the third is refused");
    assert_eq!(rig.errors(), ChanErr::READ_DATA);
    assert_eq!(rig.state(), State::Halted as u64);
}

#[test]
fn a_device_that_vanishes_is_all_ones_and_touches_nothing() {
    let rig = nulls(order("vanish@chan0.3"), 2);
    rig.doorbell(5);
    rig.run();
    assert_eq!(rig.word(COMPLETION), (BASE + 64) | State::Active as u64, "two were done");
    for offset in [0, CBVER, CHANNEL_BLOCK + CHANSTS, 0x1000, BAR_SIZE - 8] {
        assert_eq!(rig.device.read(offset, Width::W64), u64::MAX);
    }
    let mut id = [0; 4];
    rig.device.config_read(0, &mut id);
    assert_eq!(id, [0xff; 4]);
    rig.device.config_write(4, &[6, 0]);
    rig.command(0x20);
    rig.doorbell(6);
    rig.device.write(INTRCTRL, Width::W8, 1);
    assert_eq!(rig.run(), 0);
    assert!(!rig.device.intx());
    assert_eq!(rig.device.until_deadline(), None);
    let rig = nulls(Faults::none(), 1);
    rig.device.vanish();
    rig.doorbell(1);
    assert_eq!(rig.run(), 0);
    assert_eq!(rig.status(), u64::MAX);
}

#[test]
fn a_storm_has_its_length() {
    let rig = nulls(order("lose-completion@3x2"), 1);
    let seen: Vec<u64> = (1..=6)
        .map(|count| {
            rig.doorbell(count);
            rig.run();
            rig.word(COMPLETION) >> 6 & 0x3f
        })
        .collect();
    assert_eq!(seen, [0, 1, 1, 1, 4, 5]);
}

/// Random faults: about as many as asked for, the same for the same seed, others for another.
#[test]
fn random_faults_follow_the_seed() {
    let run = |text: &str| -> Vec<bool> {
        let rig = nulls(order(text), 2);
        rig.device.write(2 * CHANNEL_BLOCK + CHAINADDR, Width::W64, BASE);
        let at = |block: u64, count: u16| {
            rig.device.write(block + DMACOUNT, Width::W16, count.into());
            rig.store(COMPLETION, &[0]);
            rig.run();
            rig.word(COMPLETION) == 0
        };
        (1..=4000).map(|count| at(CHANNEL_BLOCK, count)).collect()
    };
    let first = run("lose-completion@1/10,seed=1");
    let lost = first.iter().filter(|lost| **lost).count();
    assert!((300..500).contains(&lost), "{lost}");
    assert_eq!(run("lose-completion@1/10,seed=1"), first);
    assert_ne!(run("lose-completion@1/10,seed=2"), first);
    assert!(run("lose-completion@chan1.1/1").iter().all(|lost| !lost), "of another channel");
}

#[test]
fn errors_have_the_names_of_chanerr() {
    for (flag, bit) in ChanErr::all().iter_names() {
        let name = flag.to_lowercase().replace('_', "-");
        let rig = nulls(order(&format!("error@chan0.2:{name}")), 1);
        rig.doorbell(3);
        rig.run();
        assert_eq!(rig.errors(), bit);
        assert_eq!(rig.status() & !0x3f, BASE);
    }
}

/// Dead to a channel's reset, but not to that of the function.
#[test]
fn a_function_level_reset_revives_the_dead() {
    let rig = nulls(order("dead@1"), 1);
    rig.doorbell(1);
    rig.run();
    rig.command(0x20);
    assert_eq!(rig.get(CHANCMD, Width::W8), 0x20);
    let control = ioat_model::config_space::DEVICE_CONTROL;
    rig.device.config_write(control, &ioat_model::config_space::INITIATE_FLR.to_le_bytes());
    assert_eq!(rig.get(CHANCMD, Width::W8), 0);
    assert_eq!(rig.status(), State::Halted as u64);
}

#[test]
fn what_is_added_counts_besides() {
    let mut faults = order("halt@chan0.1,latency=5us,seed=3");
    faults.extend(order("hang@2,bandwidth=1k"));
    assert_eq!(faults.to_string(), "halt@chan0.1,hang@2,bandwidth=1000,latency=5us,seed=3");
    let rig = nulls(Faults::none().at(0, PAGE, Fault::Halt), 1);
    rig.doorbell(100);
    assert_eq!(rig.run(), 100);
}
