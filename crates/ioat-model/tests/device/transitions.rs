//! Every state with every input, against the table of the module `channel`.

use ioat_model::{
    Config, Fault, Faults, State,
    descriptor::Control,
    registers::{ChanErr, Width, channel::*},
};

use crate::rig::{BASE, END, Rig};

const STATES: [State; 5] =
    [State::Halted, State::Armed, State::Active, State::Done, State::Suspended];

/// How a channel came to be HALTED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    PowerUp,
    Reset,
    Error,
    Abort,
    Check,
}

const BEFORE: [Before; 5] =
    [Before::PowerUp, Before::Reset, Before::Error, Before::Abort, Before::Check];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    ChainAddress,
    /// DMACOUNT with more than was processed.
    More,
    /// DMACOUNT as it is.
    Same,
    Step,
    Command(u8),
}

const SUSPEND: Input = Input::Command(0x04);
const ABORT: Input = Input::Command(0x08);
const RESUME: Input = Input::Command(0x10);
const RESET: Input = Input::Command(0x20);

fn inputs() -> impl Iterator<Item = Input> {
    let others = [Input::ChainAddress, Input::More, Input::Same, Input::Step];
    others.into_iter().chain((0..=255).map(Input::Command))
}

/// A channel in the state, with CHANERR clear. One descriptor was processed if it has run.
fn bring(state: State, before: Before) -> Rig {
    let faults = match before {
        Before::Error => Faults::none().at(0, 1, Fault::Error(ChanErr::READ_DATA)),
        Before::Check => Faults::none().at(0, 1, Fault::Error(ChanErr::XOR_P_OR_CRC)),
        _ => Faults::none(),
    };
    let rig = Rig::new(Config { faults, ..Config::default() });
    rig.enable();
    for slot in 0..4 {
        rig.null(BASE + slot * 64, Control::COMPL_WRITE);
    }
    if state == State::Halted && before == Before::PowerUp {
        return rig;
    }
    rig.set64(CHAINADDR, BASE);
    if state == State::Armed {
        return rig;
    }
    rig.doorbell(1);
    rig.run();
    match (state, before) {
        (State::Done, _) => {}
        (State::Active, _) => rig.doorbell(2),
        (State::Suspended, _) => rig.command(0x04),
        (_, Before::Reset) => rig.command(0x20),
        (_, Before::Abort) => rig.command(0x08),
        _ => {
            rig.doorbell(2);
            rig.run();
            rig.set(CHANERR, Width::W32, 0xffff_ffff);
        }
    }
    rig
}

fn give(rig: &Rig, input: Input) {
    match input {
        Input::ChainAddress => rig.set64(CHAINADDR, BASE),
        Input::More => rig.doorbell(rig.get(DMACOUNT, Width::W16) as u16 + 1),
        Input::Same => rig.doorbell(rig.get(DMACOUNT, Width::W16) as u16),
        Input::Step => drop(rig.device.step()),
        Input::Command(command) => rig.command(command),
    }
}

/// The table, as one reads it.
fn expected(state: State, before: Before, input: Input) -> State {
    let known = [SUSPEND, ABORT, RESUME, RESET, Input::Command(0)];
    match (state, input) {
        (_, RESET) => State::Halted,
        (_, Input::Command(_)) if !known.contains(&input) => State::Halted,
        (State::Halted, Input::ChainAddress) => match before {
            Before::PowerUp | Before::Reset | Before::Check => State::Armed,
            Before::Error | Before::Abort => State::Halted,
        },
        (State::Armed | State::Suspended, Input::ChainAddress) => State::Armed,
        (State::Armed | State::Active | State::Done, Input::More) => State::Active,
        (State::Active, Input::Step) => State::Done,
        (State::Active | State::Done, SUSPEND) => State::Suspended,
        (State::Active | State::Done, ABORT) => State::Halted,
        (State::Suspended, RESUME) => State::Done,
        (state, _) => state,
    }
}

#[test]
fn every_input_in_every_state() {
    for state in STATES {
        let ways = if state == State::Halted { &BEFORE[..] } else { &[Before::PowerUp] };
        for before in ways {
            for input in inputs() {
                let rig = bring(state, *before);
                assert_eq!(rig.state(), state as u64, "{before:?}");
                give(&rig, input);
                let after = expected(state, *before, input);
                assert_eq!(rig.state(), after as u64, "{state:?} {before:?} {input:?}");
                let known = [0, 0x04, 0x08, 0x10, 0x20];
                let illegal = matches!(input, Input::Command(c) if !known.contains(&c));
                let errors = if illegal { ChanErr::CHANCMD } else { ChanErr::empty() };
                assert_eq!(rig.errors(), errors, "{state:?} {input:?}");
            }
        }
    }
}

/// (4) of the table.
#[test]
fn a_masked_command_error_stops_nothing() {
    for state in STATES {
        let rig = bring(state, Before::PowerUp);
        rig.set(CHANERRMASK, Width::W32, ChanErr::CHANCMD.bits().into());
        rig.command(0x81);
        assert_eq!(rig.state(), state as u64);
        assert_eq!(rig.errors(), ChanErr::CHANCMD);
        assert_eq!(rig.interrupts(), 0);
    }
}

/// (1) of the table.
#[test]
fn chainaddr_waits_for_unmasked_errors_to_be_cleared() {
    let rig = bring(State::Halted, Before::PowerUp);
    rig.command(0x81);
    rig.command(0x20);
    rig.set64(CHAINADDR, BASE);
    assert_eq!(rig.state(), State::Halted as u64);
    rig.set(CHANERRMASK, Width::W32, ChanErr::CHANCMD.bits().into());
    rig.set64(CHAINADDR, BASE);
    assert_eq!(rig.state(), State::Armed as u64, "masked");
}

/// A descriptor that is counted while SUSPENDED runs after RESUME.
#[test]
fn resume_goes_on_with_what_was_counted() {
    let rig = bring(State::Suspended, Before::PowerUp);
    give(&rig, Input::More);
    give(&rig, RESUME);
    assert_eq!(rig.state(), State::Active as u64);
}

/// An error that comes while a command waits for the descriptor: the error wins over SUSPEND.
#[test]
fn an_error_in_hand_wins_over_suspend() {
    let rig = bring(State::Done, Before::PowerUp);
    rig.copy(BASE + 64, END, BASE, 8, Control::empty());
    rig.doorbell(2);
    rig.run();
    assert_eq!(rig.errors(), ChanErr::SOURCE_ADDRESS);
    rig.command(0x04);
    assert_eq!(rig.state(), State::Halted as u64);
}
