//! Every state with every input in every version, against the table of the module `channel`.

use ioat_model::{
    Config, Fault, Faults, State, Version,
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

const START: Input = Input::Command(0x01);
const APPEND: Input = Input::Command(0x02);
const SUSPEND: Input = Input::Command(0x04);
const ABORT: Input = Input::Command(0x08);
const RESUME: Input = Input::Command(0x10);
const RESET: Input = Input::Command(0x20);

/// The states that a version has.
fn states(version: Version) -> impl Iterator<Item = State> {
    STATES.into_iter().filter(move |state| version != Version::V1_2 || *state != State::Armed)
}

fn inputs() -> impl Iterator<Item = Input> {
    let others = [Input::ChainAddress, Input::More, Input::Same, Input::Step];
    others.into_iter().chain((0..=255).map(Input::Command))
}

/// Whether it is a command that the version does not have.
fn is_illegal(version: Version, input: Input) -> bool {
    match input {
        START | APPEND => version != Version::V1_2,
        SUSPEND | ABORT | RESUME | RESET | Input::Command(0) => false,
        Input::Command(_) => true,
        _ => false,
    }
}

/// Has a channel that has run, or is about to, go on with the descriptor behind the first.
fn go_on(rig: &Rig, version: Version) {
    if version == Version::V1_2 {
        // Linked behind what was the chain's end.
        rig.store(BASE + 24, &[BASE + 64]);
        give(rig, APPEND);
    } else {
        rig.doorbell(2);
    }
}

/// A channel in the state, with CHANERR clear. One descriptor was processed if it has run.
fn bring(version: Version, state: State, before: Before) -> Rig {
    let faults = match before {
        Before::Error => Faults::none().at(0, 1, Fault::Error(ChanErr::READ_DATA)),
        Before::Check => Faults::none().at(0, 1, Fault::Error(ChanErr::XOR_P_OR_CRC)),
        _ => Faults::none(),
    };
    let rig = Rig::new(Config { version, faults, ..Config::default() });
    rig.enable();
    for slot in 0..4 {
        rig.null(BASE + slot * 64, Control::COMPL_WRITE);
        if version == Version::V1_2 {
            // Each is the end of its chain.
            rig.store(BASE + slot * 64 + 24, &[0]);
        }
    }
    if state == State::Halted && before == Before::PowerUp {
        return rig;
    }
    rig.chain(BASE);
    if state == State::Armed {
        return rig;
    }
    if version == Version::V1_2 {
        give(&rig, START);
    } else {
        rig.doorbell(1);
    }
    rig.run();
    match (state, before) {
        (State::Done, _) => {}
        (State::Active, _) => go_on(&rig, version),
        (State::Suspended, _) => give(&rig, SUSPEND),
        (_, Before::Reset) => give(&rig, RESET),
        (_, Before::Abort) => give(&rig, ABORT),
        _ => {
            go_on(&rig, version);
            rig.run();
            rig.set(CHANERR, Width::W32, 0xffff_ffff);
        }
    }
    rig
}

fn give(rig: &Rig, input: Input) {
    match input {
        Input::ChainAddress => rig.chain(BASE),
        Input::More => rig.doorbell(rig.get(DMACOUNT, Width::W16) as u16 + 1),
        Input::Same => rig.doorbell(rig.get(DMACOUNT, Width::W16) as u16),
        Input::Step => drop(rig.device.step()),
        Input::Command(command) => rig.command(command),
    }
}

/// The table, as one reads it.
fn expected(version: Version, state: State, before: Before, input: Input) -> State {
    let chains = version == Version::V1_2;
    // What begins a chain, and what the channel is then.
    let (begins, begun) =
        if chains { (START, State::Active) } else { (Input::ChainAddress, State::Armed) };
    match (state, input) {
        (_, RESET) => State::Halted,
        (_, input) if is_illegal(version, input) => State::Halted,
        (State::Halted, input) if input == begins => match before {
            Before::PowerUp | Before::Reset | Before::Check => begun,
            Before::Error | Before::Abort => State::Halted,
        },
        (State::Armed | State::Suspended, input) if input == begins => begun,
        (State::Armed | State::Active | State::Done, Input::More) if !chains => State::Active,
        (State::Done, APPEND) => State::Active,
        (State::Active, Input::Step) => State::Done,
        (State::Active | State::Done, SUSPEND) => State::Suspended,
        (State::Active | State::Done, ABORT) => State::Halted,
        (State::Suspended, RESUME) => State::Done,
        (state, _) => state,
    }
}

#[test]
fn every_input_in_every_state() {
    for version in Version::ALL {
        for state in states(version) {
            let ways = if state == State::Halted { &BEFORE[..] } else { &[Before::PowerUp] };
            for before in ways {
                for input in inputs() {
                    let case = format!("{version} {state:?} {before:?} {input:?}");
                    let rig = bring(version, state, *before);
                    assert_eq!(rig.state(), state as u64, "{case}");
                    give(&rig, input);
                    let after = expected(version, state, *before, input);
                    assert_eq!(rig.state(), after as u64, "{case}");
                    let illegal = is_illegal(version, input);
                    let errors = if illegal { ChanErr::CHANCMD } else { ChanErr::empty() };
                    assert_eq!(rig.errors(), errors, "{case}");
                }
            }
        }
    }
}

/// (4) of the table.
#[test]
fn a_masked_command_error_stops_nothing() {
    for version in Version::ALL {
        for state in states(version) {
            let rig = bring(version, state, Before::PowerUp);
            rig.set(CHANERRMASK, Width::W32, ChanErr::CHANCMD.bits().into());
            rig.command(0x81);
            assert_eq!(rig.state(), state as u64, "{version}");
            assert_eq!(rig.errors(), ChanErr::CHANCMD, "{version}");
            assert_eq!(rig.interrupts(), 0, "{version}");
        }
    }
}

/// (1) of the table.
#[test]
fn a_chain_waits_for_unmasked_errors_to_be_cleared() {
    for version in Version::ALL {
        let rig = bring(version, State::Halted, Before::PowerUp);
        let begin = || {
            rig.chain(BASE);
            if version == Version::V1_2 {
                give(&rig, START);
            }
        };
        rig.command(0x81);
        rig.command(0x20);
        begin();
        assert_eq!(rig.state(), State::Halted as u64, "{version}");
        rig.set(CHANERRMASK, Width::W32, ChanErr::CHANCMD.bits().into());
        begin();
        assert_ne!(rig.state(), State::Halted as u64, "{version}: masked");
    }
}

/// A descriptor that is counted or appended while SUSPENDED runs after RESUME.
#[test]
fn resume_goes_on_with_what_was_counted() {
    for version in Version::ALL {
        let rig = bring(version, State::Suspended, Before::PowerUp);
        go_on(&rig, version);
        assert_eq!(rig.state(), State::Suspended as u64, "{version}");
        give(&rig, RESUME);
        assert_eq!(rig.state(), State::Active as u64, "{version}");
    }
}

/// An error that comes while a command waits for the descriptor: the error wins over SUSPEND.
#[test]
fn an_error_in_hand_wins_over_suspend() {
    for version in Version::ALL {
        let rig = bring(version, State::Done, Before::PowerUp);
        rig.copy(BASE + 64, END, BASE, 8, Control::empty());
        go_on(&rig, version);
        rig.run();
        assert_eq!(rig.errors(), ChanErr::SOURCE_ADDRESS, "{version}");
        rig.command(0x04);
        assert_eq!(rig.state(), State::Halted as u64, "{version}");
    }
}
